// Casts of rows of contiguous elements. All go through float32, 512 elements at a time in the thread's scratch, when neither
// side is float32: each dtype needs one reader and one writer. Same dtype is a copy and does not come here.
//
// Operands: 0 out, 1 x. Arguments: 4 code of out's dtype, 5 code of x's.
// Codes: 0 float32, 1 float16, 2 bfloat16, 3 int32, 4 int8, 5 uint8, 6 bool.

import { constant, int } from "./abi";
import { advance, nextRun, rowAddress, runBlocks, runStart, seek, STATE_BYTES } from "./odometer";

const F32: i32 = 0;
const F16: i32 = 1;
const BF16: i32 = 2;
const I32: i32 = 3;
const I8: i32 = 4;
const U8: i32 = 5;
const BOOL: i32 = 6;

const CHUNK: i32 = 512;

// Constants that are loaded: V8 builds those that stand in a loop's code anew each time round. For float16 → float32: 2^112, the
// largest finite float16 moved up to float32's exponent, ∞.
const FROM_HALF: usize = memory.data<u32>([0x77800000, 0x0f7fe000, 0x7f800000]);
// float32 → float16: the change of bias and just under half a unit, ½, the least normal float16, ∞, a NaN's bits and its quiet one.
const TO_HALF: usize = memory.data<u32>([0xc8000fff, 0x3f000000, 0x38800000, 0x7c00, 0x3ff, 0x200]);
// float32 → bfloat16: just under half a unit, the quiet bit.
const TO_BRAIN: usize = memory.data<u32>([0x7fff, 0x40]);

// @ts-ignore: decorator
@inline
function bytesOf(code: i32): i32 {
  return code == F32 || code == I32 ? 4 : code == F16 || code == BF16 ? 2 : 1;
}

/** float16 bits in int32 lanes → float32. The product with 2^112 moves the exponent, denormals included. */
// @ts-ignore: decorator
@inline
function halfToFloat4(h: v128): v128 {
  const magnitude = i32x4.shr_u(i32x4.shl(h, 17), 4);
  const y = f32x4.mul(magnitude, constant(FROM_HALF, 0));
  // ∞ and NaN: exponent 31 becomes 255.
  const special = v128.and(i32x4.gt_s(magnitude, constant(FROM_HALF, 1)), constant(FROM_HALF, 2));
  return v128.or(v128.or(y, special), i32x4.shl(i32x4.shr_u(h, 15), 31));
}

/** float32 → float16 bits in int32 lanes, to nearest even. After F. Giesen, float_to_half_SSE2. */
// @ts-ignore: decorator
@inline
function floatToHalf4(x: v128): v128 {
  const a = f32x4.abs(x);
  // Normal results: rebias, then add just under half a unit and the unit's own lowest bit, so that ties go to even.
  const odd = i32x4.shr_u(i32x4.shl(a, 18), 31);
  const normal = i32x4.shr_u(i32x4.add(i32x4.add(a, constant(TO_HALF, 0)), odd), 13);
  // Denormal results: adding ½ lets the float adder do shift and rounding.
  const half = constant(TO_HALF, 1);
  const denormal = i32x4.sub(f32x4.add(a, half), half);
  const y = v128.bitselect(denormal, normal, i32x4.lt_s(a, constant(TO_HALF, 2)));
  const finite = i32x4.min_s(y, constant(TO_HALF, 3));
  const payload = v128.and(v128.or(i32x4.shr_u(a, 13), constant(TO_HALF, 5)), constant(TO_HALF, 4));
  const nan = v128.and(payload, f32x4.ne(x, x));
  return v128.or(v128.or(finite, nan), i32x4.shl(i32x4.shr_u(x, 31), 15));
}

/** float32 → bfloat16 bits in int32 lanes, to nearest even; a NaN stays one. */
// @ts-ignore: decorator
@inline
function floatToBrain4(x: v128): v128 {
  const odd = i32x4.shr_u(i32x4.shl(x, 15), 31);
  const y = i32x4.shr_u(i32x4.add(i32x4.add(x, constant(TO_BRAIN, 0)), odd), 16);
  const quiet = v128.or(i32x4.shr_u(x, 16), constant(TO_BRAIN, 1));
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

/** To int32 lanes, for {@link narrow}. */
// @ts-ignore: decorator
@inline
function convert(code: i32, x: v128): v128 {
  if (code == F16) return floatToHalf4(x);
  if (code == BF16) return floatToBrain4(x);
  if (code == BOOL) return f32x4.ne(x, i32x4.splat(0));
  return i32x4.trunc_sat_f32x4_s(x);
}

/** Eight int32 as elements of 1 or 2 bytes; what does not fit becomes the nearest number that does. */
// @ts-ignore: decorator
@inline
function narrow(code: i32, a: v128, b: v128): v128 {
  if (bytesOf(code) == 2) return i16x8.narrow_i32x4_u(a, b);
  const halves = i16x8.narrow_i32x4_s(a, b);
  if (code == U8) return i8x16.narrow_i16x8_u(halves, halves);
  const bytes = i8x16.narrow_i16x8_s(halves, halves);
  return code == BOOL ? i8x16.abs(bytes) : bytes;
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
    } else if (bytes == 2) v128.store(dst, narrow(code, a, b));
    else v128.store_lane<u64>(dst, narrow(code, a, b), 0);
  }
  for (; dst < stop; dst += bytes, src += 4) {
    const a = convert(code, v128.load32_zero(src));
    if (bytes == 4) v128.store_lane<u32>(dst, a, 0);
    else if (bytes == 2) v128.store_lane<u16>(dst, narrow(code, a, a), 0);
    else v128.store_lane<u8>(dst, narrow(code, a, a), 0);
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
  const to = int(args, 4);
  const from = int(args, 5);
  const place = scratch + STATE_BYTES;
  seek(args, begin / int(args, 1), scratch);
  for (let unit = begin; unit < end; ) {
    const count = nextRun(args, unit, end, scratch);
    const start = runStart(scratch);
    let d = rowAddress(scratch, 0) + start * <usize>bytesOf(to);
    let s = rowAddress(scratch, 1) + start * <usize>bytesOf(from);
    for (let i = 0; i < count; i += CHUNK) {
      const n = min(CHUNK, count - i);
      if (to == F32) toFloat(from, d, s, n);
      else if (from == F32) fromFloat(to, d, s, n);
      else {
        if (from == I32 && to == BF16) readSticky(place, s, n);
        else toFloat(from, place, s, n);
        fromFloat(to, d, place, n);
      }
      d += <usize>(CHUNK * bytesOf(to));
      s += <usize>(CHUNK * bytesOf(from));
    }
    unit += runBlocks(scratch);
    if (unit < end) advance(args, scratch);
  }
}
