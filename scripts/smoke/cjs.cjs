// The packages from CommonJS: requires every entry and uses it.

const core = require("@nomoat/core");
const llama = require("@nomoat/llama");
const lora = require("@nomoat/lora");
const quant = require("@nomoat/quant");

for (const [name, module] of Object.entries({ core, quant, lora, llama })) {
  console.log(name, Object.keys(module).length, "exports");
}
