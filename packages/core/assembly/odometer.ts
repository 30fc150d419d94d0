// Walks the rows of up to four strided operands side by side. A row is the innermost axis, cut in blocks; a unit of
// work is one block. Operands are described in bytes, so the walk knows no dtypes.
//
// Argument block: 0 length of a row in elements, 1 blocks per row, 2 elements per block, 3 outer rank r (at most 8),
// 4 and 5 free for the kernel, 8 … 8+r−1 outer extents, then for operand p = 0 … 3 from 16 + 10·p: address,
// byte stride along the row, r byte strides of the outer axes.
// State in scratch: bytes 0 … 15 the four row addresses, bytes 16 … 47 the outer indices.

import { address, int } from "./abi";

export const STATE_BYTES: i32 = 64;

/** Byte stride of operand p along the row. */
// @ts-ignore: decorator
@inline
export function rowStride(args: usize, p: i32): usize {
  return address(args, 17 + 10 * p);
}

/** Address of the current row of operand p. */
// @ts-ignore: decorator
@inline
export function rowAddress(state: usize, p: i32): usize {
  return <usize>load<u32>(state + ((<usize>p) << 2));
}

/** Goes to row number `row`. */
export function seek(args: usize, row: i32, state: usize): void {
  let a = address(args, 16);
  let b = address(args, 26);
  let c = address(args, 36);
  let d = address(args, 46);
  for (let axis = int(args, 3) - 1; axis >= 0; axis--) {
    const extent = int(args, 8 + axis);
    const index = row % extent;
    row /= extent;
    store<i32>(state + 16 + ((<usize>axis) << 2), index);
    a += <usize>index * address(args, 18 + axis);
    b += <usize>index * address(args, 28 + axis);
    c += <usize>index * address(args, 38 + axis);
    d += <usize>index * address(args, 48 + axis);
  }
  keep(state, a, b, c, d);
}

/** Goes to the next row. */
export function advance(args: usize, state: usize): void {
  let a = rowAddress(state, 0);
  let b = rowAddress(state, 1);
  let c = rowAddress(state, 2);
  let d = rowAddress(state, 3);
  for (let axis = int(args, 3) - 1; axis >= 0; axis--) {
    const counter = state + 16 + ((<usize>axis) << 2);
    const index = load<i32>(counter) + 1;
    const extent = int(args, 8 + axis);
    if (index < extent) {
      store<i32>(counter, index);
      a += address(args, 18 + axis);
      b += address(args, 28 + axis);
      c += address(args, 38 + axis);
      d += address(args, 48 + axis);
      break;
    }
    // Back to the start of this axis, and on with the next one out.
    const back = <usize>(1 - extent);
    a += back * address(args, 18 + axis);
    b += back * address(args, 28 + axis);
    c += back * address(args, 38 + axis);
    d += back * address(args, 48 + axis);
    store<i32>(counter, 0);
  }
  keep(state, a, b, c, d);
}

// @ts-ignore: decorator
@inline
function keep(state: usize, a: usize, b: usize, c: usize, d: usize): void {
  store<u32>(state, <u32>a);
  store<u32>(state, <u32>b, 4);
  store<u32>(state, <u32>c, 8);
  store<u32>(state, <u32>d, 12);
}

/**
 * The next run of blocks: returns its number of elements, and leaves its first element in the row in bytes 48 … 51
 * of `state`. Unit u is block u mod blocks of row u / blocks; blocks of one row are taken together.
 */
export function nextRun(args: usize, unit: i32, end: i32, state: usize): i32 {
  const blocks = int(args, 1);
  const block = int(args, 2);
  // Most rows are one block, and a division takes as long as a short row.
  const first = blocks == 1 ? 0 : unit % blocks;
  const start = first * block;
  store<i32>(state, start, 48);
  const last = min(blocks, first + end - unit);
  store<i32>(state, last - first, 52);
  return min(last * block, int(args, 0)) - start;
}

/** First element, within its row, of the run that {@link nextRun} found. */
// @ts-ignore: decorator
@inline
export function runStart(state: usize): usize {
  return <usize>load<i32>(state, 48);
}

/** Blocks of the run that {@link nextRun} found. */
// @ts-ignore: decorator
@inline
export function runBlocks(state: usize): i32 {
  return load<i32>(state, 52);
}
