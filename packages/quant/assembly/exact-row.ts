// The product of one row of float32 activations with a quantized weight, straight from the packed codes: they become floats in
// registers and meet activations that were brought into the order in which they come apart. A scale multiplies the sum of its run.
// For formats whose codes need no more than that; the others go by way of a strip (multiply.ts).

import { address, int, laneSum, madd } from "../../core/assembly/abi";
import { fp4Planes, nf4Planes } from "./codebook";
import { half, lookUp, nibbleMask, upperHalves } from "./codes";
import {
  blockAddress, blockStep, hasNestedScales, hasOffsets, isCodebook, isGrouped, nibbleBytes, recordBytes, runLength, scaleAt, scaleIndex,
  wholeRun, zeroAt,
} from "./integers";
import {
  decode, FP4, FP4_SINGLE, INT4, INT8, NF4, NF4_SINGLE, Q4_0, Q4_1, Q8_0, UINT4, UINT8, WEIGHT_ARGUMENTS,
} from "./weight";

/** Which element of a block stands in place `place`: lane place % 4 of vector place / 4. */
function elementAt(format: i32, place: i32): i32 {
  const lane = place & 3, vector = place >> 2;
  // Nibble `vector` of the 32-bit word `lane` of the codes.
  if (format == INT4 || format == UINT4) return 8 * lane + vector;
  if (format == Q4_0 || format == Q4_1) return ((vector & 1) << 4) + 4 * lane + (vector >> 1);
  if (isCodebook(format)) return ((place & 15) << 1) + (place >> 4);
  return place;
}

/**
 * X [k] in blocks of 32, each in its order, zeros beyond k, and behind them the sum of each block. There is one unit. Integers: X, out, k,
 * number of the weight's format. Scratch: 32 bytes.
 */
export function arrangeRow(args: usize, begin: i32, end: i32, scratch: usize): void {
  if (begin >= end) return;
  const k = int(args, 2), whole = k >> 5, blocks = (k + 31) >> 5;
  let x = address(args, 0), out = address(args, 1);
  let sums = out + ((<usize>blocks) << 7);
  for (let place = 0; place < 32; place++) store<u8>(scratch + <usize>place, elementAt(int(args, 3), place));
  for (let block = 0; block < blocks; block++) {
    const count: u32 = block < whole ? 32 : k & 31;
    let sum: f32 = 0;
    for (let place: usize = 0; place < 32; place++) {
      const element = <u32>load<u8>(scratch + place);
      const value = element < count ? load<f32>(x + ((<usize>element) << 2)) : 0;
      sum += value;
      store<f32>(out + (place << 2), value);
    }
    store<f32>(sums, sum);
    x += 128;
    out += 128;
    sums += 4;
  }
}

/** Formats whose codes have a sign once the upper bit of each nibble is turned over. */
// @ts-ignore: decorator
@inline
function isSignedNibbles(format: i32): bool {
  return format == INT4 || format == Q4_0;
}

// Nibble `part` of each 32-bit word, as floats. Signed ones have had their upper bits turned over.
// @ts-ignore: decorator
@inline
function nibbleFloats(format: i32, words: v128, part: i32, zero: v128): v128 {
  if (isSignedNibbles(format)) {
    return f32x4.convert_i32x4_s(i32x4.shr_s(part == 7 ? words : i32x4.shl(words, 28 - 4 * part), 28));
  }
  const mask = i32x4.splat(15);
  let codes = part == 7 ? i32x4.shr_u(words, 28) : v128.and(part == 0 ? words : i32x4.shr_u(words, 4 * part), mask);
  if (!hasOffsets(format)) codes = i32x4.sub(codes, zero);
  return f32x4.convert_i32x4_s(codes);
}

// Codes number 8·part to 8·part + 7 of a format of bytes, as int16.
// @ts-ignore: decorator
@inline
function byteCodes(format: i32, at: usize, part: usize, zero: v128): v128 {
  if (format == UINT8) return i16x8.sub(v128.load8x8_u(at + 8 * part), zero);
  return v128.load8x8_s(at + (format == Q8_0 ? 2 : 0) + 8 * part);
}

