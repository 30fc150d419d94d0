// Gradients of attention. Probabilities are recomputed block by block from logSumExp; dq by blocks of queries, dk and dv
// by blocks of keys over all heads that share them, so that every number has one writer and one order of additions.
//
// P = exp(s·q·kᵀ − logSumExp), dP = dOut·vᵀ, dS = P·(dP − delta), delta = Σ out·dOut; dq = s·dS·k, dk = s·dSᵀ·q,
// dv = Pᵀ·dOut. The arguments stand in attention.ts.

import { address, float, int } from "./abi";
import { vectorOf, visibleKeys } from "./attention";
import { BLOCK, dotGroup, pack, padded, padRows, ROW, sumGroup } from "./attention-tiles";
import { exp4 } from "./math";
import { dotOf } from "./softmax";

/** delta [batch, heads, queries]; a unit is one query. */
export function attentionDelta(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const heads = int(args, 0);
  const queries = int(args, 2);
  for (let unit = begin; unit < end; unit++) {
    const t = unit % queries;
    const head = (unit / queries) % heads;
    const batch = unit / queries / heads;
    const out = vectorOf(args, 18, batch, head, t);
    store<f32>(address(args, 39) + ((<usize>unit) << 2), <f32>dotOf(out, vectorOf(args, 23, batch, head, t), int(args, 4)));
  }
}

/** scores → dS in place, for one query: columns are keys, of which the first `visible` count. */
function queryRow(scores: usize, dP: usize, visible: i32, n: i32, logSumExp: f32, delta: f32): void {
  const l = f32x4.splat(logSumExp);
  const d = f32x4.splat(delta);
  const whole = (visible + 3) & ~3;
  for (let at: usize = 0; at < ((<usize>whole) << 2); at += 16) {
    const p = exp4(f32x4.sub(v128.load(scores + at), l));
    v128.store(scores + at, f32x4.mul(p, f32x4.sub(v128.load(dP + at), d)));
  }
  for (let column = visible; column < n; column++) store<f32>(scores + ((<usize>column) << 2), 0);
}

/** scores → P and dP → dS in place, for one key: columns are queries, of which those from `first` on count. */
function keyRow(scores: usize, dP: usize, first: i32, n: i32, logSumExp: usize, delta: usize): void {
  const start = (<usize>(first & ~3)) << 2;
  for (let at = start; at < ((<usize>n) << 2); at += 16) {
    const p = exp4(f32x4.sub(v128.load(scores + at), v128.load(logSumExp + at)));
    v128.store(scores + at, p);
    v128.store(dP + at, f32x4.mul(p, f32x4.sub(v128.load(dP + at), v128.load(delta + at))));
  }
  for (let at: usize = 0; at < ((<usize>first) << 2); at += 4) {
    store<f32>(scores + at, 0);
    store<f32>(dP + at, 0);
  }
}

/** Writes rows of padded sums, times `scale`, to where they belong. */
function writeRows(sums: usize, rows: i32, depth: i32, scale: f32, out: usize, stride: usize): void {
  const paddedRow = (<usize>padded(depth)) << 2;
  for (let row = 0; row < rows; row++, sums += paddedRow, out += stride) {
    for (let d: usize = 0; d < ((<usize>depth) << 2); d += 4) store<f32>(out + d, load<f32>(sums + d) * scale);
  }
}

/**
 * dq; a unit is one block of queries of one head. Scratch in blocks of [BLOCK, D] or [BLOCK, padded D] floats: q and dOut
 * packed by 4, k and v packed by 8, k in rows, sums; then scores and dP [BLOCK, BLOCK].
 */
