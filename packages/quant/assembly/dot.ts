// Integer dot products of a quantized weight with activations as integers (activations.ts), for one row of them or two, and rows
// of a weight unpacked to integers for the tiled product.
//
// Where the host has relaxed SIMD, stored codes of at most seven bits without a sign meet int8 activations in the relaxed dot product.
// Its result is only open where the second operand has an eighth bit: here it is the same everywhere, and the same as that of the plain one.

import { address, int, RELAXED } from "../../core/assembly/abi";
import { bytesOf, rowBytes, scalesOf, sumsOf } from "./activations";
import { isUnsigned7, recordBytes } from "./integers";
import { dotKQuant } from "./k-quant-dot";
import { unpackKQuant } from "./k-quant-integers";
import { ONE, recordRow, TWO, UNPACK, walk } from "./walk";
import {
  FP4, FP4_SINGLE, INT4, INT8, NF4, NF4_SINGLE, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, UINT4, UINT8, WEIGHT_ARGUMENTS,
} from "./weight";

// The products of row `row` with one or two rows of activations of k elements.
// @ts-ignore: decorator
@inline
function dotRows(
  format: i32, args: usize, row: i32, k: i32, x: usize, step: usize, two: bool, bytewise: bool, out: usize, outStep: usize,
  spare: usize,
): void {
  const blocks = (k + 31) >> 5, whole = k >> 5, tail = k & 31;
  const scales = scalesOf(x, blocks), sums = sumsOf(x, blocks), bytes = bytesOf(x, blocks);
  const relaxed = RELAXED && isUnsigned7(format);
  if (recordBytes(format) > 0 && !two) {
    if (relaxed && bytewise) recordRow(format, true, args, row, whole, x, scales, sums, bytes, out);
    else recordRow(format, false, args, row, whole, x, scales, sums, bytes, out);
  } else if (relaxed && bytewise) {
    if (two) walk(format, TWO, true, args, row, 0, whole, tail, x, scales, sums, bytes, step, out, outStep, spare);
    else walk(format, ONE, true, args, row, 0, whole, tail, x, scales, sums, bytes, step, out, outStep, spare);
  } else {
    if (two) walk(format, TWO, false, args, row, 0, whole, tail, x, scales, sums, bytes, step, out, outStep, spare);
    else walk(format, ONE, false, args, row, 0, whole, tail, x, scales, sums, bytes, step, out, outStep, spare);
  }
}

/** Bytes that `unpack` and the products need at `spare`. */
export const SPARE_BYTES: i32 = 1024;

// One function a format: the compilers' work grows faster than a function's length.
function dotQ4_0(
  args: usize, row: i32, k: i32, x: usize, step: usize, two: bool, bytewise: bool, out: usize, outStep: usize, spare: usize,
): void {
  dotRows(Q4_0, args, row, k, x, step, two, bytewise, out, outStep, spare);
}
function dotQ4_1(
  args: usize, row: i32, k: i32, x: usize, step: usize, two: bool, bytewise: bool, out: usize, outStep: usize, spare: usize,
): void {
  dotRows(Q4_1, args, row, k, x, step, two, bytewise, out, outStep, spare);
}
function dotQ5_0(
  args: usize, row: i32, k: i32, x: usize, step: usize, two: bool, bytewise: bool, out: usize, outStep: usize, spare: usize,
): void {
  dotRows(Q5_0, args, row, k, x, step, two, bytewise, out, outStep, spare);
}
function dotQ5_1(
  args: usize, row: i32, k: i32, x: usize, step: usize, two: bool, bytewise: bool, out: usize, outStep: usize, spare: usize,
): void {
  dotRows(Q5_1, args, row, k, x, step, two, bytewise, out, outStep, spare);
}
function dotQ8_0(
  args: usize, row: i32, k: i32, x: usize, step: usize, two: bool, bytewise: bool, out: usize, outStep: usize, spare: usize,
): void {
  dotRows(Q8_0, args, row, k, x, step, two, bytewise, out, outStep, spare);
}
function dotINT8(
  args: usize, row: i32, k: i32, x: usize, step: usize, two: bool, bytewise: bool, out: usize, outStep: usize, spare: usize,
): void {
  dotRows(INT8, args, row, k, x, step, two, bytewise, out, outStep, spare);
}
function dotUINT8(
  args: usize, row: i32, k: i32, x: usize, step: usize, two: bool, bytewise: bool, out: usize, outStep: usize, spare: usize,
): void {
  dotRows(UINT8, args, row, k, x, step, two, bytewise, out, outStep, spare);
}
function dotINT4(
  args: usize, row: i32, k: i32, x: usize, step: usize, two: bool, bytewise: bool, out: usize, outStep: usize, spare: usize,
): void {
  dotRows(INT4, args, row, k, x, step, two, bytewise, out, outStep, spare);
}
function dotUINT4(
  args: usize, row: i32, k: i32, x: usize, step: usize, two: bool, bytewise: bool, out: usize, outStep: usize, spare: usize,
): void {
  dotRows(UINT4, args, row, k, x, step, two, bytewise, out, outStep, spare);
}
function dotNF4(
  args: usize, row: i32, k: i32, x: usize, step: usize, two: bool, bytewise: bool, out: usize, outStep: usize, spare: usize,
): void {
  dotRows(NF4, args, row, k, x, step, two, bytewise, out, outStep, spare);
}
function dotNF4_SINGLE(
  args: usize, row: i32, k: i32, x: usize, step: usize, two: bool, bytewise: bool, out: usize, outStep: usize, spare: usize,
): void {
  dotRows(NF4_SINGLE, args, row, k, x, step, two, bytewise, out, outStep, spare);
}
function dotFP4(
  args: usize, row: i32, k: i32, x: usize, step: usize, two: bool, bytewise: bool, out: usize, outStep: usize, spare: usize,
): void {
  dotRows(FP4, args, row, k, x, step, two, bytewise, out, outStep, spare);
}
function dotFP4_SINGLE(
  args: usize, row: i32, k: i32, x: usize, step: usize, two: bool, bytewise: bool, out: usize, outStep: usize, spare: usize,
): void {
  dotRows(FP4_SINGLE, args, row, k, x, step, two, bytewise, out, outStep, spare);
}

