// Copies blocks of matrices into the panel layout of the GEMM's macro-kernel (gemm.ts). Multiplies nothing.
//
// Packed A, mc rows by kc: panels of 4 rows, one after the other, each kc groups of 4 floats:
//   panel i/4, then k, then row i%4:   A[i, k] stands at float (i/4)·4·kc + 4·k + i%4
// For the macro-kernel with relaxed SIMD the first `tallRows(mc)` rows are in panels of 6 likewise.
// Packed B, kc by nc columns: panels of 8 columns, each kc groups of 8 floats:
//   panel j/8, then k, then column j%8: B[k, j] stands at float (j/8)·8·kc + 8·k + j%8
// For the macro-kernel without it the first `wideColumns(nc)` columns are in panels of 16 likewise.
// A last panel that is not full is as long as the others; its rows or columns beyond the edge hold some finite or
// copied value, which never reaches C.
//
// All strides are in bytes and may be zero or negative (addresses wrap). A panel of A is 16·kc (24·kc) bytes, one of B 32·kc (64·kc).

import { RELAXED } from "./abi";

/** Rows of a tile of C, and of a panel of A. */
export const MR: i32 = 4;
/** Rows of a tall tile of C, and of a tall panel of A. */
export const TALL: i32 = 6;
/** Columns of a tile of C, and of a panel of B. */
export const NR: i32 = 8;
/** Columns of a wide tile of C, and of a wide panel of B. */
export const WIDE: i32 = 16;
/** Most of k that is packed at once: a panel of B is then 12 or 24 KiB and stays in L1 while it meets every panel of A. */
export const KC: i32 = 384;

// Transposes the 4×4 block of rows a … d; out row stride in bytes.
// @ts-ignore: decorator
@inline
export function transposeVectors(a: v128, b: v128, c: v128, d: v128, out: usize, step: usize): void {
  const ab = i32x4.shuffle(a, b, 0, 4, 1, 5), AB = i32x4.shuffle(a, b, 2, 6, 3, 7);
  const cd = i32x4.shuffle(c, d, 0, 4, 1, 5), CD = i32x4.shuffle(c, d, 2, 6, 3, 7);
  v128.store(out, i32x4.shuffle(ab, cd, 0, 1, 4, 5));
  v128.store(out + step, i32x4.shuffle(ab, cd, 2, 3, 6, 7));
  v128.store(out + 2 * step, i32x4.shuffle(AB, CD, 0, 1, 4, 5));
  v128.store(out + 3 * step, i32x4.shuffle(AB, CD, 2, 3, 6, 7));
}

// The same of the block whose rows start at r0 … r3.
// @ts-ignore: decorator
@inline
function transpose4(r0: usize, r1: usize, r2: usize, r3: usize, out: usize, step: usize): void {
  transposeVectors(v128.load(r0), v128.load(r1), v128.load(r2), v128.load(r3), out, step);
}

/**
 * How many of mc rows the macro-kernel takes six at a time: as many as leave none, four or eight of the next multiple of four.
 * Without fused multiply-adds none: see tile.ts.
 */
// @ts-ignore: decorator
@inline
export function tallRows(mc: i32): i32 {
  if (!RELAXED) return 0;
  const rows = (mc + 3) & ~3;
  return rows - 2 * ((TALL - rows % TALL) % TALL);
}

/** Packs mc rows by kc of A at `a`, with row stride `row` and k stride `col`, for the macro-kernel. */
export function packA(a: usize, row: usize, col: usize, mc: i32, kc: i32, out: usize): void {
  const tall = tallRows(mc);
  let i = 0;
  if (row == 4) {
    // Rows contiguous: 24 rows at once use whole cache lines.
    for (; i + 24 <= min(tall, mc); i += 24) {
      packTallColumns(a + ((<usize>i) << 2), col, kc, out + (<usize>i) * ((<usize>kc) << 2), (<usize>kc) * 24);
    }
  }
  for (; i < tall; i += TALL) {
    packTall(a + (<usize>i) * row, row, col, min(TALL, mc - i), kc, out + (<usize>i) * ((<usize>kc) << 2));
  }
  packFours(a + (<usize>tall) * row, row, col, mc - tall, kc, out + (<usize>tall) * ((<usize>kc) << 2));
}

