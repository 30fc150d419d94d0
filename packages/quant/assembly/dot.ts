// Integer dot products of a quantized weight with activations quantized to int8 in blocks of 32, for a few rows.
//
// A quantized row of activations: the codes of all blocks as int16 (64 bytes a block), a float32 scale a block, and an
// int32 a block, twice the sum of its codes (Q4_0 subtracts 8 times the sum, in four lanes). For Q4_0 the codes of a block
// stand in the order in which its nibbles come apart: even elements of 0 … 15, of 16 … 31, then odd ones.

import { address, int, laneSum, madd } from "../../core/assembly/abi";
import { half } from "./codes";
import { INT8, Q4_0, Q8_0, WEIGHT_ARGUMENTS } from "./weight";

/** Bytes of a quantized row of activations. */
// @ts-ignore: decorator
@inline
function rowBytes(blocks: i32): usize {
  return (<usize>blocks) * 72;
}

// Place of element j of a block in Q4_0's order.
// @ts-ignore: decorator
@inline
function permuted(j: i32): i32 {
  return ((j & 1) << 4) | ((j >> 4) << 3) | ((j & 15) >> 1);
}

/** Quantizes rows of X [rows×k]. A unit is a row. Integers: number of the format, X, out, rows, k. */
export function quantizeActivations(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const order = int(args, 0) == Q4_0;
  const k = int(args, 4);
  const blocks = (k + 31) >> 5;
  for (let row = begin; row < end; row++) {
    const x = address(args, 1) + (((<usize>row) * (<usize>k)) << 2);
    const codes = address(args, 2) + (<usize>row) * rowBytes(blocks);
    const scales = codes + ((<usize>blocks) << 6);
    const sums = scales + ((<usize>blocks) << 2);
    for (let block = 0; block < blocks; block++) {
      const from = x + ((<usize>block) << 7);
      const to = codes + ((<usize>block) << 6);
      const count = min(32, k - (block << 5));
      let absmax: f32 = 0;
      for (let j = 0; j < count; j++) absmax = max(absmax, abs(load<f32>(from + ((<usize>j) << 2))));
      const scale: f32 = absmax / 127;
      const inverse: f32 = 127 / absmax;
      const usable = isFinite(inverse);
      let sum = 0;
      for (let j = 0; j < 32; j++) {
        const value: f32 = j < count && usable ? load<f32>(from + ((<usize>j) << 2)) * inverse : 0;
        const code = <i32>(nearest(value));
        sum += code;
        store<i16>(to + ((<usize>(order ? permuted(j) : j)) << 1), <i16>code);
      }
      store<f32>(scales + ((<usize>block) << 2), usable ? scale : absmax == 0 ? 0 : absmax * <f32>NaN);
      store<i32>(sums + ((<usize>block) << 2), 2 * sum);
    }
  }
}

// @ts-ignore: decorator
@inline
function blockQ4_0(w: usize, a: usize, sum: usize): v128 {
  const codes = v128.load(w, 2);
  const mask = i16x8.splat(15);
  const s0 = i32x4.dot_i16x8_s(v128.and(codes, mask), v128.load(a));
  const s1 = i32x4.dot_i16x8_s(v128.and(i16x8.shr_u(codes, 4), mask), v128.load(a, 16));
  const s2 = i32x4.dot_i16x8_s(v128.and(i16x8.shr_u(codes, 8), mask), v128.load(a, 32));
  const s3 = i32x4.dot_i16x8_s(i16x8.shr_u(codes, 12), v128.load(a, 48));
  const total = i32x4.add(i32x4.add(s0, s1), i32x4.add(s2, s3));
  return f32x4.convert_i32x4_s(i32x4.sub(total, v128.load32_splat(sum)));
}

function dotQ4_0(w: usize, a: usize, scales: usize, sums: usize, blocks: i32): f32 {
  let x = f32x4.splat(0), y = x;
  let i = 0;
  for (; i + 2 <= blocks; i += 2) {
    x = madd(blockQ4_0(w, a, sums), f32x4.splat(half(w) * load<f32>(scales)), x);
    y = madd(blockQ4_0(w + 18, a + 64, sums + 4), f32x4.splat(half(w + 18) * load<f32>(scales, 4)), y);
    w += 36;
    a += 128;
    scales += 8;
    sums += 8;
  }
  if (i < blocks) x = madd(blockQ4_0(w, a, sums), f32x4.splat(half(w) * load<f32>(scales)), x);
  return laneSum(f32x4.add(x, y));
}