function dot(
  format: i32, args: usize, row: i32, k: i32, x: usize, step: usize, two: bool, bytewise: bool, out: usize, outStep: usize,
  spare: usize,
): void {
  switch (format) {
    case Q4_0: dotQ4_0(args, row, k, x, step, two, bytewise, out, outStep, spare); break;
    case Q4_1: dotQ4_1(args, row, k, x, step, two, bytewise, out, outStep, spare); break;
    case Q5_0: dotQ5_0(args, row, k, x, step, two, bytewise, out, outStep, spare); break;
    case Q5_1: dotQ5_1(args, row, k, x, step, two, bytewise, out, outStep, spare); break;
    case Q8_0: dotQ8_0(args, row, k, x, step, two, bytewise, out, outStep, spare); break;
    case INT8: dotINT8(args, row, k, x, step, two, bytewise, out, outStep, spare); break;
    case UINT8: dotUINT8(args, row, k, x, step, two, bytewise, out, outStep, spare); break;
    case INT4: dotINT4(args, row, k, x, step, two, bytewise, out, outStep, spare); break;
    case UINT4: dotUINT4(args, row, k, x, step, two, bytewise, out, outStep, spare); break;
    case NF4: dotNF4(args, row, k, x, step, two, bytewise, out, outStep, spare); break;
    case NF4_SINGLE: dotNF4_SINGLE(args, row, k, x, step, two, bytewise, out, outStep, spare); break;
    case FP4: dotFP4(args, row, k, x, step, two, bytewise, out, outStep, spare); break;
    case FP4_SINGLE: dotFP4_SINGLE(args, row, k, x, step, two, bytewise, out, outStep, spare); break;
    default:
      dotKQuant(args, row, k, x, out, spare);
      if (two) dotKQuant(args, row, k, x + step, out + outStep, spare);
  }
}

/**
 * C [m×n] = X·Wᵀ from rows of X made by quantizeActivations. A unit is a column of C. Integers after the weight's:
 * those rows, m, C, n, 1 where their int8 codes may be used. Scratch: SPARE_BYTES.
 */
export function multiplyIntegers(args: usize, begin: i32, end: i32, scratch: usize): void {
  const format = int(args, 0), k = int(args, 5);
  const x = address(args, WEIGHT_ARGUMENTS), c = address(args, WEIGHT_ARGUMENTS + 2);
  const m = int(args, WEIGHT_ARGUMENTS + 1), n = (<usize>int(args, WEIGHT_ARGUMENTS + 3)) << 2;
  const bytewise = int(args, WEIGHT_ARGUMENTS + 4) != 0;
  const step = rowBytes((k + 31) >> 5);
  for (let j = begin; j < end; j++) {
    const column = c + ((<usize>j) << 2);
    for (let r = 0; r < m; r += 2) {
      const row = <usize>r;
      dot(format, args, j, k, x + row * step, step, r + 1 < m, bytewise, column + row * n, n, scratch);
    }
  }
}

