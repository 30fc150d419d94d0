// Unary kernels over strided operands: one export a kind, so that no inner loop branches on it. Inner strides are one
// element; what is strided otherwise was copied before. Operands: 0 out, 1 x.

import { erf4, exp4, expm14, gelu4, geluTanh4, log4, log1p4, sigmoid4, silu4, sinCos4, softplus4, tanh4 } from "./math";
import { int } from "./abi";
import { advance, nextRun, rowAddress, runBlocks, runStart, seek } from "./odometer";

const NEG: i32 = 0;
const ABS: i32 = 1;
const SIGN: i32 = 2;
const SQRT: i32 = 3;
const RSQRT: i32 = 4;
const EXP: i32 = 5;
const EXPM1: i32 = 6;
const LOG: i32 = 7;
const LOG1P: i32 = 8;
const SIN: i32 = 9;
const COS: i32 = 10;
const TANH: i32 = 11;
const ERF: i32 = 12;
const SIGMOID: i32 = 13;
const SILU: i32 = 14;
const GELU: i32 = 15;
const GELUTANH: i32 = 16;
const SOFTPLUS: i32 = 17;
const RELU: i32 = 18;
const SQUARE: i32 = 19;
const RECIPROCAL: i32 = 20;
const FLOOR: i32 = 21;
const CEIL: i32 = 22;
const ROUND: i32 = 23;
const I32_NEG: i32 = 24;
const I32_ABS: i32 = 25;
const I32_SIGN: i32 = 26;
const I32_SQUARE: i32 = 28;

/** 1, −1, or x itself where it is ±0 or NaN. */
// @ts-ignore: decorator
@inline
function sign4(x: v128): v128 {
  const signed = v128.or(v128.and(x, i32x4.splat(0x80000000)), f32x4.splat(1.0));
  return v128.bitselect(signed, x, v128.or(f32x4.gt(x, i32x4.splat(0)), f32x4.lt(x, i32x4.splat(0))));
}

// @ts-ignore: decorator
@inline
function apply(kind: i32, x: v128): v128 {
  if (kind == NEG) return f32x4.neg(x);
  if (kind == ABS) return f32x4.abs(x);
  if (kind == SIGN) return sign4(x);
  if (kind == SQRT) return f32x4.sqrt(x);
  if (kind == RSQRT) return f32x4.div(f32x4.splat(1.0), f32x4.sqrt(x));
  if (kind == EXP) return exp4(x);
  if (kind == EXPM1) return expm14(x);
  if (kind == LOG) return log4(x);
  if (kind == LOG1P) return log1p4(x);
  if (kind == SIN) return sinCos4(x, 0);
  if (kind == COS) return sinCos4(x, 1);
  if (kind == TANH) return tanh4(x);
  if (kind == ERF) return erf4(x);
  if (kind == SIGMOID) return sigmoid4(x);
  if (kind == SILU) return silu4(x);
  if (kind == GELU) return gelu4(x);
  if (kind == GELUTANH) return geluTanh4(x);
  if (kind == SOFTPLUS) return softplus4(x);
  if (kind == RELU) return f32x4.max(x, i32x4.splat(0));
  if (kind == SQUARE) return f32x4.mul(x, x);
  if (kind == RECIPROCAL) return f32x4.div(f32x4.splat(1.0), x);
  if (kind == FLOOR) return f32x4.floor(x);
  if (kind == CEIL) return f32x4.ceil(x);
  if (kind == ROUND) return f32x4.nearest(x);
  if (kind == I32_NEG) return i32x4.neg(x);
  if (kind == I32_ABS) return i32x4.abs(x);
  if (kind == I32_SIGN) return v128.or(i32x4.shr_s(x, 31), i32x4.shr_u(i32x4.neg(x), 31));
  if (kind == I32_SQUARE) return i32x4.mul(x, x);
  return x;
}

// @ts-ignore: decorator
@inline
function map(kind: i32, args: usize, begin: i32, end: i32, state: usize): void {
  seek(args, begin / int(args, 1), state);
  for (let unit = begin; unit < end; ) {
    const n = nextRun(args, unit, end, state);
    let dst = rowAddress(state, 0) + (runStart(state) << 2);
    let src = rowAddress(state, 1) + (runStart(state) << 2);
    const stop = dst + ((<usize>n) << 2);
    const whole = dst + ((<usize>(n & ~3)) << 2);
    for (; dst < whole; dst += 16, src += 16) v128.store(dst, apply(kind, v128.load(src)));
    for (; dst < stop; dst += 4, src += 4) v128.store_lane<u32>(dst, apply(kind, v128.load32_zero(src)), 0);
    unit += runBlocks(state);
    if (unit < end) advance(args, state);
  }
}

export function unary_neg(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(NEG, args, begin, end, scratch);
}

export function unary_abs(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(ABS, args, begin, end, scratch);
}

export function unary_sign(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(SIGN, args, begin, end, scratch);
}

export function unary_sqrt(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(SQRT, args, begin, end, scratch);
}

export function unary_rsqrt(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(RSQRT, args, begin, end, scratch);
}

export function unary_exp(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(EXP, args, begin, end, scratch);
}

export function unary_expm1(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(EXPM1, args, begin, end, scratch);
}

export function unary_log(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(LOG, args, begin, end, scratch);
}

export function unary_log1p(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(LOG1P, args, begin, end, scratch);
}

export function unary_sin(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(SIN, args, begin, end, scratch);
}

export function unary_cos(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(COS, args, begin, end, scratch);
}

export function unary_tanh(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(TANH, args, begin, end, scratch);
}

export function unary_erf(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(ERF, args, begin, end, scratch);
}

export function unary_sigmoid(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(SIGMOID, args, begin, end, scratch);
}

export function unary_silu(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(SILU, args, begin, end, scratch);
}

export function unary_gelu(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(GELU, args, begin, end, scratch);
}

export function unary_geluTanh(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(GELUTANH, args, begin, end, scratch);
}

export function unary_softplus(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(SOFTPLUS, args, begin, end, scratch);
}

export function unary_relu(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(RELU, args, begin, end, scratch);
}

export function unary_square(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(SQUARE, args, begin, end, scratch);
}

export function unary_reciprocal(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(RECIPROCAL, args, begin, end, scratch);
}

export function unary_floor(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(FLOOR, args, begin, end, scratch);
}

export function unary_ceil(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(CEIL, args, begin, end, scratch);
}

export function unary_round(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(ROUND, args, begin, end, scratch);
}

export function unaryInt_neg(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(I32_NEG, args, begin, end, scratch);
}

export function unaryInt_abs(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(I32_ABS, args, begin, end, scratch);
}

export function unaryInt_sign(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(I32_SIGN, args, begin, end, scratch);
}

export function unaryInt_square(args: usize, begin: i32, end: i32, scratch: usize): void {
  map(I32_SQUARE, args, begin, end, scratch);
}
