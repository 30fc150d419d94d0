// The packages' declarations, as the type checker of a user's project sees them.

import * as core from "@nomoat/core";
import * as extend from "@nomoat/core/extend";
import * as io from "@nomoat/core/io";
import * as nn from "@nomoat/core/nn";
import * as optim from "@nomoat/core/optim";
import * as safetensors from "@nomoat/core/safetensors";
import * as llama from "@nomoat/llama";
import * as lora from "@nomoat/lora";
import * as quant from "@nomoat/quant";

export const modules: object[] = [core, extend, io, nn, optim, safetensors, quant, lora, llama];
