// All operations, by family.

export { leakyRelu, swiglu } from "./activation.js";
export { type Index, index, nonzero } from "./advanced-index.js";
export { type AttentionArguments, scaledDotProductAttention } from "./attention.js";
export { clip, clip_ } from "./clip.js";
export { type ConvolutionArguments, conv1d, conv2d, type PerAxis } from "./convolution.js";
export {
  type CrossEntropyArguments,
  crossEntropy,
  type WeightedCrossEntropyArguments,
  weightedCrossEntropy,
} from "./cross-entropy.js";
export { diag, diagonal, trace } from "./diagonal.js";
export { type DropoutArguments, dropout } from "./dropout.js";
export { einsum } from "./einsum.js";
export * from "./elementwise.js";
export { add_, div_, fill_, mul_, sub_ } from "./in-place.js";
export { embedding, gather, scatterAdd } from "./indexing.js";
export { bmm, dot, outer } from "./linalg.js";
export { linearCrossEntropy, weightedLinearCrossEntropy } from "./linear-cross-entropy.js";
export { linear, type MatmulArguments, matmul } from "./matmul.js";
export { groupNorm, layerNorm, rmsNorm } from "./norm.js";
export {
  type BinaryCrossEntropyArguments,
  bceWithLogits,
  type KlDivergenceArguments,
  klDivergence,
  mse,
  type Reduction,
} from "./pointwise-loss.js";
export {
  type AveragePoolingArguments,
  adaptiveAvgPool1d,
  adaptiveAvgPool2d,
  adaptiveMaxPool1d,
  adaptiveMaxPool2d,
  avgPool1d,
  avgPool2d,
  type MaxPoolingArguments,
  maxPool1d,
  maxPool1dWithIndices,
  maxPool2d,
  maxPool2dWithIndices,
  type PoolingArguments,
} from "./pooling.js";
export {
  all,
  allclose,
  any,
  isclose,
  isfinite,
  isinf,
  isnan,
  logicalAnd,
  logicalOr,
  logicalXor,
} from "./predicates.js";
export {
  broadcastTo,
  chunk,
  flip,
  meshgrid,
  moveaxis,
  type PadMode,
  pad,
  repeat,
  roll,
  tile,
  tril,
  triu,
  unbind,
  view,
} from "./rearrange.js";
export { argmax, argmin, max, min, prod, sum } from "./reduce.js";
export { rope } from "./rope.js";
export { cumprod, cumsum } from "./scan.js";
export { oneHot, type ScatterArguments, scatter, take, takeAlongAxis } from "./selection.js";
export { logSoftmax, softmax } from "./softmax.js";
export { argsort, sort, topk, type UniqueResult, unique } from "./sort.js";
export { logsumexp, mean, norm, std, variance } from "./statistics.js";
export {
  clone,
  concat,
  expand,
  flatten,
  permute,
  type Range,
  reshape,
  slice,
  split,
  squeeze,
  stack,
  transpose,
  unsqueeze,
} from "./view.js";
export { unfold } from "./windows.js";
