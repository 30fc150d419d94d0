// How kernels read a quantized weight: the arguments that describe it, and its decoding to float32, bit for bit as
// src/formats does it. The decoders stand in codebook.ts, ggml.ts, integer.ts and k-quants.ts.
//
// The first nine arguments of such a kernel: 0 number of the format, 1 … 4 addresses of its parts in order, 5 columns of
// the weight (inFeatures), 6 address of the dynamic map, 7 elements that share a scale, 8 scales of a row (integer formats).

import { address, int } from "../../core/assembly/abi";
import { decodeCodebook, fp4Planes, nf4Planes } from "./codebook";
import { decodeQ4_0, decodeQ4_1, decodeQ5_0, decodeQ5_1, decodeQ8_0 } from "./ggml";
import { decodeInteger, HALF, HALF_ASYMMETRIC, SIGNED, UNSIGNED } from "./integer";
import { decodeQ2_K, decodeQ3_K, decodeQ4_K, decodeQ5_K, decodeQ6_K } from "./k-quants";

export const Q4_0: i32 = 0;
export const Q8_0: i32 = 1;
export const INT8: i32 = 2;
export const NF4_SINGLE: i32 = 3;
export const NF4: i32 = 4;
export const UINT8: i32 = 5;
export const INT4: i32 = 6;
export const UINT4: i32 = 7;
export const FP4_SINGLE: i32 = 8;
export const FP4: i32 = 9;
export const Q4_1: i32 = 10;
export const Q5_0: i32 = 11;
export const Q5_1: i32 = 12;
export const Q2_K: i32 = 13;
export const Q3_K: i32 = 14;
export const Q4_K: i32 = 15;
export const Q5_K: i32 = 16;
export const Q6_K: i32 = 17;

/** Bytes of a K-quant's record of 256 elements. */
// @ts-ignore: decorator
@inline
export function kRecordBytes(format: i32): usize {
  return format == Q2_K ? 84 : format == Q3_K ? 110 : format == Q4_K ? 144 : format == Q5_K ? 176 : 210;
}

/** Number of arguments that describe the weight. */
export const WEIGHT_ARGUMENTS: i32 = 9;

/** Address of the record that holds column `from` of a row, for ggml's formats: `shift` is log2 of a block's elements. */
// @ts-ignore: decorator
@inline
function record(args: usize, row: i32, from: i32, shift: i32, bytes: usize): usize {
  return address(args, 1) + ((<usize>row) * (<usize>(int(args, 5) >> shift)) + <usize>(from >> shift)) * bytes;
}

// K-quants are decoded in whole blocks of 256; where a part of one is wanted, by way of `spare`, 1 KiB.
function decodeKQuant(format: i32, args: usize, row: i32, from: i32, count: i32, out: usize, spare: usize): void {
  while (count > 0) {
    const start = from & ~255;
    const n = min(count, start + 256 - from);
    const whole = n == 256;
    const blocks = whole ? count >> 8 : 1;
    const to = whole ? out : spare;
    switch (format) {
      case Q2_K: decodeQ2_K(record(args, row, start, 8, kRecordBytes(Q2_K)), blocks, to); break;
      case Q3_K: decodeQ3_K(record(args, row, start, 8, kRecordBytes(Q3_K)), blocks, to); break;
      case Q4_K: decodeQ4_K(record(args, row, start, 8, kRecordBytes(Q4_K)), blocks, to); break;
      case Q5_K: decodeQ5_K(record(args, row, start, 8, kRecordBytes(Q5_K)), blocks, to); break;
      case Q6_K: decodeQ6_K(record(args, row, start, 8, kRecordBytes(Q6_K)), blocks, to); break;
    }
    const done = whole ? blocks << 8 : n;
    if (!whole) memory.copy(out, spare + ((<usize>(from - start)) << 2), (<usize>n) << 2);
    from += done;
    count -= done;
    out += (<usize>done) << 2;
  }
}

/** Bytes that `decode` needs at `spare`. */
export const SPARE_BYTES: i32 = 1024;

/**
 * Writes the floats of row `row`, columns `from` to `from + count`, to `out`. For ggml's formats `from` and `count` are
 * multiples of 32, for integer formats `from` is even.
 */
export function decode(args: usize, row: i32, from: i32, count: i32, out: usize, spare: usize): void {
  const format = int(args, 0);
  const element = (<usize>row) * (<usize>int(args, 5)) + <usize>from;
  switch (format) {
    case Q4_0: decodeQ4_0(record(args, row, from, 5, 18), count >> 5, out); break;
    case Q8_0: decodeQ8_0(record(args, row, from, 5, 34), count >> 5, out); break;
    case Q4_1: decodeQ4_1(record(args, row, from, 5, 20), count >> 5, out); break;
    case Q5_0: decodeQ5_0(record(args, row, from, 5, 22), count >> 5, out); break;
    case Q5_1: decodeQ5_1(record(args, row, from, 5, 24), count >> 5, out); break;
    case INT8: decodeInteger(args, SIGNED, row, from, count, out); break;
    case UINT8: decodeInteger(args, UNSIGNED, row, from, count, out); break;
    case INT4: decodeInteger(args, HALF, row, from, count, out); break;
    case UINT4: decodeInteger(args, HALF_ASYMMETRIC, row, from, count, out); break;
    case NF4_SINGLE: decodeCodebook(nf4Planes, args, false, element, count, out); break;
    case NF4: decodeCodebook(nf4Planes, args, true, element, count, out); break;
    case FP4_SINGLE: decodeCodebook(fp4Planes, args, false, element, count, out); break;
    case FP4: decodeCodebook(fp4Planes, args, true, element, count, out); break;
    default: decodeKQuant(format, args, row, from, count, out, spare);
  }
}

/** out [rows, columns] float32 = the weight. A unit is a row. Integers after the weight's: out. */
export function dequantize(args: usize, begin: i32, end: i32, scratch: usize): void {
  const columns = int(args, 5);
  let out = address(args, WEIGHT_ARGUMENTS) + (((<usize>begin) * (<usize>columns)) << 2);
  for (let row = begin; row < end; row++) {
    decode(args, row, 0, columns, out, scratch);
    out += (<usize>columns) << 2;
  }
}
