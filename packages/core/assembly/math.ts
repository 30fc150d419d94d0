// Elementary functions of four float32 lanes. Polynomials after Cephes (S. Moshier), erf after Eigen.
//
// Constants are loaded from static tables: a v128 constant inside a loop is rebuilt each time round by V8.
// pmin(x, c) and pmax(x, c) are one instruction each and keep a NaN in x, which min and max need five for.

import { constant, madd, wide } from "./abi";

// −104 (e^x rounds to 0), 89 (e^x is ∞), log2 e, 1.5·2^23, −ln 2 in two parts (the first has 9 bits, so that n·hi is
// exact), then the polynomial P of e^r = 1 + r + r²·P(r) on |r| ≤ ln 2 / 2, and 1.
const EXP: usize = memory.data<f32>([
  -104.0, 89.0, 1.44269504088896341, 12582912.0, -0.693359375, 2.12194440e-4,
  1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1,
  1.0, 0.5, -18.0, 2.0,
]);

// @ts-ignore: decorator
@inline
function one(): v128 {
  return constant(EXP, 12);
}

/** r + r²·P(r) = e^r − 1 for |r| ≤ ln 2 / 2. */
// @ts-ignore: decorator
@inline
function expm1Reduced(r: v128): v128 {
  let p = madd(constant(EXP, 6), r, constant(EXP, 7));
  p = madd(p, r, constant(EXP, 8));
  p = madd(p, r, constant(EXP, 9));
  p = madd(p, r, constant(EXP, 10));
  p = madd(p, r, constant(EXP, 11));
  return madd(p, f32x4.mul(r, r), r);
}

/** e^x: within 1 ulp; denormal results are right, ∞ above 88.72. */
// @ts-ignore: decorator
@inline
export function exp4(x: v128): v128 {
  x = f32x4.pmin(f32x4.pmax(x, constant(EXP, 0)), constant(EXP, 1));
  // Adding 1.5·2^23 rounds to an integer, which then stands in the low bits.
  const t = madd(x, constant(EXP, 2), constant(EXP, 3));
  const n = f32x4.sub(t, constant(EXP, 3));
  const r = madd(n, constant(EXP, 5), madd(n, constant(EXP, 4), x));
  const p = f32x4.add(expm1Reduced(r), one());
  // 2^n as a product of two normal numbers, for n reaches from −150 to 128: n + 254 is cut in halves, each a biased exponent.
  const k = i32x4.sub(t, i32x4.splat(0x4b400000 - 254));
  const k1 = i32x4.shr_s(k, 1);
  const k2 = i32x4.sub(k, k1);
  return f32x4.mul(f32x4.mul(p, i32x4.shl(k1, 23)), i32x4.shl(k2, 23));
}

/** e^x − 1: within 2 ulp, exact near 0. */
// @ts-ignore: decorator
@inline
export function expm14(x: v128): v128 {
  const c = f32x4.pmin(f32x4.pmax(x, constant(EXP, 14)), constant(EXP, 1));
  const t = madd(c, constant(EXP, 2), constant(EXP, 3));
  const n = f32x4.sub(t, constant(EXP, 3));
  const r = madd(n, constant(EXP, 5), madd(n, constant(EXP, 4), c));
  const p = expm1Reduced(r);
  // s = 2^(n−1), which is finite also for n = 128: e^x − 1 = 2·(s·p + (s − ½)).
  const s = i32x4.shl(i32x4.sub(t, i32x4.splat(0x4b400000 - 126)), 23);
  const y = madd(s, p, f32x4.sub(s, constant(EXP, 13)));
  const small = i32x4.eq(s, constant(EXP, 13)); // n = 0: p itself, which keeps denormals
  return v128.bitselect(x, v128.bitselect(p, f32x4.add(y, y), small), f32x4.eq(x, i32x4.splat(0)));
}

/** 1 / (1 + e^−x): within 2 ulp on both sides, since only e^−|x| is formed. */
// @ts-ignore: decorator
@inline
export function sigmoid4(x: v128): v128 {
  const z = exp4(f32x4.neg(f32x4.abs(x)));
  const numerator = v128.bitselect(z, one(), i32x4.shr_s(x, 31));
  return f32x4.div(numerator, f32x4.add(one(), z));
}

/** 1 / (1 + e^−x), the quicker form: as sigmoid4, but 0 below −88.7. */
// @ts-ignore: decorator
@inline
export function logistic4(x: v128): v128 {
  return f32x4.div(one(), f32x4.add(one(), exp4(f32x4.neg(x))));
}

