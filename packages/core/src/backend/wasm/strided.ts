// Laying out strided work for the kernels: axes merged where all operands allow it, the odometer's argument block, grain,
// and temporaries. Knows no operation.

import { bytesPerElement } from "../../dtype.js";
import { contiguousStrides, isContiguous } from "../../layout.js";
import { sizeOf } from "../../shape.js";
import type { Operand } from "../types.js";
import type { WasmBuffer, WasmRuntime } from "./runtime.js";

/** Outer axes that a kernel's odometer counts. */
const maximumOuterRank = 8;
/** Scratch bytes that an odometer needs, and the kernels beside it (pow). */
export const odometerBytes = 224;

/** The odometer's argument block, used again by every launch: what a kernel has no axis or operand for, it does not read. */
const block = new Int32Array(16 + (2 + maximumOuterRank) * 4);

/** Some operands' axes side by side: `strides[p][i]` belongs to operand p and axis i. */
export interface Axes {
  readonly shape: readonly number[];
  readonly strides: readonly (readonly number[])[];
}

/** Drops axes of length 1 and merges neighbours that every operand walks as one. */
export function mergeAxes(shape: readonly number[], strides: readonly (readonly number[])[]): Axes {
  const merged = { shape: [] as number[], strides: strides.map((): number[] => []) };
  for (let i = 0; i < shape.length; i++) {
    if (shape[i] === 1) continue;
    const last = merged.shape.length - 1;
    let joins = last >= 0;
    for (let p = 0; joins && p < strides.length; p++)
      joins = merged.strides[p][last] === strides[p][i] * shape[i];
    if (joins) {
      merged.shape[last] *= shape[i];
      for (let p = 0; p < strides.length; p++) merged.strides[p][last] = strides[p][i];
    } else {
      merged.shape.push(shape[i]);
      for (let p = 0; p < strides.length; p++) merged.strides[p].push(strides[p][i]);
    }
  }
  return merged;
}

const one: readonly number[] = [1];
const zero: readonly number[] = [0];

/** The strides of an operand that is walked as one axis: contiguous, or one number for all elements; else null. */
function flatStrides(operand: Operand): readonly number[] | null {
  if (isContiguous(operand)) return one;
  for (const stride of operand.strides) if (stride !== 0) return null;
  return zero;
}

/** The axes of operands of one shape. */
export function axesOf(operands: readonly Operand[]): Axes {
  const size = sizeOf(operands[0].shape);
  if (size === 1) return { shape: [], strides: operands.map(() => []) };
  const strides: (readonly number[])[] = [];
  for (const operand of operands) {
    const flat = flatStrides(operand);
    if (!flat) {
      return mergeAxes(
        operands[0].shape,
        operands.map(({ strides }) => strides),
      );
    }
    strides.push(flat);
  }
  return { shape: [size], strides };
}

/** Stride of the innermost axis of operand p; 1 when there are no axes. */
export function innerStride(axes: Axes, p: number): number {
  const { length } = axes.shape;
  return length === 0 ? 1 : axes.strides[p][length - 1];
}

/**
 * Launches a kernel that walks rows by the odometer (assembly/odometer.ts).
 *
 * @param addresses - byte address of each operand's first element, the output's first
 * @param bytes - element bytes of each
 * @param chunk - elements that one chunk should have about, a multiple of 16
 * @param extra - the two free arguments of the kernel
 */
export function launchRows(
  runtime: WasmRuntime,
  kernel: string,
  axes: Axes,
  addresses: readonly number[],
  bytes: readonly number[],
  chunk: number,
  extra: readonly [number, number] = [0, 0],
): void {
  const { shape, strides } = axes;
  const last = shape.length - 1;
  const length = last < 0 ? 1 : shape[last];
  if (last > maximumOuterRank || length >= 2 ** 31) {
    launchParts(runtime, kernel, axes, addresses, bytes, chunk, extra);
    return;
  }
  const blocks = Math.ceil(length / chunk);
  const outer = Math.max(0, last);
  block[0] = length;
  block[1] = blocks;
  block[2] = chunk;
  block[3] = outer;
  block[4] = extra[0];
  block[5] = extra[1];
  let rows = 1;
  for (let i = 0; i < outer; i++) {
    block[8 + i] = shape[i];
    rows *= shape[i];
  }
  for (let p = 0; p < addresses.length; p++) {
    const at = 16 + (2 + maximumOuterRank) * p;
    block[at] = addresses[p];
    block[at + 1] = innerStride(axes, p) * bytes[p];
    for (let i = 0; i < outer; i++) block[at + 2 + i] = strides[p][i] * bytes[p];
  }
  const grain = Math.max(1, Math.floor(chunk / Math.max(1, Math.min(length, chunk))));
  runtime.core.launch(kernel, rows * blocks, block, undefined, { grain, scratchBytes: odometerBytes });
}

/** Too many axes, or a row longer than an int32: one launch for each index of the first axis, or for each half of a row. */
function launchParts(
  runtime: WasmRuntime,
  kernel: string,
  { shape, strides }: Axes,
  addresses: readonly number[],
  bytes: readonly number[],
  chunk: number,
  extra: readonly [number, number],
): void {
  const at = (axis: number, index: number) =>
    addresses.map((address, p) => address + index * strides[p][axis] * bytes[p]);
  if (shape.length > 1) {
    const rest = { shape: shape.slice(1), strides: strides.map((list) => list.slice(1)) };
    for (let i = 0; i < shape[0]; i++) launchRows(runtime, kernel, rest, at(0, i), bytes, chunk, extra);
    return;
  }
  const half = Math.ceil(shape[0] / 2);
  launchRows(runtime, kernel, { shape: [half], strides }, addresses, bytes, chunk, extra);
  launchRows(runtime, kernel, { shape: [shape[0] - half], strides }, at(0, half), bytes, chunk, extra);
}

/** Contiguous blocks of elements for kernels that take (elements, elements per unit, addresses …). */
export function launchFlat(
  runtime: WasmRuntime,
  kernel: string,
  size: number,
  chunk: number,
  ints: readonly number[],
  floats?: readonly number[],
  scratchBytes = 0,
): void {
  runtime.core.launch(kernel, Math.ceil(size / chunk), [size, chunk, ...ints], floats, {
    grain: 1,
    scratchBytes,
  });
}

/** Rows of about `cost` element steps each: how many make a chunk of about `chunk` steps. */
export function rowGrain(cost: number, chunk: number): number {
  return Math.max(1, Math.floor(chunk / Math.max(1, cost)));
}

/** Runs `fn` with a contiguous operand that exists meanwhile. */
export function withTemporary<T>(
  runtime: WasmRuntime,
  dtype: Operand["dtype"],
  shape: readonly number[],
  fn: (temporary: Operand) => T,
): T {
  const bytes = sizeOf(shape) * bytesPerElement(dtype);
  const address = runtime.allocator.allocate(bytes);
  const buffer: WasmBuffer = { bytes, address };
  try {
    return fn({ buffer, dtype, shape, strides: contiguousStrides(shape), offset: 0 });
  } finally {
    runtime.allocator.free(address);
  }
}
