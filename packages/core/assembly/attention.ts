// Scaled-dot-product attention in blocks with a running softmax (Dao et al., arXiv:2205.14135): the matrix
// queries × keys never exists. A unit is one block of queries of one head.
//
// Arguments of all attention kernels: 0 heads, 1 heads per key head, 2 queries, 3 keys, 4 headDim, 5 causal, then address
// and byte strides (batch, head, position) of q 6 … 9, k 10 … 13, v 14 … 17, out 18 … 21, 22 logSumExp or 0, dOut
// 23 … 26, dq 27 … 30, dk 31 … 34, dv 35 … 38, 39 delta; float 0 the scale.

import { address, float, int, laneMax, laneSum } from "./abi";
import { BLOCK, dotGroup, pack, padded, padRows, ROW, sumGroup } from "./attention-tiles";
import { exp4 } from "./math";

/** Address of position `t` of one head of an operand whose description starts at argument i. */
// @ts-ignore: decorator
@inline
export function vectorOf(args: usize, i: i32, batch: i32, head: i32, t: i32): usize {
  return address(args, i) + <usize>batch * address(args, i + 1) + <usize>head * address(args, i + 2) + <usize>t * address(args, i + 3);
}

/** Keys of a block from `first` on that query `row` sees, at most n. */
// @ts-ignore: decorator
@inline
export function visibleKeys(causal: i32, row: i32, first: i32, n: i32): i32 {
  return causal ? max(0, min(n, row + 1 - first)) : n;
}

/**
 * Takes scores [n] of one row, of which the first `visible` count, into its running softmax: they become
 * exp(score − highest), zeros behind. `state` holds the highest score so far, and the sum BLOCK floats on.
 *
 * @returns the factor that what was summed before must be multiplied by
 */
function takeScores(scores: usize, visible: i32, n: i32, state: usize): f32 {
  const end = scores + ((<usize>((n + 3) & ~3)) << 2);
  if (visible == 0) {
    for (; scores < end; scores += 16) v128.store(scores, i32x4.splat(0));
    return 1;
  }
  const stop = scores + ((<usize>((visible + 3) & ~3)) << 2);
  for (let at = scores + ((<usize>visible) << 2); at < stop; at += 4) store<f32>(at, -Infinity);
  let top = f32x4.splat(-Infinity);
  for (let at = scores; at < stop; at += 16) top = f32x4.max(top, v128.load(at));
  const before = load<f32>(state);
  const highest = max(before, laneMax(top));
  // All scores −∞ so far: nothing to sum, and −∞ − −∞ must not make a NaN.
  const shift = f32x4.splat(highest == -Infinity ? 0 : highest);
  let sum = i32x4.splat(0);
  for (; scores < stop; scores += 16) {
    const e = exp4(f32x4.sub(v128.load(scores), shift));
    v128.store(scores, e);
    sum = f32x4.add(sum, e);
  }
  for (; scores < end; scores += 16) v128.store(scores, i32x4.splat(0));
  const factor: f32 = before == highest ? 1 : f32x4.extract_lane(exp4(f32x4.splat(before - highest)), 0);
  store<f32>(state, highest);
  store<f32>(state + ROW, load<f32>(state + ROW) * factor + laneSum(sum));
  return factor;
}

// @ts-ignore: decorator
@inline
function scaleVector(x: usize, n: i32, factor: f32): void {
  const f = f32x4.splat(factor);
  for (const stop = x + ((<usize>n) << 2); x < stop; x += 16) v128.store(x, f32x4.mul(v128.load(x), f));
}

/** out = sums / total, and the logarithm of the total; zeros and −∞ where no key was seen. */
function finishRow(sums: usize, state: usize, out: usize, depth: i32, logSumExp: usize): void {
  const total = load<f32>(state + ROW);
  const factor: f32 = total == 0 ? 0 : 1 / total;
  for (let d = 0; d < depth; d++, sums += 4, out += 4) store<f32>(out, load<f32>(sums) * factor);
  if (logSumExp) {
    const value = total == 0 ? -Infinity : <f64>load<f32>(state) + NativeMath.log(<f64>total);
    store<f32>(logSumExp, <f32>value);
  }
}

/**
 * Scratch, in floats with D = headDim: queries packed [BLOCK, D], keys packed [BLOCK, D], values [BLOCK, padded D],
 * scores [BLOCK, BLOCK], sums [BLOCK, padded D], highest [BLOCK], totals [BLOCK].
 */