// @ts-ignore: decorator
@inline
function blockInt8(w: usize, a: usize): v128 {
  const s0 = i32x4.dot_i16x8_s(v128.load8x8_s(w), v128.load(a));
  const s1 = i32x4.dot_i16x8_s(v128.load8x8_s(w, 8), v128.load(a, 16));
  const s2 = i32x4.dot_i16x8_s(v128.load8x8_s(w, 16), v128.load(a, 32));
  const s3 = i32x4.dot_i16x8_s(v128.load8x8_s(w, 24), v128.load(a, 48));
  return f32x4.convert_i32x4_s(i32x4.add(i32x4.add(s0, s1), i32x4.add(s2, s3)));
}

function dotQ8_0(w: usize, a: usize, scales: usize, blocks: i32): f32 {
  let x = f32x4.splat(0), y = x;
  let i = 0;
  for (; i + 2 <= blocks; i += 2) {
    x = madd(blockInt8(w + 2, a), f32x4.splat(half(w) * load<f32>(scales)), x);
    y = madd(blockInt8(w + 36, a + 64), f32x4.splat(half(w + 34) * load<f32>(scales, 4)), y);
    w += 68;
    a += 128;
    scales += 8;
  }
  if (i < blocks) x = madd(blockInt8(w + 2, a), f32x4.splat(half(w) * load<f32>(scales)), x);
  return laneSum(f32x4.add(x, y));
}

function dotInt8(w: usize, a: usize, scales: usize, k: i32): f32 {
  let x = f32x4.splat(0), y = x;
  let i = 0;
  for (; i + 64 <= k; i += 64) {
    x = madd(blockInt8(w, a), v128.load32_splat(scales), x);
    y = madd(blockInt8(w + 32, a + 64), v128.load32_splat(scales, 4), y);
    w += 64;
    a += 128;
    scales += 8;
  }
  for (; i + 32 <= k; i += 32) {
    x = madd(blockInt8(w, a), v128.load32_splat(scales), x);
    w += 32;
    a += 64;
    scales += 4;
  }
  let rest = 0;
  for (let j: usize = 0; j < <usize>(k - i); j++) rest += <i32>load<i8>(w + j) * <i32>load<i16>(a + (j << 1));
  const total = laneSum(f32x4.add(x, y));
  return i < k ? total + <f32>rest * load<f32>(scales) : total;
}

/**
 * C [m×n] = X·Wᵀ from rows of X quantized by quantizeActivations. A unit is a column of C. Integers after the weight's:
 * quantized X, m, C, n.
 */
export function multiplyIntegers(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const format = int(args, 0), k = int(args, 5);
  const x = address(args, WEIGHT_ARGUMENTS), c = address(args, WEIGHT_ARGUMENTS + 2);
  const m = int(args, WEIGHT_ARGUMENTS + 1), n = int(args, WEIGHT_ARGUMENTS + 3);
  const blocks = (k + 31) >> 5;
  const data = address(args, 1);
  for (let j = begin; j < end; j++) {
    for (let r = 0; r < m; r++) {
      const codes = x + (<usize>r) * rowBytes(blocks);
      const scales = codes + ((<usize>blocks) << 6);
      const sums = scales + ((<usize>blocks) << 2);
      let result: f32 = 0;
      if (format == Q4_0) {
        result = dotQ4_0(data + (<usize>j) * (<usize>blocks) * 18, codes, scales, sums, blocks);
      } else if (format == Q8_0) {
        result = dotQ8_0(data + (<usize>j) * (<usize>blocks) * 34, codes, scales, blocks);
      } else if (format == INT8) {
        const scale = load<f32>(address(args, 2) + ((<usize>(j * int(args, 8))) << 2));
        result = scale * dotInt8(data + (<usize>j) * (<usize>k), codes, scales, k);
      }
      store<f32>(c + (((<usize>r) * (<usize>n) + <usize>j) << 2), result);
    }
  }
}
