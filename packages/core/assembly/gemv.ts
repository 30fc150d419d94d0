// Products of matrices with a few vectors, bound by the memory that the matrix comes from. Each reads the matrix once, along
// its contiguous direction. matmul.ts says when they are used.
//
// Both: out[v, r] = alpha · Σ_k M[r, k] · x[v, k] + beta · out[v, r] for v < vectors, r < rows, over a batch.
// Integers: 0 M, 1 stride of M from one r to the next (dot) or from one k to the next (axpy), 2 x, 3 its k stride, 4 out,
// 5 its r stride, 6 rows, 7 k, 8 vectors, 9 and 10 strides of x and out from one vector to the next, 11 rows of a block,
// 12 number of batch axes, innermost first, 13 + 4·axis: its length and the strides of M, x, out. Floats: alpha, beta.
// Strides are in bytes. Units run over blocks of rows, then the batch.

import { address, float, int, laneSum, madd } from "./abi";

// @ts-ignore: decorator
@inline
function finish(out: usize, sum: f32, alpha: f32, beta: f32): void {
  store<f32>(out, beta == 0 ? alpha * sum : alpha * sum + beta * load<f32>(out));
}

/** M with contiguous k (a weight [outFeatures, inFeatures]). Scratch: k floats where x is not contiguous. */
export function gemvDot(args: usize, begin: i32, end: i32, scratch: usize): void {
  const mr = address(args, 1), xk = address(args, 3), or = address(args, 5);
  const rows = int(args, 6), k = int(args, 7), vectors = int(args, 8);
  const xv = address(args, 9), ov = address(args, 10), blockRows = int(args, 11), axes = int(args, 12);
  const alpha = <f32>float(args, 0), beta = <f32>float(args, 1);
  const blocks = (rows + blockRows - 1) / blockRows;
  for (let unit = begin; unit < end; unit++) {
    const from = (unit % blocks) * blockRows;
    const count = min(blockRows, rows - from);
    let rest = unit / blocks;
    let m = address(args, 0), x = address(args, 2), out = address(args, 4);
    for (let axis = 0; axis < axes; axis++) {
      const length = int(args, 13 + 4 * axis);
      const index = <usize>(rest % length);
      rest /= length;
      m += index * address(args, 14 + 4 * axis);
      x += index * address(args, 15 + 4 * axis);
      out += index * address(args, 16 + 4 * axis);
    }
    m += (<usize>from) * mr;
    out += (<usize>from) * or;
    for (let v = 0; v < vectors; v++) {
      let vector = x + (<usize>v) * xv;
      if (xk != 4) {
        for (let i: usize = 0; i < <usize>k; i++) store<f32>(scratch + (i << 2), load<f32>(vector + i * xk));
        vector = scratch;
      }
      dotRows(m, mr, vector, k, count, out + (<usize>v) * ov, or, alpha, beta);
    }
  }
}

function dotRows(
  m: usize, mr: usize, x: usize, k: i32, count: i32, out: usize, or: usize, alpha: f32, beta: f32,
): void {
  const whole = (<usize>(k & ~7)) << 2;
  const total = (<usize>k) << 2;
  let r = 0;
  for (; r + 4 <= count; r += 4) {
    const m0 = m, m1 = m0 + mr, m2 = m1 + mr, m3 = m2 + mr;
    let s0 = f32x4.splat(0), s1 = s0, s2 = s0, s3 = s0, t0 = s0, t1 = s0, t2 = s0, t3 = s0;
    let at: usize = 0;
    for (; at < whole; at += 32) {
      const x0 = v128.load(x + at), x1 = v128.load(x + at, 16);
      s0 = madd(x0, v128.load(m0 + at), s0);
      t0 = madd(x1, v128.load(m0 + at, 16), t0);
      s1 = madd(x0, v128.load(m1 + at), s1);
      t1 = madd(x1, v128.load(m1 + at, 16), t1);
      s2 = madd(x0, v128.load(m2 + at), s2);
      t2 = madd(x1, v128.load(m2 + at, 16), t2);
      s3 = madd(x0, v128.load(m3 + at), s3);
      t3 = madd(x1, v128.load(m3 + at, 16), t3);
    }
    let f0 = laneSum(f32x4.add(s0, t0)), f1 = laneSum(f32x4.add(s1, t1));
    let f2 = laneSum(f32x4.add(s2, t2)), f3 = laneSum(f32x4.add(s3, t3));
    for (; at < total; at += 4) {
      const y = load<f32>(x + at);
      f0 += y * load<f32>(m0 + at);
      f1 += y * load<f32>(m1 + at);
      f2 += y * load<f32>(m2 + at);
      f3 += y * load<f32>(m3 + at);
    }
    finish(out, f0, alpha, beta);
    finish(out + or, f1, alpha, beta);
    finish(out + 2 * or, f2, alpha, beta);
    finish(out + 3 * or, f3, alpha, beta);
    m = m3 + mr;
    out += or << 2;
  }
  for (; r < count; r++) {
    let s = f32x4.splat(0), t = s;
    let at: usize = 0;
    for (; at < whole; at += 32) {
      s = madd(v128.load(x + at), v128.load(m + at), s);
      t = madd(v128.load(x + at, 16), v128.load(m + at, 16), t);
    }
    let f = laneSum(f32x4.add(s, t));
    for (; at < total; at += 4) f += load<f32>(x + at) * load<f32>(m + at);
    finish(out, f, alpha, beta);
    m += mr;
    out += or;
  }
}

