// Decoding of ggml's formats with blocks of 32 elements.

import { half, lookUp, nibbleMask, storeInt8, storePlanes, storeShiftedCodes, storeCodes, upperHalves } from "./codes";

// The upper two planes of −8 … 7; the lower two are zero.
const q4Planes = memory.data<u8>(
  [
    0, 224, 192, 160, 128, 64, 0, 128, 0, 128, 0, 64, 128, 160, 192, 224,
    193, 192, 192, 192, 192, 192, 192, 191, 0, 63, 64, 64, 64, 64, 64, 64,
  ],
  16,
);

/** Q4_0: `blocks` blocks. */
export function decodeQ4_0(from: usize, blocks: i32, out: usize): void {
  const p2 = v128.load(q4Planes), p3 = v128.load(q4Planes, 16), mask = v128.load(nibbleMask);
  const zero = i8x16.splat(0);
  for (let i = 0; i < blocks; i++) {
    const d = f32x4.splat(half(from));
    const codes = v128.load(from, 2);
    const low = v128.and(codes, mask), high = upperHalves(codes, mask);
    storePlanes(zero, zero, lookUp(p2, low), lookUp(p3, low), d, out);
    storePlanes(zero, zero, lookUp(p2, high), lookUp(p3, high), d, out + 64);
    from += 18;
    out += 128;
  }
}

export function decodeQ8_0(from: usize, blocks: i32, out: usize): void {
  for (let i = 0; i < blocks; i++) {
    const d = f32x4.splat(half(from));
    storeInt8(from + 2, d, out);
    storeInt8(from + 10, d, out + 32);
    storeInt8(from + 18, d, out + 64);
    storeInt8(from + 26, d, out + 96);
    from += 34;
    out += 128;
  }
}

export function decodeQ4_1(from: usize, blocks: i32, out: usize): void {
  const mask = v128.load(nibbleMask);
  for (let i = 0; i < blocks; i++) {
    const d = f32x4.splat(half(from)), m = f32x4.splat(half(from + 2));
    const codes = v128.load(from, 4);
    storeShiftedCodes(v128.and(codes, mask), d, m, out);
    storeShiftedCodes(upperHalves(codes, mask), d, m, out + 64);
    from += 20;
    out += 128;
  }
}

// Bit j of each byte j mod 8: picks the fifth bit of 16 elements out of two bytes spread over them.
const bitOfByte = memory.data<u8>([1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128], 16);
export const firstBytes = memory.data<u8>([0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1], 16);
export const lastBytes = memory.data<u8>([2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3], 16);

// 16 in the bytes whose element has its fifth bit set, else 0; `spread` names the byte of `bits` for each element.
// @ts-ignore: decorator
@inline
export function fifthBits(bits: v128, spread: v128): v128 {
  const wanted = v128.load(bitOfByte);
  return v128.and(i8x16.eq(v128.and(lookUp(bits, spread), wanted), wanted), i8x16.splat(16));
}

export function decodeQ5_0(from: usize, blocks: i32, out: usize): void {
  const mask = v128.load(nibbleMask), first = v128.load(firstBytes), last = v128.load(lastBytes);
  const bias = i8x16.splat(16);
  for (let i = 0; i < blocks; i++) {
    const d = f32x4.splat(half(from));
    const bits = v128.load32_zero(from, 2), codes = v128.load(from, 6);
    const low = v128.or(v128.and(codes, mask), fifthBits(bits, first));
    const high = v128.or(upperHalves(codes, mask), fifthBits(bits, last));
    storeCodes(i8x16.sub(low, bias), d, out);
    storeCodes(i8x16.sub(high, bias), d, out + 64);
    from += 22;
    out += 128;
  }
}

export function decodeQ5_1(from: usize, blocks: i32, out: usize): void {
  const mask = v128.load(nibbleMask), first = v128.load(firstBytes), last = v128.load(lastBytes);
  for (let i = 0; i < blocks; i++) {
    const d = f32x4.splat(half(from)), m = f32x4.splat(half(from + 2));
    const bits = v128.load32_zero(from, 4), codes = v128.load(from, 8);
    storeShiftedCodes(v128.or(v128.and(codes, mask), fifthBits(bits, first)), d, m, out);
    storeShiftedCodes(v128.or(upperHalves(codes, mask), fifthBits(bits, last)), d, m, out + 64);
    from += 24;
    out += 128;
  }
}
