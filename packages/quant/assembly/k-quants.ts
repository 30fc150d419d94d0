// Decoding of ggml's K-quants: blocks of 256 elements. The layouts are described in src/formats/k-quants.ts.

import { half, nibbleMask, storeCodes, storeShiftedCodes, upperHalves } from "./codes";

export function decodeQ2_K(from: usize, blocks: i32, out: usize): void {
  const three = i8x16.splat(3);
  for (let i = 0; i < blocks; i++) {
    const d = half(from + 80), dmin = half(from + 82);
    for (let j = 0; j < 16; j++) {
      const scale = <u32>load<u8>(from + <usize>j);
      const codes = v128.load(from + 16 + <usize>(((j >> 3) << 5) + ((j & 1) << 4)));
      const bits = v128.and(i8x16.shr_u(codes, ((j >> 1) & 3) << 1), three);
      storeShiftedCodes(bits, f32x4.splat(d * <f32>(scale & 15)), f32x4.splat(-(dmin * <f32>(scale >> 4))), out);
      out += 64;
    }
    from += 84;
  }
}

export function decodeQ3_K(from: usize, blocks: i32, out: usize): void {
  const three = i8x16.splat(3), four = i8x16.splat(4), one = i8x16.splat(1);
  for (let i = 0; i < blocks; i++) {
    const d = half(from + 108);
    const scales = from + 96;
    for (let j = 0; j < 16; j++) {
      const low = j < 8 ? <i32>load<u8>(scales + <usize>j) & 15 : <i32>load<u8>(scales + <usize>(j - 8)) >> 4;
      const high = (<i32>load<u8>(scales + <usize>(8 + (j & 3))) >> ((j >> 2) << 1)) & 3;
      const codes = v128.load(from + 32 + <usize>(((j >> 3) << 5) + ((j & 1) << 4)));
      const bits = v128.and(i8x16.shr_u(codes, ((j >> 1) & 3) << 1), three);
      const third = v128.and(i8x16.shr_u(v128.load(from + <usize>((j & 1) << 4)), j >> 1), one);
      const signed = i8x16.sub(v128.or(bits, i8x16.shl(third, 2)), four);
      storeCodes(signed, f32x4.splat(d * <f32>((low | (high << 4)) - 32)), out);
      out += 64;
    }
    from += 110;
  }
}

// Scale (0) or minimum (1) number j of the 12 bytes of Q4_K and Q5_K.
// @ts-ignore: decorator
@inline
function sixBits(at: usize, j: i32, which: i32): f32 {
  if (j < 4) return <f32>(<i32>load<u8>(at + <usize>(j + 4 * which)) & 63);
  const low = (<i32>load<u8>(at + <usize>(j + 4)) >> (4 * which)) & 15;
  const high = <i32>load<u8>(at + <usize>(which ? j : j - 4)) >> 6;
  return <f32>(low | (high << 4));
}

export function decodeQ4_K(from: usize, blocks: i32, out: usize): void {
  const mask = v128.load(nibbleMask);
  for (let i = 0; i < blocks; i++) {
    const d = half(from), dmin = half(from + 2);
    for (let j = 0; j < 8; j++) {
      const scale = f32x4.splat(d * sixBits(from + 4, j, 0)), offset = f32x4.splat(-(dmin * sixBits(from + 4, j, 1)));
      const at = from + 16 + <usize>((j >> 1) << 5);
      const c0 = v128.load(at), c1 = v128.load(at, 16);
      storeShiftedCodes(j & 1 ? upperHalves(c0, mask) : v128.and(c0, mask), scale, offset, out);
      storeShiftedCodes(j & 1 ? upperHalves(c1, mask) : v128.and(c1, mask), scale, offset, out + 64);
      out += 128;
    }
    from += 144;
  }
}

export function decodeQ5_K(from: usize, blocks: i32, out: usize): void {
  const mask = v128.load(nibbleMask), one = i8x16.splat(1);
  for (let i = 0; i < blocks; i++) {
    const d = half(from), dmin = half(from + 2);
    const h0 = v128.load(from, 16), h1 = v128.load(from, 32);
    for (let j = 0; j < 8; j++) {
      const scale = f32x4.splat(d * sixBits(from + 4, j, 0)), offset = f32x4.splat(-(dmin * sixBits(from + 4, j, 1)));
      const at = from + 48 + <usize>((j >> 1) << 5);
      const c0 = v128.load(at), c1 = v128.load(at, 16);
      const f0 = i8x16.shl(v128.and(i8x16.shr_u(h0, j), one), 4), f1 = i8x16.shl(v128.and(i8x16.shr_u(h1, j), one), 4);
      storeShiftedCodes(v128.or(j & 1 ? upperHalves(c0, mask) : v128.and(c0, mask), f0), scale, offset, out);
      storeShiftedCodes(v128.or(j & 1 ? upperHalves(c1, mask) : v128.and(c1, mask), f1), scale, offset, out + 64);
      out += 128;
    }
    from += 176;
  }
}

export function decodeQ6_K(from: usize, blocks: i32, out: usize): void {
  const mask = v128.load(nibbleMask), three = i8x16.splat(3), bias = i8x16.splat(32);
  for (let i = 0; i < blocks; i++) {
    const d = half(from + 208);
    for (let j = 0; j < 16; j++) {
      // Sub-block j: half j/8 of the block, quarter (j/2)%4 of the half, 16 of its 32 elements.
      const quarter = (j >> 1) & 3;
      const low = v128.load(from + <usize>(((j >> 3) << 6) + ((quarter & 1) << 5) + ((j & 1) << 4)));
      const high = v128.load(from + 128 + <usize>(((j >> 3) << 5) + ((j & 1) << 4)));
      const bits = i8x16.shl(v128.and(i8x16.shr_u(high, quarter << 1), three), 4);
      const codes = v128.or(quarter > 1 ? upperHalves(low, mask) : v128.and(low, mask), bits);
      const scale = d * <f32>(<i32>load<i8>(from + 192 + <usize>j));
      storeCodes(i8x16.sub(codes, bias), f32x4.splat(scale), out);
      out += 64;
    }
    from += 210;
  }
}
