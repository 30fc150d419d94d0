// All kernels of the module, by name. The ABI stands in abi.ts.

export * from "./unary";
export * from "./elementwise";
export * from "./compare";
export { copyRows, copyStrided, fill, transpose } from "./copy";
export { staged } from "./stage";
export { cast } from "./cast";
export * from "./reduce";
export { logSoftmax, logSoftmaxBackward, softmax, softmaxBackward } from "./softmax";
export { statistic } from "./statistics";
export { crossEntropy } from "./loss";
export * from "./norm";
export * from "./rope";
export * from "./swiglu";
export * from "./gather";
export * from "./scan";
export { frame, windowDots, windowRows } from "./windows";
export { pool, poolBackward } from "./pooling";
export * from "./adamw";
export { philox } from "./random";
export { gemm, gemmPack, gemmScale } from "./gemm";
export { gemmGroup } from "./gemm-group";
export { gemvAxpy, gemvDot } from "./gemv";
export { peak } from "./peak";
export { attention, attentionDecode } from "./attention";
export { attentionDelta, attentionGatherGradient, attentionGradient } from "./attention-backward";
