// @nomoat/core/nn: layers.

export { dropoutMask } from "../ops/dropout.js";
export { type InitOptions, kaimingUniform, normal } from "./init.js";
export { Dropout, Embedding, RMSNorm } from "./layers.js";
export { Linear, LinearBase, type LinearOptions } from "./linear.js";
export { checkFeatures, Module, parameter } from "./module.js";
