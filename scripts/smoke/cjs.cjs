// The packages from CommonJS: requires every entry and uses it.

const job = require("./job.js");

job({
  core: require("@nomoat/core"),
  extend: require("@nomoat/core/extend"),
  io: require("@nomoat/core/io"),
  nn: require("@nomoat/core/nn"),
  optim: require("@nomoat/core/optim"),
  safetensors: require("@nomoat/core/safetensors"),
  quant: require("@nomoat/quant"),
  lora: require("@nomoat/lora"),
  llama: require("@nomoat/llama"),
}).catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
