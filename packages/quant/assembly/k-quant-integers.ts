// Blocks of the K-quants as integers (see integers.ts): 32 codes with one scale, in their order. Where a scale holds for 16
// elements (Q3_K, Q6_K) its integer part is multiplied into the codes. Q2_K has an offset for each 16 and stays outside.

import { address, int } from "../../core/assembly/abi";
import { half, nibbleMask, upperHalves } from "./codes";
import { kRecordBytes, Q3_K, Q4_K, Q5_K, Q6_K } from "./weight";

// @ts-ignore: decorator
@inline
function store16(codes: v128, scale: i32, out: usize): void {
  const factor = i16x8.splat(<i16>scale);
  v128.store(out, i16x8.mul(i16x8.extend_low_i8x16_s(codes), factor));
  v128.store(out, i16x8.mul(i16x8.extend_high_i8x16_s(codes), factor), 16);
}

// @ts-ignore: decorator
@inline
function store32(first: v128, second: v128, out: usize): void {
  v128.store(out, i16x8.extend_low_i8x16_s(first));
  v128.store(out, i16x8.extend_high_i8x16_s(first), 16);
  v128.store(out, i16x8.extend_low_i8x16_s(second), 32);
  v128.store(out, i16x8.extend_high_i8x16_s(second), 48);
}

function unpackQ3_K(from: usize, out: usize, scales: usize, step: usize): void {
  const three = i8x16.splat(3), four = i8x16.splat(4), one = i8x16.splat(1);
  const d = half(from + 108);
  const packed = from + 96;
  for (let j = 0; j < 16; j++) {
    const low = j < 8 ? <i32>load<u8>(packed + <usize>j) & 15 : <i32>load<u8>(packed + <usize>(j - 8)) >> 4;
    const high = (<i32>load<u8>(packed + <usize>(8 + (j & 3))) >> ((j >> 2) << 1)) & 3;
    const codes = v128.load(from + 32 + <usize>(((j >> 3) << 5) + ((j & 1) << 4)));
    const bits = v128.and(i8x16.shr_u(codes, ((j >> 1) & 3) << 1), three);
    const third = v128.and(i8x16.shr_u(v128.load(from + <usize>((j & 1) << 4)), j >> 1), one);
    store16(i8x16.sub(v128.or(bits, i8x16.shl(third, 2)), four), (low | (high << 4)) - 32, out);
    out += 32;
    if (j & 1) {
      store<f32>(scales, d);
      scales += step;
    }
  }
}

function unpackQ6_K(from: usize, out: usize, scales: usize, step: usize): void {
  const mask = v128.load(nibbleMask), three = i8x16.splat(3), bias = i8x16.splat(32);
  const d = half(from + 208);
  for (let j = 0; j < 16; j++) {
    const quarter = (j >> 1) & 3;
    const low = v128.load(from + <usize>(((j >> 3) << 6) + ((quarter & 1) << 5) + ((j & 1) << 4)));
    const high = v128.load(from + 128 + <usize>(((j >> 3) << 5) + ((j & 1) << 4)));
    const bits = i8x16.shl(v128.and(i8x16.shr_u(high, quarter << 1), three), 4);
    const codes = v128.or(quarter > 1 ? upperHalves(low, mask) : v128.and(low, mask), bits);
    store16(i8x16.sub(codes, bias), <i32>load<i8>(from + 192 + <usize>j), out);
    out += 32;
    if (j & 1) {
      store<f32>(scales, d);
      scales += step;
    }
  }
}

// Q4_K and Q5_K. `fifth`: whether there is a fifth bit.
// @ts-ignore: decorator
@inline
function unpackShifted(from: usize, fifth: bool, out: usize, scales: usize, offsets: usize, step: usize): void {
  const mask = v128.load(nibbleMask), one = i8x16.splat(1);
  const d = half(from), dmin = half(from + 2);
  // The 6-bit pairs, a byte each: those of blocks 0 … 3 in the lower halves.
  const a = load<u32>(from, 4), b = load<u32>(from, 8), c = load<u32>(from, 12);
  let factors = <u64>(a & 0x3f3f3f3f) | ((<u64>((c & 0x0f0f0f0f) | ((a >> 2) & 0x30303030))) << 32);
  let minima = <u64>(b & 0x3f3f3f3f) | ((<u64>(((c >> 4) & 0x0f0f0f0f) | ((b >> 2) & 0x30303030))) << 32);
  let h0 = v128.load(from, 16), h1 = v128.load(from, 32);
  let at = from + (fifth ? 48 : 16);
  for (let pair = 0; pair < 4; pair++) {
    const c0 = v128.load(at), c1 = v128.load(at, 16);
    let l0 = v128.and(c0, mask), l1 = v128.and(c1, mask), u0 = upperHalves(c0, mask), u1 = upperHalves(c1, mask);
    if (fifth) {
      l0 = v128.or(l0, i8x16.shl(v128.and(h0, one), 4));
      l1 = v128.or(l1, i8x16.shl(v128.and(h1, one), 4));
      h0 = i8x16.shr_u(h0, 1);
      h1 = i8x16.shr_u(h1, 1);
      u0 = v128.or(u0, i8x16.shl(v128.and(h0, one), 4));
      u1 = v128.or(u1, i8x16.shl(v128.and(h1, one), 4));
      h0 = i8x16.shr_u(h0, 1);
      h1 = i8x16.shr_u(h1, 1);
    }
    store32(l0, l1, out);
    store32(u0, u1, out + 64);
    store<f32>(scales, d * <f32>(<i32>factors & 255));
    store<f32>(offsets, -(dmin * <f32>(<i32>minima & 255)));
    factors >>= 8;
    minima >>= 8;
    store<f32>(scales + step, d * <f32>(<i32>factors & 255));
    store<f32>(offsets + step, -(dmin * <f32>(<i32>minima & 255)));
    factors >>= 8;
    minima >>= 8;
    scales += step << 1;
    offsets += step << 1;
    at += 32;
    out += 128;
  }
}

/** As `unpack`, for Q3_K to Q6_K; `block` and `blocks` are multiples of 8. */
export function unpackKQuant(
  args: usize, row: i32, block: i32, blocks: i32, codes: usize, scales: usize, offsets: usize, step: usize,
): void {
  const format = int(args, 0);
  const bytes = kRecordBytes(format);
  let from = address(args, 1) + ((<usize>row) * (<usize>(int(args, 5) >> 8)) + <usize>(block >> 3)) * bytes;
  for (let i = 0; i < blocks; i += 8) {
    switch (format) {
      case Q3_K: unpackQ3_K(from, codes, scales, step); break;
      case Q4_K: unpackShifted(from, false, codes, scales, offsets, step); break;
      case Q5_K: unpackShifted(from, true, codes, scales, offsets, step); break;
      case Q6_K: unpackQ6_K(from, codes, scales, step); break;
    }
    from += bytes;
    codes += 512;
    scales += step << 3;
    offsets += step << 3;
  }
}
