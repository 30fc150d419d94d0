// The element types, their storage, and promotion. Nothing here touches memory.

import { describe } from "./describe.js";
import { DTypeError } from "./errors.js";

/** Element types. float16 and bfloat16 are for storage: arithmetic goes through float32. */
export type DType = "float64" | "float32" | "float16" | "bfloat16" | "int32" | "int8" | "uint8" | "bool";

/** The typed arrays that hold elements; float16 and bfloat16 are kept as their 16 bits. */
export type DTypeArray = Float64Array | Float32Array | Uint16Array | Int32Array | Int8Array | Uint8Array;

interface DTypeInfo {
  /** Bytes of one element. */
  readonly bytes: number;
  readonly kind: "float" | "integer" | "bool";
  /** The least and the largest integer. */
  readonly range?: readonly [low: number, high: number];
  readonly array: {
    new (buffer: ArrayBufferLike, byteOffset: number, length: number): DTypeArray;
    new (length: number): DTypeArray;
  };
}

export const dtypes: Readonly<Record<DType, DTypeInfo>> = {
  float64: { bytes: 8, kind: "float", array: Float64Array },
  float32: { bytes: 4, kind: "float", array: Float32Array },
  float16: { bytes: 2, kind: "float", array: Uint16Array },
  bfloat16: { bytes: 2, kind: "float", array: Uint16Array },
  int32: { bytes: 4, kind: "integer", array: Int32Array, range: [-2147483648, 2147483647] },
  int8: { bytes: 1, kind: "integer", array: Int8Array, range: [-128, 127] },
  uint8: { bytes: 1, kind: "integer", array: Uint8Array, range: [0, 255] },
  bool: { bytes: 1, kind: "bool", array: Uint8Array },
};

/** True for a string that names a dtype. */
export function isDType(name: unknown): name is DType {
  return typeof name === "string" && Object.hasOwn(dtypes, name);
}

/** Throws unless `name` names a dtype. */
export function requireDType(operation: string, name: unknown): asserts name is DType {
  if (!isDType(name))
    throw new DTypeError(
      `${operation}: unknown dtype ${describe(name)} (known: ${Object.keys(dtypes).join(", ")})`,
    );
}

function infoOf(operation: string, dtype: DType): DTypeInfo {
  const info = dtypes[dtype];
  if (!info) requireDType(operation, dtype);
  return info;
}

/** Bytes of one element of `dtype`. @throws {DTypeError} for another name */
export function bytesPerElement(dtype: DType): number {
  return infoOf("bytesPerElement", dtype).bytes;
}

/** True for the dtypes that can carry a gradient. */
export function isFloat(dtype: DType): boolean {
  return infoOf("isFloat", dtype).kind === "float";
}

/** A window of `length` elements of `dtype` over `buffer`. */
export function viewAs(
  dtype: DType,
  buffer: ArrayBufferLike,
  byteOffset: number,
  length: number,
): DTypeArray {
  return new dtypes[dtype].array(buffer, byteOffset, length);
}

const floatOrder: readonly DType[] = ["float16", "bfloat16", "float32", "float64"];

/**
 * The dtype of a result of mixed operands, after the array API standard; mixed kinds give the wider
 * kind (a float with an integer gives the float), float16 with bfloat16 gives float32.
 */
export function promote(a: DType, b: DType): DType {
  if (a === b) return a;
  const kindA = infoOf("promote", a).kind;
  const kindB = infoOf("promote", b).kind;
  if (kindA === "float" && kindB === "float") {
    const [low, high] = floatOrder.indexOf(a) < floatOrder.indexOf(b) ? [a, b] : [b, a];
    return low === "float16" && high === "bfloat16" ? "float32" : (high as DType);
  }
  if (kindA === "float") return a;
  if (kindB === "float") return b;
  if (kindA === "bool") return b;
  if (kindB === "bool") return a;
  return "int32"; // int8 with uint8, or either with int32
}

/** The dtype of a number that meets a tensor of `dtype`: that one where it holds the value, else int32, else float32. */
export function dtypeBeside(dtype: DType, value: number): DType {
  if (isFloat(dtype)) return dtype;
  const holds = (kind: DType) => {
    const [low, high] = dtypes[kind].range ?? [1, 0];
    return Number.isInteger(value) && value >= low && value <= high;
  };
  return holds(dtype) ? dtype : holds("int32") ? "int32" : "float32";
}

/** Throws when `dtype` is not a float. */
export function requireFloat(operation: string, operand: string, dtype: DType): void {
  if (!isFloat(dtype)) throw new DTypeError(`${operation}: ${operand} must be a float tensor, not ${dtype}`);
}

/** Throws when `dtype` is no integer: positions and classes are whole numbers, which `tensor([0, 1])` does not take for such by itself. */
export function requireIntegers(operation: string, operand: string, dtype: DType): void {
  if (dtypes[dtype].kind === "integer") return;
  throw new DTypeError(
    `${operation}: ${operand} must be integers, not ${dtype}; cast("int32") makes them so`,
  );
}
