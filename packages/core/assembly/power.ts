// a^b of float32 lanes: e^(b·ln a), where the exponent needs more digits than float32 has and is the sum of two numbers;
// and the natural logarithm of one float64 number.

import { constant, madd } from "./abi";

// 1.5·2^23, which rounds to an integer; 1, ½, 2^24; ln 2 / 4 and ln 2 in two parts each, the first of 14 and 15 bits, so that
// its product with an integer is exact, the last of them negative; log2 e; the exponents beyond which float32 has 0 and ∞; one up to which e^x
// is a normal number.
const NUMBERS: usize = memory.data<f32>([
  12582912.0, 1.0, 0.5, 16777216.0,
  0.1732940673828125, -7.272242783074034e-06, 0.693145751953125, -1.428606765330187e-06,
  1.4426950216293335, -104.0, 89.0, 86.0,
]);
// ln(m / c) = s + s³·L(s²) with s = 2(m − c)/(m + c), |s| ≤ 0.12: L from the highest power, of least error (2e-13).
const LOG: usize = memory.data<f32>([0.002244097413495183, 0.012499900534749031, 0.0833333358168602]);
// e^r = 1 + r + r²·E(r) on |r| ≤ ln 2 / 2: E from the highest power, of least error (3e-9).
const EXP: usize = memory.data<f32>([
  0.0013950987486168742, 0.008369175717234612, 0.04166619852185249, 0.16666516661643982, 0.5,
]);
// c = 2^(k/4) rounded, k = 0 … 3, and ln c − k·ln 2 / 4.
const ROOTS: usize = memory.data<f32>([1.0, 1.1892070770263672, 1.4142135381698608, 1.6817928552627563]);
const RESTS: usize = memory.data<f32>([0.0, -3.1934181521364735e-08, -1.7114270889351246e-08, 1.4719605978547854e-08]);
// Bits of the mantissa; of 0.92, where the mantissa's range begins; the least and the largest normal number, counted from
// there; 24 in an exponent; ∞; the upper 12 bits of a number; 4k in a byte, and the bytes of element k.
const BITS: usize = memory.data<u32>([
  0x007fffff, 0x3f6b851f, 0xc1147ae1, 0x40147ae0, 0x0c000000, 0x7f800000, 0xfffff000, 0x0c0c0c0c, 0x03020100,
]);
/** The byte of each lane that holds k. */
const BYTES: usize = memory.data<u8>([2, 2, 2, 2, 6, 6, 6, 6, 10, 10, 10, 10, 14, 14, 14, 14]);

/** Bytes of `table` by their places, 0 to 15. */
// @ts-ignore: decorator
@inline
function lookUp(table: v128, places: v128): v128 {
  return i8x16.relaxed_swizzle(table, places);
}

/** Bits of |a|, counted from the mantissa's range; of a denormal one times 2^24, with 24 less in the exponent. */
function magnitudeBits(a: v128): v128 {
  const x = f32x4.abs(a);
  const tiny = i32x4.le_s(x, constant(BITS, 0));
  const normal = v128.bitselect(f32x4.mul(x, constant(NUMBERS, 3)), x, tiny);
  return i32x4.sub(i32x4.sub(normal, constant(BITS, 1)), v128.and(tiny, constant(BITS, 4)));
}

/**
 * a^b of `n` elements, a multiple of 8; from one eight of a and b to the next are `stepA` and `stepB` bytes. Within 1 ulp.
 *
 * Two vectors side by side: one alone waits for its own results half of the time. Numbers of 12 bits have exact
 * products, so a factor that needs more digits is cut into an upper part of 12 bits and the rest.
 */
