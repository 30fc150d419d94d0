// Binary kernels over strided operands: one export a kind, so that no inner loop branches on it. Inner strides are one
// element or none (broadcast); what is strided otherwise was copied before. Operands: 0 out, 1 a, 2 b.

import { int } from "./abi";
import { floorDivide4, remainder4 } from "./division";
import { advance, nextRun, rowAddress, rowStride, runBlocks, runStart, STATE_BYTES, seek } from "./odometer";
import { powRow } from "./power";

const F_ADD: i32 = 0;
const F_SUB: i32 = 1;
const F_MUL: i32 = 2;
const F_DIV: i32 = 3;
const F_MINIMUM: i32 = 4;
const F_MAXIMUM: i32 = 5;
const F_POW: i32 = 6;
const I_ADD: i32 = 7;
const I_SUB: i32 = 8;
const I_MUL: i32 = 9;
const I_MINIMUM: i32 = 10;
const I_MAXIMUM: i32 = 11;
const F_FLOORDIVIDE: i32 = 14;
const F_REMAINDER: i32 = 15;
const I_FLOORDIVIDE: i32 = 16;
const I_REMAINDER: i32 = 17;
const I_AND: i32 = 18;
const I_OR: i32 = 19;
const I_XOR: i32 = 20;
const I_SHIFTLEFT: i32 = 21;
const I_SHIFTRIGHT: i32 = 22;

function remainderInt(a: i32, b: i32): i32 {
  if (b == 0 || b == -1) return 0;
  const rest = a % b;
  return rest != 0 && rest < 0 != b < 0 ? rest + b : rest;
}

function floorDivideInt(a: i32, b: i32): i32 {
  if (b == 0) return 0;
  if (b == -1) return -a;
  const quotient = a / b;
  return a % b != 0 && a < 0 != b < 0 ? quotient - 1 : quotient;
}

/** What integers have no lanes for. */
// @ts-ignore: decorator
@inline
function scalar(kind: i32, a: i32, b: i32): i32 {
  if (kind == I_FLOORDIVIDE) return floorDivideInt(a, b);
  if (kind == I_REMAINDER) return remainderInt(a, b);
  return kind == I_SHIFTLEFT ? a << (b & 31) : a >> (b & 31);
}

// @ts-ignore: decorator
@inline
function apply(kind: i32, a: v128, b: v128): v128 {
  if (kind == F_ADD) return f32x4.add(a, b);
  if (kind == F_SUB) return f32x4.sub(a, b);
  if (kind == F_MUL) return f32x4.mul(a, b);
  if (kind == F_DIV) return f32x4.div(a, b);
  if (kind == F_MINIMUM) return f32x4.min(a, b);
  if (kind == F_MAXIMUM) return f32x4.max(a, b);
  if (kind == I_ADD) return i32x4.add(a, b);
  if (kind == I_SUB) return i32x4.sub(a, b);
  if (kind == I_MUL) return i32x4.mul(a, b);
  if (kind == I_MINIMUM) return i32x4.min_s(a, b);
  if (kind == I_MAXIMUM) return i32x4.max_s(a, b);
  if (kind == I_AND) return v128.and(a, b);
  if (kind == I_OR) return v128.or(a, b);
  if (kind == I_XOR) return v128.xor(a, b);
  if (kind == F_FLOORDIVIDE) return floorDivide4(a, b);
  if (kind == F_REMAINDER) return remainder4(a, b);
  return a;
}

/** Four elements, or one of them in all lanes. */
// @ts-ignore: decorator
@inline
function take(pointer: usize, broadcast: bool): v128 {
  return broadcast ? v128.load32_splat(pointer) : v128.load(pointer);
}

// @ts-ignore: decorator
@inline
function rowOf(kind: i32, dst: usize, a: usize, b: usize, n: i32, splatA: bool, splatB: bool): void {
  const stop = dst + ((<usize>n) << 2);
  const wide = dst + ((<usize>(n & ~15)) << 2);
  const whole = dst + ((<usize>(n & ~3)) << 2);
  if (kind == F_ADD || kind == F_SUB || kind == F_MUL) {
    while (dst < wide) {
      const y0 = apply(kind, take(a, splatA), take(b, splatB));
      const y1 = apply(kind, take(splatA ? a : a + 16, splatA), take(splatB ? b : b + 16, splatB));
      const y2 = apply(kind, take(splatA ? a : a + 32, splatA), take(splatB ? b : b + 32, splatB));
      const y3 = apply(kind, take(splatA ? a : a + 48, splatA), take(splatB ? b : b + 48, splatB));
      v128.store(dst, y0);
      v128.store(dst, y1, 16);
      v128.store(dst, y2, 32);
      v128.store(dst, y3, 48);
      dst += 64;
      if (!splatA) a += 64;
      if (!splatB) b += 64;
    }
  }
  while (dst < whole) {
    v128.store(dst, apply(kind, take(a, splatA), take(b, splatB)));
    dst += 16;
    if (!splatA) a += 16;
    if (!splatB) b += 16;
  }
  while (dst < stop) {
    v128.store_lane<u32>(dst, apply(kind, v128.load32_splat(a), v128.load32_splat(b)), 0);
    dst += 4;
    if (!splatA) a += 4;
    if (!splatB) b += 4;
  }
}

/** As {@link rowOf} for what takes far longer than loading: one loop for all ways to broadcast, and for the last elements. */
// @ts-ignore: decorator
@inline
function divisionRowOf(kind: i32, dst: usize, a: usize, b: usize, n: i32, strideA: usize, strideB: usize): void {
  const stop = dst + ((<usize>n) << 2);
  while (dst < stop) {
    const full = stop - dst >= 16;
    const y = apply(kind, take(a, !(strideA && full)), take(b, !(strideB && full)));
    if (full) v128.store(dst, y);
    else v128.store_lane<u32>(dst, y, 0);
    const count: usize = full ? 4 : 1;
    dst += 4 * count;
    a += strideA * count;
    b += strideB * count;
  }
}

