// Walking strided operands, and the typed arrays behind them. No arithmetic here.

import { bytesPerElement, type DType, type DTypeArray, viewAs } from "../../dtype.js";
import { BackendError } from "../../errors.js";
import type { BufferHandle, Operand } from "../types.js";

/** A memory block of the reference backend; `data` is null once it was freed. */
export interface ReferenceBuffer extends BufferHandle {
  data: ArrayBuffer | null;
}

/** The part of an operand that walking needs. */
export interface Strided {
  readonly strides: readonly number[];
  readonly offset: number;
}

/** The bytes of a block. @throws {BackendError} after it was freed */
export function bytesOf(buffer: BufferHandle): ArrayBuffer {
  const data = (buffer as ReferenceBuffer).data;
  if (!data) throw new BackendError("reference: a kernel was given a buffer that was freed");
  return data;
}

/** The whole block as elements of `dtype`; halves as their 16 bits. */
export function elements(operand: Operand, dtype: DType = operand.dtype): DTypeArray {
  const data = bytesOf(operand.buffer);
  return viewAs(dtype, data, 0, Math.floor(data.byteLength / bytesPerElement(dtype)));
}

/** {@link elements} for arithmetic. @throws {BackendError} for halves, whose bits are not their values */
export function numbers(operand: Operand): DTypeArray {
  if (operand.dtype === "float16" || operand.dtype === "bfloat16") {
    throw new BackendError(`reference: no arithmetic on ${operand.dtype}; cast to float32 first`);
  }
  return elements(operand);
}

const rawDType: Readonly<Record<number, DType>> = { 1: "uint8", 2: "float16", 4: "int32", 8: "float64" };

/** {@link elements} as integers of the same width, so that moving them changes no bit (a float32 NaN would be quieted). */
export function rawElements(operand: Operand): DTypeArray {
  return elements(operand, rawDType[bytesPerElement(operand.dtype)]);
}

const nowhere: Strided = { strides: [], offset: 0 };

/**
 * Calls `visit` with the element positions of up to four operands, for every index of `shape` in row-major order: once for
 * rank 0, never when an axis is 0 long.
 */
export function walk(
  shape: readonly number[],
  operands: readonly Strided[],
  visit: (p0: number, p1: number, p2: number, p3: number) => void,
): void {
  if (shape.includes(0)) return;
  const [a, b = nowhere, c = nowhere, d = nowhere] = operands;
  const last = shape.length - 1;
  const length = last < 0 ? 1 : shape[last];
  const stepA = a.strides[last] ?? 0;
  const stepB = b.strides[last] ?? 0;
  const stepC = c.strides[last] ?? 0;
  const stepD = d.strides[last] ?? 0;
  const index = new Array<number>(Math.max(last, 0)).fill(0);
  const start = [a.offset, b.offset, c.offset, d.offset];
  const all = [a, b, c, d];
  for (;;) {
    let [p0, p1, p2, p3] = start;
    for (let i = 0; i < length; i++) {
      visit(p0, p1, p2, p3);
      p0 += stepA;
      p1 += stepB;
      p2 += stepC;
      p3 += stepD;
    }
    let axis = last - 1;
    for (; axis >= 0; axis--) {
      index[axis]++;
      for (let k = 0; k < 4; k++) start[k] += all[k].strides[axis] ?? 0;
      if (index[axis] < shape[axis]) break;
      for (let k = 0; k < 4; k++) start[k] -= shape[axis] * (all[k].strides[axis] ?? 0);
      index[axis] = 0;
    }
    if (axis < 0) return;
  }
}
