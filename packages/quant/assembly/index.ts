// All kernels of the module, by name. The ABI stands in core's assembly/abi.ts.

export { dequantize } from "./weight";
export { findUnfit, quantize } from "./quantize";
export { arrangeRow, multiplyRow } from "./exact-row";
export { multiplyFewRows, multiplyTiles } from "./multiply";
export { packIntegers, quantizeActivations } from "./activations";
export { multiplyIntegers } from "./dot";
export { multiplyIntegerTiles } from "./multiply-integers";
