// Decoding of quantized weights to float32, bit for bit as src/formats does it: what every kernel reads a weight with.
//
// The first seven arguments of such a kernel: 0 number of the format, 1 … 4 addresses of its parts in order, 5 columns of
// the weight (inFeatures), 6 address of the dynamic map.

import { address, int } from "../../core/assembly/abi";

export const Q4_0: i32 = 0;
export const Q8_0: i32 = 1;
export const INT8: i32 = 2;
export const NF4_SINGLE: i32 = 3;
export const NF4: i32 = 4;

/** Number of arguments that describe the weight. */
export const WEIGHT_ARGUMENTS: i32 = 7;

// The NF4 codebook in planes: byte b of float i stands at 16·b + i.
const nf4Planes = memory.data<u8>(
  [
    0, 177, 48, 160, 77, 63, 113, 0, 255, 227, 221, 58, 184, 171, 179, 0,
    0, 57, 107, 50, 162, 53, 120, 0, 250, 202, 4, 3, 164, 7, 19, 0,
    128, 50, 6, 202, 145, 61, 186, 0, 162, 36, 124, 173, 225, 16, 57, 128,
    191, 191, 191, 190, 190, 190, 189, 0, 61, 62, 62, 62, 62, 63, 63, 63,
  ],
  16,
);

// The upper two planes of −8 … 7; the lower two are zero.
const q4Planes = memory.data<u8>(
  [
    0, 224, 192, 160, 128, 64, 0, 128, 0, 128, 0, 64, 128, 160, 192, 224,
    193, 192, 192, 192, 192, 192, 192, 191, 0, 63, 64, 64, 64, 64, 64, 64,
  ],
  16,
);

const nibbleMask = memory.data<u8>([15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15], 16);

/** The float16 at `at`; no infinities and NaNs. */
// @ts-ignore: decorator
@inline
export function half(at: usize): f32 {
  const h = <u32>load<u16>(at);
  // The exponent's bias differs by 112, in subnormals too.
  return reinterpret<f32>(((h & 0x7fff) << 13) | ((h & 0x8000) << 16)) * reinterpret<f32>(0x77800000);
}

// 16-entry table look-up; indices are below 16, so the relaxed form does the same.
// @ts-ignore: decorator
@inline
function lookUp(table: v128, codes: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return i8x16.relaxed_swizzle(table, codes);
  return i8x16.swizzle(table, codes);
}

