// Integer dot products of rows of K-quants with one row of activations (activations.ts), from the registers: 32 codes at a time, times the
// integer part of their scales where 16 elements have one of their own. Everything but the entry is inlined, with format and block
// constants.

import { address, int, laneSum, madd } from "../../core/assembly/abi";
import { scalesOf, sumsOf } from "./activations";
import { half } from "./codes";
import { blockSums } from "./walk";
import { kRecordBytes, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K } from "./weight";

// Bytes shifted to the left by `count` bits, or to the right by −count; what crosses into a neighbour is masked off by the caller.
// @ts-ignore: decorator
@inline
function shifted(bytes: v128, count: i32): v128 {
  return count == 0 ? bytes : count > 0 ? i16x8.shl(bytes, count) : i16x8.shr_u(bytes, -count);
}

/** Elements 16·part to 16·part + 15 of block `block` of 32 of the record at `from`, as int8. */
// @ts-ignore: decorator
@inline
export function kCodes(format: i32, from: usize, block: i32, part: usize): v128 {
  const at = from + (part << 4);
  const quarter = block & 3;
  if (format == Q2_K || format == Q3_K) {
    const codes = v128.load(at + (format == Q2_K ? 16 : 32) + <usize>((block >> 2) << 5));
    const bits = v128.and(shifted(codes, -2 * quarter), i8x16.splat(3));
    if (format == Q2_K) return bits;
    const third = v128.and(shifted(v128.load(at), 2 - block), i8x16.splat(4));
    return i8x16.sub(v128.or(bits, third), i8x16.splat(4));
  }
  if (format == Q6_K) {
    const low = v128.load(at + <usize>(((block >> 2) << 6) + ((quarter & 1) << 5)));
    const high = v128.load(at + 128 + <usize>((block >> 2) << 5));
    const bits = v128.and(shifted(low, quarter > 1 ? -4 : 0), i8x16.splat(15));
    return i8x16.sub(v128.or(bits, v128.and(shifted(high, 4 - 2 * quarter), i8x16.splat(48))), i8x16.splat(32));
  }
  const codes = v128.load(at + (format == Q4_K ? 16 : 48) + <usize>((block >> 1) << 5));
  const bits = v128.and(shifted(codes, block & 1 ? -4 : 0), i8x16.splat(15));
  if (format == Q4_K) return bits;
  return v128.or(bits, v128.and(shifted(v128.load(at, 16), 4 - block), i8x16.splat(16)));
}

/** Formats of which 16 elements have a scale, whose integer part is multiplied into the codes. */
// @ts-ignore: decorator
@inline
function hasSixteenths(format: i32): bool {
  return format == Q2_K || format == Q3_K || format == Q6_K;
}

// Integer parts of the 16 scales, as int16, to `out`.
// @ts-ignore: decorator
@inline
function storeScales(format: i32, from: usize, out: usize): void {
  let scales: v128;
  if (format == Q2_K) scales = v128.and(v128.load(from), i8x16.splat(15));
  else if (format == Q6_K) scales = v128.load(from, 192);
  else {
    // Low halves in eight bytes, upper bits in four: two bits of each for scales j, j + 4, j + 8, j + 12.
    const low = load<u64>(from, 96), high = <u64>load<u32>(from, 104);
    const pairs = high | (high << 30);
    const first = (low & 0x0f0f0f0f0f0f0f0f) | ((pairs & 0x0303030303030303) << 4);
    const second = ((low >> 4) & 0x0f0f0f0f0f0f0f0f) | (((pairs >> 4) & 0x0303030303030303) << 4);
    scales = i8x16.sub(i64x2.replace_lane(i64x2.splat(first), 1, second), i8x16.splat(32));
  }
  v128.store(out, i16x8.extend_low_i8x16_s(scales));
  v128.store(out, i16x8.extend_high_i8x16_s(scales), 16);
}

// acc += block `block` of the record times the activations at x; integer scales and factors stand at `spare`.
// @ts-ignore: decorator
@inline
function addBlock(format: i32, from: usize, block: i32, x: usize, spare: usize, acc: v128): v128 {
  const first = kCodes(format, from, block, 0), second = kCodes(format, from, block, 1);
  let w0 = i16x8.extend_low_i8x16_s(first), w1 = i16x8.extend_high_i8x16_s(first);
  let w2 = i16x8.extend_low_i8x16_s(second), w3 = i16x8.extend_high_i8x16_s(second);
  if (hasSixteenths(format)) {
    const a = v128.load16_splat(spare + <usize>(4 * block)), b = v128.load16_splat(spare + <usize>(4 * block), 2);
    w0 = i16x8.mul(w0, a);
    w1 = i16x8.mul(w1, a);
    w2 = i16x8.mul(w2, b);
    w3 = i16x8.mul(w3, b);
  }
  return madd(blockSums(w0, w1, w2, w3, x + <usize>(block << 6)), v128.load32_splat(spare + <usize>(4 * block), 32), acc);
}

