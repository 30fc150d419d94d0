// The two block products that attention is made of, and the packing that they need. All blocks lie in scratch memory.
//
// Scores are kept row-major with rows of KEYS floats. Operands of inner products are packed in groups of W rows (4 for
// the left, 8 for the right), element d of all W rows side by side: [row / W][d][row mod W], missing rows zero.

import { madd } from "./abi";

/** Rows and columns of a block of scores. */
export const BLOCK: i32 = 64;
/** Bytes of one row of a block of scores. */
export const ROW: usize = 256;

/** headDim rounded up to whole tiles. */
// @ts-ignore: decorator
@inline
export function padded(depth: i32): i32 {
  return (depth + 7) & ~7;
}

/** Packs `rows` rows of `depth` floats, times `scale`, in groups of `width` (4 or 8). */
export function pack(src: usize, stride: usize, rows: i32, depth: i32, scale: f32, dst: usize, width: i32): void {
  const factor = f32x4.splat(scale);
  const zero = i32x4.splat(0);
  const step = (<usize>width) << 2;
  const groupBytes = <usize>depth * step;
  const all = ((rows + width - 1) / width) * width;
  const whole = depth & ~3;
  for (let row = 0; row < all; row += 4) {
    let to = dst + <usize>(row / width) * groupBytes + ((<usize>(row % width)) << 2);
    const from = src + <usize>row * stride;
    const present = rows - row;
    for (let d = 0; d < whole; d += 4) {
      const at = from + ((<usize>d) << 2);
      const a = present > 0 ? v128.load(at) : zero;
      const b = present > 1 ? v128.load(at + stride) : zero;
      const c = present > 2 ? v128.load(at + 2 * stride) : zero;
      const e = present > 3 ? v128.load(at + 3 * stride) : zero;
      const ab0 = i32x4.shuffle(a, b, 0, 4, 1, 5);
      const ab1 = i32x4.shuffle(a, b, 2, 6, 3, 7);
      const ce0 = i32x4.shuffle(c, e, 0, 4, 1, 5);
      const ce1 = i32x4.shuffle(c, e, 2, 6, 3, 7);
      v128.store(to, f32x4.mul(factor, i32x4.shuffle(ab0, ce0, 0, 1, 4, 5)));
      v128.store(to + step, f32x4.mul(factor, i32x4.shuffle(ab0, ce0, 2, 3, 6, 7)));
      v128.store(to + 2 * step, f32x4.mul(factor, i32x4.shuffle(ab1, ce1, 0, 1, 4, 5)));
      v128.store(to + 3 * step, f32x4.mul(factor, i32x4.shuffle(ab1, ce1, 2, 3, 6, 7)));
      to += 4 * step;
    }
    for (let d = whole; d < depth; d++, to += step) {
      const at = from + ((<usize>d) << 2);
      for (let lane = 0; lane < 4; lane++) {
        store<f32>(to + ((<usize>lane) << 2), lane < present ? scale * load<f32>(at + <usize>lane * stride) : 0);
      }
    }
  }
}

/** Copies rows of `depth` floats to rows of padded(depth), zeros behind. */
export function padRows(src: usize, stride: usize, rows: i32, depth: i32, dst: usize): void {
  const bytes = (<usize>depth) << 2;
  const whole = bytes & ~15;
  const paddedBytes = (<usize>padded(depth)) << 2;
  for (let row = 0; row < rows; row++, src += stride, dst += paddedBytes) {
    let at: usize = 0;
    for (; at < whole; at += 16) v128.store(dst + at, v128.load(src + at));
    for (; at < bytes; at += 4) store<u32>(dst + at, load<u32>(src + at));
    for (; at < paddedBytes; at += 4) store<u32>(dst + at, 0);
  }
}

/** scores [4, 8] = a [depth][4] · b [depth][8]. */
function dotTile(a: usize, b: usize, depth: i32, scores: usize): void {
  const zero = i32x4.splat(0);
  let c00 = zero, c01 = zero, c10 = zero, c11 = zero, c20 = zero, c21 = zero, c30 = zero, c31 = zero;
  const stop = a + ((<usize>depth) << 4);
  do {
    const b0 = v128.load(b);
    const b1 = v128.load(b, 16);
    let x = v128.load32_splat(a);
    c00 = madd(x, b0, c00);
    c01 = madd(x, b1, c01);
    x = v128.load32_splat(a, 4);
    c10 = madd(x, b0, c10);
    c11 = madd(x, b1, c11);
    x = v128.load32_splat(a, 8);
    c20 = madd(x, b0, c20);
    c21 = madd(x, b1, c21);
    x = v128.load32_splat(a, 12);
    c30 = madd(x, b0, c30);
    c31 = madd(x, b1, c31);
    a += 16;
    b += 32;
  } while (a != stop);
  v128.store(scores, c00);
  v128.store(scores, c01, 16);
  v128.store(scores, c10, ROW);
  v128.store(scores, c11, ROW + 16);
  v128.store(scores, c20, 2 * ROW);
  v128.store(scores, c21, 2 * ROW + 16);
  v128.store(scores, c30, 3 * ROW);
  v128.store(scores, c31, 3 * ROW + 16);
}

/** out [4, 8] += weights [4, n] · rows [n, 8]; rows `stride` bytes apart, out's rows `outStride`. */
function sumTile(weights: usize, rows: usize, stride: usize, n: i32, out: usize, outStride: usize): void {
  const out1 = out + outStride;
  const out2 = out1 + outStride;
  const out3 = out2 + outStride;
  let c00 = v128.load(out), c01 = v128.load(out, 16);
  let c10 = v128.load(out1), c11 = v128.load(out1, 16);
  let c20 = v128.load(out2), c21 = v128.load(out2, 16);
  let c30 = v128.load(out3), c31 = v128.load(out3, 16);
  const stop = weights + ((<usize>n) << 2);
  do {
    const b0 = v128.load(rows);
    const b1 = v128.load(rows, 16);
    let x = v128.load32_splat(weights);
    c00 = madd(x, b0, c00);
    c01 = madd(x, b1, c01);
    x = v128.load32_splat(weights, ROW);
    c10 = madd(x, b0, c10);
    c11 = madd(x, b1, c11);
    x = v128.load32_splat(weights, 2 * ROW);
    c20 = madd(x, b0, c20);
    c21 = madd(x, b1, c21);
    x = v128.load32_splat(weights, 3 * ROW);
    c30 = madd(x, b0, c30);
    c31 = madd(x, b1, c31);
    weights += 4;
    rows += stride;
  } while (weights != stop);
  v128.store(out, c00);
  v128.store(out, c01, 16);
  v128.store(out1, c10);
  v128.store(out1, c11, 16);
  v128.store(out2, c20);
  v128.store(out2, c21, 16);
  v128.store(out3, c30);
  v128.store(out3, c31, 16);
}

/** scores [4, n] of one group of four packed rows against n packed columns, rounded up to eights. */
export function dotGroup(a: usize, b: usize, depth: i32, n: i32, scores: usize): void {
  const panel = (<usize>depth) << 5;
  for (let column = 0; column < n; column += 8, b += panel, scores += 32) dotTile(a, b, depth, scores);
}

/** out [4, padded(depth)] += weights [4, n] · rows [n, padded(depth)]. */
export function sumGroup(weights: usize, rows: usize, stride: usize, n: i32, out: usize, depth: i32): void {
  if (n <= 0) return;
  const width = padded(depth);
  const outStride = (<usize>width) << 2;
  for (let d = 0; d < width; d += 8, rows += 32, out += 32) sumTile(weights, rows, stride, n, out, outStride);
}
