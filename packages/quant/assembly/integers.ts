// Blocks of 32 codes of a quantized weight as integers, for the integer products. A block is worth
//   scale · code + offset
// with codes as int16, the zero point taken off, in the order of `orderOf`. The 16 values of NF4 and FP4 become int16 of which one
// unit is 3·10⁻⁵ of the block's
// largest magnitude (FP4's are exact).

import { address, int } from "../../core/assembly/abi";
import { lookUp, upperHalves } from "./codes";
import { fifthBits, firstBytes, lastBytes } from "./ggml";
import {
  FP4, FP4_SINGLE, INT4, INT8, NF4, NF4_SINGLE, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q8_0, UINT4, UINT8,
} from "./weight";

// NF4 times 31908, which makes integers of its values to within 0.25; lower bytes, then upper ones.
const nf4Integers = memory.data<u8>(
  [
    92, 58, 142, 199, 140, 248, 167, 0, 235, 15, 173, 30, 238, 32, 28, 164,
    131, 169, 190, 206, 220, 232, 244, 0, 9, 20, 30, 42, 54, 70, 90, 124,
  ],
  16,
);
// FP4 times 32640.
const fp4Integers = memory.data<u8>(
  [
    0, 170, 0, 128, 128, 192, 64, 224, 0, 86, 0, 128, 128, 64, 192, 32,
    0, 0, 85, 127, 42, 63, 21, 31, 0, 255, 171, 128, 213, 192, 234, 224,
  ],
  16,
);

/** Bytes of a block of a ggml format with blocks of 32; 0 for the other formats. */
// @ts-ignore: decorator
@inline
export function recordBytes(format: i32): usize {
  if (format == Q4_0) return 18;
  if (format == Q4_1) return 20;
  if (format == Q5_0) return 22;
  if (format == Q5_1) return 24;
  if (format == Q8_0) return 34;
  return 0;
}

/** Formats with groups of a row. */
// @ts-ignore: decorator
@inline
export function isGrouped(format: i32): bool {
  return format == INT8 || format == UINT8 || format == INT4 || format == UINT4;
}

/** Formats with a codebook. */
// @ts-ignore: decorator
@inline
export function isCodebook(format: i32): bool {
  return format == NF4 || format == NF4_SINGLE || format == FP4 || format == FP4_SINGLE;
}

/** Order of a block's elements: as they are. */
export const PLAIN: i32 = 0;
/** Order of a block's elements: the even ones, then the odd ones. int8 codes of activations stand as they are. */
export const HALVES: i32 = 1;
/** Order of a block's elements: every fourth one from 0, 1, 2 and 3 on. int8 codes: the even ones, then the odd ones. */
export const QUARTERS: i32 = 2;

/** The order in which a format's codes come apart into int16 most easily: for two a byte, nibbles of 16-bit lanes. */
export function orderOf(format: i32): i32 {
  if (format == INT4 || format == UINT4) return QUARTERS;
  return format == Q4_0 || format == Q4_1 || isCodebook(format) ? HALVES : PLAIN;
}

/** Formats of which the four nibbles of 16-bit lanes are the int16 codes. */
// @ts-ignore: decorator
@inline
export function isNibbles(format: i32): bool {
  return format == Q4_0 || format == Q4_1 || format == INT4 || format == UINT4;
}

/** Codes number 8·part to 8·part + 7 of such a block, as int16. */
// @ts-ignore: decorator
@inline
export function nibbles(codes: v128, part: i32, mask: v128): v128 {
  return part == 0 ? v128.and(codes, mask) : part == 3 ? i16x8.shr_u(codes, 12) : v128.and(i16x8.shr_u(codes, 4 * part), mask);
}

/** The 16 bytes of the nibbles of the block at `at`. */
// @ts-ignore: decorator
@inline
export function nibbleBytes(format: i32, at: usize): v128 {
  return v128.load(at + (format == Q4_0 ? 2 : format == Q4_1 ? 4 : 0));
}

