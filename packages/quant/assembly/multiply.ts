// Products of float32 activations with a quantized weight: tiles through core's matrix product, and a few rows at a time.

import { address, float, int, laneSum, madd } from "../../core/assembly/abi";
import { EDGE_BYTES, macroKernel } from "../../core/assembly/gemm";
import { columnAt, columnStep, KC, NR, packEight, wideColumns } from "../../core/assembly/pack";
import { decode, SPARE_BYTES, WEIGHT_ARGUMENTS } from "./weight";

// Start of the packed block of x from depth p on.
// @ts-ignore: decorator
@inline
function packedRows(packed: usize, m: i32, p: i32): usize {
  return packed + (((<usize>((m + 3) & ~3)) * (<usize>p)) << 2);
}

// Panels of wᵀ: `columns` rows of the weight from `j` on, depth p … p + kc.
function packTransposed(args: usize, j: i32, columns: i32, p: i32, kc: i32, staging: usize, out: usize, spare: usize): void {
  const row = (<usize>kc) << 2;
  const wide = wideColumns(columns);
  for (let q = 0; q < columns; q += NR) {
    const n = min(NR, columns - q);
    for (let i = 0; i < n; i++) decode(args, j + q + i, p, kc, staging + (<usize>i) * row, spare);
    packEight(staging, 4, row, kc, n, out + columnAt(q, wide, kc), columnStep(q, wide));
  }
}

// Panels of w: columns j … j + columns of rows p … p + kc of the weight.
function packPlain(args: usize, j: i32, columns: i32, p: i32, kc: i32, staging: usize, out: usize, spare: usize): void {
  const wide = wideColumns(columns);
  // What is left of the last panel goes nowhere, but it must hold numbers that do not slow the multiplication.
  memory.fill(staging + ((<usize>columns) << 2), 0, 32);
  for (let i = 0; i < kc; i++) {
    decode(args, p + i, j, columns, staging, spare);
    let from = staging;
    for (let q = 0; q < columns; q += NR) {
      const to = out + columnAt(q, wide, kc) + (<usize>i) * columnStep(q, wide);
      v128.store(to, v128.load(from));
      v128.store(to, v128.load(from, 16), 16);
      from += 32;
    }
  }
}

/**
 * C [m×n] = X·Wᵀ or X·W + beta·C from X packed by core's gemmPack in groups of a multiple of 12 rows. A unit is a group of columns for a group of
 * rows of C, rows first. Integers after the weight's: packed X, C, m, n, k (the inner dimension), columns of a group, rows of a group
 * (multiple of 12), 1 for Wᵀ. Floats: beta. Scratch: EDGE_BYTES, SPARE_BYTES, 8·KC floats, KC × columns of a group floats.
 */
export function multiplyTiles(args: usize, begin: i32, end: i32, scratch: usize): void {
  const packed = address(args, WEIGHT_ARGUMENTS), c = address(args, WEIGHT_ARGUMENTS + 1);
  const m = int(args, WEIGHT_ARGUMENTS + 2), n = int(args, WEIGHT_ARGUMENTS + 3), k = int(args, WEIGHT_ARGUMENTS + 4);
  const groupColumns = int(args, WEIGHT_ARGUMENTS + 5), groupRows = int(args, WEIGHT_ARGUMENTS + 6);
  const transposed = int(args, WEIGHT_ARGUMENTS + 7);
  const beta = <f32>float(args, 0);
  const row = (<usize>n) << 2;
  const spare = scratch + EDGE_BYTES;
  const staging = spare + SPARE_BYTES;
  const panels = staging + ((<usize>KC) << 5);
  const groups = (m + groupRows - 1) / groupRows;
  for (let unit = begin; unit < end; unit++) {
    const i = (unit % groups) * groupRows;
    const j = (unit / groups) * groupColumns;
    const columns = min(groupColumns, n - j);
    const rows = min(groupRows, m - i);
    const target = c + (<usize>i) * row + ((<usize>j) << 2);
    for (let p = 0; p < k; p += KC) {
      const kc = min(KC, k - p);
      if (transposed) packTransposed(args, j, columns, p, kc, staging, panels, spare);
      else packPlain(args, j, columns, p, kc, staging, panels, spare);
      const a = packedRows(packed, m, p) + (((<usize>i) * (<usize>kc)) << 2);
      macroKernel(a, rows, panels, columns, kc, target, row, 1, p == 0 ? beta : 1, scratch);
    }
  }
}

