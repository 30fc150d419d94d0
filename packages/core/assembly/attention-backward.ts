// Gradients of attention. Probabilities are recomputed block by block from logSumExp, once, and serve all three gradients:
// P = exp(s·q·kᵀ + mask − logSumExp), dP = dOut·vᵀ, dS = P·(dP − delta), delta = Σ out·dOut; dq = s·dS·k, dk = s·dSᵀ·q,
// dv = Pᵀ·dOut.
//
// One unit owns some blocks of keys of one key head, and with them dk and dv, which it sums over all queries that see them. What
// it adds to dq goes to sums of its own (or to dq itself, where a key head is one unit), which are added up in order afterwards:
// every number has one writer and one order of additions. The arguments stand in attention.ts.

import { address, float, int } from "./abi";
import { hideScores, maskOf } from "./attention";
import {
  addColumns, addRows, BLOCK, exp2, LOG2_E, maskScores, NO_MASK, padded, ROW, scoreRows, vectorOf, visibleKeys,
} from "./attention-tiles";
import { packEights, packFours } from "./pack";
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
    store<f32>(address(args, 45) + ((<usize>unit) << 2), <f32>dotOf(out, vectorOf(args, 29, batch, head, t), int(args, 4)));
  }
}

/** scores → P and dP → dS in place, for one query and n keys, a multiple of 8. */
function gradeRow(scores: usize, dP: usize, n: i32, logSumExp: f32, delta: f32): void {
  // A query that sees no key has −∞: every P is then 0.
  const l = f32x4.splat(logSumExp == -Infinity ? Infinity : <f32>(<f64>logSumExp * LOG2_E));
  const d = f32x4.splat(delta);
  for (const end = scores + ((<usize>n) << 2); scores < end; scores += 16, dP += 16) {
    const p = exp2(f32x4.sub(v128.load(scores), l));
    v128.store(scores, p);
    v128.store(dP, f32x4.mul(p, f32x4.sub(v128.load(dP), d)));
  }
}

/** Adds the rows of padded sums, times `factor`, to where they belong, or writes them there. */
function putRows(sums: usize, rows: i32, depth: i32, factor: f32, out: usize, stride: usize, add: bool): void {
  const paddedRow = (<usize>padded(depth)) << 2;
  const whole = (<usize>(depth & ~3)) << 2;
  const factors = f32x4.splat(factor);
  for (let row = 0; row < rows; row++, sums += paddedRow, out += stride) {
    let d: usize = 0;
    for (; d < whole; d += 16) {
      const x = f32x4.mul(v128.load(sums + d), factors);
      v128.store(out + d, add ? f32x4.add(v128.load(out + d), x) : x);
    }
    for (; d < (<usize>depth) << 2; d += 4) {
      const x = load<f32>(sums + d) * factor;
      store<f32>(out + d, add ? load<f32>(out + d) + x : x);
    }
  }
}

/**
 * dk, dv, and dq or its partial sums; a unit is every splits-th block of keys of one key head. Scratch in blocks of
 * [BLOCK, padded D] floats: k and v packed by 8 keys, k by 8 columns, q and dOut by 4 queries and by 8 columns, sums of dq, dk and
 * dv; then scores and dP [BLOCK, BLOCK].
 */
