// Decoding of the integer formats: 8 bits with and without zero points, and 4 bits, in groups of columns.

import { address, int } from "../../core/assembly/abi";
import { nibbleMask, storeCodes, storeInt8, upperHalves } from "./codes";

function signedBytes(from: usize, scale: f32, count: i32, out: usize): void {
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

function unsignedBytes(from: usize, zero: i32, scale: f32, count: i32, out: usize): void {
  const scales = f32x4.splat(scale), zeros = i16x8.splat(<i16>zero);
  let i = 0;
  for (; i + 8 <= count; i += 8) {
    const codes = i16x8.sub(v128.load8x8_u(from), zeros);
    v128.store(out, f32x4.mul(scales, f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(codes))));
    v128.store(out, f32x4.mul(scales, f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(codes))), 16);
    from += 8;
    out += 32;
  }
  for (; i < count; i++) {
    store<f32>(out, scale * <f32>(<i32>load<u8>(from) - zero));
    from++;
    out += 4;
  }
}

// Columns `column` to `column + count` of the row of half-byte codes at `row`; the even column is in the low half.
function halfBytes(row: usize, column: i32, zero: i32, scale: f32, count: i32, out: usize): void {
  const scales = f32x4.splat(scale), zeros = i8x16.splat(<i8>zero), mask = v128.load(nibbleMask);
  let from = row + <usize>(column >> 1);
  let i = 0;
  for (; i + 32 <= count; i += 32) {
    const codes = v128.load(from);
    const even = i8x16.sub(v128.and(codes, mask), zeros), odd = i8x16.sub(upperHalves(codes, mask), zeros);
    storeCodes(i8x16.shuffle(even, odd, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23), scales, out);
    storeCodes(i8x16.shuffle(even, odd, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31), scales, out + 64);
    from += 16;
    out += 128;
  }
  for (; i < count; i++) {
    const code = (<i32>load<u8>(from + <usize>((i & 31) >> 1)) >> ((i & 1) << 2)) & 15;
    store<f32>(out, scale * <f32>(code - zero));
    out += 4;
  }
}

/** Kinds of codes. */
export const SIGNED: i32 = 0;
export const UNSIGNED: i32 = 1;
export const HALF: i32 = 2;
export const HALF_ASYMMETRIC: i32 = 3;

/** Writes columns `from` to `from + count` of a row, group by group; `from` is even. */
export function decodeInteger(args: usize, kind: i32, row: i32, from: i32, count: i32, out: usize): void {
  const data = address(args, 1), columns = int(args, 5), group = int(args, 7);
  const firstGroup = <usize>row * <usize>int(args, 8);
  const end = from + count;
  while (from < end) {
    const g = from / group;
    const n = min(end, (g + 1) * group) - from;
    const index = firstGroup + <usize>g;
    const scale = load<f32>(address(args, 2) + (index << 2));
    const bytes = data + (<usize>row) * (<usize>columns) + <usize>from;
    if (kind == SIGNED) signedBytes(bytes, scale, n, out);
    else {
      const zero = kind == HALF ? 8 : <i32>load<u8>(address(args, 3) + index);
      if (kind == UNSIGNED) unsignedBytes(bytes, zero, scale, n, out);
      else halfBytes(data + (<usize>row) * (<usize>((columns + 1) >> 1)), from, zero, scale, n, out);
    }
    from += n;
    out += (<usize>n) << 2;
  }
}