/** x / (1 + e^−x): within 2.5 ulp; 0 below −88.7, where the result is under 3e−37, and NaN at −∞ (∞ · 0, as in PyTorch). */
// @ts-ignore: decorator
@inline
export function silu4(x: v128): v128 {
  return f32x4.div(x, f32x4.add(one(), exp4(f32x4.neg(x))));
}

/** tanh x = −t / (2 + t) with t = e^(−2|x|) − 1: within 2.5 ulp. */
// @ts-ignore: decorator
@inline
export function tanh4(x: v128): v128 {
  const a = f32x4.abs(x);
  const t = expm14(f32x4.neg(f32x4.add(a, a)));
  const y = f32x4.div(t, f32x4.add(constant(EXP, 15), t));
  // y ≤ 0 has tanh |x|'s magnitude; the sign of x goes over it.
  return v128.bitselect(x, y, i32x4.splat(0x80000000));
}

// Smallest normal number, 2^23, the polynomial P of ln(1+f) = f − f²/2 + f³·P(f), ln 2 in two parts, −½, 1, ∞, −∞, 23.
const LOG: usize = memory.data<f32>([
  1.17549435e-38, 8388608.0,
  7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
  2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
  -2.12194440e-4, 0.693359375, -0.5, 1.0, Infinity, -Infinity, 23.0,
]);

/** ln x: within 1 ulp; −∞ at 0, NaN below, denormal x as well. */
// @ts-ignore: decorator
@inline
export function log4(x: v128): v128 {
  const tiny = f32x4.lt(x, constant(LOG, 0));
  const scaled = v128.bitselect(f32x4.mul(x, constant(LOG, 1)), x, tiny);
  // Exponent e and mantissa in [√½, √2): moving the origin to √½ makes both come out of one subtraction.
  const bits = i32x4.sub(scaled, i32x4.splat(0x3f3504f3));
  let e = f32x4.convert_i32x4_s(i32x4.shr_s(bits, 23));
  e = f32x4.sub(e, v128.and(tiny, constant(LOG, 17)));
  const m = i32x4.add(v128.and(bits, i32x4.splat(0x007fffff)), i32x4.splat(0x3f3504f3));
  const f = f32x4.sub(m, constant(LOG, 14));
  const z = f32x4.mul(f, f);
  let p = madd(constant(LOG, 2), f, constant(LOG, 3));
  p = madd(p, f, constant(LOG, 4));
  p = madd(p, f, constant(LOG, 5));
  p = madd(p, f, constant(LOG, 6));
  p = madd(p, f, constant(LOG, 7));
  p = madd(p, f, constant(LOG, 8));
  p = madd(p, f, constant(LOG, 9));
  p = madd(p, f, constant(LOG, 10));
  let y = f32x4.mul(f32x4.mul(p, f), z);
  y = madd(e, constant(LOG, 11), y);
  y = madd(constant(LOG, 13), z, y);
  y = madd(e, constant(LOG, 12), f32x4.add(f, y));
  y = v128.bitselect(x, y, f32x4.eq(x, constant(LOG, 15)));
  y = v128.bitselect(constant(LOG, 16), y, f32x4.eq(x, i32x4.splat(0)));
  return v128.or(y, v128.not(f32x4.ge(x, i32x4.splat(0))));
}

/** ln(1 + x): ln u + (x − (u − 1)) / u with u = 1 + x rounded, the second term making up for the rounding. */
// @ts-ignore: decorator
@inline
export function log1p4(x: v128): v128 {
  const u = f32x4.add(constant(LOG, 14), x);
  const c = f32x4.div(f32x4.sub(x, f32x4.sub(u, constant(LOG, 14))), u);
  // The term is NaN at u = 0 and u = ∞, where it is not wanted.
  const useful = v128.and(f32x4.gt(u, i32x4.splat(0)), f32x4.lt(u, constant(LOG, 15)));
  const y = f32x4.add(log4(u), v128.and(c, useful));
  // ±0 stays as it is.
  return v128.bitselect(x, y, f32x4.eq(x, i32x4.splat(0)));
}

// ln(1 + t) = t + t²·P(t) on [0, 1], P from the highest power: interpolated at Chebyshev's points.
const LOG1P: usize = memory.data<f32>([
  -0.004579766187816858, 0.025682786479592323, -0.06751181185245514, 0.11626528203487396, -0.15878385305404663,
  0.19862109422683716, -0.2498755156993866, 0.3333289325237274, -0.4999999701976776,
]);

