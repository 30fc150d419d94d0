// Single-precision matrix product: the tiles, the macro-kernel over packed blocks, and the kernel that walks over
// blocks of C. Which operands are packed, and how C is cut, is decided by matmul.ts; the packed layouts stand in pack.ts.
//
// A package that stores B otherwise (quant) packs it by a function of its own into the layout of packB, and calls
// `macroKernel` for every block; see `gemm` for the loops around it.
//
// Every element of C is summed over blocks of KC in order of k, and within a block in order of k, in one lane: the
// result does not depend on how C is cut.

import { address, float, int, madd } from "./abi";
import { columnAt, columnStep, KC, MR, NR, packA, packB, TALL, tallRows, WIDE, wideColumns } from "./pack";
import { ADD, put, putTile, STORE, tallTile, wideTile } from "./tile";
import { packWindows, windowOffsets } from "./windows";

/** Bytes that `macroKernel` and `directKernel` need at `edge`: a tile of C that reaches over the edge. */
export const EDGE_BYTES: i32 = 192;

/** One tile from rows of A at a0 … a3 with k stride `ak`, and rows of eight floats of B with k stride `bk`. */
// @ts-ignore: decorator
@inline
function stridedTile(
  a0: usize, a1: usize, a2: usize, a3: usize, ak: usize, b: usize, bk: usize, kc: i32,
  c: usize, row: usize, alpha: v128, beta: v128, mode: i32,
): void {
  let c00 = f32x4.splat(0), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00, c30 = c00, c31 = c00;
  let at: usize = 0;
  let p = kc;
  do {
    const b0 = v128.load(b), b1 = v128.load(b, 16);
    let x = v128.load32_splat(a0 + at);
    c00 = madd(x, b0, c00);
    c01 = madd(x, b1, c01);
    x = v128.load32_splat(a1 + at);
    c10 = madd(x, b0, c10);
    c11 = madd(x, b1, c11);
    x = v128.load32_splat(a2 + at);
    c20 = madd(x, b0, c20);
    c21 = madd(x, b1, c21);
    x = v128.load32_splat(a3 + at);
    c30 = madd(x, b0, c30);
    c31 = madd(x, b1, c31);
    at += ak;
    b += bk;
  } while (--p);
  putTile(c, row, c00, c01, c10, c11, c20, c21, c30, c31, alpha, beta, mode);
}

// Adds the part of a tile at `edge`, whose rows are `step` bytes apart, that lies within C to it.
function merge(edge: usize, step: usize, rows: i32, columns: i32, c: usize, row: usize, alpha: f32, beta: f32, mode: i32): void {
  const alphas = f32x4.splat(alpha), betas = f32x4.splat(beta);
  const whole = (<usize>(columns & ~3)) << 2;
  const all = (<usize>columns) << 2;
  for (let i = 0; i < rows; i++) {
    let j: usize = 0;
    for (; j < whole; j += 16) put(c + j, v128.load(edge + j), alphas, betas, mode);
    for (; j < all; j += 4) {
      let x = alpha * load<f32>(edge + j);
      if (mode) x = beta * load<f32>(c + j) + x;
      store<f32>(c + j, x);
    }
    edge += step;
    c += row;
  }
}

// @ts-ignore: decorator
@inline
function modeOf(beta: f32): i32 {
  return beta == 0 ? STORE : ADD;
}

/**
 * C[mc×nc] = alpha · A·B + beta · C from packed A [mc×kc] and packed B [kc×nc], kc ≥ 1; with beta 0 C is not read.
 *
 * @param c - first element; @param row - bytes from one row of C to the next
 * @param edge - EDGE_BYTES bytes of the thread's own
 */
