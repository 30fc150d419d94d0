// Comparison and selection kernels over strided operands; results of comparisons are bytes 0 and 1.
// Inner strides are one element or none (broadcast); what is strided otherwise was copied before.
//
// Operands of compare: 0 out, 1 a, 2 b. Of where: 0 out, 1 condition, 2 a, 3 b.

import { int } from "./abi";
import { advance, nextRun, rowAddress, rowStride, runBlocks, runStart, seek } from "./odometer";

const F_EQUAL: i32 = 0;
const F_NOTEQUAL: i32 = 1;
const F_LESS: i32 = 2;
const F_LESSEQUAL: i32 = 3;
const F_GREATER: i32 = 4;
const F_GREATEREQUAL: i32 = 5;
const I_EQUAL: i32 = 6;
const I_NOTEQUAL: i32 = 7;
const I_LESS: i32 = 8;
const I_LESSEQUAL: i32 = 9;
const I_GREATER: i32 = 10;
const I_GREATEREQUAL: i32 = 11;

// @ts-ignore: decorator
@inline
function test(kind: i32, a: v128, b: v128): v128 {
  if (kind == F_EQUAL) return f32x4.eq(a, b);
  if (kind == F_NOTEQUAL) return f32x4.ne(a, b);
  if (kind == F_LESS) return f32x4.lt(a, b);
  if (kind == F_LESSEQUAL) return f32x4.le(a, b);
  if (kind == F_GREATER) return f32x4.gt(a, b);
  if (kind == F_GREATEREQUAL) return f32x4.ge(a, b);
  if (kind == I_EQUAL) return i32x4.eq(a, b);
  if (kind == I_NOTEQUAL) return i32x4.ne(a, b);
  if (kind == I_LESS) return i32x4.lt_s(a, b);
  if (kind == I_LESSEQUAL) return i32x4.le_s(a, b);
  if (kind == I_GREATER) return i32x4.gt_s(a, b);
  if (kind == I_GREATEREQUAL) return i32x4.ge_s(a, b);
  return a;
}

// @ts-ignore: decorator
@inline
function take(pointer: usize, stride: usize): v128 {
  return stride ? v128.load(pointer) : v128.load32_splat(pointer);
}

// @ts-ignore: decorator
@inline
function compare(kind: i32, args: usize, begin: i32, end: i32, state: usize): void {
  seek(args, begin / int(args, 1), state);
  const strideA = rowStride(args, 1);
  const strideB = rowStride(args, 2);
  for (let unit = begin; unit < end; ) {
    const n = nextRun(args, unit, end, state);
    const start = runStart(state);
    let dst = rowAddress(state, 0) + start;
    let a = rowAddress(state, 1) + start * strideA;
    let b = rowAddress(state, 2) + start * strideB;
    const stop = dst + <usize>n;
    const whole = dst + <usize>(n & ~15);
    for (; dst < whole; dst += 16) {
      const m0 = test(kind, take(a, strideA), take(b, strideB));
      const m1 = test(kind, take(a + 4 * strideA, strideA), take(b + 4 * strideB, strideB));
      const m2 = test(kind, take(a + 8 * strideA, strideA), take(b + 8 * strideB, strideB));
      const m3 = test(kind, take(a + 12 * strideA, strideA), take(b + 12 * strideB, strideB));
      // Masks are 0 or −1: narrowing keeps them, and negating gives 0 or 1.
      const m = i8x16.narrow_i16x8_s(i16x8.narrow_i32x4_s(m0, m1), i16x8.narrow_i32x4_s(m2, m3));
      v128.store(dst, i8x16.neg(m));
      a += 16 * strideA;
      b += 16 * strideB;
    }
    for (; dst < stop; dst++) {
      const m = test(kind, v128.load32_splat(a), v128.load32_splat(b));
      store<u8>(dst, <u8>(i32x4.extract_lane(m, 0) & 1));
      a += strideA;
      b += strideB;
    }
    unit += runBlocks(state);
    if (unit < end) advance(args, state);
  }
}