function powEights(dst: usize, a: usize, b: usize, n: i32, stepA: usize, stepB: usize, kept: usize): void {
  const stop = dst + ((<usize>n) << 2);
  for (; dst < stop; dst += 32, a += stepA, b += stepB) {
    const a0 = v128.load(a);
    const a1 = v128.load(a, 16);
    const b0 = v128.load(b);
    const b1 = v128.load(b, 16);

    // a = 2^(q/4) · m/c, where k, the lowest bits of q, chooses c. Counted from the range's beginning, the least m has bits 0.
    const origin = constant(BITS, 1);
    let bits0 = i32x4.sub(a0, origin);
    let bits1 = i32x4.sub(a1, origin);
    const below = i32x4.lt_s(i32x4.min_s(bits0, bits1), constant(BITS, 2));
    const above = i32x4.gt_s(i32x4.max_s(bits0, bits1), constant(BITS, 3));
    const special: bool = v128.any_true(v128.or(below, above));
    if (special) {
      bits0 = magnitudeBits(a0);
      bits1 = magnitudeBits(a1);
    }
    const q0 = f32x4.convert_i32x4_s(i32x4.shr_s(bits0, 21));
    const q1 = f32x4.convert_i32x4_s(i32x4.shr_s(bits1, 21));
    const mantissa = constant(BITS, 0);
    const m0 = i32x4.add(v128.and(bits0, mantissa), origin);
    const m1 = i32x4.add(v128.and(bits1, mantissa), origin);
    const bytes = v128.load(BYTES);
    const quarter = constant(BITS, 7);
    const each = constant(BITS, 8);
    const k0 = v128.or(v128.and(i32x4.shr_u(lookUp(bits0, bytes), 3), quarter), each);
    const k1 = v128.or(v128.and(i32x4.shr_u(lookUp(bits1, bytes), 3), quarter), each);
    const roots = v128.load(ROOTS);
    const c0 = lookUp(roots, k0);
    const c1 = lookUp(roots, k1);

    // s of ln(m/c) = s + s³·L(s²), as its upper 12 bits and what they lack of the quotient.
    const n0 = f32x4.sub(m0, c0);
    const n1 = f32x4.sub(m1, c1);
    const d0 = f32x4.add(m0, c0);
    const d1 = f32x4.add(m1, c1);
    const one = constant(NUMBERS, 1);
    const reciprocal0 = f32x4.div(one, d0);
    const reciprocal1 = f32x4.div(one, d1);
    const twice0 = f32x4.add(n0, n0);
    const twice1 = f32x4.add(n1, n1);
    const s0 = f32x4.mul(twice0, reciprocal0);
    const s1 = f32x4.mul(twice1, reciprocal1);
    const upper = constant(BITS, 6);
    const sHigh0 = v128.and(s0, upper);
    const sHigh1 = v128.and(s1, upper);
    const dHigh0 = v128.and(d0, upper);
    const dHigh1 = v128.and(d1, upper);
    const dLow0 = f32x4.sub(m0, f32x4.sub(dHigh0, c0));
    const dLow1 = f32x4.sub(m1, f32x4.sub(dHigh1, c1));
    const rest0 = f32x4.sub(f32x4.sub(twice0, f32x4.mul(sHigh0, dHigh0)), f32x4.mul(sHigh0, dLow0));
    const rest1 = f32x4.sub(f32x4.sub(twice1, f32x4.mul(sHigh1, dHigh1)), f32x4.mul(sHigh1, dLow1));
    const sLow0 = f32x4.mul(rest0, reciprocal0);
    const sLow1 = f32x4.mul(rest1, reciprocal1);
    const z0 = f32x4.mul(s0, s0);
    const z1 = f32x4.mul(s1, s1);
    const l2 = constant(LOG, 0);
    const l1 = constant(LOG, 1);
    const l0 = constant(LOG, 2);
    const series0 = madd(f32x4.mul(z0, s0), madd(madd(l2, z0, l1), z0, l0), sLow0);
    const series1 = madd(f32x4.mul(z1, s1), madd(madd(l2, z1, l1), z1, l0), sLow1);

    // ln a = q·ln 2 / 4 + ln c's rest + ln(m/c).
    const quarterLow = constant(NUMBERS, 5);
    const rests = v128.load(RESTS);
    const small0 = f32x4.add(series0, madd(q0, quarterLow, lookUp(rests, k0)));
    const small1 = f32x4.add(series1, madd(q1, quarterLow, lookUp(rests, k1)));
    const quarterHigh = constant(NUMBERS, 4);
    const large0 = f32x4.mul(q0, quarterHigh);
    const large1 = f32x4.mul(q1, quarterHigh);
    const log0 = f32x4.add(large0, sHigh0);
    const log1 = f32x4.add(large1, sHigh1);
    const logLow0 = f32x4.add(small0, f32x4.sub(sHigh0, f32x4.sub(log0, large0)));
    const logLow1 = f32x4.add(small1, f32x4.sub(sHigh1, f32x4.sub(log1, large1)));

    // x = b·ln a.
    const logHigh0 = v128.and(log0, upper);
    const logHigh1 = v128.and(log1, upper);
    const tail0 = f32x4.add(f32x4.sub(log0, logHigh0), logLow0);
    const tail1 = f32x4.add(f32x4.sub(log1, logHigh1), logLow1);
    const bHigh0 = v128.and(b0, upper);
    const bHigh1 = v128.and(b1, upper);
    const x0 = f32x4.mul(bHigh0, logHigh0);
    const x1 = f32x4.mul(bHigh1, logHigh1);
    const xLow0 = madd(f32x4.sub(b0, bHigh0), logHigh0, f32x4.mul(b0, tail0));
    const xLow1 = madd(f32x4.sub(b1, bHigh1), logHigh1, f32x4.mul(b1, tail1));
    // Kept for what is special: in registers they would be in the way. By bits, NaN is beyond as well.
    v128.store(kept, x0);
    v128.store(kept, xLow0, 16);
    v128.store(kept, x1, 32);
    v128.store(kept, xLow1, 48);
    const beyond = i32x4.gt_s(i32x4.max_s(f32x4.abs(x0), f32x4.abs(x1)), constant(NUMBERS, 11));

    // e^x = 2^t · e^r, where t stands in the low bits of the sum.
    const turns = constant(NUMBERS, 8);
    const magic = constant(NUMBERS, 0);
    const t0 = madd(f32x4.add(x0, xLow0), turns, magic);
    const t1 = madd(f32x4.add(x1, xLow1), turns, magic);
    const whole0 = f32x4.sub(t0, magic);
    const whole1 = f32x4.sub(t1, magic);
    const ln2High = constant(NUMBERS, 6);
    const ln2Low = constant(NUMBERS, 7);
    const rHigh0 = f32x4.sub(x0, f32x4.mul(whole0, ln2High));
    const rHigh1 = f32x4.sub(x1, f32x4.mul(whole1, ln2High));
    const rLow0 = madd(whole0, ln2Low, xLow0);
    const rLow1 = madd(whole1, ln2Low, xLow1);
    const r0 = f32x4.add(rHigh0, rLow0);
    const r1 = f32x4.add(rHigh1, rLow1);
    const square0 = f32x4.mul(r0, r0);
    const square1 = f32x4.mul(r1, r1);
    const e4 = constant(EXP, 0);
    const e3 = constant(EXP, 1);
    const e2 = constant(EXP, 2);
    const e1 = constant(EXP, 3);
    const e0 = constant(EXP, 4);
    const p0 = madd(madd(madd(e4, r0, e3), square0, madd(e2, r0, e1)), r0, e0);
    const p1 = madd(madd(madd(e4, r1, e3), square1, madd(e2, r1, e1)), r1, e0);
    const sum0 = f32x4.add(one, rHigh0);
    const sum1 = f32x4.add(one, rHigh1);
    const lost0 = f32x4.sub(rHigh0, f32x4.sub(sum0, one));
    const lost1 = f32x4.sub(rHigh1, f32x4.sub(sum1, one));
    const power0 = f32x4.add(sum0, f32x4.add(lost0, madd(p0, square0, rLow0)));
    const power1 = f32x4.add(sum1, f32x4.add(lost1, madd(p1, square1, rLow1)));
    const y0 = i32x4.add(power0, i32x4.shl(t0, 23));
    const y1 = i32x4.add(power1, i32x4.shl(t1, 23));
    if (special || v128.any_true(beyond)) {
      settle(dst, a, b, kept);
      settle(dst + 16, a + 16, b + 16, kept + 32);
    } else {
      v128.store(dst, y0);
      v128.store(dst, y1, 16);
    }
  }
}