export function macroKernel(
  packedA: usize, mc: i32, packedB: usize, nc: i32, kc: i32,
  c: usize, row: usize, alpha: f32, beta: f32, edge: usize,
): void {
  const alphas = f32x4.splat(alpha), betas = f32x4.splat(beta), ones = f32x4.splat(1);
  const mode = modeOf(beta);
  const floats = (<usize>kc) << 2;
  const wide = wideColumns(nc);
  if (wide > 0) wideKernel(packedA, mc, packedB, nc, kc, c, row, alpha, beta, edge);
  const tall = tallRows(mc);
  for (let j = wide; j < nc; j += NR) {
    const b = packedB + (<usize>j) * floats;
    const columns = min(NR, nc - j);
    let to = c + ((<usize>j) << 2);
    const whole = columns == NR ? mc : 0;
    let i = 0;
    // Loops without a choice inside: with a short k it would cost a twentieth.
    for (const end = min(tall, whole); i + TALL <= end; i += TALL) {
      tallTile(packedA + (<usize>i) * floats, b, kc, to, row, alphas, betas, mode);
      to += row * 6;
    }
    for (; i < tall; i += TALL) {
      tallTile(packedA + (<usize>i) * floats, b, kc, edge, 32, ones, ones, STORE);
      merge(edge, 32, min(TALL, mc - i), columns, to, row, alpha, beta, mode);
      to += row * 6;
    }
    for (; i < mc; i += MR) {
      directKernel(packedA + (<usize>i) * floats, 4, 16, min(MR, mc - i), b, 32, true, columns, kc, to, row, alpha, beta, edge);
      to += row << 2;
    }
  }
}

// As `macroKernel`, for the columns in wide panels.
function wideKernel(
  packedA: usize, mc: i32, packedB: usize, nc: i32, kc: i32,
  c: usize, row: usize, alpha: f32, beta: f32, edge: usize,
): void {
  const alphas = f32x4.splat(alpha), betas = f32x4.splat(beta), ones = f32x4.splat(1);
  const mode = modeOf(beta);
  const floats = (<usize>kc) << 2;
  for (let j = 0, wide = wideColumns(nc); j < wide; j += WIDE) {
    const columns = min(WIDE, nc - j);
    let to = c + ((<usize>j) << 2);
    const whole = columns == WIDE ? mc & ~1 : 0;
    let i = 0;
    for (; i < whole; i += 2) {
      const a = packedA + (<usize>(i & ~3)) * floats + ((<usize>(i & 2)) << 2);
      wideTile(a, packedB + (<usize>j) * floats, kc, to, row, alphas, betas, mode);
      to += row << 1;
    }
    for (; i < mc; i += 2) {
      const a = packedA + (<usize>(i & ~3)) * floats + ((<usize>(i & 2)) << 2);
      wideTile(a, packedB + (<usize>j) * floats, kc, edge, 64, ones, ones, STORE);
      merge(edge, 64, min(2, mc - i), columns, to, row, alpha, beta, mode);
      to += row << 1;
    }
  }
}

/**
 * As `macroKernel`, with A where it stands (row stride `ai`, k stride `ak`), and with B either packed (`packed`) or where it stands with
 * contiguous columns (`bk` its k stride; nc a multiple of 8). Walks along rows of C, so that few rows of A are in use at a time.
 */
function directKernel(
  a: usize, ai: usize, ak: usize, mc: i32, b: usize, bk: usize, packed: bool, nc: i32, kc: i32,
  c: usize, row: usize, alpha: f32, beta: f32, edge: usize,
): void {
  const alphas = f32x4.splat(alpha), betas = f32x4.splat(beta), ones = f32x4.splat(1);
  const mode = modeOf(beta);
  const wide = wideColumns(nc);
  for (let i = 0; i < mc; i += MR) {
    const rows = min(MR, mc - i);
    const a0 = a + (<usize>i) * ai;
    const a1 = rows > 1 ? a0 + ai : a0;
    const a2 = rows > 2 ? a1 + ai : a1;
    const a3 = rows > 3 ? a2 + ai : a2;
    let to = c + (<usize>i) * row;
    for (let j = 0; j < nc; j += NR) {
      const columns = min(NR, nc - j);
      const from = b + (packed ? columnAt(j, wide, kc) : (<usize>j) << 2);
      const step = packed ? columnStep(j, wide) : bk;
      if (rows == MR && columns == NR) {
        stridedTile(a0, a1, a2, a3, ak, from, step, kc, to, row, alphas, betas, mode);
      } else {
        stridedTile(a0, a1, a2, a3, ak, from, step, kc, edge, 32, ones, ones, STORE);
        merge(edge, 32, rows, columns, to, row, alpha, beta, mode);
      }
      to += 32;
    }
  }
}

/** Bytes of packed B [k×n] over all blocks of KC. */
// @ts-ignore: decorator
@inline
function packedBytes(k: i32, n: i32): usize {
  return ((<usize>k) * (<usize>((n + NR - 1) & ~(NR - 1)))) << 2;
}

