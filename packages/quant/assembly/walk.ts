// The way along the packed blocks of a row of a weight: for integer dot products with one row of activations (activations.ts) or
// two, where the codes never leave the registers, and for unpacking them. Everything here is inlined, with the format a constant.

import { address, laneSum, madd } from "../../core/assembly/abi";
import { half, halves, nibbleMask } from "./codes";
import {
  biasOf, blockAddress, blockStep, codebookValues, firstCodes, firstTable, hasNestedScales, hasOffsets, isCodebook, isGrouped,
  isNibbles, isUnsigned7, nibbleBytes, nibbles, recordBytes, runLength, scaleAt, scaleIndex, secondCodes, secondTable,
  tailCodes, wholeRun, zeroAt,
} from "./integers";
import { INT8, Q8_0, UINT8 } from "./weight";

/** What is done with a row of a weight. */
export const ONE: i32 = 0;
export const TWO: i32 = 1;
export const UNPACK: i32 = 2;

// A block's products in four lanes.
// @ts-ignore: decorator
@inline
export function blockSums(w0: v128, w1: v128, w2: v128, w3: v128, a: usize): v128 {
  const s0 = i32x4.dot_i16x8_s(w0, v128.load(a)), s1 = i32x4.dot_i16x8_s(w1, v128.load(a, 16));
  const s2 = i32x4.dot_i16x8_s(w2, v128.load(a, 32)), s3 = i32x4.dot_i16x8_s(w3, v128.load(a, 48));
  return f32x4.convert_i32x4_s(i32x4.add(i32x4.add(s0, s1), i32x4.add(s2, s3)));
}

// @ts-ignore: decorator
@inline
function blockSums8(first: v128, second: v128, a: usize): v128 {
  const s = i32x4.relaxed_dot_i8x16_i7x16_add_s(v128.load(a), first, i32x4.splat(0));
  return f32x4.convert_i32x4_s(i32x4.relaxed_dot_i8x16_i7x16_add_s(v128.load(a, 16), second, s));
}

/**
 * Walks over `blocks` whole blocks from block `block` of row `row` on, and over the last `tail` columns.
 * ONE, TWO: C at `out` (and `outStep` bytes on) = the row times the activations at `codes` (and `step` bytes on).
 * UNPACK: codes to `codes`, scales to `scales` and offsets to `sums`, `outStep` bytes apart.
 * `bytewise`: whether the activations' int8 codes may be used.
 */
