// Elementwise kernels over operands that they cannot walk. The output is cut into boxes; of each operand in another order, or with
// rows too short, the box is copied into the thread's scratch, where it lies in the output's order, and the kernel runs over the box.
//
// Argument block: the odometer's, with every axis among its outer ones (the last extent that it counts is 1), and
//   56 the kernel's number in the module's table, 57 the first axis of a box, 58 and 59 how far a box reaches along that axis and the
//   next (further in it has all there is), 60 elements between its scratch rows along the first axis beside the rest, 61 operands,
//   62 + p where operand p's scratch begins, 0 for one that is walked where it is, 66 + p bytes of its elements.
// Scratch: the kernel's arguments, a box's extents and scratch strides in elements, the kernel's own scratch, then the copies.

import { address, int } from "./abi";
import { copyRow, transposeBlock } from "./copy";

const EXTENTS: usize = 256;
const STRIDES: usize = 320;
const KERNEL_SCRATCH: usize = 384;

/** Byte stride of operand p along an axis. */
// @ts-ignore: decorator
@inline
function strideOf(args: usize, p: i32, axis: i32): usize {
  return address(args, 18 + 10 * p + axis);
}

/** Byte stride of operand p along an axis of a box. */
function boxStride(args: usize, scratch: usize, p: i32, axis: i32): usize {
  if (int(args, 62 + p) == 0) return strideOf(args, p, axis);
  return address(scratch + STRIDES, axis) * address(args, 66 + p);
}

/** Units are boxes. */
export function staged(args: usize, begin: i32, end: i32, scratch: usize): void {
  const rank = int(args, 3);
  const first = int(args, 57);
  const reach = int(args, 58);
  const nextReach = int(args, 59);
  const operands = int(args, 61);
  const tiles = (int(args, 8 + first) + reach - 1) / reach;
  const nextTiles = (int(args, 9 + first) + nextReach - 1) / nextReach;
  store<i32>(scratch, 1, 4);
  store<i32>(scratch, rank - first - 1, 12);
  store<i32>(scratch, int(args, 4), 16);
  store<i32>(scratch, int(args, 5), 20);
  let rows = 0;
  for (let unit = begin; unit < end; unit++) {
    let outer = unit / nextTiles;
    const nextStart = (unit - outer * nextTiles) * nextReach;
    const tile = outer % tiles;
    outer /= tiles;
    for (let p = 0; p < operands; p++) {
      const at = address(args, 16 + 10 * p) + <usize>(tile * reach) * strideOf(args, p, first);
      store<u32>(scratch + 64 + 40 * p, <u32>(at + <usize>nextStart * strideOf(args, p, first + 1)));
    }
    for (let axis = first - 1; axis >= 0; axis--) {
      const index = <usize>(outer % int(args, 8 + axis));
      outer /= int(args, 8 + axis);
      for (let p = 0; p < operands; p++) {
        const at = scratch + 64 + 40 * p;
        store<u32>(at, load<u32>(at) + <u32>(index * strideOf(args, p, axis)));
      }
    }
    // Boxes at the ends may be smaller than those before.
    const extent = min(reach, int(args, 8 + first) - tile * reach);
    const nextExtent = min(nextReach, int(args, 9 + first) - nextStart);
    if (unit == begin || extent != int(scratch + EXTENTS, first) || nextExtent != int(scratch + EXTENTS, first + 1)) {
      rows = arrange(args, scratch, extent, nextExtent);
    }
    let last: usize = 0;
    for (let p = 0; p < operands; p++) {
      const place = address(args, 62 + p);
      if (place == 0) continue;
      const at = scratch + 64 + 40 * p;
      // An operand that stands there twice is copied once.
      if (place > last) gather(args, scratch, p, scratch + place, <usize>load<u32>(at));
      last = max(last, place);
      store<u32>(at, <u32>(scratch + place));
    }
    call_indirect<void>(int(args, 56), scratch, 0, rows, scratch + KERNEL_SCRATCH);
  }
}