export function attentionQueryGradient(args: usize, begin: i32, end: i32, scratch: usize): void {
  const heads = int(args, 0);
  const group = int(args, 1);
  const queries = int(args, 2);
  const keys = int(args, 3);
  const depth = int(args, 4);
  const causal = int(args, 5);
  const scale = <f32>float(args, 0);
  const blocks = (queries + BLOCK - 1) / BLOCK;
  const paddedRow = (<usize>padded(depth)) << 2;
  const area = <usize>padded(depth) * ROW;
  const packedQ = scratch;
  const packedGradient = packedQ + area;
  const packedK = packedGradient + area;
  const packedV = packedK + area;
  const paddedK = packedV + area;
  const sums = paddedK + area;
  const scores = sums + area;
  const dP = scores + <usize>BLOCK * ROW;
  for (let unit = begin; unit < end; unit++) {
    const q0 = (blocks - 1 - (unit % blocks)) * BLOCK;
    const head = (unit / blocks) % heads;
    const batch = unit / blocks / heads;
    const rows = min(BLOCK, queries - q0);
    const shift = q0 + keys - queries;
    const position = (<usize>((batch * heads + head) * queries + q0)) << 2;
    const logSumExp = address(args, 22) + position;
    const delta = address(args, 39) + position;
    pack(vectorOf(args, 6, batch, head, q0), address(args, 9), rows, depth, scale, packedQ, 4);
    pack(vectorOf(args, 23, batch, head, q0), address(args, 26), rows, depth, 1, packedGradient, 4);
    memory.fill(sums, 0, area);
    const seen = visibleKeys(causal, rows - 1 + shift, 0, keys);
    for (let k0 = 0; k0 < seen; k0 += BLOCK) {
      const n = min(BLOCK, seen - k0);
      let k = vectorOf(args, 10, batch, head / group, k0);
      let keyStride = address(args, 13);
      pack(k, keyStride, n, depth, 1, packedK, 8);
      pack(vectorOf(args, 14, batch, head / group, k0), address(args, 17), n, depth, 1, packedV, 8);
      if (depth & 7) {
        padRows(k, keyStride, n, depth, paddedK);
        k = paddedK;
        keyStride = paddedRow;
      }
      for (let row = 0; row < rows; row += 4) {
        const visible = visibleKeys(causal, row + 3 + shift, k0, n);
        if (visible == 0) continue;
        const packedAt = ((<usize>row) << 2) * <usize>depth;
        const groupScores = scores + <usize>row * ROW;
        const groupP = dP + <usize>row * ROW;
        dotGroup(packedQ + packedAt, packedK, depth, visible, groupScores);
        dotGroup(packedGradient + packedAt, packedV, depth, visible, groupP);
        const present = min(4, rows - row);
        for (let i = 0; i < present; i++) {
          const at = (<usize>(row + i)) << 2;
          const own = visibleKeys(causal, row + i + shift, k0, n);
          queryRow(groupScores + <usize>i * ROW, groupP + <usize>i * ROW, own, visible, load<f32>(logSumExp + at), load<f32>(delta + at));
        }
        sumGroup(groupScores, k, keyStride, visible, sums + <usize>row * paddedRow, depth);
      }
    }
    writeRows(sums, rows, depth, scale, vectorOf(args, 27, batch, head, q0), address(args, 30));
  }
}

/**
 * dk and dv; a unit is one block of keys of one key head. Scratch in blocks of [BLOCK, D] or [BLOCK, padded D] floats: k
 * and v packed by 4, q and dOut packed by 8, q and dOut in rows, sums of dk and of dv; then scores and dP [BLOCK, BLOCK],
 * logSumExp and delta [BLOCK].
 */
