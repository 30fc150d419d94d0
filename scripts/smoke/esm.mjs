// The packages from an ES module: imports every entry and uses it.

import * as core from "@nomoat/core";
import * as extend from "@nomoat/core/extend";
import * as io from "@nomoat/core/io";
import * as nn from "@nomoat/core/nn";
import * as optim from "@nomoat/core/optim";
import * as safetensors from "@nomoat/core/safetensors";
import * as llama from "@nomoat/llama";
import * as lora from "@nomoat/lora";
import * as quant from "@nomoat/quant";
import job from "./job.js";

await job({ core, extend, io, nn, optim, safetensors, quant, lora, llama });
