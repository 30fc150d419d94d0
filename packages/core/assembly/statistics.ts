// Means, variances, standard deviations, norms and logarithms of sums of exponentials of contiguous rows. Each row is read again while it is
// in the caches.

import { address, float, int, laneSum } from "./abi";
import { log } from "./power";
import { maxOf, sumOf } from "./reduce";
import { sumExp } from "./softmax";

const MEAN: i32 = 0;
const VARIANCE: i32 = 1;
const NORM: i32 = 3;
const LOG_SUM_EXP: i32 = 4;

// @ts-ignore: decorator
@inline
function term(square: bool, x: v128, shift: v128): v128 {
  const d = f32x4.sub(x, shift);
  return square ? f32x4.mul(d, d) : d;
}

// @ts-ignore: decorator
@inline
function sumAround(square: bool, x: usize, n: i32, shift: f32): f64 {
  const s = f32x4.splat(shift);
  let total: f64 = 0;
  for (; n > 0; n -= 512) {
    const run = min(n, 512);
    const wide = x + ((<usize>(run & ~7)) << 2);
    const stop = x + ((<usize>run) << 2);
    let a = i32x4.splat(0), b = a;
    for (; x < wide; x += 32) {
      a = f32x4.add(a, term(square, v128.load(x), s));
      b = f32x4.add(b, term(square, v128.load(x, 16), s));
    }
    total += <f64>laneSum(f32x4.add(a, b));
    for (; x < stop; x += 4) total += <f64>f32x4.extract_lane(term(square, v128.load32_splat(x), s), 0);
  }
  return total;
}

/** Σ (x − shift)² over n elements. */
export function squaresAround(x: usize, n: i32, shift: f32): f64 {
  return sumAround(true, x, n, shift);
}

/** Σ (x − mean)² over n elements. */
function spread(x: usize, n: i32): f64 {
  // The mean around the first element, so that a large one costs no digits; what float32 leaves out of it is taken off afterwards.
  const first = load<f32>(x);
  const mean = <f64>first + sumAround(false, x, n, first) / <f64>n;
  const rest = mean - <f64>(<f32>mean);
  return max<f64>(0, squaresAround(x, n, <f32>mean) - <f64>n * rest * rest);
}

/**
 * Arguments: 0 row length, at least 1, 1 kind, 2 x, 3 out; float 0 what sums are divided by: the length of a mean, the degrees of freedom of a
 * variance. A unit is a row.
 */
export function statistic(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const n = int(args, 0);
  const kind = int(args, 1);
  for (let row = begin; row < end; row++) {
    const x = address(args, 2) + ((<usize>row * <usize>n) << 2);
    let y: f64;
    if (kind == MEAN) y = sumOf(x, n) / float(args, 0);
    else if (kind == LOG_SUM_EXP) {
      const largest = maxOf(x, n);
      // An infinite one, or a NaN, is its own result.
      y = <f64>largest + (abs(largest) < Infinity ? log(sumExp(x, n, largest, 0)) : 0);
    } else {
      y = kind == NORM ? squaresAround(x, n, 0) : spread(x, n) / float(args, 0);
      if (kind != VARIANCE) y = sqrt<f64>(y);
    }
    store<f32>(address(args, 3) + ((<usize>row) << 2), <f32>y);
  }
}