// out = row `row` of the weight times the arranged activations at `x`.
// @ts-ignore: decorator
@inline
function exactRow(format: i32, args: usize, row: i32, k: i32, x: usize, out: usize, spare: usize): void {
  const whole = k >> 5;
  const planes = format == NF4 || format == NF4_SINGLE ? nf4Planes : fp4Planes;
  const t0 = v128.load(planes), t1 = v128.load(planes, 16), t2 = v128.load(planes, 32), t3 = v128.load(planes, 48);
  const mask = v128.load(nibbleMask);
  let sums = x + ((<usize>((k + 31) >> 5)) << 7);
  let at = blockAddress(format, args, row, 0);
  let index = scaleIndex(format, args, row, 0);
  let run = recordBytes(format) > 0 ? 1 : runLength(format, args, row, 0);
  const length = recordBytes(format) > 0 ? 1 : wholeRun(format, args);
  const table = address(args, 2), second = address(args, 3), map = address(args, 6);
  const shared: f32 = hasNestedScales(format) ? load<f32>(address(args, 4)) : 0;
  let total = f32x4.splat(0);
  let rest: f32 = 0;
  for (let blocks = whole; blocks > 0; blocks -= run, run = length) {
    run = min(run, blocks);
    const zeroPoint = zeroAt(format, second, index);
    const zero = format == UINT8 ? i16x8.splat(<i16>zeroPoint) : i32x4.splat(zeroPoint);
    let d: f32 = 0;
    if (recordBytes(format) > 0) {
      d = half(at);
      if (hasOffsets(format)) {
        rest += half(at + 2) * load<f32>(sums);
        sums += 4;
      }
    } else if (isCodebook(format)) {
      d = hasNestedScales(format)
        ? load<f32>(map + ((<usize>load<u8>(table + <usize>index)) << 2)) * load<f32>(second + ((<usize>(index >> 8)) << 2)) + shared
        : load<f32>(table + ((<usize>index) << 2));
    } else d = scaleAt(format, table, second, map, shared, index);
    let a0 = f32x4.splat(0), a1 = a0, a2 = a0, a3 = a0;
    for (let i = run; i > 0; i--) {
      if (isCodebook(format)) {
        const codes = v128.load(at);
        const evens = upperHalves(codes, mask), odds = v128.and(codes, mask);
        let b0 = lookUp(t0, evens), b1 = lookUp(t1, evens), b2 = lookUp(t2, evens), b3 = lookUp(t3, evens);
        let lower = i8x16.shuffle(b0, b1, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        let upper = i8x16.shuffle(b2, b3, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        a0 = madd(i16x8.shuffle(lower, upper, 0, 8, 1, 9, 2, 10, 3, 11), v128.load(x), a0);
        a1 = madd(i16x8.shuffle(lower, upper, 4, 12, 5, 13, 6, 14, 7, 15), v128.load(x, 16), a1);
        lower = i8x16.shuffle(b0, b1, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        upper = i8x16.shuffle(b2, b3, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        a2 = madd(i16x8.shuffle(lower, upper, 0, 8, 1, 9, 2, 10, 3, 11), v128.load(x, 32), a2);
        a3 = madd(i16x8.shuffle(lower, upper, 4, 12, 5, 13, 6, 14, 7, 15), v128.load(x, 48), a3);
        b0 = lookUp(t0, odds);
        b1 = lookUp(t1, odds);
        b2 = lookUp(t2, odds);
        b3 = lookUp(t3, odds);
        lower = i8x16.shuffle(b0, b1, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        upper = i8x16.shuffle(b2, b3, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        a0 = madd(i16x8.shuffle(lower, upper, 0, 8, 1, 9, 2, 10, 3, 11), v128.load(x, 64), a0);
        a1 = madd(i16x8.shuffle(lower, upper, 4, 12, 5, 13, 6, 14, 7, 15), v128.load(x, 80), a1);
        lower = i8x16.shuffle(b0, b1, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        upper = i8x16.shuffle(b2, b3, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        a2 = madd(i16x8.shuffle(lower, upper, 0, 8, 1, 9, 2, 10, 3, 11), v128.load(x, 96), a2);
        a3 = madd(i16x8.shuffle(lower, upper, 4, 12, 5, 13, 6, 14, 7, 15), v128.load(x, 112), a3);
      } else if (format == INT8 || format == UINT8 || format == Q8_0) {
        let codes = byteCodes(format, at, 0, zero);
        a0 = madd(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(codes)), v128.load(x), a0);
        a1 = madd(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(codes)), v128.load(x, 16), a1);
        codes = byteCodes(format, at, 1, zero);
        a2 = madd(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(codes)), v128.load(x, 32), a2);
        a3 = madd(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(codes)), v128.load(x, 48), a3);
        codes = byteCodes(format, at, 2, zero);
        a0 = madd(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(codes)), v128.load(x, 64), a0);
        a1 = madd(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(codes)), v128.load(x, 80), a1);
        codes = byteCodes(format, at, 3, zero);
        a2 = madd(f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(codes)), v128.load(x, 96), a2);
        a3 = madd(f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(codes)), v128.load(x, 112), a3);
      } else {
        let words = nibbleBytes(format, at);
        if (isSignedNibbles(format)) words = v128.xor(words, i8x16.splat(-120));
        a0 = madd(nibbleFloats(format, words, 0, zero), v128.load(x), a0);
        a1 = madd(nibbleFloats(format, words, 1, zero), v128.load(x, 16), a1);
        a2 = madd(nibbleFloats(format, words, 2, zero), v128.load(x, 32), a2);
        a3 = madd(nibbleFloats(format, words, 3, zero), v128.load(x, 48), a3);
        a0 = madd(nibbleFloats(format, words, 4, zero), v128.load(x, 64), a0);
        a1 = madd(nibbleFloats(format, words, 5, zero), v128.load(x, 80), a1);
        a2 = madd(nibbleFloats(format, words, 6, zero), v128.load(x, 96), a2);
        a3 = madd(nibbleFloats(format, words, 7, zero), v128.load(x, 112), a3);
      }
      at += blockStep(format);
      x += 128;
    }
    total = madd(f32x4.add(f32x4.add(a0, a1), f32x4.add(a2, a3)), f32x4.splat(d), total);
    index++;
  }
  let result = laneSum(total) + rest;
  if (isGrouped(format) && (k & 31) > 0) {
    decode(args, row, whole << 5, k & 31, spare, spare);
    for (let place = 0; place < 32; place++) {
      const element = elementAt(format, place);
      if (element < (k & 31)) result += load<f32>(spare + ((<usize>element) << 2)) * load<f32>(x + ((<usize>place) << 2));
    }
  }
  store<f32>(out, result);
}