// A panel of six rows, of which the last may be missing.
function packTall(a: usize, row: usize, col: usize, rows: i32, kc: i32, to: usize): void {
  const r0 = a;
  const r1 = rows > 1 ? r0 + row : r0;
  const r2 = rows > 2 ? r1 + row : r1;
  const r3 = rows > 3 ? r2 + row : r2;
  const r4 = rows > 4 ? r3 + row : r3;
  const r5 = rows > 5 ? r4 + row : r4;
  let p = 0;
  let at: usize = 0;
  if (col == 4) {
    for (; p + 4 <= kc; p += 4) {
      const a = v128.load(r0 + at), b = v128.load(r1 + at), c = v128.load(r2 + at), d = v128.load(r3 + at);
      const e = v128.load(r4 + at), f = v128.load(r5 + at);
      const ab = i32x4.shuffle(a, b, 0, 4, 1, 5), AB = i32x4.shuffle(a, b, 2, 6, 3, 7);
      const cd = i32x4.shuffle(c, d, 0, 4, 1, 5), CD = i32x4.shuffle(c, d, 2, 6, 3, 7);
      const ef = i32x4.shuffle(e, f, 0, 4, 1, 5), EF = i32x4.shuffle(e, f, 2, 6, 3, 7);
      v128.store(to, i32x4.shuffle(ab, cd, 0, 1, 4, 5));
      v128.store(to, i32x4.shuffle(ef, ab, 0, 1, 6, 7), 16);
      v128.store(to, i32x4.shuffle(cd, ef, 2, 3, 6, 7), 32);
      v128.store(to, i32x4.shuffle(AB, CD, 0, 1, 4, 5), 48);
      v128.store(to, i32x4.shuffle(EF, AB, 0, 1, 6, 7), 64);
      v128.store(to, i32x4.shuffle(CD, EF, 2, 3, 6, 7), 80);
      at += 16;
      to += 96;
    }
  }
  for (; p < kc; p++) {
    store<f32>(to, load<f32>(r0 + at));
    store<f32>(to, load<f32>(r1 + at), 4);
    store<f32>(to, load<f32>(r2 + at), 8);
    store<f32>(to, load<f32>(r3 + at), 12);
    store<f32>(to, load<f32>(r4 + at), 16);
    store<f32>(to, load<f32>(r5 + at), 20);
    at += col;
    to += 24;
  }
}

// Four panels of six floats, from kc rows of 96 contiguous bytes.
function packTallColumns(from: usize, step: usize, kc: i32, out: usize, panel: usize): void {
  let o0 = out, o1 = out + panel, o2 = o1 + panel, o3 = o2 + panel;
  for (let p = 0; p < kc; p++) {
    v128.store(o0, v128.load(from));
    v128.store(o0, v128.load(from, 8), 8);
    v128.store(o1, v128.load(from, 24));
    v128.store(o1, v128.load(from, 32), 8);
    v128.store(o2, v128.load(from, 48));
    v128.store(o2, v128.load(from, 56), 8);
    v128.store(o3, v128.load(from, 72));
    v128.store(o3, v128.load(from, 80), 8);
    from += step;
    o0 += 24;
    o1 += 24;
    o2 += 24;
    o3 += 24;
  }
}

/** Packs mc rows by kc of A at `a`, with row stride `row` and k stride `col`, into panels of four rows alone. */
export function packFours(a: usize, row: usize, col: usize, mc: i32, kc: i32, out: usize): void {
  let i = 0;
  if (row == 4) {
    // Rows contiguous: 16 rows at once use whole cache lines.
    for (; i + 16 <= mc; i += 16) {
      packColumns(a + ((<usize>i) << 2), col, kc, out + (<usize>i) * ((<usize>kc) << 2), (<usize>kc) << 4);
    }
    for (; i + 4 <= mc; i += 4) {
      let from = a + ((<usize>i) << 2);
      let to = out + (<usize>i) * ((<usize>kc) << 2);
      for (let p = 0; p < kc; p++) {
        v128.store(to, v128.load(from));
        from += col;
        to += 16;
      }
    }
  }
  for (; i < mc; i += 4) {
    const r0 = a + (<usize>i) * row;
    const r1 = i + 1 < mc ? r0 + row : r0;
    const r2 = i + 2 < mc ? r1 + row : r1;
    const r3 = i + 3 < mc ? r2 + row : r2;
    let to = out + (<usize>i) * ((<usize>kc) << 2);
    let p = 0;
    let at: usize = 0;
    if (col == 4) {
      for (; p + 4 <= kc; p += 4) {
        transpose4(r0 + at, r1 + at, r2 + at, r3 + at, to, 16);
        at += 16;
        to += 64;
      }
    }
    for (; p < kc; p++) {
      store<f32>(to, load<f32>(r0 + at));
      store<f32>(to, load<f32>(r1 + at), 4);
      store<f32>(to, load<f32>(r2 + at), 8);
      store<f32>(to, load<f32>(r3 + at), 12);
      at += col;
      to += 16;
    }
  }
}

// Four panels of four floats, from kc rows of 64 contiguous bytes.
function packColumns(from: usize, step: usize, kc: i32, out: usize, panel: usize): void {
  let o0 = out, o1 = out + panel, o2 = o1 + panel, o3 = o2 + panel;
  for (let p = 0; p < kc; p++) {
    v128.store(o0, v128.load(from));
    v128.store(o1, v128.load(from, 16));
    v128.store(o2, v128.load(from, 32));
    v128.store(o3, v128.load(from, 48));
    from += step;
    o0 += 16;
    o1 += 16;
    o2 += 16;
    o3 += 16;
  }
}

