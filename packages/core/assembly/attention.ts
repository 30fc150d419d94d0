// Scaled-dot-product attention in blocks with a running softmax (Dao et al., arXiv:2205.14135): the matrix
// queries × keys never exists. A unit is one block of queries of one head.
//
// Arguments of all attention kernels: 0 heads, 1 heads per key head, 2 queries, 3 keys, 4 headDim, 5 causal, then address
// and byte strides (batch, head, position) of q 6 … 9, k 10 … 13, v 14 … 17, out 18 … 21, 22 logSumExp or 0; 23 kind of mask,
// 24 its address, 25 … 28 its byte strides (batch, head, query, key); then dOut 29 … 32, dq 33 … 36, dk 37 … 40, dv 41 … 44,
// 45 delta, 46 splits of the keys, 47 partial sums of dq; float 0 the scale.

import { address, float, int, laneMax, laneSum, madd } from "./abi";
import {
  addRows, BLOCK, exp2, LN_2, LOG2_E, maskScores, NO_MASK, padded, ROW, scoreRows, vectorOf, visibleKeys,
} from "./attention-tiles";
import { packEights, packFours } from "./pack";
import { log } from "./power";

/** Queries of a block in `attention`: twice the keys, so that keys and values are packed half as often. */
const QUERIES: i32 = 128;
/** Bytes from a row's highest score to its total. */
const TOTALS: usize = 512;

/** The mask of one query and the keys from k0 on. */
// @ts-ignore: decorator
@inline
export function maskOf(args: usize, batch: i32, head: i32, query: i32, k0: i32): usize {
  return vectorOf(args, 24, batch, head, query) + <usize>k0 * address(args, 28);
}

/** scores[i] = 2^(scores[i] − shift) over whole vectors; returns the sums by lanes. */
function exponentials(scores: usize, bytes: usize, shift: v128): v128 {
  let sum = i32x4.splat(0);
  for (const end = scores + bytes; scores < end; scores += 16) {
    const e = exp2(f32x4.sub(v128.load(scores), shift));
    v128.store(scores, e);
    sum = f32x4.add(sum, e);
  }
  return sum;
}

/** 0 where the highest score is −∞, a row that has seen nothing: −∞ − −∞ must not make a NaN. */
// @ts-ignore: decorator
@inline
function shiftOf(highest: v128): v128 {
  return v128.andnot(highest, f32x4.eq(highest, f32x4.splat(-Infinity)));
}

/**
 * Takes four rows of scores [4, n] into their running softmax: they become 2^(score − highest). `state` holds the four
 * highest scores so far, and TOTALS bytes on the four sums; `sums` [4, width] is rescaled where a highest score grew.
 */
function takeRows(scores: usize, n: i32, state: usize, sums: usize, width: i32): void {
  const bytes = (<usize>n) << 2;
  let m0 = f32x4.splat(-Infinity), m1 = m0, m2 = m0, m3 = m0;
  for (let at = scores, end = scores + bytes; at < end; at += 16) {
    m0 = f32x4.pmax(m0, v128.load(at));
    m1 = f32x4.pmax(m1, v128.load(at, ROW));
    m2 = f32x4.pmax(m2, v128.load(at, 2 * ROW));
    m3 = f32x4.pmax(m3, v128.load(at, 3 * ROW));
  }
  const before = v128.load(state);
  // Transposed, so that the four rows' numbers stand side by side.
  let low = f32x4.pmax(i32x4.shuffle(m0, m1, 0, 4, 1, 5), i32x4.shuffle(m0, m1, 2, 6, 3, 7));
  let high = f32x4.pmax(i32x4.shuffle(m2, m3, 0, 4, 1, 5), i32x4.shuffle(m2, m3, 2, 6, 3, 7));
  const top = f32x4.pmax(i32x4.shuffle(low, high, 0, 1, 4, 5), i32x4.shuffle(low, high, 2, 3, 6, 7));
  const highest = f32x4.pmax(before, top);
  const shift = shiftOf(highest);
  v128.store(state, highest);
  const s0 = exponentials(scores, bytes, i32x4.shuffle(shift, shift, 0, 0, 0, 0));
  const s1 = exponentials(scores + ROW, bytes, i32x4.shuffle(shift, shift, 1, 1, 1, 1));
  const s2 = exponentials(scores + 2 * ROW, bytes, i32x4.shuffle(shift, shift, 2, 2, 2, 2));
  const s3 = exponentials(scores + 3 * ROW, bytes, i32x4.shuffle(shift, shift, 3, 3, 3, 3));
  low = f32x4.add(i32x4.shuffle(s0, s1, 0, 4, 1, 5), i32x4.shuffle(s0, s1, 2, 6, 3, 7));
  high = f32x4.add(i32x4.shuffle(s2, s3, 0, 4, 1, 5), i32x4.shuffle(s2, s3, 2, 6, 3, 7));
  const sum = f32x4.add(i32x4.shuffle(low, high, 0, 1, 4, 5), i32x4.shuffle(low, high, 2, 3, 6, 7));
  const factor = exp2(f32x4.sub(before, shift));
  v128.store(state, f32x4.add(f32x4.mul(v128.load(state, TOTALS), factor), sum), TOTALS);
  if (!v128.any_true(f32x4.gt(highest, before))) return;
  const row = (<usize>width) << 2;
  scaleVector(sums, width, i32x4.shuffle(factor, factor, 0, 0, 0, 0));
  scaleVector(sums + row, width, i32x4.shuffle(factor, factor, 1, 1, 1, 1));
  scaleVector(sums + 2 * row, width, i32x4.shuffle(factor, factor, 2, 2, 2, 2));
  scaleVector(sums + 3 * row, width, i32x4.shuffle(factor, factor, 3, 3, 3, 3));
}

