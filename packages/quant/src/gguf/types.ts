// What a GGUF file can hold: types of tensors and of metadata, with their numbers, as ggml's docs/gguf.md and ggml.h have them.

import type { FormatName } from "../formats/index.js";

interface TypeInfo {
  /** Number in the file. */
  readonly id: number;
  /** Elements of a block; rows are whole blocks. */
  readonly blockSize: number;
  readonly bytesPerBlock: number;
  /** Its format here, for the quantized ones. */
  readonly format?: FormatName;
}

const plain = (id: number, bytesPerBlock: number): TypeInfo => ({ id, blockSize: 1, bytesPerBlock });
const blocks = (id: number, blockSize: number, bytesPerBlock: number, format: FormatName): TypeInfo => ({
  ...{ id, blockSize, bytesPerBlock, format },
});

/** The tensor types that are read and written, by ggml's names. */
export const ggufTypes = {
  F32: plain(0, 4),
  F16: plain(1, 2),
  Q4_0: blocks(2, 32, 18, "q4_0"),
  Q4_1: blocks(3, 32, 20, "q4_1"),
  Q5_0: blocks(6, 32, 22, "q5_0"),
  Q5_1: blocks(7, 32, 24, "q5_1"),
  Q8_0: blocks(8, 32, 34, "q8_0"),
  Q2_K: blocks(10, 256, 84, "q2_K"),
  Q3_K: blocks(11, 256, 110, "q3_K"),
  Q4_K: blocks(12, 256, 144, "q4_K"),
  Q5_K: blocks(13, 256, 176, "q5_K"),
  Q6_K: blocks(14, 256, 210, "q6_K"),
  I8: plain(24, 1),
  I16: plain(25, 2),
  I32: plain(26, 4),
  I64: plain(27, 8),
  F64: plain(28, 8),
  BF16: plain(30, 2),
} as const satisfies Record<string, TypeInfo>;

export type GgufType = keyof typeof ggufTypes;

/** @internal */
export function typeInfo(type: GgufType): TypeInfo {
  return ggufTypes[type];
}

/** @internal */
export const typeById = new Map(
  Object.entries(ggufTypes).map(([name, info]) => [info.id as number, name as GgufType]),
);

/** @internal Types of ggml that are not read here, for messages. */
export const unreadTypes = new Map([
  ...Object.entries({ 9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S" }),
  ...Object.entries({ 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M", 34: "TQ1_0" }),
  ...Object.entries({ 35: "TQ2_0", 39: "MXFP4" }),
]);

/** Types of metadata, at their numbers. */
export const valueTypes = [
  ...(["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "bool", "string", "array"] as const),
  ...(["uint64", "int64", "float64"] as const),
] as const;

export type GgufValueType = (typeof valueTypes)[number];

/** A list in metadata: numbers as a typed array, booleans, strings, or lists again. */
export interface GgufArray {
  readonly type: "array";
  /** Type of the elements. */
  readonly of: GgufValueType;
  readonly value: ArrayLike<number> | ArrayLike<bigint> | readonly (boolean | string | GgufArray)[];
}

/** A value of metadata with its type in the file. */
export type GgufValue =
  | {
      readonly type: "uint8" | "int8" | "uint16" | "int16" | "uint32" | "int32" | "float32" | "float64";
      readonly value: number;
    }
  | { readonly type: "uint64" | "int64"; readonly value: bigint }
  | { readonly type: "bool"; readonly value: boolean }
  | { readonly type: "string"; readonly value: string }
  | GgufArray;

/** Typed arrays of the numeric types. */
export const numberArrays = {
  uint8: Uint8Array,
  int8: Int8Array,
  uint16: Uint16Array,
  int16: Int16Array,
  uint32: Uint32Array,
  int32: Int32Array,
  float32: Float32Array,
  uint64: BigUint64Array,
  int64: BigInt64Array,
  float64: Float64Array,
} as const;

export type NumberType = keyof typeof numberArrays;

/** @internal */
export function isNumberType(type: string): type is NumberType {
  return Object.hasOwn(numberArrays, type);
}

export const defaultAlignment = 32;
export const maxDims = 4;
export const maxKeyBytes = 65535;
/** ggml's own limit is 63; builds of it that raise it exist. */
export const maxNameBytes = 255;