/**
 * How many of nc columns the macro-kernel takes sixteen at a time: nine or more at the end fill a panel too. With fused
 * multiply-adds none: see tile.ts.
 */
// @ts-ignore: decorator
@inline
export function wideColumns(nc: i32): i32 {
  return RELAXED ? 0 : (nc + 7) & ~15;
}

/** Bytes to column j, a multiple of 8, in packed B of which `wide` columns are in panels of 16. */
// @ts-ignore: decorator
@inline
export function columnAt(j: i32, wide: i32, kc: i32): usize {
  return (j < wide ? (<usize>(j & ~15)) * (<usize>kc) + <usize>(j & 8) : (<usize>j) * (<usize>kc)) << 2;
}

/** Bytes there from one k to the next. */
// @ts-ignore: decorator
@inline
export function columnStep(j: i32, wide: i32): usize {
  return j < wide ? 64 : 32;
}

// Two groups of eight floats, from kc rows of 64 contiguous bytes.
function packRows2(from: usize, row: usize, kc: i32, o0: usize, o1: usize, step: usize): void {
  for (let p = 0; p < kc; p++) {
    v128.store(o0, v128.load(from));
    v128.store(o0, v128.load(from, 16), 16);
    v128.store(o1, v128.load(from, 32));
    v128.store(o1, v128.load(from, 48), 16);
    from += row;
    o0 += step;
    o1 += step;
  }
}

/** Packs kc by nc columns of B at `b`, with k stride `row` and column stride `col`, for the macro-kernel. */
export function packB(b: usize, row: usize, col: usize, kc: i32, nc: i32, out: usize): void {
  packColumnsOf(b, row, col, kc, nc, wideColumns(nc), out);
}

/** Packs kc by nc columns of B at `b`, with k stride `row` and column stride `col`, into panels of eight columns alone. */
export function packEights(b: usize, row: usize, col: usize, kc: i32, nc: i32, out: usize): void {
  packColumnsOf(b, row, col, kc, nc, 0, out);
}

function packColumnsOf(b: usize, row: usize, col: usize, kc: i32, nc: i32, wide: i32, out: usize): void {
  let j = 0;
  if (col == 4) {
    for (; j + 16 <= nc; j += 16) {
      const to = out + columnAt(j, wide, kc);
      packRows2(b + ((<usize>j) << 2), row, kc, to, out + columnAt(j + 8, wide, kc), columnStep(j, wide));
    }
  }
  for (; j < nc; j += NR) {
    packEight(b + (<usize>j) * col, row, col, kc, nc - j, out + columnAt(j, wide, kc), columnStep(j, wide));
  }
}

/** Packs the first eight of nc columns, `step` bytes from one k to the next. Columns beyond the edge repeat the last one. */
export function packEight(b: usize, row: usize, col: usize, kc: i32, nc: i32, out: usize, step: usize): void {
  let p = 0;
  if (col == 4 && nc >= NR) {
    for (; p < kc; p++) {
      v128.store(out, v128.load(b));
      v128.store(out, v128.load(b, 16), 16);
      b += row;
      out += step;
    }
    return;
  }
  const last = nc - 1;
  const c0 = b;
  const c1 = b + (<usize>min(1, last)) * col;
  const c2 = b + (<usize>min(2, last)) * col;
  const c3 = b + (<usize>min(3, last)) * col;
  const c4 = b + (<usize>min(4, last)) * col;
  const c5 = b + (<usize>min(5, last)) * col;
  const c6 = b + (<usize>min(6, last)) * col;
  const c7 = b + (<usize>min(7, last)) * col;
  let at: usize = 0;
  if (row == 4) {
    for (; p + 4 <= kc; p += 4) {
      transpose4(c0 + at, c1 + at, c2 + at, c3 + at, out, step);
      transpose4(c4 + at, c5 + at, c6 + at, c7 + at, out + 16, step);
      at += 16;
      out += step << 2;
    }
  }
  for (; p < kc; p++) {
    store<f32>(out, load<f32>(c0 + at));
    store<f32>(out, load<f32>(c1 + at), 4);
    store<f32>(out, load<f32>(c2 + at), 8);
    store<f32>(out, load<f32>(c3 + at), 12);
    store<f32>(out, load<f32>(c4 + at), 16);
    store<f32>(out, load<f32>(c5 + at), 20);
    store<f32>(out, load<f32>(c6 + at), 24);
    store<f32>(out, load<f32>(c7 + at), 28);
    at += row;
    out += step;
  }
}