/** ln(1 + e^x) = max(x, 0) + ln(1 + e^−|x|): within 2.5 ulp. */
// @ts-ignore: decorator
@inline
export function softplus4(x: v128): v128 {
  const t = exp4(f32x4.neg(f32x4.abs(x)));
  const t2 = f32x4.mul(t, t);
  // In pairs, which wait less for each other.
  const low = madd(madd(constant(LOG1P, 5), t, constant(LOG1P, 6)), t2, madd(constant(LOG1P, 7), t, constant(LOG1P, 8)));
  const high = madd(madd(constant(LOG1P, 1), t, constant(LOG1P, 2)), t2, madd(constant(LOG1P, 3), t, constant(LOG1P, 4)));
  const t4 = f32x4.mul(t2, t2);
  const p = madd(madd(constant(LOG1P, 0), t4, high), t4, low);
  return f32x4.add(f32x4.max(x, i32x4.splat(0)), madd(p, t2, t));
}

// erf x = x·P(x²)/Q(x²) on |x| ≤ 4: 4, P from the highest power, Q from the highest power.
const ERF: usize = memory.data<f32>([
  4.0,
  -2.72614225801306e-10, 2.77068142495902e-8, -2.10102402082508e-6, -5.69250639462346e-5, -7.34990630326855e-4,
  -2.95459980854025e-3, -1.60960333262415e-2,
  -1.45660718464996e-5, -2.13374055278905e-4, -1.68282697438203e-3, -7.37332916720468e-3, -1.42647390514189e-2,
  0.70710678118654752, 0.5, 1.0, 0.79788456080286536, 0.044715,
]);

// @ts-ignore: decorator
@inline
export function erf4(x: v128): v128 {
  const c = f32x4.pmin(f32x4.pmax(x, f32x4.neg(constant(ERF, 0))), constant(ERF, 0));
  const z = f32x4.mul(c, c);
  let p = madd(constant(ERF, 1), z, constant(ERF, 2));
  p = madd(p, z, constant(ERF, 3));
  p = madd(p, z, constant(ERF, 4));
  p = madd(p, z, constant(ERF, 5));
  p = madd(p, z, constant(ERF, 6));
  p = madd(p, z, constant(ERF, 7));
  let q = madd(constant(ERF, 8), z, constant(ERF, 9));
  q = madd(q, z, constant(ERF, 10));
  q = madd(q, z, constant(ERF, 11));
  q = madd(q, z, constant(ERF, 12));
  const y = f32x4.div(f32x4.mul(c, p), q);
  return f32x4.pmin(f32x4.pmax(y, f32x4.neg(constant(ERF, 15))), constant(ERF, 15));
}

/** ½·x·(1 + erf(x/√2)); NaN at −∞, as in PyTorch. */
// @ts-ignore: decorator
@inline
export function gelu4(x: v128): v128 {
  const e = erf4(f32x4.mul(x, constant(ERF, 13)));
  return f32x4.mul(f32x4.mul(constant(ERF, 14), x), f32x4.add(constant(ERF, 15), e));
}

/** ½·x·(1 + tanh u) = x·sigmoid(2u), u = √(2/π)·(x + 0.044715·x³); NaN at −∞, as in PyTorch. */
// @ts-ignore: decorator
@inline
export function geluTanh4(x: v128): v128 {
  const cubic = madd(f32x4.mul(constant(ERF, 17), f32x4.mul(x, x)), x, x);
  const u = f32x4.mul(constant(ERF, 16), cubic);
  return f32x4.mul(x, sigmoid4(f32x4.add(u, u)));
}

// 2/π, π/2 in two parts (the first has 25 bits), 1.5·2^52, π/2 · 2^−62.
const PI_2: usize = memory.data<f64>([
  0.63661977236758134, 1.57079631090164184570, 1.58932547735281966916e-8, 6755399441055744.0, 3.4061215800304874e-19,
]);
// 2/π after the point, in words from the highest.
const TWO_BY_PI: usize = memory.data<u32>([
  0xa2f9836e, 0x4e441529, 0xfc2757d1, 0xf534ddc0, 0xdb629599, 0x3c439041, 0xfe5163ab,
]);
// sin r = r + r³·S(r²), cos r = 1 − r²/2 + r⁴·C(r²) on |r| ≤ π/4; largest argument of the vector path; 1; ½.
const SINCOS: usize = memory.data<f32>([
  -1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1,
  2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2,
  1.0e8, 1.0, 0.5,
]);

