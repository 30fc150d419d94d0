// Laying out strided work for the kernels: axes merged where all operands allow it, the odometer's argument block, grain,
// and temporaries. Knows no operation.

import { bytesPerElement } from "../../dtype.js";
import { contiguousStrides, isContiguous } from "../../layout.js";
import { sameShape, sizeOf } from "../../shape.js";
import type { Operand } from "../types.js";
import type { WasmBuffer, WasmRuntime } from "./runtime.js";

/** Outer axes that a kernel's odometer counts. */
const maximumOuterRank = 8;
/** Scratch bytes that an odometer needs, and the kernels beside it (pow, cast). */
const odometerBytes = 2176;

/** The odometer's argument block, used again by every launch: what a kernel has no axis or operand for, it does not read. */
const block = new Int32Array(70);
const rowBlock = block.subarray(0, 56);
/** Words of each operand in it: address, stride along the row, strides of the outer axes. */
const operandWords = 2 + maximumOuterRank;

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
    launchParts(
      (part, at) => launchRows(runtime, kernel, part, at, bytes, chunk, extra),
      axes,
      addresses,
      bytes,
    );
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
    const at = 16 + operandWords * p;
    block[at] = addresses[p];
    block[at + 1] = innerStride(axes, p) * bytes[p];
    for (let i = 0; i < outer; i++) block[at + 2 + i] = strides[p][i] * bytes[p];
  }
  const grain = Math.max(1, Math.floor(chunk / Math.max(1, Math.min(length, chunk))));
  runtime.core.launch(kernel, rows * blocks, rowBlock, undefined, { grain, scratchBytes: odometerBytes });
}

/** Too many axes, or a row longer than an int32: one launch for each index of the first axis, or for each half of a row. */
function launchParts(
  run: (axes: Axes, addresses: readonly number[]) => void,
  { shape, strides }: Axes,
  addresses: readonly number[],
  bytes: readonly number[],
): void {
  const at = (axis: number, index: number) =>
    addresses.map((address, p) => address + index * strides[p][axis] * bytes[p]);
  if (shape.length > 1) {
    const rest = { shape: shape.slice(1), strides: strides.map((list) => list.slice(1)) };
    for (let i = 0; i < shape[0]; i++) run(rest, at(0, i));
    return;
  }
  const half = Math.ceil(shape[0] / 2);
  run({ shape: [half], strides }, addresses);
  run({ shape: [shape[0] - half], strides }, at(0, half));
}

/** Rows shorter than this cost more to walk than to copy, where copies make them longer. */
const shortRow = 64;
/** Elements of an operation from which that pays. */
const shortRowsFrom = 512;

/** The inputs, a bit each, that a kernel over rows of `axes` cannot walk, or whose order makes the rows short; the output is walked. */
function awkwardInputs({ shape, strides }: Axes): number {
  const last = shape.length - 1;
  let awkward = 0;
  if (last < 0) return awkward;
  for (let p = 1; p < strides.length; p++) {
    const stride = strides[p][last];
    if (stride !== 0 && stride !== 1) awkward |= 1 << p;
  }
  const length = shape[last];
  if (awkward || last === 0 || length >= shortRow || strides[0][last - 1] !== length) return awkward;
  if (sizeOf(shape) < shortRowsFrom) return awkward;
  for (let p = 1; p < strides.length; p++)
    if (strides[p][last - 1] !== strides[p][last] * length) awkward |= 1 << p;
  return awkward;
}

/**
 * Launches a kernel that walks rows of `operands`, the output first, which is contiguous along its last axis. Inputs that are not, nor
 * broadcast along it, are copied by the box (assembly/stage.ts).
 */
export function launchElementwise(
  runtime: WasmRuntime,
  kernel: string,
  operands: readonly Operand[],
  chunk: number,
  extra: readonly [number, number] = [0, 0],
): void {
  if (sizeOf(operands[0].shape) === 0) return;
  const addresses = operands.map((operand) => runtime.address(operand));
  const bytes = operands.map(({ dtype }) => bytesPerElement(dtype));
  launchWalk(runtime, kernel, axesOf(operands), addresses, bytes, chunk, extra);
}

