// Root-mean-square normalisation of contiguous rows, and its gradient.

import { address, float, int, laneSum } from "./abi";
import { dotOf } from "./softmax";

/** Arguments: 0 row length, 1 x, 2 weight, 3 out, 4 inverse; float 0 eps. A unit is a row. */
export function rmsNorm(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const n = int(args, 0);
  const bytes = (<usize>n) << 2;
  const eps = float(args, 0);
  for (let row = begin; row < end; row++) {
    let x = address(args, 1) + <usize>row * bytes;
    let weight = address(args, 2);
    let out = address(args, 3) + <usize>row * bytes;
    const inverse = <f32>(1.0 / sqrt<f64>(dotOf(x, x, n) / <f64>n + eps));
    store<f32>(address(args, 4) + ((<usize>row) << 2), inverse);
    const s = f32x4.splat(inverse);
    const whole = x + ((<usize>(n & ~3)) << 2);
    const stop = x + bytes;
    for (; x < whole; x += 16, weight += 16, out += 16) {
      v128.store(out, f32x4.mul(f32x4.mul(v128.load(x), s), v128.load(weight)));
    }
    for (; x < stop; x += 4, weight += 4, out += 4) store<f32>(out, load<f32>(x) * inverse * load<f32>(weight));
  }
}

/** Σ x·w·dy over a row. */
function weightedDot(x: usize, w: usize, dy: usize, n: i32): f64 {
  let total: f64 = 0;
  while (n > 0) {
    const run = min(n, 512);
    const whole = x + ((<usize>(run & ~3)) << 2);
    const stop = x + ((<usize>run) << 2);
    let sum = i32x4.splat(0);
    for (; x < whole; x += 16, w += 16, dy += 16) {
      sum = f32x4.add(sum, f32x4.mul(f32x4.mul(v128.load(w), v128.load(dy)), v128.load(x)));
    }
    total += <f64>laneSum(sum);
    for (; x < stop; x += 4, w += 4, dy += 4) total += <f64>(load<f32>(w) * load<f32>(dy) * load<f32>(x));
    n -= run;
  }
  return total;
}

/** dx = inv·(w·dy) − x·inv³/n·Σ x·w·dy. */
function rowGradient(x: usize, w: usize, dy: usize, dx: usize, n: i32, inverse: f32): void {
  const dot = weightedDot(x, w, dy, n);
  const factor = <f32>(dot * <f64>inverse * <f64>inverse * <f64>inverse / <f64>n);
  const s = f32x4.splat(inverse);
  const f = f32x4.splat(factor);
  const whole = x + ((<usize>(n & ~3)) << 2);
  const stop = x + ((<usize>n) << 2);
  for (; x < whole; x += 16, w += 16, dy += 16, dx += 16) {
    const g = f32x4.mul(f32x4.mul(v128.load(w), v128.load(dy)), s);
    v128.store(dx, f32x4.sub(g, f32x4.mul(v128.load(x), f)));
  }
  for (; x < stop; x += 4, w += 4, dy += 4, dx += 4) {
    store<f32>(dx, load<f32>(w) * load<f32>(dy) * inverse - load<f32>(x) * factor);
  }
}

/** sum += x·inverse·dy over a row. */
function addWeightGradient(sum: usize, x: usize, dy: usize, n: i32, inverse: f32): void {
  const s = f32x4.splat(inverse);
  const whole = x + ((<usize>(n & ~3)) << 2);
  const stop = x + ((<usize>n) << 2);
  for (; x < whole; x += 16, dy += 16, sum += 16) {
    v128.store(sum, f32x4.add(v128.load(sum), f32x4.mul(f32x4.mul(v128.load(x), s), v128.load(dy))));
  }
  for (; x < stop; x += 4, dy += 4, sum += 4) store<f32>(sum, load<f32>(sum) + load<f32>(x) * inverse * load<f32>(dy));
}

/**
 * Arguments: 0 rows, 1 row length n, 2 rows per unit, 3 x, 4 weight, 5 inverse, 6 dy, 7 dx or 0, 8 partial sums of
 * dWeight [units, n] or 0. A unit is a block of rows; the partial sums are added up by columns afterwards.
 */
export function rmsNormBackward(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const rows = int(args, 0);
  const n = int(args, 1);
  const perUnit = int(args, 2);
  const bytes = (<usize>n) << 2;
  const dx = address(args, 7);
  const partial = address(args, 8);
  for (let unit = begin; unit < end; unit++) {
    const sum = partial + <usize>unit * bytes;
    if (partial) memory.fill(sum, 0, bytes);
    const last = min(rows, (unit + 1) * perUnit);
    for (let row = unit * perUnit; row < last; row++) {
      const at = <usize>row * bytes;
      const x = address(args, 3) + at;
      const dy = address(args, 6) + at;
      const inverse = load<f32>(address(args, 5) + ((<usize>row) << 2));
      if (dx) rowGradient(x, address(args, 4), dy, dx + at, n, inverse);
      if (partial) addWeightGradient(sum, x, dy, n, inverse);
    }
  }
}
