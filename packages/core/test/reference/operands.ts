// Operands over a reference backend, for tests that call primitives directly.

import { createReferenceBackend } from "../../src/backend/reference/index.js";
import type { Operand } from "../../src/backend/types.js";
import { type DType, type DTypeArray, viewAs } from "../../src/dtype.js";

export const backend = createReferenceBackend();

export function rowMajor(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    strides[axis] = stride;
    stride *= shape[axis];
  }
  return strides;
}

/** A contiguous operand holding `values`, stored as cast stores them. */
export function operand(dtype: DType, shape: readonly number[], values?: readonly number[]): Operand {
  const size = shape.reduce((product, length) => product * length, 1);
  const make = (type: DType, bytes: number): Operand => ({
    buffer: backend.alloc(size * bytes),
    dtype: type,
    shape,
    strides: rowMajor(shape),
    offset: 0,
  });
  const result = make(
    dtype,
    { float64: 8, float32: 4, int32: 4, float16: 2, bfloat16: 2 }[dtype as string] ?? 1,
  );
  if (values) {
    const wide = make("float64", 8);
    (backend.window(wide) as Float64Array).set(values);
    backend.cast(wide, result);
  }
  return result;
}

/** The elements in row-major order, through `copy` where the operand is a view. */
export function valuesOf(x: Operand): number[] {
  const flat = operand(x.dtype, x.shape);
  backend.copy(x, flat);
  const size = x.shape.reduce((product, length) => product * length, 1);
  const bytes = backend.readSync(flat.buffer, 0, flat.buffer.bytes) as Uint8Array;
  return Array.from(viewAs(x.dtype, bytes.buffer, 0, size) as DTypeArray);
}

export function permute(x: Operand, axes: readonly number[]): Operand {
  return { ...x, shape: axes.map((a) => x.shape[a]), strides: axes.map((a) => x.strides[a]) };
}

export function flip(x: Operand, axis: number): Operand {
  const strides = x.strides.map((s, i) => (i === axis ? -s : s));
  return { ...x, strides, offset: x.offset + (x.shape[axis] - 1) * x.strides[axis] };
}

export function expand(x: Operand, shape: readonly number[]): Operand {
  const lead = shape.length - x.shape.length;
  const strides = shape.map((n, i) => (i < lead || x.shape[i - lead] !== n ? 0 : x.strides[i - lead]));
  return { ...x, shape, strides };
}
