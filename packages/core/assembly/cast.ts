// Casts of contiguous elements. All go through float32, 512 elements at a time in the thread's scratch, when neither
// side is float32: each dtype needs one reader and one writer. Same dtype is a copy and does not come here.
//
// Arguments: 0 elements, 1 elements per unit (a multiple of 16), 2 out, 3 x, 4 code of out's dtype, 5 code of x's.
// Codes: 0 float32, 1 float16, 2 bfloat16, 3 int32, 4 int8, 5 uint8, 6 bool.

import { address, int } from "./abi";

const F32: i32 = 0;
const F16: i32 = 1;
const BF16: i32 = 2;
const I32: i32 = 3;
const I8: i32 = 4;
const U8: i32 = 5;
const BOOL: i32 = 6;

const CHUNK: i32 = 512;

// @ts-ignore: decorator
@inline
function bytesOf(code: i32): i32 {
  return code == F32 || code == I32 ? 4 : code == F16 || code == BF16 ? 2 : 1;
}

/** float16 bits in int32 lanes → float32. The product with 2^112 moves the exponent, denormals included. */
// @ts-ignore: decorator
@inline
export function halfToFloat4(h: v128): v128 {
  const magnitude = v128.and(h, i32x4.splat(0x7fff));
  let y = f32x4.mul(i32x4.shl(magnitude, 13), f32x4.splat(5192296858534827628530496329220096.0));
  const special = i32x4.gt_s(magnitude, i32x4.splat(0x7bff)); // ∞ and NaN: exponent 31 becomes 255
  y = v128.or(y, v128.and(special, i32x4.splat(0x7f800000)));
  return v128.or(y, i32x4.shl(v128.and(h, i32x4.splat(0x8000)), 16));
}

/** float32 → float16 bits in int32 lanes, to nearest even. After F. Giesen, float_to_half_SSE2. */
// @ts-ignore: decorator
@inline
export function floatToHalf4(x: v128): v128 {
  const sign = v128.and(x, i32x4.splat(0x80000000));
  const a = v128.xor(x, sign);
  // Normal results: rebias, then add just under half a unit and the unit's own lowest bit, so that ties go to even.
  const odd = v128.and(i32x4.shr_u(a, 13), i32x4.splat(1));
  const normal = i32x4.shr_u(i32x4.add(i32x4.add(a, i32x4.splat(<i32>0xc8000fff)), odd), 13);
  // Denormal results: adding ½ lets the float adder do shift and rounding.
  const denormal = i32x4.sub(f32x4.add(a, f32x4.splat(0.5)), i32x4.splat(0x3f000000));
  let y = v128.bitselect(denormal, normal, i32x4.lt_s(a, i32x4.splat(0x38800000)));
  const huge = i32x4.gt_s(a, i32x4.splat(0x477fffff)); // 65536 and above
  const nan = i32x4.gt_s(a, i32x4.splat(0x7f800000));
  y = v128.bitselect(i32x4.splat(0x7c00), y, huge);
  y = v128.bitselect(v128.or(i32x4.splat(0x7e00), v128.and(i32x4.shr_u(a, 13), i32x4.splat(0x3ff))), y, nan);
  return v128.or(y, i32x4.shr_u(sign, 16));
}

/** float32 → bfloat16 bits in int32 lanes, to nearest even; a NaN stays one. */
// @ts-ignore: decorator
@inline
export function floatToBrain4(x: v128): v128 {
  const odd = v128.and(i32x4.shr_u(x, 16), i32x4.splat(1));
  const y = i32x4.shr_u(i32x4.add(i32x4.add(x, i32x4.splat(0x7fff)), odd), 16);
  const quiet = v128.or(i32x4.shr_u(x, 16), i32x4.splat(0x40));
  return v128.bitselect(quiet, y, f32x4.ne(x, x));
}

/**
 * int32 → float32 that later rounds to bfloat16 as the integer itself would: from 2^24 on the low byte is folded into
 * one sticky bit, so that the first rounding is exact.
 */
// @ts-ignore: decorator
@inline
function stickyFloat4(x: v128): v128 {
  const low = i32x4.ne(v128.and(x, i32x4.splat(0xff)), i32x4.splat(0));
  const folded = v128.or(v128.and(x, i32x4.splat(~0xff)), v128.and(low, i32x4.splat(0x100)));
  const large = i32x4.gt_u(i32x4.abs(x), i32x4.splat(0xffffff));
  return f32x4.convert_i32x4_s(v128.bitselect(folded, x, large));
}

// @ts-ignore: decorator
@inline
function read4(code: i32, src: usize): v128 {
  if (code == F16) return halfToFloat4(v128.load_ext<u16>(src));
  if (code == BF16) return i32x4.shl(v128.load_ext<u16>(src), 16);
  if (code == I32) return f32x4.convert_i32x4_s(v128.load(src));
  if (code == I8) return f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(i16x8.extend_low_i8x16_s(v128.load32_zero(src))));
  return f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_u(i16x8.extend_low_i8x16_u(v128.load32_zero(src))));
}