/**
 * Packs B [k×n], or A [n×k], for `gemm` in mode PREPACKED: blocks of KC one after the other, each as packB lays it out, or as packA does
 * for each block of rows. A unit is a group of columns (32), or a block of rows, of one block of KC. Integers: address, k stride, stride
 * of columns (rows), k, n, out, columns (rows) of a group, 1 for A.
 */
export function gemmPack(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const x = address(args, 0), xk = address(args, 1), xj = address(args, 2);
  const k = int(args, 3), n = int(args, 4), out = address(args, 5), group = int(args, 6), rows = int(args, 7);
  const groups = (n + group - 1) / group;
  for (let unit = begin; unit < end; unit++) {
    const p = (unit / groups) * KC;
    const j = (unit % groups) * group;
    const kc = min(KC, k - p), count = min(group, n - j);
    const from = x + (<usize>p) * xk + (<usize>j) * xj;
    const to = out + (rows ? packedRowBytes(p, n) : packedBytes(p, n)) + (((<usize>j) * (<usize>kc)) << 2);
    if (rows) packA(from, xj, xk, count, kc, to);
    else packB(from, xk, xj, kc, count, to);
  }
}

/** Bytes of packed A [m×k] over all blocks of KC. */
// @ts-ignore: decorator
@inline
function packedRowBytes(k: i32, m: i32): usize {
  return ((<usize>k) * (<usize>((m + MR - 1) & ~(MR - 1)))) << 2;
}

// How `gemm` gets B: packs it for itself, uses it where it stands, or finds it packed by gemmPack. So for A. Or B is windows of an image.
const PACK: i32 = 0;
const DIRECT: i32 = 1;
const PREPACKED: i32 = 2;
const WINDOWS: i32 = 3;
/** Columns that are packed at once when they are used by one block of rows only. */
const ONCE_COLUMNS: i32 = 32;

/**
 * C = alpha · A·B + beta · C for blocks of rows and groups of columns of a batch of products. Units run over blocks
 * of rows first, then groups of columns, then the batch; k ≥ 1.
 *
 * Integers: 0 a, 1 row stride, 2 k stride; 3 b, 4 k stride, 5 column stride; 6 c, 7 row stride; 8 m, 9 n, 10 k;
 * 11 rows of a block, 12 columns of a group (a multiple of 16, or all), 13 mode of A (PREPACKED with the same rows of a block and without
 * batch axes), 14 mode of B (DIRECT only with columns contiguous and A DIRECT);
 * 15 number of batch axes, innermost first, 16 + 4·axis: its length and the strides of a, b, c; then, for windows, the walk over k and
 * that over columns (`windowOffsets`; strides 4 and 5 are 0), and what C holds before (with beta 1), a float for each of its rows, or 0,
 * and how many there are. Floats: alpha, beta.
 * Scratch: EDGE_BYTES, packed A (block rows × KC), and, unless B comes packed, packed B (k × group columns, or,
 * with one block of rows or windows, KC × ONCE_COLUMNS), and for windows KC + group columns offsets.
 */
