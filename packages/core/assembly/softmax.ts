// Softmax and log-softmax over contiguous rows, and their gradients. A unit is a row.
//
// Sums go over runs of 512 elements in float32 lanes and over the runs in float64.

import { address, int, laneSum } from "./abi";
import { exp4 } from "./math";
import { maxOf, sumOf } from "./reduce";
import { log } from "./power";

/** Σ exp(x − shift) over n elements; with `dst` non-zero the terms are stored there (it may be x). */
export function sumExp(x: usize, n: i32, shift: f32, dst: usize): f64 {
  const s = f32x4.splat(shift);
  let total: f64 = 0;
  while (n > 0) {
    const run = min(n, 512);
    const whole = x + ((<usize>(run & ~3)) << 2);
    const stop = x + ((<usize>run) << 2);
    let sum = i32x4.splat(0);
    if (dst) {
      for (; x < whole; x += 16, dst += 16) {
        const e = exp4(f32x4.sub(v128.load(x), s));
        v128.store(dst, e);
        sum = f32x4.add(sum, e);
      }
      total += <f64>laneSum(sum);
      for (; x < stop; x += 4, dst += 4) {
        const e = f32x4.extract_lane(exp4(f32x4.splat(load<f32>(x) - shift)), 0);
        store<f32>(dst, e);
        total += <f64>e;
      }
    } else {
      for (; x < whole; x += 16) sum = f32x4.add(sum, exp4(f32x4.sub(v128.load(x), s)));
      total += <f64>laneSum(sum);
      for (; x < stop; x += 4) total += <f64>f32x4.extract_lane(exp4(f32x4.splat(load<f32>(x) - shift)), 0);
    }
    n -= run;
  }
  return total;
}

/** x ·= factor over n elements. */
export function scaleRow(x: usize, n: i32, factor: f32): void {
  const f = f32x4.splat(factor);
  const whole = x + ((<usize>(n & ~3)) << 2);
  const stop = x + ((<usize>n) << 2);
  for (; x < whole; x += 16) v128.store(x, f32x4.mul(v128.load(x), f));
  for (; x < stop; x += 4) store<f32>(x, load<f32>(x) * factor);
}

/** Σ a·b over n elements. */
export function dotOf(a: usize, b: usize, n: i32): f64 {
  let total: f64 = 0;
  while (n > 0) {
    const run = min(n, 512);
    const whole = a + ((<usize>(run & ~3)) << 2);
    const stop = a + ((<usize>run) << 2);
    let sum = i32x4.splat(0);
    for (; a < whole; a += 16, b += 16) sum = f32x4.add(sum, f32x4.mul(v128.load(a), v128.load(b)));
    total += <f64>laneSum(sum);
    for (; a < stop; a += 4, b += 4) total += <f64>(load<f32>(a) * load<f32>(b));
    n -= run;
  }
  return total;
}

/** Arguments: 0 row length, 1 x, 2 out. */
export function softmax(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const n = int(args, 0);
  const bytes = (<usize>n) << 2;
  for (let row = begin; row < end; row++) {
    const x = address(args, 1) + <usize>row * bytes;
    const out = address(args, 2) + <usize>row * bytes;
    const sum = sumExp(x, n, maxOf(x, n), out);
    scaleRow(out, n, <f32>(1.0 / sum));
  }
}

/** Arguments: 0 row length, 1 y, 2 dy, 3 dx. */
export function softmaxBackward(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const n = int(args, 0);
  const bytes = (<usize>n) << 2;
  for (let row = begin; row < end; row++) {
    let y = address(args, 1) + <usize>row * bytes;
    let dy = address(args, 2) + <usize>row * bytes;
    let dx = address(args, 3) + <usize>row * bytes;
    const dot = <f32>dotOf(y, dy, n);
    const d = f32x4.splat(dot);
    const whole = y + ((<usize>(n & ~3)) << 2);
    const stop = y + bytes;
    for (; y < whole; y += 16, dy += 16, dx += 16) {
      v128.store(dx, f32x4.mul(v128.load(y), f32x4.sub(v128.load(dy), d)));
    }
    for (; y < stop; y += 4, dy += 4, dx += 4) store<f32>(dx, load<f32>(y) * (load<f32>(dy) - dot));
  }
}

/** Arguments: 0 row length, 1 x, 2 out. */
export function logSoftmax(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const n = int(args, 0);
  const bytes = (<usize>n) << 2;
  for (let row = begin; row < end; row++) {
    let x = address(args, 1) + <usize>row * bytes;
    let out = address(args, 2) + <usize>row * bytes;
    const highest = maxOf(x, n);
    const logSum = <f32>log(sumExp(x, n, highest, 0));
    const h = f32x4.splat(highest);
    const l = f32x4.splat(logSum);
    const whole = x + ((<usize>(n & ~3)) << 2);
    const stop = x + bytes;
    for (; x < whole; x += 16, out += 16) v128.store(out, f32x4.sub(f32x4.sub(v128.load(x), h), l));
    for (; x < stop; x += 4, out += 4) store<f32>(out, load<f32>(x) - highest - logSum);
  }
}

/** Arguments: 0 row length, 1 y, 2 dy, 3 dx. */
export function logSoftmaxBackward(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const n = int(args, 0);
  const bytes = (<usize>n) << 2;
  for (let row = begin; row < end; row++) {
    let y = address(args, 1) + <usize>row * bytes;
    let dy = address(args, 2) + <usize>row * bytes;
    let dx = address(args, 3) + <usize>row * bytes;
    const sum = f32x4.splat(<f32>sumOf(dy, n));
    const whole = y + ((<usize>(n & ~3)) << 2);
    const stop = y + bytes;
    for (; y < whole; y += 16, dy += 16, dx += 16) {
      v128.store(dx, f32x4.sub(v128.load(dy), f32x4.mul(exp4(v128.load(y)), sum)));
    }
    for (; y < stop; y += 4, dy += 4, dx += 4) {
      const value = f32x4.sub(v128.load32_zero(dy), f32x4.mul(exp4(v128.load32_zero(y)), sum));
      v128.store_lane<u32>(dx, value, 0);
    }
  }
}