// One function a format: the compilers' work grows faster than a function's length.
function exactQ4_0(args: usize, row: i32, k: i32, x: usize, out: usize, spare: usize): void {
  exactRow(Q4_0, args, row, k, x, out, spare);
}
function exactQ4_1(args: usize, row: i32, k: i32, x: usize, out: usize, spare: usize): void {
  exactRow(Q4_1, args, row, k, x, out, spare);
}
function exactQ8_0(args: usize, row: i32, k: i32, x: usize, out: usize, spare: usize): void {
  exactRow(Q8_0, args, row, k, x, out, spare);
}
function exactINT8(args: usize, row: i32, k: i32, x: usize, out: usize, spare: usize): void {
  exactRow(INT8, args, row, k, x, out, spare);
}
function exactUINT8(args: usize, row: i32, k: i32, x: usize, out: usize, spare: usize): void {
  exactRow(UINT8, args, row, k, x, out, spare);
}
function exactINT4(args: usize, row: i32, k: i32, x: usize, out: usize, spare: usize): void {
  exactRow(INT4, args, row, k, x, out, spare);
}
function exactUINT4(args: usize, row: i32, k: i32, x: usize, out: usize, spare: usize): void {
  exactRow(UINT4, args, row, k, x, out, spare);
}
function exactNF4(args: usize, row: i32, k: i32, x: usize, out: usize, spare: usize): void {
  exactRow(NF4, args, row, k, x, out, spare);
}
function exactNF4_SINGLE(args: usize, row: i32, k: i32, x: usize, out: usize, spare: usize): void {
  exactRow(NF4_SINGLE, args, row, k, x, out, spare);
}
function exactFP4(args: usize, row: i32, k: i32, x: usize, out: usize, spare: usize): void {
  exactRow(FP4, args, row, k, x, out, spare);
}
function exactFP4_SINGLE(args: usize, row: i32, k: i32, x: usize, out: usize, spare: usize): void {
  exactRow(FP4_SINGLE, args, row, k, x, out, spare);
}

/**
 * C [n] = x·Wᵀ for a row made by arrangeRow. A unit is a column of C. Formats: Q4_0, Q4_1, Q8_0, the integer ones, and, with k a multiple
 * of 32, those with a codebook. Integers after the weight's: that row, C. Scratch: 128 bytes.
 */
export function multiplyRow(args: usize, begin: i32, end: i32, scratch: usize): void {
  const format = int(args, 0), k = int(args, 5);
  const x = address(args, WEIGHT_ARGUMENTS), c = address(args, WEIGHT_ARGUMENTS + 1);
  for (let j = begin; j < end; j++) {
    const out = c + ((<usize>j) << 2);
    switch (format) {
      case Q4_0: exactQ4_0(args, j, k, x, out, scratch); break;
      case Q4_1: exactQ4_1(args, j, k, x, out, scratch); break;
      case Q8_0: exactQ8_0(args, j, k, x, out, scratch); break;
      case INT8: exactINT8(args, j, k, x, out, scratch); break;
      case UINT8: exactUINT8(args, j, k, x, out, scratch); break;
      case INT4: exactINT4(args, j, k, x, out, scratch); break;
      case UINT4: exactUINT4(args, j, k, x, out, scratch); break;
      case NF4: exactNF4(args, j, k, x, out, scratch); break;
      case NF4_SINGLE: exactNF4_SINGLE(args, j, k, x, out, scratch); break;
      case FP4: exactFP4(args, j, k, x, out, scratch); break;
      case FP4_SINGLE: exactFP4_SINGLE(args, j, k, x, out, scratch); break;
    }
  }
}
