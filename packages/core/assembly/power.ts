// a^b of four float32 lanes: 2^(b·log2 a) in float64, since the exponent needs more digits than float32 has.

import { constant } from "./abi";

// Range of a: the normal numbers; range of b, beyond which powers are 0, 1 or ∞ lane by lane.
const RANGE: usize = memory.data<f32>([1.17549435e-38, 3.40282347e38, 1.0e9]);

// log2(m) = s·L(s²) with s = (m − 1)/(m + 1), |s| ≤ 0.172: 2/((2k + 1)·ln 2) for k = 5 … 0.
const LOG2: usize = memory.data<f64>([
  0.26230818925253880, 0.32059889797532520, 0.41219858311113240, 0.57707801635558536, 0.96179669392597560,
  2.8853900817779268,
]);
// 2^r on |r| ≤ ½: (ln 2)^k / k! for k = 7 … 0; 1.5·2^52, which rounds to an integer; the range of the exponent.
const EXP2: usize = memory.data<f64>([
  1.5252733804059840e-5, 1.5403530393381610e-4, 1.3333558146428443e-3, 9.6181291076284772e-3,
  5.5504108664821580e-2, 0.24022650695910072, 0.69314718055994531, 1.0,
  6755399441055744.0, -200.0, 200.0,
]);

// @ts-ignore: decorator
@inline
function wide(table: usize, k: i32): v128 {
  return v128.load64_splat(table + ((<usize>k) << 3));
}

/** 2^(b·(e + log2 m)) of two float64 lanes. */
// @ts-ignore: decorator
@inline
function powerOfTwo(m: v128, e: v128, b: v128): v128 {
  const f = f64x2.sub(m, wide(EXP2, 7));
  const s = f64x2.div(f, f64x2.add(m, wide(EXP2, 7)));
  const z = f64x2.mul(s, s);
  let log = f64x2.add(f64x2.mul(wide(LOG2, 0), z), wide(LOG2, 1));
  log = f64x2.add(f64x2.mul(log, z), wide(LOG2, 2));
  log = f64x2.add(f64x2.mul(log, z), wide(LOG2, 3));
  log = f64x2.add(f64x2.mul(log, z), wide(LOG2, 4));
  log = f64x2.add(f64x2.mul(log, z), wide(LOG2, 5));
  let y = f64x2.mul(b, f64x2.add(e, f64x2.mul(log, s)));
  y = f64x2.pmin(f64x2.pmax(y, wide(EXP2, 9)), wide(EXP2, 10));
  const t = f64x2.add(y, wide(EXP2, 8));
  const r = f64x2.sub(y, f64x2.sub(t, wide(EXP2, 8)));
  let p = f64x2.add(f64x2.mul(wide(EXP2, 0), r), wide(EXP2, 1));
  p = f64x2.add(f64x2.mul(p, r), wide(EXP2, 2));
  p = f64x2.add(f64x2.mul(p, r), wide(EXP2, 3));
  p = f64x2.add(f64x2.mul(p, r), wide(EXP2, 4));
  p = f64x2.add(f64x2.mul(p, r), wide(EXP2, 5));
  p = f64x2.add(f64x2.mul(p, r), wide(EXP2, 6));
  p = f64x2.add(f64x2.mul(p, r), wide(EXP2, 7));
  // The integer stands in the low bits of t: as an exponent it multiplies p.
  return f64x2.mul(p, i64x2.shl(i64x2.add(t, i64x2.splat(1023)), 52));
}

/** a^b: within 1 ulp. */
// @ts-ignore: decorator
@inline
export function pow4(a: v128, b: v128): v128 {
  const plain = v128.and(
    v128.and(f32x4.ge(a, constant(RANGE, 0)), f32x4.le(a, constant(RANGE, 1))),
    f32x4.le(f32x4.abs(b), constant(RANGE, 2)),
  );
  if (!i32x4.all_true(plain)) return powScalar(a, b);
  // Exponent and mantissa in [√½, √2), as in log4.
  const bits = i32x4.sub(a, i32x4.splat(0x3f3504f3));
  const e = i32x4.shr_s(bits, 23);
  const m = i32x4.add(v128.and(bits, i32x4.splat(0x007fffff)), i32x4.splat(0x3f3504f3));
  const low = powerOfTwo(f64x2.promote_low_f32x4(m), f64x2.convert_low_i32x4_s(e), f64x2.promote_low_f32x4(b));
  const high = powerOfTwo(
    f64x2.promote_low_f32x4(i32x4.shuffle(m, m, 2, 3, 2, 3)),
    f64x2.convert_low_i32x4_s(i32x4.shuffle(e, e, 2, 3, 2, 3)),
    f64x2.promote_low_f32x4(i32x4.shuffle(b, b, 2, 3, 2, 3)),
  );
  return i32x4.shuffle(f32x4.demote_f64x2_zero(low), f32x4.demote_f64x2_zero(high), 0, 1, 4, 5);
}

/** As in C, 1 to any power and −1 to an infinite one are 1, where JavaScript says NaN. */
function pow(a: f32, b: f32): f32 {
  if (a == 1 || (a == -1 && abs(b) == Infinity)) return 1;
  return NativeMathf.pow(a, b);
}

/** a^b lane by lane, for zeros, negative, infinite and denormal numbers and NaN. */
function powScalar(a: v128, b: v128): v128 {
  let y = a;
  y = f32x4.replace_lane(y, 0, pow(f32x4.extract_lane(a, 0), f32x4.extract_lane(b, 0)));
  y = f32x4.replace_lane(y, 1, pow(f32x4.extract_lane(a, 1), f32x4.extract_lane(b, 1)));
  y = f32x4.replace_lane(y, 2, pow(f32x4.extract_lane(a, 2), f32x4.extract_lane(b, 2)));
  return f32x4.replace_lane(y, 3, pow(f32x4.extract_lane(a, 3), f32x4.extract_lane(b, 3)));
}