export function compare_equal(args: usize, begin: i32, end: i32, scratch: usize): void {
  compare(F_EQUAL, args, begin, end, scratch);
}

export function compare_notEqual(args: usize, begin: i32, end: i32, scratch: usize): void {
  compare(F_NOTEQUAL, args, begin, end, scratch);
}

export function compare_less(args: usize, begin: i32, end: i32, scratch: usize): void {
  compare(F_LESS, args, begin, end, scratch);
}

export function compare_lessEqual(args: usize, begin: i32, end: i32, scratch: usize): void {
  compare(F_LESSEQUAL, args, begin, end, scratch);
}

export function compare_greater(args: usize, begin: i32, end: i32, scratch: usize): void {
  compare(F_GREATER, args, begin, end, scratch);
}

export function compare_greaterEqual(args: usize, begin: i32, end: i32, scratch: usize): void {
  compare(F_GREATEREQUAL, args, begin, end, scratch);
}

export function compareInt_equal(args: usize, begin: i32, end: i32, scratch: usize): void {
  compare(I_EQUAL, args, begin, end, scratch);
}

export function compareInt_notEqual(args: usize, begin: i32, end: i32, scratch: usize): void {
  compare(I_NOTEQUAL, args, begin, end, scratch);
}

export function compareInt_less(args: usize, begin: i32, end: i32, scratch: usize): void {
  compare(I_LESS, args, begin, end, scratch);
}

export function compareInt_lessEqual(args: usize, begin: i32, end: i32, scratch: usize): void {
  compare(I_LESSEQUAL, args, begin, end, scratch);
}

export function compareInt_greater(args: usize, begin: i32, end: i32, scratch: usize): void {
  compare(I_GREATER, args, begin, end, scratch);
}

export function compareInt_greaterEqual(args: usize, begin: i32, end: i32, scratch: usize): void {
  compare(I_GREATEREQUAL, args, begin, end, scratch);
}

// @ts-ignore: decorator
@inline
function select<T>(args: usize, begin: i32, end: i32, state: usize): void {
  seek(args, begin / int(args, 1), state);
  const strideC = rowStride(args, 1);
  const strideA = rowStride(args, 2);
  const strideB = rowStride(args, 3);
  for (let unit = begin; unit < end; ) {
    const n = nextRun(args, unit, end, state);
    const start = runStart(state);
    let dst = rowAddress(state, 0) + start * sizeof<T>();
    let c = rowAddress(state, 1) + start * strideC;
    let a = rowAddress(state, 2) + start * strideA;
    let b = rowAddress(state, 3) + start * strideB;
    const stop = dst + <usize>n * sizeof<T>();
    if (sizeof<T>() == 4 && strideC) {
      const whole = dst + ((<usize>(n & ~3)) << 2);
      for (; dst < whole; dst += 16) {
        // Four bytes to four masks: 0 stays 0, anything else becomes −1.
        const bytes = i32x4.extend_low_i16x8_u(i16x8.extend_low_i8x16_u(v128.load32_zero(c)));
        const mask = i32x4.ne(bytes, i32x4.splat(0));
        v128.store(dst, v128.bitselect(take(a, strideA), take(b, strideB), mask));
        c += 4;
        a += 4 * strideA;
        b += 4 * strideB;
      }
    }
    for (; dst < stop; dst += sizeof<T>()) {
      store<T>(dst, load<u8>(c) ? load<T>(a) : load<T>(b));
      c += strideC;
      a += strideA;
      b += strideB;
    }
    unit += runBlocks(state);
    if (unit < end) advance(args, state);
  }
}

export function where1(args: usize, begin: i32, end: i32, scratch: usize): void {
  select<u8>(args, begin, end, scratch);
}

export function where2(args: usize, begin: i32, end: i32, scratch: usize): void {
  select<u16>(args, begin, end, scratch);
}

export function where4(args: usize, begin: i32, end: i32, scratch: usize): void {
  select<u32>(args, begin, end, scratch);
}