export function attentionKeyGradient(args: usize, begin: i32, end: i32, scratch: usize): void {
  const heads = int(args, 0);
  const group = int(args, 1);
  const queries = int(args, 2);
  const keys = int(args, 3);
  const depth = int(args, 4);
  const causal = int(args, 5);
  const scale = <f32>float(args, 0);
  const keyHeads = heads / group;
  const blocks = (keys + BLOCK - 1) / BLOCK;
  const paddedRow = (<usize>padded(depth)) << 2;
  const area = <usize>padded(depth) * ROW;
  const packedK = scratch;
  const packedV = packedK + area;
  const packedQ = packedV + area;
  const packedGradient = packedQ + area;
  const paddedQ = packedGradient + area;
  const paddedGradient = paddedQ + area;
  const sumsK = paddedGradient + area;
  const sumsV = sumsK + area;
  const scores = sumsV + area;
  const dP = scores + <usize>BLOCK * ROW;
  const logSumExp = dP + <usize>BLOCK * ROW;
  const delta = logSumExp + ROW;
  const shift = keys - queries; // query i sees the keys up to i + shift
  for (let unit = begin; unit < end; unit++) {
    const k0 = (unit % blocks) * BLOCK;
    const keyHead = (unit / blocks) % keyHeads;
    const batch = unit / blocks / keyHeads;
    const rows = min(BLOCK, keys - k0);
    pack(vectorOf(args, 10, batch, keyHead, k0), address(args, 13), rows, depth, scale, packedK, 4);
    pack(vectorOf(args, 14, batch, keyHead, k0), address(args, 17), rows, depth, 1, packedV, 4);
    memory.fill(sumsK, 0, 2 * area);
    const firstQuery = causal ? max(0, k0 - shift) : 0;
    for (let head = keyHead * group; head < (keyHead + 1) * group; head++) {
      for (let q0 = firstQuery & ~(BLOCK - 1); q0 < queries; q0 += BLOCK) {
        const n = min(BLOCK, queries - q0);
        let q = vectorOf(args, 6, batch, head, q0);
        let gradient = vectorOf(args, 23, batch, head, q0);
        let queryStride = address(args, 9);
        let gradientStride = address(args, 26);
        pack(q, queryStride, n, depth, 1, packedQ, 8);
        pack(gradient, gradientStride, n, depth, 1, packedGradient, 8);
        if (depth & 7) {
          padRows(q, queryStride, n, depth, paddedQ);
          padRows(gradient, gradientStride, n, depth, paddedGradient);
          q = paddedQ;
          gradient = paddedGradient;
          queryStride = paddedRow;
          gradientStride = paddedRow;
        }
        const position = (<usize>((batch * heads + head) * queries + q0)) << 2;
        memory.copy(logSumExp, address(args, 22) + position, (<usize>n) << 2);
        memory.copy(delta, address(args, 39) + position, (<usize>n) << 2);
        for (let row = 0; row < rows; row += 4) {
          // Key k0 + row + i is seen by the queries from k0 + row + i − shift on.
          const from = causal ? max(0, k0 + row - shift - q0) : 0;
          if (from >= n) continue;
          const packedAt = ((<usize>row) << 2) * <usize>depth;
          const groupScores = scores + <usize>row * ROW;
          const groupP = dP + <usize>row * ROW;
          // Whole panels of eight queries that nobody in the group is seen by are left out.
          const skip = from & ~7;
          const panels = ((<usize>skip) << 2) * <usize>depth;
          const skipped = (<usize>skip) << 2;
          dotGroup(packedK + packedAt, packedQ + panels, depth, n - skip, groupScores + skipped);
          dotGroup(packedV + packedAt, packedGradient + panels, depth, n - skip, groupP + skipped);
          for (let i = 0; i < 4; i++) {
            const own = causal ? min(n, max(0, k0 + row + i - shift - q0)) : 0;
            keyRow(groupScores + <usize>i * ROW, groupP + <usize>i * ROW, own, n, logSumExp, delta);
          }
          const sumAt = <usize>row * paddedRow;
          sumGroup(groupScores + skipped, gradient + <usize>skip * gradientStride, gradientStride, n - skip, sumsV + sumAt, depth);
          sumGroup(groupP + skipped, q + <usize>skip * queryStride, queryStride, n - skip, sumsK + sumAt, depth);
        }
      }
    }
    writeRows(sumsK, rows, depth, scale, vectorOf(args, 31, batch, keyHead, k0), address(args, 34));
    writeRows(sumsV, rows, depth, 1, vectorOf(args, 35, batch, keyHead, k0), address(args, 38));
  }
}