// @ts-ignore: decorator
@inline
function hasNoLanes(kind: i32): bool {
  return kind == I_FLOORDIVIDE || kind == I_REMAINDER || kind == I_SHIFTLEFT || kind == I_SHIFTRIGHT;
}

/** As {@link rowOf}, one number at a time. */
// @ts-ignore: decorator
@inline
function scalarRowOf(kind: i32, dst: usize, a: usize, b: usize, n: i32, strideA: usize, strideB: usize): void {
  const stop = dst + ((<usize>n) << 2);
  for (; dst < stop; dst += 4, a += strideA, b += strideB) store<i32>(dst, scalar(kind, load<i32>(a), load<i32>(b)));
}

// @ts-ignore: decorator
@inline
function zip(kind: i32, args: usize, begin: i32, end: i32, state: usize): void {
  seek(args, begin / int(args, 1), state);
  const strideA = rowStride(args, 1);
  const strideB = rowStride(args, 2);
  for (let unit = begin; unit < end; ) {
    const n = nextRun(args, unit, end, state);
    const start = runStart(state);
    const dst = rowAddress(state, 0) + (start << 2);
    const a = rowAddress(state, 1) + start * strideA;
    const b = rowAddress(state, 2) + start * strideB;
    if (kind == F_POW) powRow(dst, a, b, n, strideA, strideB, state + STATE_BYTES);
    else if (hasNoLanes(kind)) scalarRowOf(kind, dst, a, b, n, strideA, strideB);
    else if (kind == F_FLOORDIVIDE || kind == F_REMAINDER) divisionRowOf(kind, dst, a, b, n, strideA, strideB);
    else if (strideA && strideB) rowOf(kind, dst, a, b, n, false, false);
    else if (strideA) rowOf(kind, dst, a, b, n, false, true);
    else if (strideB) rowOf(kind, dst, a, b, n, true, false);
    else rowOf(kind, dst, a, b, n, true, true);
    unit += runBlocks(state);
    if (unit < end) advance(args, state);
  }
}

export function binary_add(args: usize, begin: i32, end: i32, scratch: usize): void {
  zip(F_ADD, args, begin, end, scratch);
}

export function binary_sub(args: usize, begin: i32, end: i32, scratch: usize): void {
  zip(F_SUB, args, begin, end, scratch);
}

export function binary_mul(args: usize, begin: i32, end: i32, scratch: usize): void {
  zip(F_MUL, args, begin, end, scratch);
}

export function binary_div(args: usize, begin: i32, end: i32, scratch: usize): void {
  zip(F_DIV, args, begin, end, scratch);
}

export function binary_minimum(args: usize, begin: i32, end: i32, scratch: usize): void {
  zip(F_MINIMUM, args, begin, end, scratch);
}

export function binary_maximum(args: usize, begin: i32, end: i32, scratch: usize): void {
  zip(F_MAXIMUM, args, begin, end, scratch);
}

export function binary_pow(args: usize, begin: i32, end: i32, scratch: usize): void {
  zip(F_POW, args, begin, end, scratch);
}

export function binaryInt_add(args: usize, begin: i32, end: i32, scratch: usize): void {
  zip(I_ADD, args, begin, end, scratch);
}

export function binaryInt_sub(args: usize, begin: i32, end: i32, scratch: usize): void {
  zip(I_SUB, args, begin, end, scratch);
}

export function binaryInt_mul(args: usize, begin: i32, end: i32, scratch: usize): void {
  zip(I_MUL, args, begin, end, scratch);
}

export function binaryInt_minimum(args: usize, begin: i32, end: i32, scratch: usize): void {
  zip(I_MINIMUM, args, begin, end, scratch);
}

export function binaryInt_maximum(args: usize, begin: i32, end: i32, scratch: usize): void {
  zip(I_MAXIMUM, args, begin, end, scratch);
}

export function binary_floorDivide(args: usize, begin: i32, end: i32, scratch: usize): void {
  zip(F_FLOORDIVIDE, args, begin, end, scratch);
}

export function binary_remainder(args: usize, begin: i32, end: i32, scratch: usize): void {
  zip(F_REMAINDER, args, begin, end, scratch);
}

export function binaryInt_floorDivide(args: usize, begin: i32, end: i32, scratch: usize): void {
  zip(I_FLOORDIVIDE, args, begin, end, scratch);
}

export function binaryInt_remainder(args: usize, begin: i32, end: i32, scratch: usize): void {
  zip(I_REMAINDER, args, begin, end, scratch);
}

export function binaryInt_bitwiseAnd(args: usize, begin: i32, end: i32, scratch: usize): void {
  zip(I_AND, args, begin, end, scratch);
}

export function binaryInt_bitwiseOr(args: usize, begin: i32, end: i32, scratch: usize): void {
  zip(I_OR, args, begin, end, scratch);
}

export function binaryInt_bitwiseXor(args: usize, begin: i32, end: i32, scratch: usize): void {
  zip(I_XOR, args, begin, end, scratch);
}

export function binaryInt_shiftLeft(args: usize, begin: i32, end: i32, scratch: usize): void {
  zip(I_SHIFTLEFT, args, begin, end, scratch);
}

export function binaryInt_shiftRight(args: usize, begin: i32, end: i32, scratch: usize): void {
  zip(I_SHIFTRIGHT, args, begin, end, scratch);
}