export function attention(args: usize, begin: i32, end: i32, scratch: usize): void {
  const heads = int(args, 0);
  const group = int(args, 1);
  const queries = int(args, 2);
  const keys = int(args, 3);
  const depth = int(args, 4);
  const causal = int(args, 5);
  const blocks = (queries + BLOCK - 1) / BLOCK;
  const packedBytes = <usize>depth * ROW;
  const paddedRow = (<usize>padded(depth)) << 2;
  const paddedBytes = <usize>padded(depth) * ROW;
  const packedQueries = scratch;
  const packedKeys = packedQueries + packedBytes;
  const paddedValues = packedKeys + packedBytes;
  const scores = paddedValues + paddedBytes;
  const sums = scores + <usize>BLOCK * ROW;
  const state = sums + paddedBytes;
  for (let unit = begin; unit < end; unit++) {
    // The last query blocks of a causal head see most keys: they come first, so that threads end together.
    const q0 = (blocks - 1 - (unit % blocks)) * BLOCK;
    const head = (unit / blocks) % heads;
    const batch = unit / blocks / heads;
    const rows = min(BLOCK, queries - q0);
    const shift = q0 + keys - queries; // row i of the block sees the keys up to i + shift
    pack(vectorOf(args, 6, batch, head, q0), address(args, 9), rows, depth, <f32>float(args, 0), packedQueries, 4);
    memory.fill(sums, 0, paddedBytes);
    for (let row = 0; row < BLOCK; row++) {
      store<f32>(state + ((<usize>row) << 2), -Infinity);
      store<f32>(state + ROW + ((<usize>row) << 2), 0);
    }
    const seen = visibleKeys(causal, rows - 1 + shift, 0, keys);
    for (let k0 = 0; k0 < seen; k0 += BLOCK) {
      const n = min(BLOCK, seen - k0);
      pack(vectorOf(args, 10, batch, head / group, k0), address(args, 13), n, depth, 1, packedKeys, 8);
      let values = vectorOf(args, 14, batch, head / group, k0);
      let valueStride = address(args, 17);
      if (depth & 7) {
        padRows(values, valueStride, n, depth, paddedValues);
        values = paddedValues;
        valueStride = paddedRow;
      }
      for (let row = 0; row < rows; row += 4) {
        const visible = visibleKeys(causal, row + 3 + shift, k0, n);
        if (visible == 0) continue;
        const groupScores = scores + <usize>row * ROW;
        const groupSums = sums + <usize>row * paddedRow;
        dotGroup(packedQueries + (<usize>row << 2) * <usize>depth, packedKeys, depth, visible, groupScores);
        for (let i = 0; i < 4; i++) {
          const own = visibleKeys(causal, row + i + shift, k0, n);
          const factor = takeScores(groupScores + <usize>i * ROW, own, visible, state + ((<usize>(row + i)) << 2));
          if (factor != 1) scaleVector(groupSums + <usize>i * paddedRow, padded(depth), factor);
        }
        sumGroup(groupScores, values, valueStride, visible, groupSums, depth);
      }
    }
    for (let row = 0; row < rows; row++) {
      const logSumExp = address(args, 22);
      const position = (<usize>((batch * heads + head) * queries + q0 + row)) << 2;
      finishRow(
        sums + <usize>row * paddedRow, state + ((<usize>row) << 2), vectorOf(args, 18, batch, head, q0 + row), depth,
        logSumExp ? logSumExp + position : 0,
      );
    }
  }
}

/** q · k over `depth` floats, for four keys at once; missing keys repeat the last. */
function dotFour(q: usize, k: usize, stride: usize, present: i32, depth: i32): v128 {
  const k1 = present > 1 ? k + stride : k;
  const k2 = present > 2 ? k1 + stride : k1;
  const k3 = present > 3 ? k2 + stride : k2;
  const whole = (<usize>(depth & ~3)) << 2;
  let s0 = i32x4.splat(0), s1 = s0, s2 = s0, s3 = s0;
  for (let at: usize = 0; at < whole; at += 16) {
    const x = v128.load(q + at);
    s0 = f32x4.add(s0, f32x4.mul(x, v128.load(k + at)));
    s1 = f32x4.add(s1, f32x4.mul(x, v128.load(k1 + at)));
    s2 = f32x4.add(s2, f32x4.mul(x, v128.load(k2 + at)));
    s3 = f32x4.add(s3, f32x4.mul(x, v128.load(k3 + at)));
  }
  for (let at = whole; at < ((<usize>depth) << 2); at += 4) {
    const x = v128.load32_zero(q + at);
    s0 = f32x4.add(s0, f32x4.mul(x, v128.load32_zero(k + at)));
    s1 = f32x4.add(s1, f32x4.mul(x, v128.load32_zero(k1 + at)));
    s2 = f32x4.add(s2, f32x4.mul(x, v128.load32_zero(k2 + at)));
    s3 = f32x4.add(s3, f32x4.mul(x, v128.load32_zero(k3 + at)));
  }
  // Transposed, so that one addition sums all four.
  const a = i32x4.shuffle(s0, s1, 0, 4, 1, 5);
  const b = i32x4.shuffle(s0, s1, 2, 6, 3, 7);
  const c = i32x4.shuffle(s2, s3, 0, 4, 1, 5);
  const d = i32x4.shuffle(s2, s3, 2, 6, 3, 7);
  const low = f32x4.add(i32x4.shuffle(a, c, 0, 1, 4, 5), i32x4.shuffle(a, c, 2, 3, 6, 7));
  return f32x4.add(low, f32x4.add(i32x4.shuffle(b, d, 0, 1, 4, 5), i32x4.shuffle(b, d, 2, 3, 6, 7)));
}

