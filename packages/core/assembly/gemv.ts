// Products of matrices with a few vectors, bound by the memory that the matrix comes from. Each reads the matrix once, along
// its contiguous direction; two vectors share what is read. matmul.ts says when they are used.
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

/** Vectors that are taken at once, with four rows of the matrix: as many streams as the processor fetches ahead well. */
const VECTORS: i32 = 2;
/** Most of k that vectors are packed for at once: 16 KiB, which stay in L1 while they meet every row of a block. */
const DOT_K: i32 = 2048;
/** Rows of M that axpy goes through for all vectors before the next: they come from L2 for all but the first two. */
const AXPY_K: i32 = 64;

/**
 * M with contiguous k (a weight [outFeatures, inFeatures]). Scratch, in floats: k where x is one vector that is not contiguous;
 * VECTORS · min(k, DOT_K) where there are more.
 */
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
    if (vectors == 1) {
      let vector = x;
      if (xk != 4) {
        for (let i: usize = 0; i < <usize>k; i++) store<f32>(scratch + (i << 2), load<f32>(vector + i * xk));
        vector = scratch;
      }
      dotRows(m, mr, vector, k, count, out, or, alpha, beta);
      continue;
    }
    for (let p = 0; p < k; p += DOT_K) {
      const kc = min(DOT_K, k - p);
      const factor: f32 = p == 0 ? beta : 1;
      for (let v = 0; v < vectors; v += VECTORS) {
        const present = min(VECTORS, vectors - v);
        packVectors(x + (<usize>v) * xv + (<usize>p) * xk, xv, xk, present, kc, scratch);
        dotTiles(m + ((<usize>p) << 2), mr, scratch, kc, count, out + (<usize>v) * ov, or, ov, present, alpha, factor);
      }
    }
  }
}

// Two vectors side by side, four k of one after four of the other: [k / 4][vector][k mod 4], what is left of k behind. One
// vector alone is taken twice, and its second sums are not stored.
function packVectors(x: usize, xv: usize, xk: usize, present: i32, k: i32, to: usize): void {
  const whole = k & ~3;
  for (let v = 0; v < VECTORS; v++) {
    let from = v < present ? x + (<usize>v) * xv : x;
    let at = to + ((<usize>v) << 4);
    let p = 0;
    for (; p < whole; p += 4) {
      if (xk == 4) v128.store(at, v128.load(from));
      else {
        store<f32>(at, load<f32>(from));
        store<f32>(at, load<f32>(from + xk), 4);
        store<f32>(at, load<f32>(from + 2 * xk), 8);
        store<f32>(at, load<f32>(from + 3 * xk), 12);
      }
      from += xk << 2;
      at += 32;
    }
    for (; p < k; p++) {
      store<f32>(at, load<f32>(from));
      from += xk;
      at += 4;
    }
  }
}

/** The lanes' sums of four vectors, side by side. */
// @ts-ignore: decorator
@inline
function laneSums(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = f32x4.add(i32x4.shuffle(a, b, 0, 4, 1, 5), i32x4.shuffle(a, b, 2, 6, 3, 7));
  const cd = f32x4.add(i32x4.shuffle(c, d, 0, 4, 1, 5), i32x4.shuffle(c, d, 2, 6, 3, 7));
  return f32x4.add(i32x4.shuffle(ab, cd, 0, 1, 4, 5), i32x4.shuffle(ab, cd, 2, 3, 6, 7));
}

// out [count, present] from rows of M, four at a time, and two packed vectors.
function dotTiles(
  m: usize, mr: usize, x: usize, k: i32, count: i32, out: usize, or: usize, ov: usize, present: i32, alpha: f32, beta: f32,
): void {
  const whole = (<usize>(k & ~3)) << 2;
  const total = (<usize>k) << 2;
  for (let r = 0; r < count; r += 4) {
    const m0 = m;
    const m1 = r + 1 < count ? m0 + mr : m0;
    const m2 = r + 2 < count ? m1 + mr : m1;
    const m3 = r + 3 < count ? m2 + mr : m2;
    let s0 = f32x4.splat(0), s1 = s0, s2 = s0, s3 = s0, t0 = s0, t1 = s0, t2 = s0, t3 = s0;
    let from = x;
    let at: usize = 0;
    for (; at != whole; at += 16) {
      const a = v128.load(from), b = v128.load(from, 16);
      let y = v128.load(m0 + at);
      s0 = madd(a, y, s0);
      t0 = madd(b, y, t0);
      y = v128.load(m1 + at);
      s1 = madd(a, y, s1);
      t1 = madd(b, y, t1);
      y = v128.load(m2 + at);
      s2 = madd(a, y, s2);
      t2 = madd(b, y, t2);
      y = v128.load(m3 + at);
      s3 = madd(a, y, s3);
      t3 = madd(b, y, t3);
      from += 32;
    }
    let s = laneSums(s0, s1, s2, s3), t = laneSums(t0, t1, t2, t3);
    for (; at < total; at += 4, from += 4) {
      const y = fourOf(m0 + at, m1 + at, m2 + at, m3 + at);
      s = madd(v128.load32_splat(from), y, s);
      t = madd(v128.load32_splat(from, 16), y, t);
    }
    putFour(out, or, s, count - r, alpha, beta);
    if (present > 1) putFour(out + ov, or, t, count - r, alpha, beta);
    m += mr << 2;
    out += or << 2;
  }
}