// @ts-ignore: decorator
@inline
function scaleVector(x: usize, n: i32, factor: v128): void {
  for (const stop = x + ((<usize>n) << 2); x < stop; x += 16) v128.store(x, f32x4.mul(v128.load(x), factor));
}

/** out = sums / total, and the logarithm of the total; zeros and −∞ where no key was seen. */
function finishRow(sums: usize, state: usize, out: usize, depth: i32, logSumExp: usize): void {
  const total = load<f32>(state + TOTALS);
  const factor: f32 = total == 0 ? 0 : 1 / total;
  const factors = f32x4.splat(factor);
  let d: usize = 0;
  for (const whole = (<usize>(depth & ~3)) << 2; d < whole; d += 16) {
    v128.store(out + d, f32x4.mul(v128.load(sums + d), factors));
  }
  for (; d < (<usize>depth) << 2; d += 4) store<f32>(out + d, load<f32>(sums + d) * factor);
  if (logSumExp) {
    const value = total == 0 ? -Infinity : <f64>load<f32>(state) * LN_2 + log(<f64>total);
    store<f32>(logSumExp, <f32>value);
  }
}

/**
 * Writes −∞ over those scores of four rows that causality or the end of the keys hides, up to `end`; `first` keys are seen by
 * the first row.
 */
export function hideScores(scores: usize, first: i32, causal: i32, n: i32, end: i32): void {
  for (let i = 0; i < 4; i++, scores += ROW) {
    const own = causal ? max(0, min(n, first + i)) : n;
    for (let column = own; column < end; column++) store<f32>(scores + ((<usize>column) << 2), -Infinity);
  }
}

/**
 * Scratch, in floats: queries packed by 4 and sums [QUERIES, padded D], keys and values packed by 8 [BLOCK, padded D], scores
 * [QUERIES, BLOCK], highest and totals [QUERIES].
 */