/** A box's extents and scratch strides, and its axes as the kernel walks them, merged where all operands allow it; returns its rows. */
function arrange(args: usize, scratch: usize, firstExtent: i32, nextExtent: i32): i32 {
  const rank = int(args, 3);
  const first = int(args, 57);
  const operands = int(args, 61);
  let size = 1;
  for (let i = rank - 1; i >= first; i--) {
    if (i == first) size += int(args, 60);
    const length = i == first ? firstExtent : i == first + 1 ? nextExtent : int(args, 8 + i);
    store<i32>(scratch + EXTENTS + (i << 2), length);
    store<i32>(scratch + STRIDES + (i << 2), size);
    size *= length;
  }
  let slot = rank - first - 1;
  let rows = 1;
  let axis = rank - 1;
  let extent = int(scratch + EXTENTS, axis);
  for (let outer = axis - 1; slot >= 0; slot--) {
    // What merges with `axis`.
    for (; outer >= first; outer--) {
      let joins = true;
      for (let p = 0; p < operands; p++) {
        const stride = boxStride(args, scratch, p, axis);
        joins = joins && boxStride(args, scratch, p, outer) == stride * <usize>extent;
      }
      const more = int(scratch + EXTENTS, outer);
      if (!joins && more != 1) break;
      extent *= more;
    }
    const row = slot == rank - first - 1;
    store<i32>(scratch + (row ? 0 : (8 + slot) << 2), extent);
    if (row) store<i32>(scratch, extent, 8);
    else rows *= extent;
    for (let p = 0; p < operands; p++) {
      store<u32>(scratch + ((row ? 17 : 18 + slot) + 10 * p << 2), <u32>boxStride(args, scratch, p, axis));
    }
    extent = 1;
    if (outer >= first) {
      axis = outer--;
      extent = int(scratch + EXTENTS, axis);
    }
  }
  return rows;
}

/** Copies operand p's box. */
function gather(args: usize, scratch: usize, p: i32, dst: usize, src: usize): void {
  const last = int(args, 3) - 1;
  const first = int(args, 57);
  const bytes = int(args, 66 + p);
  const along = strideOf(args, p, last);
  const columns = int(scratch + EXTENTS, last);
  const turned = bytes == 4 && along != 4 && strideOf(args, p, first) == 4;
  // Of a transposed operand with axes between, few columns at a time: along the axes between, it may lie on without a gap. Four, where
  // lines of more would share sets of the cache, and push each other out before what was fetched beside them is read.
  const few = along & 0xffff ? 16 : 4;
  const step = turned && last - first > 1 ? few : columns;
  for (let j = 0; j < columns; j += step, dst += <usize>(step * bytes), src += <usize>step * along) {
    gatherFrom(args, scratch, p, first, turned ? first : last - 1, min(step, columns - j), dst, src);
  }
}

/** Copies operand p's box from `axis` on; rows along `across` and columns along the last axis are innermost. */
function gatherFrom(args: usize, scratch: usize, p: i32, axis: i32, across: i32, columns: i32, dst: usize, src: usize): void {
  const bytes = int(args, 66 + p);
  const last = int(args, 3) - 1;
  if (axis == across) axis++;
  if (axis < last) {
    const extent = int(scratch + EXTENTS, axis);
    const step = boxStride(args, scratch, p, axis);
    for (let i = 0; i < extent; i++, dst += step, src += strideOf(args, p, axis)) {
      gatherFrom(args, scratch, p, axis + 1, across, columns, dst, src);
    }
    return;
  }
  const along = strideOf(args, p, last);
  const rows = int(scratch + EXTENTS, across);
  const step = boxStride(args, scratch, p, across);
  if (bytes == 4 && along != 4 && strideOf(args, p, across) == 4) {
    transposeBlock(dst, src, rows, columns, step, along);
    return;
  }
  const rowStep = strideOf(args, p, across);
  const size = <usize>(columns * bytes);
  if (along != <usize>bytes || (size & 15) != 0) {
    for (let i = 0; i < rows; i++, dst += step, src += rowStep) copyRow(dst, src, columns, <usize>bytes, along, bytes);
    return;
  }
  for (let i = 0; i < rows; i++, dst += step, src += rowStep) {
    let j: usize = 0;
    for (; j + 64 <= size; j += 64) {
      const a = v128.load(src + j);
      const b = v128.load(src + j, 16);
      const c = v128.load(src + j, 32);
      const d = v128.load(src + j, 48);
      v128.store(dst + j, a);
      v128.store(dst + j, b, 16);
      v128.store(dst + j, c, 32);
      v128.store(dst + j, d, 48);
    }
    for (; j < size; j += 16) v128.store(dst + j, v128.load(src + j));
  }
}