// @ts-ignore: decorator
@inline
export function walk(
  format: i32, mode: i32, bytewise: bool, args: usize, row: i32, block: i32, blocks: i32, tail: i32,
  codes: usize, scales: usize, sums: usize, bytes: usize, step: usize, out: usize, outStep: usize, spare: usize,
): void {
  const mask = v128.load(nibbleMask);
  const relaxed = bytewise && isUnsigned7(format) && mode != UNPACK;
  const table0 = firstTable(format), table1 = secondTable(format);
  let at = blockAddress(format, args, row, block);
  let acc = f32x4.splat(0), acc2 = acc;
  let rest: f32 = 0, rest2: f32 = 0;
  // V8 reads arguments anew in every round of a loop.
  const table = address(args, 2), second = address(args, 3), map = address(args, 6), length = wholeRun(format, args);
  const shared: f32 = hasNestedScales(format) ? load<f32>(address(args, 4)) : 0;
  let index = scaleIndex(format, args, row, block);
  let run = runLength(format, args, row, block);
  while (blocks > 0) {
    run = min(run, blocks);
    let d = scaleAt(format, table, second, map, shared, index);
    const zero = zeroAt(format, second, index);
    const bias = i8x16.splat(<i8>zero), bias16 = i16x8.splat(<i16>zero);
    let shift: f32 = relaxed ? d * <f32>-zero : 0;
    block += run;
    blocks -= run;
    for (let i = run; i > 0; i--) {
      if (recordBytes(format) > 0) {
        d = half(at);
        if (hasOffsets(format)) shift = half(at + 2);
        else if (relaxed) shift = d * <f32>-biasOf(format);
      }
      if (relaxed) {
        const low = firstCodes(format, at, mask, table0), high = secondCodes(format, at, mask, table1);
        acc = madd(blockSums8(low, high, bytes), f32x4.splat(d * load<f32>(scales)), acc);
        rest += shift * load<f32>(sums);
        if (mode == TWO) {
          acc2 = madd(blockSums8(low, high, bytes + step), f32x4.splat(d * load<f32>(scales + step)), acc2);
          rest2 += shift * load<f32>(sums + step);
        }
        bytes += 32;
        scales += 4;
        sums += 4;
      } else {
        let w0: v128, w1: v128, w2: v128, w3: v128;
        if (format == UINT8) {
          w0 = i16x8.sub(v128.load8x8_u(at), bias16);
          w1 = i16x8.sub(v128.load8x8_u(at, 8), bias16);
          w2 = i16x8.sub(v128.load8x8_u(at, 16), bias16);
          w3 = i16x8.sub(v128.load8x8_u(at, 24), bias16);
        } else if (format == INT8) {
          w0 = v128.load8x8_s(at);
          w1 = v128.load8x8_s(at, 8);
          w2 = v128.load8x8_s(at, 16);
          w3 = v128.load8x8_s(at, 24);
        } else if (format == Q8_0) {
          w0 = v128.load8x8_s(at, 2);
          w1 = v128.load8x8_s(at, 10);
          w2 = v128.load8x8_s(at, 18);
          w3 = v128.load8x8_s(at, 26);
        } else if (isNibbles(format)) {
          const packed = nibbleBytes(format, at), mask16 = i16x8.splat(15);
          w0 = nibbles(packed, 0, mask16);
          w1 = nibbles(packed, 1, mask16);
          w2 = nibbles(packed, 2, mask16);
          w3 = nibbles(packed, 3, mask16);
          if (!hasOffsets(format)) {
            w0 = i16x8.sub(w0, bias16);
            w1 = i16x8.sub(w1, bias16);
            w2 = i16x8.sub(w2, bias16);
            w3 = i16x8.sub(w3, bias16);
          }
        } else {
          let low = firstCodes(format, at, mask, table0), high = secondCodes(format, at, mask, table1);
          if (isCodebook(format)) {
            w0 = codebookValues(low, table0, table1, false);
            w1 = codebookValues(low, table0, table1, true);
            w2 = codebookValues(high, table0, table1, false);
            w3 = codebookValues(high, table0, table1, true);
          } else {
            if (!hasOffsets(format)) {
              low = i8x16.sub(low, bias);
              high = i8x16.sub(high, bias);
            }
            w0 = i16x8.extend_low_i8x16_s(low);
            w1 = i16x8.extend_high_i8x16_s(low);
            w2 = i16x8.extend_low_i8x16_s(high);
            w3 = i16x8.extend_high_i8x16_s(high);
          }
        }
        if (mode == UNPACK) {
          v128.store(codes, w0);
          v128.store(codes, w1, 16);
          v128.store(codes, w2, 32);
          v128.store(codes, w3, 48);
          store<f32>(scales, d);
          if (hasOffsets(format)) store<f32>(sums, shift);
          scales += outStep;
          sums += outStep;
        } else {
          acc = madd(blockSums(w0, w1, w2, w3, codes), f32x4.splat(d * load<f32>(scales)), acc);
          if (hasOffsets(format)) rest += shift * load<f32>(sums);
          if (mode == TWO) {
            const a = codes + step;
            acc2 = madd(blockSums(w0, w1, w2, w3, a), f32x4.splat(d * load<f32>(scales + step)), acc2);
            if (hasOffsets(format)) rest2 += shift * load<f32>(sums + step);
          }
          scales += 4;
          if (hasOffsets(format)) sums += 4;
        }
        codes += 64;
      }
      at += blockStep(format);
    }
    index++;
    run = length;
  }
  if (isGrouped(format) && tail > 0) {
    const to = mode == UNPACK ? codes : spare;
    tailCodes(format, args, row, block, tail, to);
    const d = scaleAt(format, table, second, map, shared, scaleIndex(format, args, row, block));
    if (mode == UNPACK) store<f32>(scales, d);
    else {
      // After bytewise blocks `codes` still stands where it began.
      const a = relaxed ? codes + ((<usize>block) << 6) : codes;
      const w0 = v128.load(to), w1 = v128.load(to, 16), w2 = v128.load(to, 32), w3 = v128.load(to, 48);
      acc = madd(blockSums(w0, w1, w2, w3, a), f32x4.splat(d * load<f32>(scales)), acc);
      if (mode == TWO) {
        acc2 = madd(blockSums(w0, w1, w2, w3, a + step), f32x4.splat(d * load<f32>(scales + step)), acc2);
      }
    }
  }
  if (mode != UNPACK) store<f32>(out, laneSum(acc) + rest);
  if (mode == TWO) store<f32>(out + outStep, laneSum(acc2) + rest2);
}

