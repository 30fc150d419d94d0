// @nomoat/core/nn: layers.

export { type InitOptions, kaimingUniform, normal } from "./init.js";
export { Dropout, dropoutMask, Embedding, RMSNorm } from "./layers.js";
export { Linear, LinearBase, type LinearOptions } from "./linear.js";
export { checkFeatures, Module, parameter } from "./module.js";