/** Formats whose blocks have an offset. */
// @ts-ignore: decorator
@inline
export function hasOffsets(format: i32): bool {
  return format == Q4_1 || format == Q5_1 || format == Q4_K || format == Q5_K;
}

/** Formats whose stored codes have at most seven bits and no sign. */
// @ts-ignore: decorator
@inline
export function isUnsigned7(format: i32): bool {
  return format == Q4_0 || format == Q4_1 || format == Q5_0 || format == Q5_1 || format == INT4 || format == UINT4;
}

/** What stored codes are above the true ones, where that is the same for all blocks. */
// @ts-ignore: decorator
@inline
export function biasOf(format: i32): i32 {
  return format == Q5_0 ? 16 : format == Q4_0 || format == INT4 ? 8 : 0;
}

/** Stored codes of the first half of the block at `at`, as bytes; `table` is `firstTable`. */
// @ts-ignore: decorator
@inline
export function firstCodes(format: i32, at: usize, mask: v128, table: v128): v128 {
  if (format == Q8_0) return v128.load(at, 2);
  if (format == Q4_0) return v128.and(v128.load(at, 2), mask);
  if (format == Q4_1) return v128.and(v128.load(at, 4), mask);
  if (format == Q5_0) {
    return v128.or(v128.and(v128.load(at, 6), mask), fifthBits(v128.load32_zero(at, 2), table));
  }
  if (format == Q5_1) {
    return v128.or(v128.and(v128.load(at, 8), mask), fifthBits(v128.load32_zero(at, 4), table));
  }
  if (format == INT4 || format == UINT4) return v128.and(v128.load(at), mask);
  if (isCodebook(format)) return upperHalves(v128.load(at), mask);
  return v128.load(at);
}

/** Stored codes of the second half; `table` is `secondTable`. */
// @ts-ignore: decorator
@inline
export function secondCodes(format: i32, at: usize, mask: v128, table: v128): v128 {
  if (format == Q8_0) return v128.load(at, 18);
  if (format == Q4_0) return upperHalves(v128.load(at, 2), mask);
  if (format == Q4_1) return upperHalves(v128.load(at, 4), mask);
  if (format == Q5_0) {
    return v128.or(upperHalves(v128.load(at, 6), mask), fifthBits(v128.load32_zero(at, 2), table));
  }
  if (format == Q5_1) {
    return v128.or(upperHalves(v128.load(at, 8), mask), fifthBits(v128.load32_zero(at, 4), table));
  }
  if (format == INT4 || format == UINT4) return upperHalves(v128.load(at), mask);
  if (isCodebook(format)) return v128.and(v128.load(at), mask);
  return v128.load(at, 16);
}

/** Address of block `block` of a row, for formats other than the K-quants. */
// @ts-ignore: decorator
@inline
export function blockAddress(format: i32, args: usize, row: i32, block: i32): usize {
  const data = address(args, 1), columns = <usize>int(args, 5);
  const record = recordBytes(format);
  if (record > 0) return data + ((<usize>row) * (columns >> 5) + <usize>block) * record;
  if (format == INT8 || format == UINT8) return data + (<usize>row) * columns + ((<usize>block) << 5);
  if (isCodebook(format)) return data + (((<usize>row) * columns) >> 1) + ((<usize>block) << 4);
  return data + (<usize>row) * ((columns + 1) >> 1) + ((<usize>block) << 4);
}

/** Bytes from one block to the next. */
// @ts-ignore: decorator
@inline
export function blockStep(format: i32): usize {
  const record = recordBytes(format);
  return record > 0 ? record : format == INT8 || format == UINT8 ? 32 : 16;
}

/** Number of the scale of block `block` of a row, in formats whose scales stand apart from the codes. */
// @ts-ignore: decorator
@inline
export function scaleIndex(format: i32, args: usize, row: i32, block: i32): i32 {
  if (isCodebook(format)) return (row * (int(args, 5) >> 5) + block) >> 1;
  if (isGrouped(format)) return row * int(args, 8) + (block << 5) / int(args, 7);
  return 0;
}

