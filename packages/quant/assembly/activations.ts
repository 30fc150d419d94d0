// Activations as integers: what the integer products (dot.ts, multiply-integers.ts) take on their left side.
//
// A row of k floats becomes, for its ⌈k/32⌉ blocks, with zeros beyond k:
//   64 bytes a block   codes less the zero point, as int16
//    4 bytes a block   scale, float32
//    4 bytes a block   scale · sum of those codes, float32: what a block's offset is multiplied by; for Q2_K, which has offsets for 16
//                      elements, the sums of the first and of the second 16 codes, int16
//   32 bytes a block   the same codes as int8, which say something only where the zero point is 0
// Within a block the elements stand in the order in which the weight's codes come apart (see `orderOf`). Codes are −128 … 127, less the
// zero point at most 255 in magnitude.

import { address, float, int } from "../../core/assembly/abi";
import { packFours } from "../../core/assembly/pack";
import { orderOf, PLAIN, QUARTERS } from "./integers";
import { Q2_K } from "./weight";

// @ts-ignore: decorator
@inline
export function rowBytes(blocks: i32): usize {
  return (<usize>blocks) * 104;
}
// @ts-ignore: decorator
@inline
export function scalesOf(row: usize, blocks: i32): usize {
  return row + ((<usize>blocks) << 6);
}
// @ts-ignore: decorator
@inline
export function sumsOf(row: usize, blocks: i32): usize {
  return row + (<usize>blocks) * 68;
}
// @ts-ignore: decorator
@inline
export function bytesOf(row: usize, blocks: i32): usize {
  return row + (<usize>blocks) * 72;
}

// 1.5·2²³: a float of magnitude below 2²² added to it is rounded to an integer, ties to even, which its lowest bits hold.
const MAGIC: f32 = 12582912;
const MAGIC_BITS: i32 = 0x4b400000;

// @ts-ignore: decorator
@inline
function toInteger(x: v128): v128 {
  return i32x4.sub(f32x4.add(x, f32x4.splat(MAGIC)), i32x4.splat(MAGIC_BITS));
}

// Scales of blocks without one of their own (static ranges); 0 when blocks get their own.
let fixedScale: f32 = 0;
let zeroPoint: f32 = 0;
let least: f32 = 0;
let most: f32 = 0;

/** Eight codes, as int16, of the floats at `x`. */
// @ts-ignore: decorator
@inline
function eightCodes(x: usize, fixed: bool, factor: v128, inverse: v128, zero: v128, low: v128, high: v128): v128 {
  let a = v128.load(x), b = v128.load(x, 16);
  if (fixed) {
    // `inverse` is the scale here: divided by, so that ties fall as they are defined to.
    a = f32x4.nearest(f32x4.add(f32x4.div(a, inverse), zero));
    b = f32x4.nearest(f32x4.add(f32x4.div(b, inverse), zero));
    a = f32x4.sub(f32x4.min(high, f32x4.max(low, a)), zero);
    b = f32x4.sub(f32x4.min(high, f32x4.max(low, b)), zero);
  } else {
    a = f32x4.mul(f32x4.mul(a, factor), inverse);
    b = f32x4.mul(f32x4.mul(b, factor), inverse);
  }
  return i16x8.narrow_i32x4_s(toInteger(a), toInteger(b));
}

