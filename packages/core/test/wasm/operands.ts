// Operands in a wasm runtime's memory, for tests that call its kernels directly.

import type { Operand } from "../../src/backend/types.js";
import type { WasmBuffer, WasmRuntime } from "../../src/backend/wasm/runtime.js";

export function rowMajor(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    strides[axis] = stride;
    stride *= shape[axis];
  }
  return strides;
}

export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, length) => product * length, 1);
}

/** A float32 operand over a fresh block of `elements`, filled by `value`. */
export function block(
  runtime: WasmRuntime,
  shape: readonly number[],
  strides: readonly number[],
  offset: number,
  elements: number,
  value: (index: number) => number,
): Operand & { buffer: WasmBuffer } {
  const bytes = 4 * elements;
  const address = runtime.allocator.allocate(bytes);
  const window = runtime.views.f32().subarray(address / 4, address / 4 + elements);
  for (let i = 0; i < elements; i++) window[i] = value(i);
  return { buffer: { bytes, address } as WasmBuffer, dtype: "float32", shape, strides, offset };
}

export function contiguous(runtime: WasmRuntime, shape: readonly number[], value: (index: number) => number) {
  return block(runtime, shape, rowMajor(shape), 0, sizeOf(shape), value);
}

/** A copy of the elements in row-major order. */
export function valuesOf(runtime: WasmRuntime, x: Operand): Float32Array {
  const from = runtime.address({ ...x }) / 4;
  const memory = runtime.views.f32();
  const result = new Float32Array(sizeOf(x.shape));
  const index = x.shape.map(() => 0);
  for (let i = 0; i < result.length; i++) {
    result[i] = memory[index.reduce((sum, at, axis) => sum + at * x.strides[axis], from)];
    for (let axis = index.length - 1; axis >= 0 && ++index[axis] === x.shape[axis]; axis--) index[axis] = 0;
  }
  return result;
}

export function release(runtime: WasmRuntime, ...operands: Operand[]): void {
  for (const { buffer } of operands) runtime.allocator.free((buffer as WasmBuffer).address);
}

/** A quick generator of numbers in −1 … 1 that depend on the seed and the index alone. */
export function noise(seed: number): (index: number) => number {
  return (index) => {
    let x = Math.imul(index + 1, 0x9e3779b1) ^ Math.imul(seed + 1, 0x85ebca6b);
    x = Math.imul(x ^ (x >>> 15), 0x2c1b3c6d);
    x = Math.imul(x ^ (x >>> 12), 0x297a2d39);
    return ((x ^ (x >>> 15)) >>> 0) / 2 ** 31 - 1;
  };
}