/** M with contiguous rows index (a weight [inFeatures, outFeatures]). Scratch: a block's rows, in floats. */
export function gemvAxpy(args: usize, begin: i32, end: i32, scratch: usize): void {
  const mk = address(args, 1), xk = address(args, 3), or = address(args, 5);
  const rows = int(args, 6), k = int(args, 7), vectors = int(args, 8);
  const xv = address(args, 9), ov = address(args, 10), blockRows = int(args, 11), axes = int(args, 12);
  const alpha = <f32>float(args, 0), beta = <f32>float(args, 1);
  const blocks = (rows + blockRows - 1) / blockRows;
  for (let unit = begin; unit < end; unit++) {
    const from = (unit % blocks) * blockRows;
    const count = min(blockRows, rows - from);
    let rest = unit / blocks;
    let m = address(args, 0), x = address(args, 2), out = address(args, 4);
    for (let axis = 0; axis < axes; axis++) {
      const length = int(args, 13 + 4 * axis);
      const index = <usize>(rest % length);
      rest /= length;
      m += index * address(args, 14 + 4 * axis);
      x += index * address(args, 15 + 4 * axis);
      out += index * address(args, 16 + 4 * axis);
    }
    m += (<usize>from) << 2;
    out += (<usize>from) * or;
    for (let v = 0; v < vectors; v++) {
      memory.fill(scratch, 0, (<usize>count) << 2);
      axpyColumns(m, mk, x + (<usize>v) * xv, xk, k, count, scratch);
      let o = out + (<usize>v) * ov;
      for (let i: usize = 0; i < <usize>count; i++) {
        finish(o, load<f32>(scratch + (i << 2)), alpha, beta);
        o += or;
      }
    }
  }
}

// sums[0 … count] += Σ_k x[k] · M[k, …], four k at a time.
function axpyColumns(m: usize, mk: usize, x: usize, xk: usize, k: i32, count: i32, sums: usize): void {
  const whole = (<usize>(count & ~3)) << 2;
  const total = (<usize>count) << 2;
  let p = 0;
  for (; p + 4 <= k; p += 4) {
    const f0 = load<f32>(x), f1 = load<f32>(x + xk), f2 = load<f32>(x + 2 * xk), f3 = load<f32>(x + 3 * xk);
    const x0 = f32x4.splat(f0), x1 = f32x4.splat(f1), x2 = f32x4.splat(f2), x3 = f32x4.splat(f3);
    const m0 = m, m1 = m0 + mk, m2 = m1 + mk, m3 = m2 + mk;
    let at: usize = 0;
    for (; at < whole; at += 16) {
      let s = madd(x0, v128.load(m0 + at), v128.load(sums + at));
      s = madd(x1, v128.load(m1 + at), s);
      s = madd(x2, v128.load(m2 + at), s);
      s = madd(x3, v128.load(m3 + at), s);
      v128.store(sums + at, s);
    }
    for (; at < total; at += 4) {
      const s = load<f32>(sums + at) + f0 * load<f32>(m0 + at) + f1 * load<f32>(m1 + at);
      store<f32>(sums + at, s + f2 * load<f32>(m2 + at) + f3 * load<f32>(m3 + at));
    }
    m = m3 + mk;
    x += xk << 2;
  }
  for (; p < k; p++) {
    const f = load<f32>(x);
    const xs = f32x4.splat(f);
    let at: usize = 0;
    for (; at < whole; at += 16) v128.store(sums + at, madd(xs, v128.load(m + at), v128.load(sums + at)));
    for (; at < total; at += 4) store<f32>(sums + at, load<f32>(sums + at) + f * load<f32>(m + at));
    m += mk;
    x += xk;
  }
}
