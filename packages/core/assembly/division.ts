// Floor division and remainder of four float32 lanes, exact: in float64 the quotient of two float32 numbers is never
// rounded up to an integer, and quotient · divisor has no more digits than float64 holds, as long as quotients stay
// below 2^28. Beyond, and where b is 0 or a number is not finite, lane by lane.

import { constant } from "./abi";

const LIMIT: usize = memory.data<f64>([268435456.0]);
const ZERO: usize = memory.data<f32>([0.0]);

/** ⌊a / b⌋ of two float64 lanes. */
// @ts-ignore: decorator
@inline
function quotient(a: v128, b: v128): v128 {
  return f64x2.floor(f64x2.div(a, b));
}

/** True when every |q| is below 2^28: also false for NaN. */
// @ts-ignore: decorator
@inline
function small(low: v128, high: v128): bool {
  const limit = v128.load64_splat(LIMIT);
  return i64x2.all_true(v128.and(f64x2.lt(f64x2.abs(low), limit), f64x2.lt(f64x2.abs(high), limit)));
}

/** `magnitude` with the sign of `sign` where it is 0. */
// @ts-ignore: decorator
@inline
function signedZero(magnitude: v128, sign: v128): v128 {
  const zero = v128.and(sign, i32x4.splat(0x80000000));
  return v128.bitselect(zero, magnitude, f32x4.eq(magnitude, constant(ZERO, 0)));
}

/** Two float64 pairs as four float32 lanes. */
// @ts-ignore: decorator
@inline
function narrow(low: v128, high: v128): v128 {
  return i32x4.shuffle(f32x4.demote_f64x2_zero(low), f32x4.demote_f64x2_zero(high), 0, 1, 4, 5);
}

/** a − b·⌊a / b⌋; the sign of b. */
// @ts-ignore: decorator
@inline
export function remainder4(a: v128, b: v128): v128 {
  const aLow = f64x2.promote_low_f32x4(a);
  const bLow = f64x2.promote_low_f32x4(b);
  const aHigh = f64x2.promote_low_f32x4(i32x4.shuffle(a, a, 2, 3, 2, 3));
  const bHigh = f64x2.promote_low_f32x4(i32x4.shuffle(b, b, 2, 3, 2, 3));
  const low = quotient(aLow, bLow);
  const high = quotient(aHigh, bHigh);
  if (!small(low, high) || v128.any_true(infinite(b))) return divideLanes(a, b, true);
  const rest = narrow(f64x2.sub(aLow, f64x2.mul(low, bLow)), f64x2.sub(aHigh, f64x2.mul(high, bHigh)));
  return signedZero(rest, b);
}

/** ⌊a / b⌋, exact where a / b rounds up to an integer; a / b itself for b = 0. */
// @ts-ignore: decorator
@inline
export function floorDivide4(a: v128, b: v128): v128 {
  const low = quotient(f64x2.promote_low_f32x4(a), f64x2.promote_low_f32x4(b));
  const high = quotient(
    f64x2.promote_low_f32x4(i32x4.shuffle(a, a, 2, 3, 2, 3)),
    f64x2.promote_low_f32x4(i32x4.shuffle(b, b, 2, 3, 2, 3)),
  );
  if (!small(low, high) || v128.any_true(infinite(b))) return divideLanes(a, b, false);
  return signedZero(narrow(low, high), v128.xor(a, b));
}

// @ts-ignore: decorator
@inline
function infinite(x: v128): v128 {
  return f32x4.eq(f32x4.abs(x), i32x4.splat(0x7f800000));
}

/** a less the multiple of b next to it towards 0, exact; the sign of a. */
function mod(a: f32, b: f32): f32 {
  if (!(abs(a) < Infinity) || !(abs(b) > 0)) return NaN;
  if (abs(b) == Infinity) return a;
  const divisor = <f64>abs(b);
  let rest = <f64>abs(a);
  while (rest >= divisor) {
    // In steps whose quotients are below 2^28.
    let step = divisor;
    while (step * 268435456.0 <= rest) step *= 268435456.0;
    rest -= floor(rest / step) * step;
  }
  return copysign<f32>(<f32>rest, a);
}

/** a − b·⌊a / b⌋ without rounding the quotient; the sign of b. */
function remainder(a: f32, b: f32): f32 {
  const rest = mod(a, b);
  if (rest == 0) return copysign<f32>(0, b);
  return rest < 0 != b < 0 ? rest + b : rest;
}

/** ⌊a / b⌋ in float64, where a less the rest is exact for quotients that float32 tells from their neighbours. */
function floorDivide(a: f32, b: f32): f32 {
  if (b == 0) return a / b;
  const rest = mod(a, b);
  let whole = (<f64>a - <f64>rest) / <f64>b;
  if (rest != 0 && rest < 0 != b < 0) whole -= 1;
  const quotient = <f32>nearest(whole);
  return quotient == 0 ? copysign<f32>(0, a / b) : quotient;
}

/** Lane by lane: the remainder, or the quotient. */
function divideLanes(a: v128, b: v128, rest: bool): v128 {
  let y = a;
  y = f32x4.replace_lane(y, 0, divide(f32x4.extract_lane(a, 0), f32x4.extract_lane(b, 0), rest));
  y = f32x4.replace_lane(y, 1, divide(f32x4.extract_lane(a, 1), f32x4.extract_lane(b, 1), rest));
  y = f32x4.replace_lane(y, 2, divide(f32x4.extract_lane(a, 2), f32x4.extract_lane(b, 2), rest));
  return f32x4.replace_lane(y, 3, divide(f32x4.extract_lane(a, 3), f32x4.extract_lane(b, 3), rest));
}

function divide(a: f32, b: f32, rest: bool): f32 {
  return rest ? remainder(a, b) : floorDivide(a, b);
}