function unpackQ4_0(
  args: usize, row: i32, block: i32, whole: i32, tail: i32, codes: usize, scales: usize, offsets: usize, step: usize,
): void {
  walk(Q4_0, UNPACK, false, args, row, block, whole, tail, codes, scales, offsets, 0, 0, 0, step, 0);
}
function unpackQ4_1(
  args: usize, row: i32, block: i32, whole: i32, tail: i32, codes: usize, scales: usize, offsets: usize, step: usize,
): void {
  walk(Q4_1, UNPACK, false, args, row, block, whole, tail, codes, scales, offsets, 0, 0, 0, step, 0);
}
function unpackQ5_0(
  args: usize, row: i32, block: i32, whole: i32, tail: i32, codes: usize, scales: usize, offsets: usize, step: usize,
): void {
  walk(Q5_0, UNPACK, false, args, row, block, whole, tail, codes, scales, offsets, 0, 0, 0, step, 0);
}
function unpackQ5_1(
  args: usize, row: i32, block: i32, whole: i32, tail: i32, codes: usize, scales: usize, offsets: usize, step: usize,
): void {
  walk(Q5_1, UNPACK, false, args, row, block, whole, tail, codes, scales, offsets, 0, 0, 0, step, 0);
}
function unpackQ8_0(
  args: usize, row: i32, block: i32, whole: i32, tail: i32, codes: usize, scales: usize, offsets: usize, step: usize,
): void {
  walk(Q8_0, UNPACK, false, args, row, block, whole, tail, codes, scales, offsets, 0, 0, 0, step, 0);
}
function unpackINT8(
  args: usize, row: i32, block: i32, whole: i32, tail: i32, codes: usize, scales: usize, offsets: usize, step: usize,
): void {
  walk(INT8, UNPACK, false, args, row, block, whole, tail, codes, scales, offsets, 0, 0, 0, step, 0);
}
function unpackUINT8(
  args: usize, row: i32, block: i32, whole: i32, tail: i32, codes: usize, scales: usize, offsets: usize, step: usize,
): void {
  walk(UINT8, UNPACK, false, args, row, block, whole, tail, codes, scales, offsets, 0, 0, 0, step, 0);
}
function unpackINT4(
  args: usize, row: i32, block: i32, whole: i32, tail: i32, codes: usize, scales: usize, offsets: usize, step: usize,
): void {
  walk(INT4, UNPACK, false, args, row, block, whole, tail, codes, scales, offsets, 0, 0, 0, step, 0);
}
function unpackUINT4(
  args: usize, row: i32, block: i32, whole: i32, tail: i32, codes: usize, scales: usize, offsets: usize, step: usize,
): void {
  walk(UINT4, UNPACK, false, args, row, block, whole, tail, codes, scales, offsets, 0, 0, 0, step, 0);
}
function unpackNF4(
  args: usize, row: i32, block: i32, whole: i32, tail: i32, codes: usize, scales: usize, offsets: usize, step: usize,
): void {
  walk(NF4, UNPACK, false, args, row, block, whole, tail, codes, scales, offsets, 0, 0, 0, step, 0);
}
function unpackNF4_SINGLE(
  args: usize, row: i32, block: i32, whole: i32, tail: i32, codes: usize, scales: usize, offsets: usize, step: usize,
): void {
  walk(NF4_SINGLE, UNPACK, false, args, row, block, whole, tail, codes, scales, offsets, 0, 0, 0, step, 0);
}
function unpackFP4(
  args: usize, row: i32, block: i32, whole: i32, tail: i32, codes: usize, scales: usize, offsets: usize, step: usize,
): void {
  walk(FP4, UNPACK, false, args, row, block, whole, tail, codes, scales, offsets, 0, 0, 0, step, 0);
}
function unpackFP4_SINGLE(
  args: usize, row: i32, block: i32, whole: i32, tail: i32, codes: usize, scales: usize, offsets: usize, step: usize,
): void {
  walk(FP4_SINGLE, UNPACK, false, args, row, block, whole, tail, codes, scales, offsets, 0, 0, 0, step, 0);
}

/**
 * Blocks `block` to `block + blocks` of a row: codes to `codes`, 64 bytes a block; scales to `scales`, and offsets where the
 * format has some to `offsets`, both `step` bytes apart.
 */
export function unpack(
  args: usize, row: i32, block: i32, blocks: i32, codes: usize, scales: usize, offsets: usize, step: usize,
): void {
  const format = int(args, 0);
  const whole = min(blocks, (int(args, 5) >> 5) - block);
  const tail = whole < blocks ? int(args, 5) & 31 : 0;
  switch (format) {
    case Q4_0: unpackQ4_0(args, row, block, whole, tail, codes, scales, offsets, step); break;
    case Q4_1: unpackQ4_1(args, row, block, whole, tail, codes, scales, offsets, step); break;
    case Q5_0: unpackQ5_0(args, row, block, whole, tail, codes, scales, offsets, step); break;
    case Q5_1: unpackQ5_1(args, row, block, whole, tail, codes, scales, offsets, step); break;
    case Q8_0: unpackQ8_0(args, row, block, whole, tail, codes, scales, offsets, step); break;
    case INT8: unpackINT8(args, row, block, whole, tail, codes, scales, offsets, step); break;
    case UINT8: unpackUINT8(args, row, block, whole, tail, codes, scales, offsets, step); break;
    case INT4: unpackINT4(args, row, block, whole, tail, codes, scales, offsets, step); break;
    case UINT4: unpackUINT4(args, row, block, whole, tail, codes, scales, offsets, step); break;
    case NF4: unpackNF4(args, row, block, whole, tail, codes, scales, offsets, step); break;
    case NF4_SINGLE: unpackNF4_SINGLE(args, row, block, whole, tail, codes, scales, offsets, step); break;
    case FP4: unpackFP4(args, row, block, whole, tail, codes, scales, offsets, step); break;
    case FP4_SINGLE: unpackFP4_SINGLE(args, row, block, whole, tail, codes, scales, offsets, step); break;
    default: unpackKQuant(args, row, block, blocks, codes, scales, offsets, step);
  }
}