/**
 * a^b from b·ln |a|, whatever a and b are: as in C, where 1 to any power and −1 to an infinite one are 1, and JavaScript
 * says NaN.
 */
function settle(dst: usize, baseAt: usize, powerAt: usize, kept: usize): void {
  const a = v128.load(baseAt);
  const b = v128.load(powerAt);
  const x = v128.load(kept);
  // As in powEights, for all exponents: 2^t is a product of two normal numbers, as in exp4.
  const limited = f32x4.pmin(f32x4.pmax(x, constant(NUMBERS, 9)), constant(NUMBERS, 10));
  const xLow = v128.and(v128.load(kept, 16), f32x4.eq(x, limited));
  const magic = constant(NUMBERS, 0);
  const one = constant(NUMBERS, 1);
  const t = madd(f32x4.add(limited, xLow), constant(NUMBERS, 8), magic);
  const whole = f32x4.sub(t, magic);
  const rHigh = f32x4.sub(limited, f32x4.mul(whole, constant(NUMBERS, 6)));
  const rLow = madd(whole, constant(NUMBERS, 7), xLow);
  const r = f32x4.add(rHigh, rLow);
  let p = constant(EXP, 0);
  for (let i = 1; i < 5; i++) p = madd(p, r, constant(EXP, i));
  const sum = f32x4.add(one, rHigh);
  p = madd(p, f32x4.mul(r, r), rLow);
  p = f32x4.add(sum, f32x4.add(f32x4.sub(rHigh, f32x4.sub(sum, one)), p));
  const exponent = i32x4.sub(t, i32x4.splat(0x4b400000 - 254));
  const half = i32x4.shr_s(exponent, 1);
  let y = f32x4.mul(f32x4.mul(p, i32x4.shl(half, 23)), i32x4.shl(i32x4.sub(exponent, half), 23));

  const zero = i32x4.splat(0);
  const infinity = constant(BITS, 5);
  const magnitude = f32x4.abs(a);
  const endless = f32x4.eq(f32x4.abs(b), infinity);
  const extreme = v128.or(v128.or(f32x4.eq(magnitude, zero), f32x4.eq(magnitude, infinity)), endless);
  const shrinks = v128.xor(f32x4.gt(magnitude, one), f32x4.gt(b, zero));
  y = v128.bitselect(v128.andnot(infinity, shrinks), y, extreme);
  // Negative numbers: a sign for odd b, NaN where b is not whole. From 2^24 on all numbers are even.
  const integer = f32x4.eq(f32x4.nearest(b), b);
  const halves = f32x4.mul(b, constant(NUMBERS, 2));
  const odd = v128.andnot(integer, f32x4.eq(f32x4.nearest(halves), halves));
  y = v128.or(y, v128.and(v128.and(a, odd), i32x4.splat(0x80000000)));
  const negative = v128.and(f32x4.lt(a, zero), f32x4.lt(magnitude, infinity));
  y = v128.or(y, v128.or(v128.andnot(negative, integer), v128.or(f32x4.ne(a, a), f32x4.ne(b, b))));
  const unit = v128.or(f32x4.eq(a, one), v128.or(f32x4.eq(b, zero), v128.and(f32x4.eq(magnitude, one), endless)));
  v128.store(dst, v128.bitselect(one, y, unit));
}

