// What the decoders share: codes of one byte and of half a byte to scaled floats. Every product and every sum is rounded
// on its own, as in src/formats.

/** Masks the low half of each byte. */
export const nibbleMask = memory.data<u8>([15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15], 16);

/** The float16 at `at`; no infinities and NaNs. */
// @ts-ignore: decorator
@inline
export function half(at: usize): f32 {
  const h = <u32>load<u16>(at);
  // The exponent's bias differs by 112, in subnormals too.
  return reinterpret<f32>(((h & 0x7fff) << 13) | ((h & 0x8000) << 16)) * reinterpret<f32>(0x77800000);
}

/** The bits of a float32 as float16, rounded to nearest, ties to even; magnitudes below 65520. */
export function toHalf(value: f32): u32 {
  const bits = reinterpret<u32>(value);
  const sign = (bits >> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  // Subnormal: adding 0.5 rounds to units of 2⁻²⁴ in the float's own rounding.
  if (magnitude < 0x38800000) {
    return sign | (reinterpret<u32>(reinterpret<f32>(magnitude) + 0.5) - 0x3f000000);
  }
  return sign | ((magnitude + 0x0fff + ((magnitude >> 13) & 1) - 0x38000000) >> 13);
}

/** The float16s at `at` and `step`, 2 · `step` and 3 · `step` bytes on. */
// @ts-ignore: decorator
@inline
export function halves(at: usize, step: usize): v128 {
  let h = v128.load16_lane(at, i32x4.splat(0), 0);
  h = v128.load16_lane(at + step, h, 2);
  h = v128.load16_lane(at + 2 * step, h, 4);
  h = v128.load16_lane(at + 3 * step, h, 6);
  const sign = v128.and(h, i32x4.splat(0x8000));
  const bits = v128.or(i32x4.shl(v128.xor(h, sign), 13), i32x4.shl(sign, 16));
  return f32x4.mul(bits, f32x4.splat(reinterpret<f32>(0x77800000)));
}

// 16-entry table look-up; indices are below 16, so the relaxed form does the same.
// @ts-ignore: decorator
@inline
export function lookUp(table: v128, codes: v128): v128 {
  return i8x16.relaxed_swizzle(table, codes);
}

// Stores 16 floats, given as planes of their bytes, times `scale`.
// @ts-ignore: decorator
@inline
export function storePlanes(b0: v128, b1: v128, b2: v128, b3: v128, scale: v128, out: usize): void {
  const low = i8x16.shuffle(b0, b1, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const high = i8x16.shuffle(b2, b3, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const low2 = i8x16.shuffle(b0, b1, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  const high2 = i8x16.shuffle(b2, b3, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  v128.store(out, f32x4.mul(scale, i16x8.shuffle(low, high, 0, 8, 1, 9, 2, 10, 3, 11)));
  v128.store(out, f32x4.mul(scale, i16x8.shuffle(low, high, 4, 12, 5, 13, 6, 14, 7, 15)), 16);
  v128.store(out, f32x4.mul(scale, i16x8.shuffle(low2, high2, 0, 8, 1, 9, 2, 10, 3, 11)), 32);
  v128.store(out, f32x4.mul(scale, i16x8.shuffle(low2, high2, 4, 12, 5, 13, 6, 14, 7, 15)), 48);
}

/** Stores 8 floats: int8 codes at `from` times `scale`. */
// @ts-ignore: decorator
@inline
export function storeInt8(from: usize, scale: v128, out: usize): void {
  const codes = v128.load8x8_s(from);
  v128.store(out, f32x4.mul(scale, f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(codes))));
  v128.store(out, f32x4.mul(scale, f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(codes))), 16);
}

/** Stores 16 floats: scale · code for int8 codes. */
// @ts-ignore: decorator
@inline
export function storeCodes(codes: v128, scale: v128, out: usize): void {
  const low = i16x8.extend_low_i8x16_s(codes), high = i16x8.extend_high_i8x16_s(codes);
  v128.store(out, f32x4.mul(scale, f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(low))));
  v128.store(out, f32x4.mul(scale, f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(low))), 16);
  v128.store(out, f32x4.mul(scale, f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(high))), 32);
  v128.store(out, f32x4.mul(scale, f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(high))), 48);
}

/** Stores 16 floats: scale · code + offset for int8 codes. */
// @ts-ignore: decorator
@inline
export function storeShiftedCodes(codes: v128, scale: v128, offset: v128, out: usize): void {
  const low = i16x8.extend_low_i8x16_s(codes), high = i16x8.extend_high_i8x16_s(codes);
  const x0 = f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(low));
  const x1 = f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(low));
  const x2 = f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(high));
  const x3 = f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(high));
  v128.store(out, f32x4.add(f32x4.mul(scale, x0), offset));
  v128.store(out, f32x4.add(f32x4.mul(scale, x1), offset), 16);
  v128.store(out, f32x4.add(f32x4.mul(scale, x2), offset), 32);
  v128.store(out, f32x4.add(f32x4.mul(scale, x3), offset), 48);
}

/** The upper halves of 16 bytes. */
// @ts-ignore: decorator
@inline
export function upperHalves(bytes: v128, mask: v128): v128 {
  return v128.and(i16x8.shr_u(bytes, 4), mask);
}