// Four of eight bytes as floats.
// @ts-ignore: decorator
@inline
function floatsOf(bytes: u64, upper: bool): v128 {
  const wide = i16x8.extend_low_i8x16_u(i64x2.splat(bytes));
  return f32x4.convert_i32x4_s(upper ? i32x4.extend_high_i16x8_u(wide) : i32x4.extend_low_i16x8_u(wide));
}

// @ts-ignore: decorator
@inline
function dotRow(format: i32, args: usize, row: i32, k: i32, x: usize, out: usize, spare: usize): void {
  const blocks = k >> 5;
  let scales = scalesOf(x, blocks), sums = sumsOf(x, blocks);
  let from = address(args, 1) + (<usize>row) * (<usize>(k >> 8)) * kRecordBytes(format);
  let acc = f32x4.splat(0), rest = acc;
  for (let i = k >> 8; i > 0; i--) {
    const s0 = v128.load(scales), s1 = v128.load(scales, 16);
    const d = f32x4.splat(half(from + (format == Q2_K ? 80 : format == Q3_K ? 108 : format == Q6_K ? 208 : 0)));
    let f0 = f32x4.mul(d, s0), f1 = f32x4.mul(d, s1);
    if (hasSixteenths(format)) {
      storeScales(format, from, spare);
      if (format == Q2_K) {
        // Here the activations' sums are two int16, of 16 codes each.
        const bytes = v128.and(i16x8.shr_u(v128.load(from), 4), i8x16.splat(15));
        const dmin = f32x4.splat(-half(from + 82));
        const r0 = f32x4.convert_i32x4_s(i32x4.dot_i16x8_s(i16x8.extend_low_i8x16_u(bytes), v128.load(sums)));
        const r1 = f32x4.convert_i32x4_s(i32x4.dot_i16x8_s(i16x8.extend_high_i8x16_u(bytes), v128.load(sums, 16)));
        rest = madd(f32x4.add(f32x4.mul(r0, s0), f32x4.mul(r1, s1)), dmin, rest);
      }
    } else {
      // The 6-bit pairs, a byte each: those of blocks 0 … 3 in the lower halves.
      const a = load<u32>(from, 4), b = load<u32>(from, 8), c = load<u32>(from, 12);
      const factors = <u64>(a & 0x3f3f3f3f) | ((<u64>((c & 0x0f0f0f0f) | ((a >> 2) & 0x30303030))) << 32);
      const minima = <u64>(b & 0x3f3f3f3f) | ((<u64>(((c >> 4) & 0x0f0f0f0f) | ((b >> 2) & 0x30303030))) << 32);
      f0 = f32x4.mul(f0, floatsOf(factors, false));
      f1 = f32x4.mul(f1, floatsOf(factors, true));
      const r = madd(
        floatsOf(minima, false), v128.load(sums), f32x4.mul(floatsOf(minima, true), v128.load(sums, 16)),
      );
      rest = madd(r, f32x4.splat(-half(from + 2)), rest);
    }
    v128.store(spare, f0, 32);
    v128.store(spare, f1, 48);
    acc = addBlock(format, from, 0, x, spare, acc);
    acc = addBlock(format, from, 1, x, spare, acc);
    acc = addBlock(format, from, 2, x, spare, acc);
    acc = addBlock(format, from, 3, x, spare, acc);
    acc = addBlock(format, from, 4, x, spare, acc);
    acc = addBlock(format, from, 5, x, spare, acc);
    acc = addBlock(format, from, 6, x, spare, acc);
    acc = addBlock(format, from, 7, x, spare, acc);
    from += kRecordBytes(format);
    x += 512;
    scales += 32;
    sums += 32;
  }
  store<f32>(out, laneSum(f32x4.add(acc, rest)));
}

function dotQ2_K(args: usize, row: i32, k: i32, x: usize, out: usize, spare: usize): void {
  dotRow(Q2_K, args, row, k, x, out, spare);
}
function dotQ3_K(args: usize, row: i32, k: i32, x: usize, out: usize, spare: usize): void {
  dotRow(Q3_K, args, row, k, x, out, spare);
}
function dotQ4_K(args: usize, row: i32, k: i32, x: usize, out: usize, spare: usize): void {
  dotRow(Q4_K, args, row, k, x, out, spare);
}
function dotQ5_K(args: usize, row: i32, k: i32, x: usize, out: usize, spare: usize): void {
  dotRow(Q5_K, args, row, k, x, out, spare);
}
function dotQ6_K(args: usize, row: i32, k: i32, x: usize, out: usize, spare: usize): void {
  dotRow(Q6_K, args, row, k, x, out, spare);
}

/** The product of row `row` of a K-quant with a row of activations of k elements. `spare`: 64 bytes. */
export function dotKQuant(args: usize, row: i32, k: i32, x: usize, out: usize, spare: usize): void {
  switch (int(args, 0)) {
    case Q2_K: dotQ2_K(args, row, k, x, out, spare); break;
    case Q3_K: dotQ3_K(args, row, k, x, out, spare); break;
    case Q4_K: dotQ4_K(args, row, k, x, out, spare); break;
    case Q5_K: dotQ5_K(args, row, k, x, out, spare); break;
    case Q6_K: dotQ6_K(args, row, k, x, out, spare); break;
  }
}
