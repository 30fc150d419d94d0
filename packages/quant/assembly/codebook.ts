// Decoding of the formats with a codebook of 16 values (NF4, FP4), blocks of 64 along the flattened tensor.

import { address } from "../../core/assembly/abi";
import { lookUp, nibbleMask, storePlanes, upperHalves } from "./codes";

/** The NF4 codebook in planes: byte b of float i stands at 16·b + i. */
export const nf4Planes = memory.data<u8>(
  [
    0, 177, 48, 160, 77, 63, 113, 0, 255, 227, 221, 58, 184, 171, 179, 0,
    0, 57, 107, 50, 162, 53, 120, 0, 250, 202, 4, 3, 164, 7, 19, 0,
    128, 50, 6, 202, 145, 61, 186, 0, 162, 36, 124, 173, 225, 16, 57, 128,
    191, 191, 191, 190, 190, 190, 189, 0, 61, 62, 62, 62, 62, 63, 63, 63,
  ],
  16,
);

/** The FP4 codebook, likewise. */
export const fp4Planes = memory.data<u8>(
  [
    0, 171, 171, 0, 171, 0, 171, 0, 0, 171, 171, 0, 171, 0, 171, 0,
    0, 170, 170, 0, 170, 0, 170, 0, 0, 170, 170, 0, 170, 0, 170, 0,
    0, 170, 42, 128, 170, 0, 42, 128, 0, 170, 42, 128, 170, 0, 42, 128,
    0, 59, 63, 63, 62, 63, 62, 62, 128, 187, 191, 191, 190, 191, 190, 190,
  ],
  16,
);

/** Scale of a block, second quantization undone. */
// @ts-ignore: decorator
@inline
function blockScale(args: usize, nested: bool, block: usize): f32 {
  if (!nested) return load<f32>(address(args, 2) + (block << 2));
  const value = load<f32>(address(args, 6) + ((<usize>load<u8>(address(args, 2) + block)) << 2));
  return value * load<f32>(address(args, 3) + ((block >> 8) << 2)) + load<f32>(address(args, 4));
}

// @ts-ignore: decorator
@inline
function valueOf(planes: usize, code: u32): f32 {
  const at = planes + <usize>code;
  const bits =
    <u32>load<u8>(at) | (<u32>load<u8>(at, 16) << 8) | (<u32>load<u8>(at, 32) << 16) | (<u32>load<u8>(at, 48) << 24);
  return reinterpret<f32>(bits);
}

/** Writes `count` elements from element `element` of the flattened tensor on. */
export function decodeCodebook(planes: usize, args: usize, nested: bool, element: usize, count: i32, out: usize): void {
  const t0 = v128.load(planes), t1 = v128.load(planes, 16);
  const t2 = v128.load(planes, 32), t3 = v128.load(planes, 48);
  const mask = v128.load(nibbleMask);
  const data = address(args, 1);
  while (count > 0) {
    const scale = blockScale(args, nested, element >> 6);
    const scales = f32x4.splat(scale);
    let n = min(count, 64 - <i32>(element & 63));
    count -= n;
    if (element & 1) {
      store<f32>(out, valueOf(planes, load<u8>(data + (element >> 1)) & 15) * scale);
      out += 4;
      element++;
      n--;
    }
    let from = data + (element >> 1);
    element += <usize>n;
    for (; n >= 32; n -= 32) {
      const codes = v128.load(from);
      const high = upperHalves(codes, mask), low = v128.and(codes, mask);
      const first = i8x16.shuffle(high, low, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      const second = i8x16.shuffle(high, low, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
      storePlanes(lookUp(t0, first), lookUp(t1, first), lookUp(t2, first), lookUp(t3, first), scales, out);
      storePlanes(lookUp(t0, second), lookUp(t1, second), lookUp(t2, second), lookUp(t3, second), scales, out + 64);
      from += 16;
      out += 128;
    }
    for (; n >= 16; n -= 16) {
      const codes = v128.load64_zero(from);
      const high = upperHalves(codes, mask), low = v128.and(codes, mask);
      const first = i8x16.shuffle(high, low, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      storePlanes(lookUp(t0, first), lookUp(t1, first), lookUp(t2, first), lookUp(t3, first), scales, out);
      from += 8;
      out += 64;
    }
    for (; n >= 2; n -= 2) {
      const byte = <u32>load<u8>(from);
      store<f32>(out, valueOf(planes, byte >> 4) * scale);
      store<f32>(out, valueOf(planes, byte & 15) * scale, 4);
      from++;
      out += 8;
    }
    if (n > 0) {
      store<f32>(out, valueOf(planes, <u32>load<u8>(from) >> 4) * scale);
      out += 4;
    }
  }
}