// @ts-ignore: decorator
@inline
function evens(a: v128, b: v128): v128 {
  return i16x8.shuffle(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
}

// @ts-ignore: decorator
@inline
function odds(a: v128, b: v128): v128 {
  return i16x8.shuffle(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
}

// Sum of 16 int16.
// @ts-ignore: decorator
@inline
function sumOf(a: v128, b: v128): i32 {
  const pairs = i32x4.dot_i16x8_s(i16x8.add(a, b), i16x8.splat(1));
  const halves = i32x4.add(pairs, i32x4.shuffle(pairs, pairs, 2, 3, 0, 1));
  return i32x4.extract_lane(halves, 0) + i32x4.extract_lane(halves, 1);
}

// Codes of the block of 32 floats at `x`, and the sum of them.
// @ts-ignore: decorator
@inline
function encodeBlock(x: usize, order: i32, fixed: bool, factor: f32, inverse: f32, codes: usize, bytes: usize): i32 {
  const factors = f32x4.splat(factor), inverses = f32x4.splat(inverse), zero = f32x4.splat(zeroPoint);
  const low = f32x4.splat(least), high = f32x4.splat(most);
  let c0 = eightCodes(x, fixed, factors, inverses, zero, low, high);
  let c1 = eightCodes(x + 32, fixed, factors, inverses, zero, low, high);
  let c2 = eightCodes(x + 64, fixed, factors, inverses, zero, low, high);
  let c3 = eightCodes(x + 96, fixed, factors, inverses, zero, low, high);
  let b0 = i8x16.narrow_i16x8_s(c0, c1), b1 = i8x16.narrow_i16x8_s(c2, c3);
  if (order != PLAIN) {
    const e0 = evens(c0, c1), e1 = evens(c2, c3), o0 = odds(c0, c1), o1 = odds(c2, c3);
    c0 = e0;
    c1 = e1;
    c2 = o0;
    c3 = o1;
    if (order == QUARTERS) {
      b0 = i8x16.narrow_i16x8_s(e0, e1);
      b1 = i8x16.narrow_i16x8_s(o0, o1);
      c0 = evens(e0, e1);
      c1 = evens(o0, o1);
      c2 = odds(e0, e1);
      c3 = odds(o0, o1);
    }
  }
  v128.store(codes, c0);
  v128.store(codes, c1, 16);
  v128.store(codes, c2, 32);
  v128.store(codes, c3, 48);
  v128.store(bytes, b0);
  v128.store(bytes, b1, 16);
  return sumOf(i16x8.add(c0, c1), i16x8.add(c2, c3));
}

// Largest magnitude of 32 floats; NaN when one is NaN.
// @ts-ignore: decorator
@inline
function blockMaximum(x: usize): f32 {
  let m = f32x4.abs(v128.load(x));
  for (let i: usize = 16; i < 128; i += 16) m = f32x4.max(m, f32x4.abs(v128.load(x + i)));
  m = f32x4.max(m, i32x4.shuffle(m, m, 2, 3, 0, 1));
  return max(f32x4.extract_lane(m, 0), f32x4.extract_lane(m, 1));
}

// The 32 floats of a block at `from`, of which `count` exist: where they stand, or at `spare` with zeros behind them.
// @ts-ignore: decorator
@inline
function wholeBlock(from: usize, count: i32, spare: usize): usize {
  if (count >= 32) return from;
  memory.fill(spare, 0, 128);
  memory.copy(spare, from, (<usize>count) << 2);
  return spare;
}

// @ts-ignore: decorator
@inline
function encodeRow(
  x: usize, k: i32, blocks: i32, span: i32, order: i32, halfSums: bool, fixed: bool, out: usize, spare: usize,
): void {
  let codes = out, scales = scalesOf(out, blocks), sums = sumsOf(out, blocks), bytes = bytesOf(out, blocks);
  let poisoned = false;
  let absmax: f32 = 0;
  for (let block = 0; block < blocks; block++) {
    if (!fixed && block % span == 0) {
      absmax = 0;
      for (let i = block; i < min(block + span, blocks); i++) {
        absmax = max(absmax, blockMaximum(wholeBlock(x + ((<usize>i) << 7), k - (i << 5), spare)));
      }
    }
    const from = wholeBlock(x + ((<usize>block) << 7), k - (block << 5), spare);
    let scale = fixedScale, sum = 0;
    if (fixed) {
      absmax = blockMaximum(from);
      poisoned = poisoned || absmax != absmax;
      sum = encodeBlock(from, order, true, 1, scale, codes, bytes);
    } else {
      scale = absmax / 127;
      // What is so small that 127/absmax overflows is brought up first.
      const factor: f32 = absmax < reinterpret<f32>(0x0d800000) ? reinterpret<f32>(0x71800000) : 1;
      const inverse: f32 = 127 / (absmax * factor);
      if (absmax > 0 && inverse > 0) {
        sum = encodeBlock(from, order, false, factor, inverse, codes, bytes);
      } else {
        // Zeros; or a NaN or an infinity, which spoils every product of the row.
        memory.fill(codes, 0, 64);
        memory.fill(bytes, 0, 32);
        if (absmax != 0) scale = <f32>NaN;
      }
    }
    store<f32>(scales, scale);
    if (halfSums) {
      const first = sumOf(v128.load(codes), v128.load(codes, 16));
      store<i32>(sums, (first & 0xffff) | ((sum - first) << 16));
    } else store<f32>(sums, scale * <f32>sum);
    codes += 64;
    scales += 4;
    sums += 4;
    bytes += 32;
  }
  if (fixed && poisoned) {
    scales = scalesOf(out, blocks);
    for (let i: usize = 0; i < (<usize>blocks) << 3; i += 4) store<f32>(scales + i, <f32>NaN);
  }
}

/**
 * Rows of X [rows×k] as integers. A unit is a row. Integers: X, out, k, number of the weight's format, blocks that share a
 * scale. Floats: scale (0: found for those blocks), zero point, least and largest code. Scratch: 128 bytes.
 */
export function quantizeActivations(args: usize, begin: i32, end: i32, scratch: usize): void {
  const k = int(args, 2);
  const order = orderOf(int(args, 3)), halfSums = int(args, 3) == Q2_K;
  const blocks = (k + 31) >> 5, span = int(args, 4);
  fixedScale = <f32>float(args, 0);
  zeroPoint = <f32>float(args, 1);
  least = <f32>float(args, 2);
  most = <f32>float(args, 3);
  for (let row = begin; row < end; row++) {
    const x = address(args, 0) + (((<usize>row) * (<usize>k)) << 2);
    const out = address(args, 1) + (<usize>row) * rowBytes(blocks);
    if (fixedScale > 0) encodeRow(x, k, blocks, span, order, halfSums, true, out, scratch);
    else encodeRow(x, k, blocks, span, order, halfSums, false, out, scratch);
  }
}

/** Blocks of 32 that are packed at once for the tiled product. */
export const BLOCKS: i32 = 16;

/**
 * Start of the packed rows from block `first` on: for every BLOCKS blocks three arrays, each in panels of four rows as packFours lays them
 * out: pairs of codes in the place of floats, scales, and sums. `rows` is a multiple of 4.
 */
// @ts-ignore: decorator
@inline
export function packedIntegers(packed: usize, rows: i32, first: i32): usize {
  return packed + (<usize>rows) * (<usize>first) * 72;
}

/**
 * Packs rows made by quantizeActivations for the tiled product. A unit is a group of rows of BLOCKS blocks. Integers: rows, m, blocks
 * of a row, out (72 bytes a block of a row, m rounded up to a multiple of 4), rows of a group (a multiple of 4).
 */
export function packIntegers(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const m = int(args, 1), blocks = int(args, 2), group = int(args, 4);
  const groups = (m + group - 1) / group;
  const rows = (m + 3) & ~3;
  const stride = rowBytes(blocks);
  for (let unit = begin; unit < end; unit++) {
    const first = (unit / groups) * BLOCKS;
    const i = (unit % groups) * group;
    const count = min(BLOCKS, blocks - first);
    const height = min(group, m - i);
    const from = address(args, 0) + (<usize>i) * stride, at = (<usize>first) << 2;
    const codes = packedIntegers(address(args, 3), rows, first);
    const scales = codes + (<usize>rows) * ((<usize>count) << 6);
    const sums = scales + (<usize>rows) * ((<usize>count) << 2);
    packFours(from + (at << 4), stride, 4, height, count << 4, codes + (<usize>i) * ((<usize>count) << 6));
    packFours(scalesOf(from, blocks) + at, stride, 4, height, count, scales + (<usize>i) * ((<usize>count) << 2));
    packFours(sumsOf(from, blocks) + at, stride, 4, height, count, sums + (<usize>i) * ((<usize>count) << 2));
  }
}