// Stores 16 floats, given as planes of their bytes, times `scale`.
// @ts-ignore: decorator
@inline
function storePlanes(b0: v128, b1: v128, b2: v128, b3: v128, scale: v128, out: usize): void {
  const low = i8x16.shuffle(b0, b1, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const high = i8x16.shuffle(b2, b3, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const low2 = i8x16.shuffle(b0, b1, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  const high2 = i8x16.shuffle(b2, b3, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  v128.store(out, f32x4.mul(scale, i16x8.shuffle(low, high, 0, 8, 1, 9, 2, 10, 3, 11)));
  v128.store(out, f32x4.mul(scale, i16x8.shuffle(low, high, 4, 12, 5, 13, 6, 14, 7, 15)), 16);
  v128.store(out, f32x4.mul(scale, i16x8.shuffle(low2, high2, 0, 8, 1, 9, 2, 10, 3, 11)), 32);
  v128.store(out, f32x4.mul(scale, i16x8.shuffle(low2, high2, 4, 12, 5, 13, 6, 14, 7, 15)), 48);
}

function decodeQ4_0(from: usize, blocks: i32, out: usize): void {
  const p2 = v128.load(q4Planes), p3 = v128.load(q4Planes, 16), mask = v128.load(nibbleMask);
  const zero = i8x16.splat(0);
  for (let i = 0; i < blocks; i++) {
    const d = f32x4.splat(half(from));
    const codes = v128.load(from, 2);
    const low = v128.and(codes, mask), high = v128.and(i16x8.shr_u(codes, 4), mask);
    storePlanes(zero, zero, lookUp(p2, low), lookUp(p3, low), d, out);
    storePlanes(zero, zero, lookUp(p2, high), lookUp(p3, high), d, out + 64);
    from += 18;
    out += 128;
  }
}

// @ts-ignore: decorator
@inline
function storeInt8(from: usize, scale: v128, out: usize): void {
  const codes = v128.load8x8_s(from);
  v128.store(out, f32x4.mul(scale, f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(codes))));
  v128.store(out, f32x4.mul(scale, f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(codes))), 16);
}

function decodeQ8_0(from: usize, blocks: i32, out: usize): void {
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

function decodeInt8(from: usize, scale: f32, count: i32, out: usize): void {
  const scales = f32x4.splat(scale);
  let i = 0;
  for (; i + 8 <= count; i += 8) {
    storeInt8(from, scales, out);
    from += 8;
    out += 32;
  }
  for (; i < count; i++) {
    store<f32>(out, scale * <f32>load<i8>(from));
    from++;
    out += 4;
  }
}

/** Scale of an NF4 block, second quantization undone. */
// @ts-ignore: decorator
@inline
export function nf4Scale(args: usize, nested: bool, block: usize): f32 {
  if (!nested) return load<f32>(address(args, 2) + (block << 2));
  const value = load<f32>(address(args, 6) + ((<usize>load<u8>(address(args, 2) + block)) << 2));
  return value * load<f32>(address(args, 3) + ((block >> 8) << 2)) + load<f32>(address(args, 4));
}

// @ts-ignore: decorator
@inline
function nf4Value(code: u32): f32 {
  const at = nf4Planes + <usize>code;
  const bits =
    <u32>load<u8>(at) | (<u32>load<u8>(at, 16) << 8) | (<u32>load<u8>(at, 32) << 16) | (<u32>load<u8>(at, 48) << 24);
  return reinterpret<f32>(bits);
}

// `count` elements from element `element` of the flattened tensor on.
function decodeNf4(args: usize, nested: bool, element: usize, count: i32, out: usize): void {
  const t0 = v128.load(nf4Planes), t1 = v128.load(nf4Planes, 16);
  const t2 = v128.load(nf4Planes, 32), t3 = v128.load(nf4Planes, 48);
  const mask = v128.load(nibbleMask);
  const data = address(args, 1);
  while (count > 0) {
    const scale = nf4Scale(args, nested, element >> 6);
    const scales = f32x4.splat(scale);
    let n = min(count, 64 - <i32>(element & 63));
    count -= n;
    if (element & 1) {
      store<f32>(out, nf4Value(load<u8>(data + (element >> 1)) & 15) * scale);
      out += 4;
      element++;
      n--;
    }
    let from = data + (element >> 1);
    element += <usize>n;
    for (; n >= 32; n -= 32) {
      const codes = v128.load(from);
      const high = v128.and(i16x8.shr_u(codes, 4), mask), low = v128.and(codes, mask);
      const first = i8x16.shuffle(high, low, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      const second = i8x16.shuffle(high, low, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
      storePlanes(lookUp(t0, first), lookUp(t1, first), lookUp(t2, first), lookUp(t3, first), scales, out);
      storePlanes(lookUp(t0, second), lookUp(t1, second), lookUp(t2, second), lookUp(t3, second), scales, out + 64);
      from += 16;
      out += 128;
    }
    for (; n >= 16; n -= 16) {
      const codes = v128.load64_zero(from);
      const high = v128.and(i16x8.shr_u(codes, 4), mask), low = v128.and(codes, mask);
      const first = i8x16.shuffle(high, low, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      storePlanes(lookUp(t0, first), lookUp(t1, first), lookUp(t2, first), lookUp(t3, first), scales, out);
      from += 8;
      out += 64;
    }
    for (; n >= 2; n -= 2) {
      const byte = <u32>load<u8>(from);
      store<f32>(out, nf4Value(byte >> 4) * scale);
      store<f32>(out, nf4Value(byte & 15) * scale, 4);
      from++;
      out += 8;
    }
    if (n > 0) {
      store<f32>(out, nf4Value(<u32>load<u8>(from) >> 4) * scale);
      out += 4;
    }
  }
}

/**
 * Writes the floats of row `row`, columns `from` to `from + count`, to `out`. For ggml's formats `from` and `count` are
 * multiples of 32.
 */
export function decode(args: usize, row: i32, from: i32, count: i32, out: usize): void {
  const data = address(args, 1);
  const columns = int(args, 5);
  switch (int(args, 0)) {
    case Q4_0:
      decodeQ4_0(data + ((<usize>row) * (<usize>(columns >> 5)) + <usize>(from >> 5)) * 18, count >> 5, out);
      break;
    case Q8_0:
      decodeQ8_0(data + ((<usize>row) * (<usize>(columns >> 5)) + <usize>(from >> 5)) * 34, count >> 5, out);
      break;
    case INT8:
      decodeInt8(
        data + (<usize>row) * (<usize>columns) + <usize>from,
        load<f32>(address(args, 2) + ((<usize>row) << 2)),
        count,
        out,
      );
      break;
    case NF4_SINGLE:
      decodeNf4(args, false, (<usize>row) * (<usize>columns) + <usize>from, count, out);
      break;
    case NF4:
      decodeNf4(args, true, (<usize>row) * (<usize>columns) + <usize>from, count, out);
      break;
  }
}

/** out [rows, columns] float32 = the weight. A unit is a row. Integers after the weight's: out. */
export function dequantize(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const columns = int(args, 5);
  let out = address(args, WEIGHT_ARGUMENTS) + (((<usize>begin) * (<usize>columns)) << 2);
  for (let row = begin; row < end; row++) {
    decode(args, row, 0, columns, out);
    out += (<usize>columns) << 2;
  }
}