/** sums [depth] += weights [n] · values [n, depth]. */
function sumValues(weights: usize, values: usize, stride: usize, n: i32, sums: usize, depth: i32): void {
  let d = 0;
  for (; d + 16 <= depth; d += 16) {
    const out = sums + ((<usize>d) << 2);
    let v = values + ((<usize>d) << 2);
    let s0 = v128.load(out), s1 = v128.load(out, 16), s2 = v128.load(out, 32), s3 = v128.load(out, 48);
    for (let j = 0; j < n; j++, v += stride) {
      const w = v128.load32_splat(weights + ((<usize>j) << 2));
      s0 = madd4(w, v128.load(v), s0);
      s1 = madd4(w, v128.load(v, 16), s1);
      s2 = madd4(w, v128.load(v, 32), s2);
      s3 = madd4(w, v128.load(v, 48), s3);
    }
    v128.store(out, s0);
    v128.store(out, s1, 16);
    v128.store(out, s2, 32);
    v128.store(out, s3, 48);
  }
  for (; d < depth; d++) {
    const out = sums + ((<usize>d) << 2);
    let v = values + ((<usize>d) << 2);
    let s = load<f32>(out);
    for (let j = 0; j < n; j++, v += stride) s += load<f32>(weights + ((<usize>j) << 2)) * load<f32>(v);
    store<f32>(out, s);
  }
}

// @ts-ignore: decorator
@inline
function madd4(a: v128, b: v128, c: v128): v128 {
  return f32x4.add(c, f32x4.mul(a, b));
}

/**
 * The same for few queries, as in generation: a unit is one query, keys and values are read where they lie.
 * Scratch: query [D], sums [padded D], scores [BLOCK], highest and total (BLOCK floats apart).
 */
export function attentionDecode(args: usize, begin: i32, end: i32, scratch: usize): void {
  const heads = int(args, 0);
  const group = int(args, 1);
  const queries = int(args, 2);
  const keys = int(args, 3);
  const depth = int(args, 4);
  const scale = <f32>float(args, 0);
  const sums = scratch + ((<usize>padded(depth)) << 2);
  const scores = sums + ((<usize>padded(depth)) << 2);
  const state = scores + ROW;
  for (let unit = begin; unit < end; unit++) {
    const row = unit % queries;
    const head = (unit / queries) % heads;
    const batch = unit / queries / heads;
    const q = vectorOf(args, 6, batch, head, row);
    for (let d: usize = 0; d < ((<usize>depth) << 2); d += 4) store<f32>(scratch + d, load<f32>(q + d) * scale);
    memory.fill(sums, 0, (<usize>padded(depth)) << 2);
    store<f32>(state, -Infinity);
    store<f32>(state + ROW, 0);
    const seen = visibleKeys(int(args, 5), row + keys - queries, 0, keys);
    const keyStride = address(args, 13);
    for (let k0 = 0; k0 < seen; k0 += BLOCK) {
      const n = min(BLOCK, seen - k0);
      let k = vectorOf(args, 10, batch, head / group, k0);
      for (let j = 0; j < n; j += 4, k += 4 * keyStride) {
        v128.store(scores + ((<usize>j) << 2), dotFour(scratch, k, keyStride, n - j, depth));
      }
      const factor = takeScores(scores, n, n, state);
      if (factor != 1) scaleVector(sums, padded(depth), factor);
      sumValues(scores, vectorOf(args, 14, batch, head / group, k0), address(args, 17), n, sums, depth);
    }
    const logSumExp = address(args, 22);
    finishRow(sums, state, vectorOf(args, 18, batch, head, row), depth, logSumExp ? logSumExp + ((<usize>unit) << 2) : 0);
  }
}