/** Columns decoded at once by multiplyFewRows. */
const STRIP: i32 = 1024;

// acc [one v128 a row] += x [m rows] · w over `count` elements, a multiple of 4.
function dotRows(x: usize, stride: usize, m: i32, w: usize, count: i32, acc: usize): void {
  const end = (<usize>count) << 2;
  let r = 0;
  for (; r + 4 <= m; r += 4) {
    const x1 = x + stride, x2 = x1 + stride, x3 = x2 + stride;
    let a0 = v128.load(acc), a1 = v128.load(acc, 16), a2 = v128.load(acc, 32), a3 = v128.load(acc, 48);
    for (let at: usize = 0; at < end; at += 16) {
      const v = v128.load(w + at);
      a0 = madd(v, v128.load(x + at), a0);
      a1 = madd(v, v128.load(x1 + at), a1);
      a2 = madd(v, v128.load(x2 + at), a2);
      a3 = madd(v, v128.load(x3 + at), a3);
    }
    v128.store(acc, a0);
    v128.store(acc, a1, 16);
    v128.store(acc, a2, 32);
    v128.store(acc, a3, 48);
    acc += 64;
    x = x3 + stride;
  }
  for (; r < m; r++) {
    let a0 = v128.load(acc), a1 = f32x4.splat(0), a2 = a1, a3 = a1;
    let at: usize = 0;
    for (; at + 64 <= end; at += 64) {
      a0 = madd(v128.load(w + at), v128.load(x + at), a0);
      a1 = madd(v128.load(w + at, 16), v128.load(x + at, 16), a1);
      a2 = madd(v128.load(w + at, 32), v128.load(x + at, 32), a2);
      a3 = madd(v128.load(w + at, 48), v128.load(x + at, 48), a3);
    }
    for (; at < end; at += 16) a0 = madd(v128.load(w + at), v128.load(x + at), a0);
    v128.store(acc, f32x4.add(f32x4.add(a0, a1), f32x4.add(a2, a3)));
    acc += 16;
    x += stride;
  }
}

/**
 * C [m×n] = X·Wᵀ for a few rows of X [m×k]. A unit is a column of C. Integers after the weight's: X, m, C, n.
 * Scratch: SPARE_BYTES, STRIP floats, and a vector for each row.
 */
export function multiplyFewRows(args: usize, begin: i32, end: i32, scratch: usize): void {
  const x = address(args, WEIGHT_ARGUMENTS), c = address(args, WEIGHT_ARGUMENTS + 2);
  const m = int(args, WEIGHT_ARGUMENTS + 1), n = int(args, WEIGHT_ARGUMENTS + 3), k = int(args, 5);
  const stride = (<usize>k) << 2;
  const strip = scratch + SPARE_BYTES;
  const acc = strip + ((<usize>STRIP) << 2);
  for (let j = begin; j < end; j++) {
    memory.fill(acc, 0, (<usize>m) << 4);
    for (let p = 0; p < k; p += STRIP) {
      const count = min(STRIP, k - p);
      decode(args, j, p, count, strip, scratch);
      const at = x + ((<usize>p) << 2);
      const full = count & ~3;
      dotRows(at, stride, m, strip, full, acc);
      for (let i = full; i < count; i++) {
        const w = load<f32>(strip + ((<usize>i) << 2));
        for (let r = 0; r < m; r++) {
          const lane = acc + ((<usize>r) << 4);
          store<f32>(lane, load<f32>(lane) + w * load<f32>(at + (<usize>r) * stride + ((<usize>i) << 2)));
        }
      }
    }
    for (let r = 0; r < m; r++) {
      store<f32>(c + (((<usize>r) * (<usize>n) + <usize>j) << 2), laneSum(v128.load(acc + ((<usize>r) << 4))));
    }
  }
}
