// @nomoat/quant/gguf: GGUF files, versions 2 and 3. Public exports, nothing else.

export type { GgufTensorInfo } from "./parse.js";
export { type GgufFile, type LoadGgufTensorOptions, readGguf } from "./read.js";
export { type GgufArray, type GgufType, type GgufValue, type GgufValueType, ggufTypes } from "./types.js";
export { type GgufBytes, type GgufContent, serializeGguf, writeGguf } from "./write.js";