/** As {@link launchElementwise}, for axes in any order. */
export function launchWalk(
  runtime: WasmRuntime,
  kernel: string,
  axes: Axes,
  addresses: readonly number[],
  bytes: readonly number[],
  chunk: number,
  extra: readonly [number, number],
): void {
  const awkward = awkwardInputs(axes);
  if (awkward === 0) launchRows(runtime, kernel, axes, addresses, bytes, chunk, extra);
  else if (axes.shape.length >= maximumOuterRank)
    launchParts(
      (part, at) => launchWalk(runtime, kernel, part, at, bytes, chunk, extra),
      axes,
      addresses,
      bytes,
    );
  else launchStaged(runtime, kernel, axes, awkward, addresses, bytes, chunk, extra);
}

/** Elements that a transposed box's rows should have, and may have though the box has many; those of a box, transposed or not. */
const leastRow = 256;
const longestRow = 2048;
const largestBox = 2 ** 18;
const wholeBox = 2 ** 14;
/** Bytes of scratch before the copies. */
const stagedScratch = 4096;

function launchStaged(
  runtime: WasmRuntime,
  kernel: string,
  { shape, strides }: Axes,
  awkward: number,
  addresses: readonly number[],
  bytes: readonly number[],
  chunk: number,
  extra: readonly [number, number],
): void {
  const operands = strides.length;
  const last = shape.length - 1;
  // The axis along which an input lies in memory that does not along the last: boxes reach over both.
  let turned = -1;
  for (let p = 1; p < operands && turned < 0; p++)
    if ((awkward >> p) & 1 && strides[p][last] > 1) turned = strides[p].indexOf(1);
  const rows = turned < 0 ? 1 : shape[turned];
  /** Axis i of those other than `turned`. */
  const other = (i: number) => (turned >= 0 && i >= turned ? i + 1 : i);
  let next = turned < 0 ? last : last - 1;
  let inner = 1;
  const least = turned < 0 ? wholeBox : leastRow;
  while (next > 0 && inner * shape[other(next)] < least) inner *= shape[other(next--)];
  const extent = shape[other(next)];
  // Few rows that stay in the nearest cache; where rows are long, more of them, so that longer stretches of memory are read at once.
  const reach = Math.min(
    rows,
    inner * extent <= leastRow ? 16 : Math.min(256, 16 * Math.ceil(Math.max(1024, rows) / 128)),
  );
  const most = turned < 0 ? wholeBox : Math.max(longestRow, largestBox / reach);
  const nextReach = Math.min(extent, Math.max(1, Math.floor(most / inner)));
  // Rows that lie a multiple of 2 KB apart would share few sets of the cache.
  const pad = turned >= 0 && (nextReach * inner) % 512 === 0 ? 16 : 0;
  const box = reach * (nextReach * inner + pad);

  // Outer axes, `turned` or none, `next`, and what is inside of it.
  const rank = turned < 0 ? last + 2 : last + 1;
  let units = Math.ceil(rows / reach) * Math.ceil(extent / nextReach);
  for (let slot = 0; slot < rank; slot++) {
    const axis = slot === next ? turned : other(slot < next ? slot : slot - 1);
    if (slot < next) units *= shape[axis];
    block[8 + slot] = axis < 0 ? 1 : shape[axis];
    for (let p = 0; p < operands; p++)
      block[18 + operandWords * p + slot] = axis < 0 ? 0 : strides[p][axis] * bytes[p];
  }
  block[3] = rank;
  block[4] = extra[0];
  block[5] = extra[1];
  block[56] = runtime.core.index(kernel);
  block[57] = next;
  block[58] = reach;
  block[59] = nextReach;
  block[60] = pad;
  block[61] = operands;
  let scratchBytes = stagedScratch;
  for (let p = 0; p < operands; p++) {
    block[16 + operandWords * p] = addresses[p];
    block[66 + p] = bytes[p];
    block[62 + p] = 0;
    if (((awkward >> p) & 1) === 0) continue;
    block[62 + p] = scratchBytes;
    let same = 1;
    while (
      same < p &&
      !(addresses[same] === addresses[p] && bytes[same] === bytes[p] && sameShape(strides[same], strides[p]))
    )
      same++;
    if (same < p) block[62 + p] = block[62 + same];
    else scratchBytes += Math.ceil((box * bytes[p]) / 64) * 64;
  }
  runtime.core.launch("staged", units, block, undefined, { grain: rowGrain(box, chunk), scratchBytes });
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