/** One number, eight times. */
function repeat(place: usize, x: usize): void {
  v128.store(place, v128.load32_splat(x));
  v128.store(place, v128.load32_splat(x), 16);
}

/** a^b of `n` elements; strides are 4 bytes, or 0 for one number. Uses 160 bytes at `scratch`. */
export function powRow(dst: usize, a: usize, b: usize, n: i32, strideA: usize, strideB: usize, scratch: usize): void {
  if (!strideA) repeat(scratch, a);
  if (!strideB) repeat(scratch + 32, b);
  const whole = n & ~7;
  powEights(dst, strideA ? a : scratch, strideB ? b : scratch + 32, whole, 8 * strideA, 8 * strideB, scratch + 96);
  if (n == whole) return;
  const done = <usize>whole;
  const bytes = (<usize>(n - whole)) << 2;
  if (strideA) memory.copy(scratch, a + 4 * done, bytes);
  if (strideB) memory.copy(scratch + 32, b + 4 * done, bytes);
  powEights(scratch + 64, scratch, scratch + 32, 8, 0, 0, scratch + 96);
  memory.copy(dst + 4 * done, scratch + 64, bytes);
}

// log2(m) = s·L(s²) with s = (m − 1)/(m + 1), |s| ≤ 0.1716: L of degree 4 from the highest power, of least error (4e-12);
// ln 2.
const LOG2: usize = memory.data<f64>([
  0.3407280114201818, 0.41167282662237925, 0.5770835832763286, 0.9617966733500076, 2.88539008179008,
  0.69314718055994531,
]);
/** Bits of √½ as a float64: where the mantissa's range begins. */
const ROOT: u64 = 0x3fe6a09e667f3bcd;

/** ln x of a positive number, to 11 digits; ∞ and NaN as they are. */
export function log(x: f64): f64 {
  if (!(x < Infinity)) return x;
  const bits = reinterpret<u64>(x) - ROOT;
  const m = reinterpret<f64>((bits & 0x000fffffffffffff) + ROOT);
  const s = (m - 1) / (m + 1);
  const z = s * s;
  let p = load<f64>(LOG2);
  for (let i: usize = 8; i < 40; i += 8) p = p * z + load<f64>(LOG2 + i);
  return (p * s + <f64>(<i64>bits >> 52)) * load<f64>(LOG2 + 40);
}