// @ts-ignore: decorator
@inline
function fourOf(a: usize, b: usize, c: usize, d: usize): v128 {
  const low = i32x4.shuffle(v128.load32_zero(a), v128.load32_zero(b), 0, 4, 1, 1);
  const high = i32x4.shuffle(v128.load32_zero(c), v128.load32_zero(d), 0, 4, 1, 1);
  return i32x4.shuffle(low, high, 0, 1, 4, 5);
}

function putFour(out: usize, step: usize, sums: v128, present: i32, alpha: f32, beta: f32): void {
  finish(out, f32x4.extract_lane(sums, 0), alpha, beta);
  if (present > 1) finish(out + step, f32x4.extract_lane(sums, 1), alpha, beta);
  if (present > 2) finish(out + 2 * step, f32x4.extract_lane(sums, 2), alpha, beta);
  if (present > 3) finish(out + 3 * step, f32x4.extract_lane(sums, 3), alpha, beta);
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

/**
 * M with contiguous rows index (a weight [inFeatures, outFeatures]). Scratch: a block's rows for every vector, whole pairs
 * of vectors, in floats.
 */
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
    if (vectors == 1) {
      memory.fill(scratch, 0, (<usize>count) << 2);
      axpyColumns(m, mk, x, xk, k, count, scratch);
      for (let i: usize = 0; i < <usize>count; i++) {
        finish(out, load<f32>(scratch + (i << 2)), alpha, beta);
        out += or;
      }
      continue;
    }
    // Sums of two vectors side by side: [count / 4][vector][count mod 4].
    const group = (<usize>((count + 3) & ~3)) << 3;
    memory.fill(scratch, 0, group * <usize>((vectors + VECTORS - 1) / VECTORS));
    for (let p = 0; p < k; p += AXPY_K) {
      const kc = min(AXPY_K, k - p);
      let sums = scratch;
      for (let v = 0; v < vectors; v += VECTORS, sums += group) {
        const at = x + (<usize>v) * xv + (<usize>p) * xk;
        axpyPair(m + (<usize>p) * mk, mk, at, v + 1 < vectors ? at + xv : at, xk, kc, count, sums);
      }
    }
    for (let v = 0; v < vectors; v++) {
      let o = out + (<usize>v) * ov;
      const sums = scratch + (<usize>(v >> 1)) * group + ((<usize>(v & 1)) << 4);
      for (let i: usize = 0; i < <usize>count; i++) {
        finish(o, load<f32>(sums + ((i >> 2) << 5) + ((i & 3) << 2)), alpha, beta);
        o += or;
      }
    }
  }
}

// As axpyColumns for two vectors.
function axpyPair(m: usize, mk: usize, x: usize, y: usize, xk: usize, k: i32, count: i32, sums: usize): void {
  const bytes = (<usize>(count & ~3)) << 2;
  const rest = count & 3;
  let p = 0;
  for (; p + 4 <= k; p += 4) {
    const a0 = v128.load32_splat(x), a1 = v128.load32_splat(x + xk);
    const a2 = v128.load32_splat(x + 2 * xk), a3 = v128.load32_splat(x + 3 * xk);
    const b0 = v128.load32_splat(y), b1 = v128.load32_splat(y + xk);
    const b2 = v128.load32_splat(y + 2 * xk), b3 = v128.load32_splat(y + 3 * xk);
    const m1 = m + mk, m2 = m1 + mk, m3 = m2 + mk;
    let to = sums;
    let at: usize = 0;
    for (; at != bytes; at += 16, to += 32) {
      let s = v128.load(to), t = v128.load(to, 16);
      let f = v128.load(m + at);
      s = madd(a0, f, s);
      t = madd(b0, f, t);
      f = v128.load(m1 + at);
      s = madd(a1, f, s);
      t = madd(b1, f, t);
      f = v128.load(m2 + at);
      s = madd(a2, f, s);
      t = madd(b2, f, t);
      f = v128.load(m3 + at);
      v128.store(to, madd(a3, f, s));
      v128.store(to, madd(b3, f, t), 16);
    }
    for (let i = 0; i < rest; i++, at += 4, to += 4) {
      const f = v128.load32_splat(m + at), g = v128.load32_splat(m1 + at);
      const h = v128.load32_splat(m2 + at), j = v128.load32_splat(m3 + at);
      storeLane(to, madd(a3, j, madd(a2, h, madd(a1, g, madd(a0, f, v128.load32_zero(to))))));
      storeLane(to + 16, madd(b3, j, madd(b2, h, madd(b1, g, madd(b0, f, v128.load32_zero(to + 16))))));
    }
    m = m3 + mk;
    x += xk << 2;
    y += xk << 2;
  }
  for (; p < k; p++) {
    const a = v128.load32_splat(x), b = v128.load32_splat(y);
    let to = sums;
    let at: usize = 0;
    for (; at != bytes; at += 16, to += 32) {
      const f = v128.load(m + at);
      v128.store(to, madd(a, f, v128.load(to)));
      v128.store(to, madd(b, f, v128.load(to, 16)), 16);
    }
    for (let i = 0; i < rest; i++, at += 4, to += 4) {
      const f = v128.load32_splat(m + at);
      storeLane(to, madd(a, f, v128.load32_zero(to)));
      storeLane(to + 16, madd(b, f, v128.load32_zero(to + 16)));
    }
    m += mk;
    x += xk;
    y += xk;
  }
}

// @ts-ignore: decorator
@inline
function storeLane(to: usize, x: v128): void {
  v128.store_lane<u32>(to, x, 0);
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
