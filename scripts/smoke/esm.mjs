// The packages from an ES module: imports every entry and uses it.

import * as core from "@nomoat/core";
import * as llama from "@nomoat/llama";
import * as lora from "@nomoat/lora";
import * as quant from "@nomoat/quant";

for (const [name, module] of Object.entries({ core, quant, lora, llama })) {
  console.log(name, Object.keys(module).length, "exports");
}