export function attentionGradient(args: usize, begin: i32, end: i32, scratch: usize): void {
  const heads = int(args, 0);
  const group = int(args, 1);
  const queries = int(args, 2);
  const keys = int(args, 3);
  const depth = int(args, 4);
  const causal = int(args, 5);
  const mask = int(args, 23);
  const splits = int(args, 46);
  const scale = <f32>float(args, 0);
  const factor = <f32>(float(args, 0) * LOG2_E);
  const keyHeads = heads / group;
  const batches = int(args, 48);
  const width = padded(depth);
  const row = (<usize>width) << 2;
  const area = <usize>width * ROW;
  const packedK = scratch;
  const packedV = packedK + area;
  const columnsK = packedV + area;
  const packedQ = columnsK + area;
  const packedGradient = packedQ + area;
  const columnsQ = packedGradient + area;
  const columnsGradient = columnsQ + area;
  const sumsQ = columnsGradient + area;
  const sumsK = sumsQ + area;
  const sumsV = sumsK + area;
  const scores = sumsV + area;
  const dP = scores + <usize>BLOCK * ROW;
  const shift = keys - queries; // query i sees the keys up to i + shift
  for (let unit = begin; unit < end; unit++) {
    const split = unit % splits;
    const keyHead = (unit / splits) % keyHeads;
    const batch = unit / splits / keyHeads;
    const partial = address(args, 47) + (((<usize>(split * batches + batch)) * <usize>heads * <usize>queries * <usize>depth) << 2);
    const gradientRow = splits > 1 ? (<usize>depth) << 2 : address(args, 36);
    for (let head = keyHead * group; head < (keyHead + 1) * group; head++) {
      const dq = splits > 1 ? partial + <usize>head * <usize>queries * gradientRow : vectorOf(args, 33, batch, head, 0);
      for (let i = 0; i < queries; i++) memory.fill(dq + <usize>i * gradientRow, 0, (<usize>depth) << 2);
    }
    for (let k0 = split * BLOCK; k0 < keys; k0 += splits * BLOCK) {
      const n = min(BLOCK, keys - k0);
      const k = vectorOf(args, 10, batch, keyHead, k0);
      packEights(k, 4, address(args, 13), depth, n, packedK);
      packEights(k, address(args, 13), 4, n, depth, columnsK);
      packEights(vectorOf(args, 14, batch, keyHead, k0), 4, address(args, 17), depth, n, packedV);
      memory.fill(sumsK, 0, 2 * area);
      const firstQuery = causal ? max(0, k0 - shift) : 0;
      for (let head = keyHead * group; head < (keyHead + 1) * group; head++) {
        const dq = splits > 1 ? partial + <usize>head * <usize>queries * gradientRow : vectorOf(args, 33, batch, head, 0);
        for (let q0 = firstQuery & ~(BLOCK - 1); q0 < queries; q0 += BLOCK) {
          const rows = min(BLOCK, queries - q0);
          const q = vectorOf(args, 6, batch, head, q0);
          const gradient = vectorOf(args, 29, batch, head, q0);
          packFours(q, address(args, 9), 4, rows, depth, packedQ);
          packFours(gradient, address(args, 32), 4, rows, depth, packedGradient);
          packEights(q, address(args, 9), 4, rows, depth, columnsQ);
          packEights(gradient, address(args, 32), 4, rows, depth, columnsGradient);
          memory.fill(sumsQ, 0, area);
          const position = (<usize>((batch * heads + head) * queries + q0)) << 2;
          for (let i = 0; i < rows; i += 4) {
            const visible = visibleKeys(causal, q0 + i + 3, shift, k0, n);
            if (visible == 0) continue;
            const own = scores + <usize>i * ROW;
            const ownP = dP + <usize>i * ROW;
            const columns = padded(visible);
            const packedAt = (<usize>i * <usize>depth) << 2;
            scoreRows(packedQ + packedAt, packedK, depth, visible, factor, own);
            scoreRows(packedGradient + packedAt, packedV, depth, visible, 1, ownP);
            const present = min(4, rows - i);
            if (mask != NO_MASK) {
              for (let j = 0; j < present; j++) {
                maskScores(mask, maskOf(args, batch, head, q0 + i + j, k0), address(args, 28), visible, own + <usize>j * ROW);
              }
            }
            hideScores(own, q0 + i + shift + 1 - k0, causal, n, columns);
            for (let j = 0; j < present; j++) {
              const at = position + ((<usize>(i + j)) << 2);
              const down = <usize>j * ROW;
              gradeRow(own + down, ownP + down, columns, load<f32>(address(args, 22) + at), load<f32>(address(args, 45) + at));
            }
            addRows(ownP, columnsK, (<usize>n) << 5, visible, sumsQ + <usize>i * row, width);
          }
          for (let j = 0; j < n; j += 4) {
            // Key k0 + j is seen by the queries from k0 + j − shift on.
            const from = causal ? max(0, k0 + j - shift - q0) : 0;
            if (from >= rows) break;
            const at = <usize>from * ROW + ((<usize>j) << 2);
            const skip = (<usize>from) << 5;
            const panel = (<usize>rows) << 5;
            const sumAt = <usize>j * row;
            addColumns(scores + at, columnsGradient + skip, panel, rows - from, sumsV + sumAt, width);
            addColumns(dP + at, columnsQ + skip, panel, rows - from, sumsK + sumAt, width);
          }
          putRows(sumsQ, rows, depth, scale, dq + <usize>q0 * gradientRow, gradientRow, true);
        }
      }
      putRows(sumsK, n, depth, scale, vectorOf(args, 37, batch, keyHead, k0), address(args, 40), false);
      putRows(sumsV, n, depth, 1, vectorOf(args, 41, batch, keyHead, k0), address(args, 44), false);
    }
  }
}

/** dq from its partial sums [splits, batch, heads, queries, headDim]; a unit is one query. */
export function attentionGatherGradient(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const heads = int(args, 0);
  const queries = int(args, 2);
  const depth = int(args, 4);
  const splits = int(args, 46);
  const bytes = (<usize>depth) << 2;
  const part = <usize>int(args, 48) * <usize>heads * <usize>queries * bytes;
  for (let unit = begin; unit < end; unit++) {
    const t = unit % queries;
    const head = (unit / queries) % heads;
    const out = vectorOf(args, 33, unit / queries / heads, head, t);
    const from = address(args, 47) + <usize>unit * bytes;
    let d: usize = 0;
    for (const whole = bytes & ~15; d < whole; d += 16) {
      let sum = v128.load(from + d);
      for (let split = 1; split < splits; split++) sum = f32x4.add(sum, v128.load(from + <usize>split * part + d));
      v128.store(out + d, sum);
    }
    for (; d < bytes; d += 4) {
      let sum = load<f32>(from + d);
      for (let split = 1; split < splits; split++) sum += load<f32>(from + <usize>split * part + d);
      store<f32>(out + d, sum);
    }
  }
}
