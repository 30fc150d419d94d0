// Normalisations of contiguous rows and their gradients: by the root mean square, and by mean and variance.

import { address, float, int, laneSum } from "./abi";
import { sumOf } from "./reduce";
import { squaresAround } from "./statistics";

/** Arguments: 0 row length, 1 x, 2 weight, 3 out, 4 inverse; float 0 eps. A unit is a row. */
export function rmsNorm(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const n = int(args, 0);
  const bytes = (<usize>n) << 2;
  const eps = float(args, 0);
  for (let row = begin; row < end; row++) {
    let x = address(args, 1) + <usize>row * bytes;
    let weight = address(args, 2);
    let out = address(args, 3) + <usize>row * bytes;
    const inverse = <f32>(1.0 / sqrt<f64>(squaresAround(x, n, 0) / <f64>n + eps));
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

/** Arguments: 0 row length, 1 x, 2 weight, 3 bias, 4 out, 5 mean, 6 inverse; float 0 eps. A unit is a row. */
export function layerNorm(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const n = int(args, 0);
  const bytes = (<usize>n) << 2;
  const eps = float(args, 0);
  for (let row = begin; row < end; row++) {
    let x = address(args, 1) + <usize>row * bytes;
    let weight = address(args, 2);
    let bias = address(args, 3);
    let out = address(args, 4) + <usize>row * bytes;
    const mean = <f32>(sumOf(x, n) / <f64>n);
    const inverse = <f32>(1.0 / sqrt<f64>(squaresAround(x, n, mean) / <f64>n + eps));
    store<f32>(address(args, 5) + ((<usize>row) << 2), mean);
    store<f32>(address(args, 6) + ((<usize>row) << 2), inverse);
    const m = f32x4.splat(mean);
    const s = f32x4.splat(inverse);
    const whole = x + ((<usize>(n & ~3)) << 2);
    const stop = x + bytes;
    for (; x < whole; x += 16, weight += 16, bias += 16, out += 16) {
      const standard = f32x4.mul(f32x4.sub(v128.load(x), m), s);
      v128.store(out, f32x4.add(f32x4.mul(standard, v128.load(weight)), v128.load(bias)));
    }
    for (; x < stop; x += 4, weight += 4, bias += 4, out += 4) {
      store<f32>(out, (load<f32>(x) - mean) * inverse * load<f32>(weight) + load<f32>(bias));
    }
  }
}

/** dx = inv·(g − mean g − x̂·mean(g·x̂)), g = w·dy, x̂ = (x − mean)·inv. */
function centredGradient(x: usize, w: usize, dy: usize, dx: usize, n: i32, mean: f32, inverse: f32): void {
  // Σ g·x̂ = inv·(Σ g·x − mean·Σ g) would cancel where the mean is large.
  const m = f32x4.splat(mean);
  const s = f32x4.splat(inverse);
  let plain: f64 = 0, along: f64 = 0;
  const stop = x + ((<usize>n) << 2);
  let at: usize = 0;
  for (let left = n; left > 0; left -= 512) {
    const whole = at + ((<usize>(min(left, 512) & ~3)) << 2);
    const end = at + ((<usize>min(left, 512)) << 2);
    let sum = i32x4.splat(0), dot = sum;
    for (; at < whole; at += 16) {
      const g = f32x4.mul(v128.load(w + at), v128.load(dy + at));
      sum = f32x4.add(sum, g);
      dot = f32x4.add(dot, f32x4.mul(g, f32x4.mul(f32x4.sub(v128.load(x + at), m), s)));
    }
    plain += <f64>laneSum(sum);
    along += <f64>laneSum(dot);
    for (; at < end; at += 4) {
      const g = load<f32>(w + at) * load<f32>(dy + at);
      plain += <f64>g;
      along += <f64>(g * ((load<f32>(x + at) - mean) * inverse));
    }
  }
  const a = <f32>(plain / <f64>n), b = <f32>(along / <f64>n);
  const as = f32x4.splat(a), bs = f32x4.splat(b);
  for (const whole = x + ((<usize>(n & ~3)) << 2); x < whole; x += 16, w += 16, dy += 16, dx += 16) {
    const standard = f32x4.mul(f32x4.sub(v128.load(x), m), s);
    const g = f32x4.sub(f32x4.mul(v128.load(w), v128.load(dy)), as);
    v128.store(dx, f32x4.mul(s, f32x4.sub(g, f32x4.mul(standard, bs))));
  }
  for (; x < stop; x += 4, w += 4, dy += 4, dx += 4) {
    const standard = (load<f32>(x) - mean) * inverse;
    store<f32>(dx, inverse * (load<f32>(w) * load<f32>(dy) - a - standard * b));
  }
}

/** weights += x̂·dy and biases += dy over a row. */
function addParameterGradients(weights: usize, biases: usize, x: usize, dy: usize, n: i32, mean: f32, inverse: f32): void {
  const m = f32x4.splat(mean);
  const s = f32x4.splat(inverse);
  const whole = x + ((<usize>(n & ~3)) << 2);
  const stop = x + ((<usize>n) << 2);
  for (; x < whole; x += 16, dy += 16, weights += 16, biases += 16) {
    const d = v128.load(dy);
    const standard = f32x4.mul(f32x4.sub(v128.load(x), m), s);
    v128.store(weights, f32x4.add(v128.load(weights), f32x4.mul(standard, d)));
    v128.store(biases, f32x4.add(v128.load(biases), d));
  }
  for (; x < stop; x += 4, dy += 4, weights += 4, biases += 4) {
    const d = load<f32>(dy);
    store<f32>(weights, load<f32>(weights) + (load<f32>(x) - mean) * inverse * d);
    store<f32>(biases, load<f32>(biases) + d);
  }
}

/**
 * Arguments: 0 rows, 1 row length n, 2 rows per unit, 3 x, 4 weight, 5 mean, 6 inverse, 7 dy, 8 dx or 0, 9 partial sums
 * of dWeight [units, n] or 0, 10 of dBias; the last two come together. A unit is a block of rows; the partial sums are added up
 * by columns afterwards.
 */
export function layerNormBackward(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const rows = int(args, 0);
  const n = int(args, 1);
  const perUnit = int(args, 2);
  const bytes = (<usize>n) << 2;
  const dx = address(args, 8);
  const partial = address(args, 9);
  for (let unit = begin; unit < end; unit++) {
    const weights = partial + <usize>unit * bytes;
    const biases = address(args, 10) + <usize>unit * bytes;
    if (partial) {
      memory.fill(weights, 0, bytes);
      memory.fill(biases, 0, bytes);
    }
    const last = min(rows, (unit + 1) * perUnit);
    for (let row = unit * perUnit; row < last; row++) {
      const at = <usize>row * bytes;
      const x = address(args, 3) + at;
      const dy = address(args, 7) + at;
      const mean = load<f32>(address(args, 5) + ((<usize>row) << 2));
      const inverse = load<f32>(address(args, 6) + ((<usize>row) << 2));
      if (dx) centredGradient(x, address(args, 4), dy, dx + at, n, mean, inverse);
      if (partial) addParameterGradients(weights, biases, x, dy, n, mean, inverse);
    }
  }
}