export function gemm(args: usize, begin: i32, end: i32, scratch: usize): void {
  const ai = address(args, 1), ak = address(args, 2), bk = address(args, 4), bj = address(args, 5);
  const row = address(args, 7);
  const m = int(args, 8), n = int(args, 9), k = int(args, 10);
  const blockRows = int(args, 11), groupColumns = int(args, 12);
  const modeA = int(args, 13), modeB = int(args, 14), axes = int(args, 15);
  const alpha = <f32>float(args, 0), beta = <f32>float(args, 1);
  const blocks = (m + blockRows - 1) / blockRows;
  const groups = (n + groupColumns - 1) / groupColumns;
  const edge = scratch;
  const packedA = scratch + EDGE_BYTES;
  const ownB = packedA + (((<usize>((blockRows + MR - 1) & ~(MR - 1))) * (<usize>min(k, KC))) << 2);
  // With one block of rows nothing of B is used twice: it is packed bit by bit and used while it is in L1.
  const windows = modeB == WINDOWS;
  const once = (blocks == 1 && modeB == PACK) || windows;
  const rowOffsets = ownB + ((<usize>KC * ONCE_COLUMNS) << 2);
  const columnOffsets = rowOffsets + ((<usize>KC) << 2);
  let packedFor = -1;
  for (let unit = begin; unit < end; unit++) {
    const i = (unit % blocks) * blockRows;
    const product = unit / blocks;
    const j = (product % groups) * groupColumns;
    let rest = product / groups;
    let a = address(args, 0), b = address(args, 3), c = address(args, 6);
    for (let axis = 0; axis < axes; axis++) {
      const length = int(args, 16 + 4 * axis);
      const index = <usize>(rest % length);
      rest /= length;
      a += index * address(args, 17 + 4 * axis);
      b += index * address(args, 18 + 4 * axis);
      c += index * address(args, 19 + 4 * axis);
    }
    if (modeA != PREPACKED) a += (<usize>i) * ai;
    c += (<usize>i) * row + ((<usize>j) << 2);
    const mc = min(blockRows, m - i), nc = min(groupColumns, n - j);
    // B in place serves full panels; columns beyond the last full one are packed.
    const direct = modeB == DIRECT ? nc & ~(NR - 1) : 0;
    if (modeB != PREPACKED) {
      b += (<usize>j) * bj;
      if (!once && packedFor != product && direct < nc) {
        packAllB(b + (<usize>direct) * bj, bk, bj, k, nc - direct, ownB);
        packedFor = product;
      }
    }
    if (windows) {
      windowOffsets(columnOffsets, args, 21 + 4 * axes, j, nc);
      const addends = address(args, 26 + 4 * axes);
      if (addends) {
        const channel = ((c - address(args, 6)) / row) % address(args, 27 + 4 * axes);
        for (let r = 0; r < mc; r++) {
          const value = load<f32>(addends + ((channel + <usize>r) << 2));
          for (let at = c + (<usize>r) * row, end = at + ((<usize>nc) << 2); at < end; at += 4) store<f32>(at, value);
        }
      }
    }
    for (let p = 0; p < k; p += KC) {
      const kc = min(KC, k - p);
      const factor: f32 = p == 0 ? beta : 1;
      if (windows) windowOffsets(rowOffsets, args, 16 + 4 * axes, p, kc);
      const aBlock = a + (<usize>p) * ak;
      if (direct > 0) {
        directKernel(aBlock, ai, ak, mc, b + (<usize>p) * bk, bk, false, direct, kc, c, row, alpha, factor, edge);
      }
      if (modeA == PACK) packA(aBlock, ai, ak, mc, kc, packedA);
      const rowsOfA = modeA == PREPACKED ? a + packedRowBytes(p, m) + (((<usize>i) * (<usize>kc)) << 2) : packedA;
      const packedB =
        modeB == PREPACKED
          ? b + packedBytes(p, n) + (((<usize>j) * (<usize>kc)) << 2)
          : once
            ? ownB
            : ownB + packedBytes(p, nc - direct);
      const step = once ? ONCE_COLUMNS : nc;
      for (let q = direct; q < nc; q += step) {
        const columns = min(step, nc - q);
        const part = c + ((<usize>q) << 2);
        if (windows) packWindows(b, rowOffsets, columnOffsets + ((<usize>q) << 2), kc, columns, ownB);
        else if (once) packB(b + (<usize>p) * bk + (<usize>q) * bj, bk, bj, kc, columns, ownB);
        if (modeA != DIRECT) {
          macroKernel(rowsOfA, mc, packedB, columns, kc, part, row, alpha, factor, edge);
        } else {
          directKernel(aBlock, ai, ak, mc, packedB, 0, true, columns, kc, part, row, alpha, factor, edge);
        }
      }
    }
  }
}

function packAllB(b: usize, bk: usize, bj: usize, k: i32, n: i32, out: usize): void {
  for (let p = 0; p < k; p += KC) {
    packB(b + (<usize>p) * bk, bk, bj, min(KC, k - p), n, out + packedBytes(p, n));
  }
}

/**
 * out[r, 0 … n] *= beta, or = 0 where beta is 0: the product over an empty k. A unit is a row of the batch.
 * Integers: c, row stride, m, n, number of batch axes, 5 + 2·axis: its length and stride. Floats: beta.
 */
export function gemmScale(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const m = int(args, 2), n = int(args, 3), axes = int(args, 4);
  const beta = <f32>float(args, 0);
  for (let unit = begin; unit < end; unit++) {
    let c = address(args, 0) + (<usize>(unit % m)) * address(args, 1);
    let rest = unit / m;
    for (let axis = 0; axis < axes; axis++) {
      const length = int(args, 5 + 2 * axis);
      c += (<usize>(rest % length)) * address(args, 6 + 2 * axis);
      rest /= length;
    }
    for (let j = 0; j < n; j++) {
      store<f32>(c, beta == 0 ? 0 : beta * load<f32>(c));
      c += 4;
    }
  }
}
