// @nomoat/core/nn: layers.

export { type DropoutArguments, dropoutMask } from "../ops/dropout.js";
export {
  MultiheadAttention,
  type MultiheadAttentionArguments,
  type MultiheadAttentionOptions,
} from "./attention.js";
export { Conv1d, Conv2d, type ConvolutionOptions } from "./conv.js";
export {
  fanIn,
  fanOut,
  type InitOptions,
  kaimingNormal,
  kaimingUniform,
  normal,
  orthogonal,
  truncNormal,
  xavierNormal,
  xavierUniform,
} from "./init.js";
export { Dropout, Embedding, RMSNorm } from "./layers.js";
export { Linear, LinearBase, type LinearOptions, linearGroup } from "./linear.js";
export { checkFeatures, Module, parameter, requireModule } from "./module.js";
export { GroupNorm, LayerNorm } from "./norm.js";
export { type Layer, Sequential } from "./sequential.js";
