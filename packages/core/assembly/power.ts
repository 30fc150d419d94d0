// a^b of four float32 lanes: 2^(b·log2 a), whose exponent is formed in float64, since it needs more digits than float32
// has; and the natural logarithm of one float64 number, by the same series.

import { constant, madd, maddWide, wide } from "./abi";

// Range of a: the normal numbers.
const RANGE: usize = memory.data<f32>([1.17549435e-38, 3.40282347e38]);

// log2(m) = s·L(s²) with s = (m − 1)/(m + 1), |s| ≤ 0.1716: L of degree 4 from the highest power, of least error (4e-12);
// 1, 1.5·2^52, which rounds to an integer, the exponent beyond which float32 has 0 or ∞, ln 2.
const LOG2: usize = memory.data<f64>([
  0.3407280114201818, 0.41167282662237925, 0.5770835832763286, 0.9617966733500076, 2.88539008179008,
  1.0, 6755399441055744.0, 200.0, 0.69314718055994531,
]);
// 2^r = 1 + r·(c1 + r·Q(r)) on |r| ≤ ½: Q from the highest power, of least relative error of 2^r (2e-9); c1.
const EXP2: usize = memory.data<f32>([
  0.00015353361959569156, 0.0013398875016719103, 0.00961843691766262, 0.055503323674201965, 0.24022647738456726,
]);
const LINEAR: usize = memory.data<f64>([0.6931471824645996]);
/** Bits of √½ as a float64: where the mantissa's range begins. */
const ROOT: u64 = 0x3fe6a09e667f3bcd;

/** e + log2 m of two float64 lanes. */
// @ts-ignore: decorator
@inline
function log2(m: v128, e: v128): v128 {
  const s = f64x2.div(f64x2.sub(m, wide(LOG2, 5)), f64x2.add(m, wide(LOG2, 5)));
  const z = f64x2.mul(s, s);
  const z2 = f64x2.mul(z, z);
  // In pairs, which wait less for each other.
  const high = maddWide(wide(LOG2, 1), z, wide(LOG2, 2));
  const low = maddWide(wide(LOG2, 3), z, wide(LOG2, 4));
  return maddWide(maddWide(maddWide(wide(LOG2, 0), z2, high), z2, low), s, e);
}

/** 2^y of four lanes within ±200, given as two pairs of float64. */
// @ts-ignore: decorator
@inline
function exp2(low: v128, high: v128): v128 {
  const magic = wide(LOG2, 6);
  const ta = f64x2.add(low, magic);
  const tb = f64x2.add(high, magic);
  const ra = f64x2.sub(low, f64x2.sub(ta, magic));
  const rb = f64x2.sub(high, f64x2.sub(tb, magic));
  const r = i32x4.shuffle(f32x4.demote_f64x2_zero(ra), f32x4.demote_f64x2_zero(rb), 0, 1, 4, 5);
  const r2 = f32x4.mul(r, r);
  const p3 = madd(constant(EXP2, 0), r, constant(EXP2, 1));
  const p1 = madd(constant(EXP2, 2), r, constant(EXP2, 3));
  // The last two terms in float64: float32 would be 1.6 ulp off.
  const p = madd(madd(p3, r2, p1), r, constant(EXP2, 4));
  const ya = scaled(ta, ra, f64x2.promote_low_f32x4(p));
  const yb = scaled(tb, rb, f64x2.promote_low_f32x4(i32x4.shuffle(p, p, 2, 3, 2, 3)));
  return i32x4.shuffle(f32x4.demote_f64x2_zero(ya), f32x4.demote_f64x2_zero(yb), 0, 1, 4, 5);
}

/** (1 + r·(c1 + r·q)) · 2^n, where n stands in the low bits of t. */
// @ts-ignore: decorator
@inline
function scaled(t: v128, r: v128, q: v128): v128 {
  const p = maddWide(maddWide(q, r, wide(LINEAR, 0)), r, wide(LOG2, 5));
  return f64x2.mul(p, i64x2.shl(i64x2.add(t, i64x2.splat(1023)), 52));
}