/** sin (shift 0) or cos (shift 1): within 1.6 ulp for every argument; NaN at ±∞. */
// @ts-ignore: decorator
@inline
export function sinCos4(x: v128, shift: i32): v128 {
  if (v128.any_true(v128.not(f32x4.le(f32x4.abs(x), constant(SINCOS, 6))))) return sinCosLarge(x, shift);
  // Two halves in float64: n = nearest(x·2/π), r = x − n·π/2.
  const magic = wide(PI_2, 3);
  const scale = wide(PI_2, 0);
  const hi = wide(PI_2, 1);
  const lo = wide(PI_2, 2);
  const xa = f64x2.promote_low_f32x4(x);
  const xb = f64x2.promote_low_f32x4(i32x4.shuffle(x, x, 2, 3, 2, 3));
  const ta = f64x2.add(f64x2.mul(xa, scale), magic);
  const tb = f64x2.add(f64x2.mul(xb, scale), magic);
  const na = f64x2.sub(ta, magic);
  const nb = f64x2.sub(tb, magic);
  const ra = f64x2.sub(f64x2.sub(xa, f64x2.mul(na, hi)), f64x2.mul(na, lo));
  const rb = f64x2.sub(f64x2.sub(xb, f64x2.mul(nb, hi)), f64x2.mul(nb, lo));
  const r = i32x4.shuffle(f32x4.demote_f64x2_zero(ra), f32x4.demote_f64x2_zero(rb), 0, 1, 4, 5);
  const y = sinCosReduced(r, i32x4.shuffle(ta, tb, 0, 2, 4, 6), shift);
  if (shift) return y;
  return v128.bitselect(x, y, f32x4.eq(x, i32x4.splat(0))); // keeps −0
}

/** sin or cos of r + n·π/2. */
// @ts-ignore: decorator
@inline
function sinCosReduced(r: v128, n: v128, shift: i32): v128 {
  const q = i32x4.add(n, i32x4.splat(shift));
  const z = f32x4.mul(r, r);
  let s = madd(constant(SINCOS, 0), z, constant(SINCOS, 1));
  s = madd(s, z, constant(SINCOS, 2));
  s = madd(s, f32x4.mul(z, r), r);
  let c = madd(constant(SINCOS, 3), z, constant(SINCOS, 4));
  c = madd(c, z, constant(SINCOS, 5));
  c = f32x4.add(madd(c, f32x4.mul(z, z), f32x4.mul(f32x4.neg(constant(SINCOS, 8)), z)), constant(SINCOS, 7));
  const odd = i32x4.eq(v128.and(q, i32x4.splat(1)), i32x4.splat(1));
  const sign = i32x4.shl(v128.and(q, i32x4.splat(2)), 30);
  return v128.xor(v128.bitselect(c, s, odd), sign);
}

/** Arguments that float64 cannot reduce, lane by lane. */
function sinCosLarge(x: v128, shift: i32): v128 {
  const a = reduceLarge(f32x4.extract_lane(x, 0));
  const b = reduceLarge(f32x4.extract_lane(x, 1));
  const c = reduceLarge(f32x4.extract_lane(x, 2));
  const d = reduceLarge(f32x4.extract_lane(x, 3));
  const low = i32x4.shuffle(a, b, 0, 4, 1, 5);
  const high = i32x4.shuffle(c, d, 0, 4, 1, 5);
  const y = sinCosReduced(i32x4.shuffle(low, high, 0, 1, 4, 5), i32x4.shuffle(low, high, 2, 3, 6, 7), shift);
  if (shift) return y;
  return v128.bitselect(x, y, f32x4.eq(x, i32x4.splat(0)));
}

/** r in lane 0 and the int32 n in lane 1, with x = r + n·π/2: after Payne and Hanek, by 96 bits of 2/π. */
function reduceLarge(x: f32): v128 {
  const bits = reinterpret<u32>(x);
  const exponent = <i32>((bits >> 23) & 255);
  let r: f32;
  let n: i32;
  if (exponent == 255) return f32x4.splat(NaN);
  if (abs(x) <= load<f32>(SINCOS + 24)) {
    const t = nearest(<f64>x * load<f64>(PI_2));
    r = <f32>(<f64>x - t * load<f64>(PI_2 + 8) - t * load<f64>(PI_2 + 16));
    n = <i32>t;
  } else {
    // x = m·2^k. Bits of 2/π that m·2^k makes multiples of 4 out of do not count.
    const m = <u64>((bits & 0x007fffff) | 0x00800000);
    const skipped = exponent - 152;
    const words = TWO_BY_PI + (<usize>(skipped >> 5) << 2);
    const shift = <u64>(skipped & 31);
    const high = rotl<u64>(load<u64>(words), 32);
    const next = rotl<u64>(load<u64>(words, 8), 32);
    const window = (high << shift) | (shift ? next >> (64 - shift) : 0);
    // x·2/π modulo 4, in units of 2^−62.
    const product = m * window + ((m * ((next << shift) >> 32)) >> 32);
    n = <i32>((product + 0x2000000000000000) >> 62);
    r = <f32>(<f64><i64>(product - (<u64>n << 62)) * load<f64>(PI_2 + 32));
    if (x < 0) {
      r = -r;
      n = -n;
    }
  }
  return f32x4.replace_lane(i32x4.splat(n), 0, r);
}