// The products of the block at `at`, in four lanes.
// @ts-ignore: decorator
@inline
function recordSums(
  format: i32, bytewise: bool, at: usize, a: usize, mask: v128, table0: v128, table1: v128, bias: v128,
): v128 {
  if (format == Q8_0) {
    return blockSums(
      v128.load8x8_s(at, 2), v128.load8x8_s(at, 10), v128.load8x8_s(at, 18), v128.load8x8_s(at, 26), a,
    );
  }
  if (isNibbles(format) && !bytewise) {
    const packed = nibbleBytes(format, at), mask16 = i16x8.splat(15);
    const w0 = nibbles(packed, 0, mask16), w1 = nibbles(packed, 1, mask16);
    return blockSums(w0, w1, nibbles(packed, 2, mask16), nibbles(packed, 3, mask16), a);
  }
  let first = firstCodes(format, at, mask, table0), second = secondCodes(format, at, mask, table1);
  if (bytewise) return blockSums8(first, second, a);
  if (!hasOffsets(format)) {
    first = i8x16.sub(first, bias);
    second = i8x16.sub(second, bias);
  }
  const w0 = i16x8.extend_low_i8x16_s(first), w1 = i16x8.extend_high_i8x16_s(first);
  return blockSums(w0, w1, i16x8.extend_low_i8x16_s(second), i16x8.extend_high_i8x16_s(second), a);
}

/** As `walk` in mode ONE, for formats with records: several at a time, their scales too where that is faster. */
// @ts-ignore: decorator
@inline
export function recordRow(
  format: i32, bytewise: bool, args: usize, row: i32, blocks: i32, codes: usize, scales: usize, sums: usize, bytes: usize,
  out: usize,
): void {
  const record = recordBytes(format);
  const mask = v128.load(nibbleMask);
  const table0 = firstTable(format), table1 = secondTable(format), bias = i8x16.splat(<i8>biasOf(format));
  let at = blockAddress(format, args, row, 0);
  let a = bytewise ? bytes : codes;
  const step: usize = bytewise ? 32 : 64;
  let acc = f32x4.splat(0), acc2 = acc, rest = acc;
  let shift: f32 = 0;
  if (bytewise) {
    for (; blocks >= 4; blocks -= 4) {
      const d = halves(at, record);
      const s = f32x4.mul(d, v128.load(scales));
      if (hasOffsets(format)) rest = madd(halves(at + 2, record), v128.load(sums), rest);
      else rest = madd(d, v128.load(sums), rest);
      acc = madd(recordSums(format, true, at, a, mask, table0, table1, bias), i32x4.shuffle(s, s, 0, 0, 0, 0), acc);
      at += record;
      a += step;
      acc = madd(recordSums(format, true, at, a, mask, table0, table1, bias), i32x4.shuffle(s, s, 1, 1, 1, 1), acc);
      at += record;
      a += step;
      acc = madd(recordSums(format, true, at, a, mask, table0, table1, bias), i32x4.shuffle(s, s, 2, 2, 2, 2), acc);
      at += record;
      a += step;
      acc = madd(recordSums(format, true, at, a, mask, table0, table1, bias), i32x4.shuffle(s, s, 3, 3, 3, 3), acc);
      at += record;
      a += step;
      scales += 16;
      sums += 16;
    }
    shift = laneSum(rest);
  } else {
    for (; blocks >= 2; blocks -= 2) {
      const s = f32x4.splat(half(at) * load<f32>(scales));
      const s2 = f32x4.splat(half(at + record) * load<f32>(scales, 4));
      if (hasOffsets(format)) {
        shift += half(at + 2) * load<f32>(sums);
        shift += half(at + record + 2) * load<f32>(sums, 4);
      } else if (isNibbles(format)) {
        shift += half(at) * load<f32>(sums);
        shift += half(at + record) * load<f32>(sums, 4);
      }
      acc = madd(recordSums(format, false, at, a, mask, table0, table1, bias), s, acc);
      acc2 = madd(recordSums(format, false, at + record, a + 64, mask, table0, table1, bias), s2, acc2);
      at += record << 1;
      a += 128;
      scales += 8;
      sums += 8;
    }
  }
  for (; blocks > 0; blocks--) {
    const d = half(at);
    const s = f32x4.splat(d * load<f32>(scales));
    if (hasOffsets(format)) shift += half(at + 2) * load<f32>(sums);
    else if (bytewise || isNibbles(format)) shift += d * load<f32>(sums);
    acc = madd(recordSums(format, bytewise, at, a, mask, table0, table1, bias), s, acc);
    at += record;
    a += step;
    scales += 4;
    sums += 4;
  }
  // What was not taken off the codes.
  if ((bytewise || isNibbles(format)) && !hasOffsets(format)) shift *= <f32>-biasOf(format);
  store<f32>(out, laneSum(f32x4.add(acc, acc2)) + shift);
}