/** Blocks from `block` on that share its scale. */
// @ts-ignore: decorator
@inline
export function runLength(format: i32, args: usize, row: i32, block: i32): i32 {
  if (isCodebook(format)) return 2 - ((row * (int(args, 5) >> 5) + block) & 1);
  if (!isGrouped(format)) return i32.MAX_VALUE;
  const group = int(args, 7), column = block << 5;
  return (group - column % group) >> 5;
}

/** Blocks that share a scale. */
// @ts-ignore: decorator
@inline
export function wholeRun(format: i32, args: usize): i32 {
  return isCodebook(format) ? 2 : isGrouped(format) ? int(args, 7) >> 5 : 0;
}

/**
 * Scale number `index` of those at `scales`; for codebooks that of a unit of their integers. Where scales are quantized themselves,
 * `second` and `map` are the weight's arguments 3 and 6, and `offset` is what argument 4 points to.
 */
// @ts-ignore: decorator
@inline
export function scaleAt(format: i32, scales: usize, second: usize, map: usize, offset: f32, index: i32): f32 {
  const unit: f32 = format == NF4 || format == NF4_SINGLE ? 1 / 31908.0 : 1 / 32640.0;
  if (hasNestedScales(format)) {
    const value = load<f32>(map + ((<usize>load<u8>(scales + <usize>index)) << 2));
    return (value * load<f32>(second + ((<usize>(index >> 8)) << 2)) + offset) * unit;
  }
  if (isCodebook(format)) return load<f32>(scales + ((<usize>index) << 2)) * unit;
  if (isGrouped(format)) return load<f32>(scales + ((<usize>index) << 2));
  return 0;
}

/** Formats whose scales are quantized in their turn. */
// @ts-ignore: decorator
@inline
export function hasNestedScales(format: i32): bool {
  return format == NF4 || format == FP4;
}

/** Zero point number `index` of those at `zeros`. */
// @ts-ignore: decorator
@inline
export function zeroAt(format: i32, zeros: usize, index: i32): i32 {
  if (format == UINT8 || format == UINT4) return <i32>load<u8>(zeros + <usize>index);
  return biasOf(format);
}

/** What is looked up while a block comes apart: lower bytes of a codebook's integers; bytes with the first half's fifth bits. */
// @ts-ignore: decorator
@inline
export function firstTable(format: i32): v128 {
  return v128.load(isCodebook(format) ? integersOf(format) : firstBytes);
}

/** Upper bytes of a codebook's integers; bytes with the second half's fifth bits. */
// @ts-ignore: decorator
@inline
export function secondTable(format: i32): v128 {
  return v128.load(isCodebook(format) ? integersOf(format) + 16 : lastBytes);
}

// @ts-ignore: decorator
@inline
function integersOf(format: i32): usize {
  return format == NF4 || format == NF4_SINGLE ? nf4Integers : fp4Integers;
}

/** Integers of eight codes of a codebook, the second eight or the first, from the tables of lower and upper bytes. */
// @ts-ignore: decorator
@inline
export function codebookValues(codes: v128, low: v128, high: v128, second: bool): v128 {
  const l = lookUp(low, codes), h = lookUp(high, codes);
  return second
    ? i8x16.shuffle(l, h, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
    : i8x16.shuffle(l, h, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

/** The last `count` < 32 codes of a row, zeros behind them: block `block` of a format with groups. */
export function tailCodes(format: i32, args: usize, row: i32, block: i32, count: i32, out: usize): void {
  const at = blockAddress(format, args, row, block);
  const zero = zeroAt(format, address(args, 3), scaleIndex(format, args, row, block));
  memory.fill(out, 0, 64);
  for (let i = 0; i < count; i++) {
    let code = 0;
    let place = i;
    if (format == INT8) code = <i32>load<i8>(at + <usize>i);
    else if (format == UINT8) code = <i32>load<u8>(at + <usize>i) - zero;
    else {
      code = ((<i32>load<u8>(at + <usize>(i >> 1)) >> ((i & 1) << 2)) & 15) - zero;
      place = ((i & 3) << 3) | (i >> 2);
    }
    store<i16>(out + ((<usize>place) << 1), <i16>code);
  }
}