// @ts-ignore: decorator
@inline
function read1(code: i32, src: usize): v128 {
  if (code == F16) return halfToFloat4(i32x4.splat(load<u16>(src)));
  if (code == BF16) return i32x4.splat((<i32>load<u16>(src)) << 16);
  if (code == I32) return f32x4.splat(<f32>load<i32>(src));
  if (code == I8) return f32x4.splat(<f32>load<i8>(src));
  return f32x4.splat(<f32>load<u8>(src));
}

/** To int32 lanes that hold the result's bits. */
// @ts-ignore: decorator
@inline
function convert(code: i32, x: v128): v128 {
  if (code == F16) return floatToHalf4(x);
  if (code == BF16) return floatToBrain4(x);
  if (code == I32) return i32x4.trunc_sat_f32x4_s(x);
  if (code == I8) {
    return i32x4.min_s(i32x4.max_s(i32x4.trunc_sat_f32x4_s(x), i32x4.splat(-128)), i32x4.splat(127));
  }
  if (code == U8) return i32x4.min_s(i32x4.max_s(i32x4.trunc_sat_f32x4_s(x), i32x4.splat(0)), i32x4.splat(255));
  return v128.and(f32x4.ne(x, i32x4.splat(0)), i32x4.splat(1));
}

// @ts-ignore: decorator
@inline
function readBlock(code: i32, dst: usize, src: usize, n: i32): void {
  const bytes = <usize>bytesOf(code);
  const stop = dst + ((<usize>n) << 2);
  const whole = dst + ((<usize>(n & ~3)) << 2);
  for (; dst < whole; dst += 16, src += 4 * bytes) v128.store(dst, read4(code, src));
  for (; dst < stop; dst += 4, src += bytes) v128.store_lane<u32>(dst, read1(code, src), 0);
}

function readSticky(dst: usize, src: usize, n: i32): void {
  const stop = dst + ((<usize>n) << 2);
  const whole = dst + ((<usize>(n & ~3)) << 2);
  for (; dst < whole; dst += 16, src += 16) v128.store(dst, stickyFloat4(v128.load(src)));
  for (; dst < stop; dst += 4, src += 4) v128.store_lane<u32>(dst, stickyFloat4(v128.load32_zero(src)), 0);
}

function toFloat(code: i32, dst: usize, src: usize, n: i32): void {
  if (code == F16) readBlock(F16, dst, src, n);
  else if (code == BF16) readBlock(BF16, dst, src, n);
  else if (code == I32) readBlock(I32, dst, src, n);
  else if (code == I8) readBlock(I8, dst, src, n);
  else readBlock(U8, dst, src, n);
}

// @ts-ignore: decorator
@inline
function writeBlock(code: i32, dst: usize, src: usize, n: i32): void {
  const bytes = <usize>bytesOf(code);
  const stop = dst + <usize>n * bytes;
  const whole = dst + <usize>(n & ~7) * bytes;
  for (; dst < whole; dst += 8 * bytes, src += 32) {
    const a = convert(code, v128.load(src));
    const b = convert(code, v128.load(src, 16));
    if (bytes == 4) {
      v128.store(dst, a);
      v128.store(dst, b, 16);
    } else {
      // The low halves of the lanes, in order.
      const halves = i16x8.shuffle(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
      if (bytes == 2) v128.store(dst, halves);
      else v128.store_lane<u64>(dst, i8x16.shuffle(halves, halves, 0, 2, 4, 6, 8, 10, 12, 14, 0, 2, 4, 6, 8, 10, 12, 14), 0);
    }
  }
  for (; dst < stop; dst += bytes, src += 4) {
    const bits = i32x4.extract_lane(convert(code, v128.load32_zero(src)), 0);
    if (bytes == 4) store<i32>(dst, bits);
    else if (bytes == 2) store<u16>(dst, <u16>bits);
    else store<u8>(dst, <u8>bits);
  }
}

function fromFloat(code: i32, dst: usize, src: usize, n: i32): void {
  if (code == F16) writeBlock(F16, dst, src, n);
  else if (code == BF16) writeBlock(BF16, dst, src, n);
  else if (code == I32) writeBlock(I32, dst, src, n);
  else if (code == I8) writeBlock(I8, dst, src, n);
  else if (code == U8) writeBlock(U8, dst, src, n);
  else writeBlock(BOOL, dst, src, n);
}

export function cast(args: usize, begin: i32, end: i32, scratch: usize): void {
  const block = int(args, 1);
  const to = int(args, 4);
  const from = int(args, 5);
  const stop = <usize>min<i64>(<i64>end * block, <i64>load<u32>(args));
  const dst = address(args, 2);
  const src = address(args, 3);
  for (let i = <usize>begin * <usize>block; i < stop; i += CHUNK) {
    const n = <i32>min<usize>(CHUNK, stop - i);
    const d = dst + i * <usize>bytesOf(to);
    const s = src + i * <usize>bytesOf(from);
    if (to == F32) toFloat(from, d, s, n);
    else if (from == F32) fromFloat(to, d, s, n);
    else {
      if (from == I32 && to == BF16) readSticky(scratch, s, n);
      else toFloat(from, scratch, s, n);
      fromFloat(to, d, scratch, n);
    }
  }
}
