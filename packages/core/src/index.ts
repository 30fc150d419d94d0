// @nomoat/core: tensors with automatic differentiation. Public exports, nothing else.

// The backends are imported first, by them the kernels (so in registry.ts, wasm/backend.ts and wasm/runtime.ts): kernels do not
// compress, and in the middle of a bundle they push what stands before them out of a compressor's sight. It saves 2 % of a page.

export {
  activeBackend,
  type BackendName,
  type InitOptions,
  init,
  shutdown,
  withBackend,
} from "./backend/registry.js";

// All else.

export { anomalyMode } from "./autograd/anomaly.js";
export { grad, gradientsOf, valueAndGrad } from "./autograd/backward.js";
export { checkpoint } from "./autograd/checkpoint.js";
export {
  defineFunction,
  type ForwardContext,
  type FunctionContext,
  type FunctionDefinition,
} from "./autograd/function.js";
export { type GradcheckOptions, gradcheck } from "./autograd/gradcheck.js";
export { enableGrad, noGrad } from "./autograd/graph.js";
export type { Backend } from "./backend/types.js";
export {
  arange,
  type CreationOptions,
  eye,
  fromBuffer,
  full,
  fullLike,
  linspace,
  type NestedValues,
  ones,
  onesLike,
  type RandomOptions,
  rand,
  randn,
  type TensorOptions,
  tensor,
  toBuffer,
  uniform,
  zeros,
  zerosLike,
} from "./creation.js";
export { bytesPerElement, type DType, type DTypeArray, isFloat, promote } from "./dtype.js";
export * from "./errors.js";
export { keep, type MemoryStats, memoryStats, resetPeakMemory, tidy } from "./memory.js";
export * from "./ops/index.js";
export { defaultGenerator, Generator, manualSeed } from "./random.js";
export { bernoulli, type MultinomialArguments, multinomial, permutation, randint } from "./sampling.js";
export { type NestedArray, Tensor, type TensorData } from "./tensor.js";