/** True when every |y| is at most 200: also false for NaN. */
// @ts-ignore: decorator
@inline
function moderate(low: v128, high: v128): v128 {
  const limit = wide(LOG2, 7);
  return v128.and(f64x2.le(f64x2.abs(low), limit), f64x2.le(f64x2.abs(high), limit));
}

/** a^b: within 1 ulp. */
// @ts-ignore: decorator
@inline
export function pow4(a: v128, b: v128): v128 {
  // Exponent and mantissa in [√½, √2), as in log4.
  const bits = i32x4.sub(a, i32x4.splat(0x3f3504f3));
  const e = i32x4.shr_s(bits, 23);
  const m = i32x4.add(v128.and(bits, i32x4.splat(0x007fffff)), i32x4.splat(0x3f3504f3));
  let low = log2(f64x2.promote_low_f32x4(m), f64x2.convert_low_i32x4_s(e));
  let high = log2(
    f64x2.promote_low_f32x4(i32x4.shuffle(m, m, 2, 3, 2, 3)),
    f64x2.convert_low_i32x4_s(i32x4.shuffle(e, e, 2, 3, 2, 3)),
  );
  low = f64x2.mul(f64x2.promote_low_f32x4(b), low);
  high = f64x2.mul(f64x2.promote_low_f32x4(i32x4.shuffle(b, b, 2, 3, 2, 3)), high);
  const normal = v128.and(f32x4.ge(a, constant(RANGE, 0)), f32x4.le(a, constant(RANGE, 1)));
  if (!i32x4.all_true(v128.and(normal, moderate(low, high)))) return powScalar(a, b);
  return exp2(low, high);
}

/** log2 x of one positive, finite number. */
function log2Of(x: f64): f64 {
  const bits = reinterpret<u64>(x) - ROOT;
  const m = reinterpret<f64>((bits & 0x000fffffffffffff) + ROOT);
  return f64x2.extract_lane(log2(f64x2.splat(m), f64x2.splat(<f64>(<i64>bits >> 52))), 0);
}

/** ln x of a positive number, to 11 digits; ∞ and NaN as they are. */
export function log(x: f64): f64 {
  return x < Infinity ? log2Of(x) * load<f64>(LOG2 + 64) : x;
}

/** a^b as in C: 1 to any power and −1 to an infinite one are 1, where JavaScript says NaN. */
function pow(a: f32, b: f32): f32 {
  if (a == 1 || b == 0) return 1;
  const x = abs(a);
  const infinite = abs(b) == Infinity;
  if (x == 1 && infinite) return 1;
  if (a != a || b != b) return NaN;
  const whole = nearest(b) == b;
  if (a < 0 && x < Infinity && !whole) return NaN;
  let y: f32;
  if (x == 0 || x == Infinity || infinite) y = x > 1 == b > 0 ? Infinity : 0;
  else {
    const exponent = f64x2.splat(min(max(<f64>b * log2Of(<f64>x), -200.0), 200.0));
    y = f32x4.extract_lane(exp2(exponent, exponent), 0);
  }
  // From 2^24 on all numbers are even.
  const odd = whole && abs(b) < 16777216 && <i32>b & 1;
  return odd ? copysign<f32>(y, a) : y;
}

/** a^b lane by lane, for zeros, negative, infinite and denormal numbers and NaN. */
function powScalar(a: v128, b: v128): v128 {
  let y = a;
  y = f32x4.replace_lane(y, 0, pow(f32x4.extract_lane(a, 0), f32x4.extract_lane(b, 0)));
  y = f32x4.replace_lane(y, 1, pow(f32x4.extract_lane(a, 1), f32x4.extract_lane(b, 1)));
  y = f32x4.replace_lane(y, 2, pow(f32x4.extract_lane(a, 2), f32x4.extract_lane(b, 2)));
  return f32x4.replace_lane(y, 3, pow(f32x4.extract_lane(a, 3), f32x4.extract_lane(b, 3)));
}