export function attention(args: usize, begin: i32, end: i32, scratch: usize): void {
  const heads = int(args, 0);
  const group = int(args, 1);
  const queries = int(args, 2);
  const keys = int(args, 3);
  const depth = int(args, 4);
  const causal = int(args, 5);
  const mask = int(args, 23);
  const factor = <f32>(float(args, 0) * LOG2_E);
  const blocks = (queries + QUERIES - 1) / QUERIES;
  const width = padded(depth);
  const area = <usize>width * ROW;
  const row = (<usize>width) << 2;
  const packedQ = scratch;
  const sums = packedQ + <usize>QUERIES * row;
  const packedK = sums + <usize>QUERIES * row;
  const packedV = packedK + area;
  const scores = packedV + area;
  const state = scores + <usize>QUERIES * ROW;
  const shift = keys - queries;
  for (let unit = begin; unit < end; unit++) {
    // The last query blocks of a causal head see most keys: they come first, so that threads end together.
    const q0 = (blocks - 1 - (unit % blocks)) * QUERIES;
    const head = (unit / blocks) % heads;
    const batch = unit / blocks / heads;
    const rows = min(QUERIES, queries - q0);
    packFours(vectorOf(args, 6, batch, head, q0), address(args, 9), 4, rows, depth, packedQ);
    memory.fill(sums, 0, <usize>QUERIES * row);
    for (let i = 0; i < QUERIES; i++) {
      store<f32>(state + ((<usize>i) << 2), -Infinity);
      store<f32>(state + TOTALS + ((<usize>i) << 2), 0);
    }
    const seen = visibleKeys(causal, q0 + rows - 1, shift, 0, keys);
    for (let k0 = 0; k0 < seen; k0 += BLOCK) {
      const n = min(BLOCK, seen - k0);
      packEights(vectorOf(args, 10, batch, head / group, k0), 4, address(args, 13), depth, n, packedK);
      packEights(vectorOf(args, 14, batch, head / group, k0), address(args, 17), 4, n, depth, packedV);
      for (let i = 0; i < rows; i += 4) {
        const visible = visibleKeys(causal, q0 + i + 3, shift, k0, n);
        if (visible == 0) continue;
        const own = scores + <usize>i * ROW;
        const ownSums = sums + <usize>i * row;
        const columns = padded(visible);
        scoreRows(packedQ + ((<usize>i * <usize>depth) << 2), packedK, depth, visible, factor, own);
        if (mask != NO_MASK) {
          for (let j = 0; j < min(4, rows - i); j++) {
            maskScores(mask, maskOf(args, batch, head, q0 + i + j, k0), address(args, 28), visible, own + <usize>j * ROW);
          }
        }
        hideScores(own, q0 + i + shift + 1 - k0, causal, n, columns);
        takeRows(own, columns, state + ((<usize>i) << 2), ownSums, width);
        addRows(own, packedV, (<usize>n) << 5, visible, ownSums, width);
      }
    }
    const logSumExp = address(args, 22);
    for (let i = 0; i < rows; i++) {
      const position = (<usize>((batch * heads + head) * queries + q0 + i)) << 2;
      finishRow(
        sums + <usize>i * row, state + ((<usize>i) << 2), vectorOf(args, 18, batch, head, q0 + i), depth,
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
    s0 = madd(x, v128.load(k + at), s0);
    s1 = madd(x, v128.load(k1 + at), s1);
    s2 = madd(x, v128.load(k2 + at), s2);
    s3 = madd(x, v128.load(k3 + at), s3);
  }
  for (let at = whole; at < ((<usize>depth) << 2); at += 4) {
    const x = v128.load32_zero(q + at);
    s0 = madd(x, v128.load32_zero(k + at), s0);
    s1 = madd(x, v128.load32_zero(k1 + at), s1);
    s2 = madd(x, v128.load32_zero(k2 + at), s2);
    s3 = madd(x, v128.load32_zero(k3 + at), s3);
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
      s0 = madd(w, v128.load(v), s0);
      s1 = madd(w, v128.load(v, 16), s1);
      s2 = madd(w, v128.load(v, 32), s2);
      s3 = madd(w, v128.load(v, 48), s3);
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

/** As takeRows, for one row of scores [n, rounded up to 4]. */
function takeRow(scores: usize, n: i32, state: usize, sums: usize, width: i32): void {
  const whole = (n + 3) & ~3;
  for (let column = n; column < whole; column++) store<f32>(scores + ((<usize>column) << 2), -Infinity);
  const bytes = (<usize>whole) << 2;
  let top = f32x4.splat(-Infinity);
  for (let at: usize = 0; at < bytes; at += 16) top = f32x4.pmax(top, v128.load(scores + at));
  const before = load<f32>(state);
  const highest = max(before, laneMax(top));
  const shift = shiftOf(f32x4.splat(highest));
  const sum = laneSum(exponentials(scores, bytes, shift));
  const factor = exp2(f32x4.sub(f32x4.splat(before), shift));
  store<f32>(state, highest);
  store<f32>(state + TOTALS, load<f32>(state + TOTALS) * f32x4.extract_lane(factor, 0) + sum);
  if (highest > before) scaleVector(sums, width, factor);
}

/**
 * The same for few queries, as in generation: a unit is one query, keys and values are read where they lie.
 * Scratch: query [D], sums [padded D], scores [BLOCK], highest and total (TOTALS bytes apart).
 */
export function attentionDecode(args: usize, begin: i32, end: i32, scratch: usize): void {
  const heads = int(args, 0);
  const group = int(args, 1);
  const queries = int(args, 2);
  const keys = int(args, 3);
  const depth = int(args, 4);
  const mask = int(args, 23);
  const factor = <f32>(float(args, 0) * LOG2_E);
  const sums = scratch + ((<usize>padded(depth)) << 2);
  const scores = sums + ((<usize>padded(depth)) << 2);
  const state = scores + ROW;
  for (let unit = begin; unit < end; unit++) {
    const row = unit % queries;
    const head = (unit / queries) % heads;
    const batch = unit / queries / heads;
    const q = vectorOf(args, 6, batch, head, row);
    for (let d: usize = 0; d < ((<usize>depth) << 2); d += 4) store<f32>(scratch + d, load<f32>(q + d) * factor);
    memory.fill(sums, 0, (<usize>padded(depth)) << 2);
    store<f32>(state, -Infinity);
    store<f32>(state + TOTALS, 0);
    const seen = visibleKeys(int(args, 5), row, keys - queries, 0, keys);
    const keyStride = address(args, 13);
    for (let k0 = 0; k0 < seen; k0 += BLOCK) {
      const n = min(BLOCK, seen - k0);
      let k = vectorOf(args, 10, batch, head / group, k0);
      for (let j = 0; j < n; j += 4, k += 4 * keyStride) {
        v128.store(scores + ((<usize>j) << 2), dotFour(scratch, k, keyStride, n - j, depth));
      }
      if (mask != NO_MASK) maskScores(mask, maskOf(args, batch, head, row, k0), address(args, 28), n, scores);
      takeRow(scores, n, state, sums, padded(depth));
      sumValues(scores, vectorOf(args, 14, batch, head / group, k0), address(args, 17), n, sums, depth);
    }
    const logSumExp = address(args, 22);
    finishRow(sums, state, vectorOf(args, 18, batch, head, row), depth, logSumExp ? logSumExp + ((<usize>unit) << 2) : 0);
  }
}
