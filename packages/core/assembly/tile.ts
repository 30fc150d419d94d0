// The tiles that all matrix products are made of, summed in registers: two rows by four vectors of four columns, or six rows by
// two where the host has fused multiply-adds; at edges and in attention four by two.

import { madd } from "./abi";

/** What a tile does with C: overwrite it, or add to it times beta. */
export const STORE: i32 = 0;
export const ADD: i32 = 1;

// @ts-ignore: decorator
@inline
export function put(c: usize, sum: v128, alpha: v128, beta: v128, mode: i32): void {
  let x = f32x4.mul(alpha, sum);
  if (mode) x = f32x4.add(f32x4.mul(beta, v128.load(c)), x);
  v128.store(c, x);
}

// @ts-ignore: decorator
@inline
export function putTile(
  c: usize, row: usize, c00: v128, c01: v128, c10: v128, c11: v128, c20: v128, c21: v128, c30: v128, c31: v128,
  alpha: v128, beta: v128, mode: i32,
): void {
  put(c, c00, alpha, beta, mode);
  put(c + 16, c01, alpha, beta, mode);
  c += row;
  put(c, c10, alpha, beta, mode);
  put(c + 16, c11, alpha, beta, mode);
  c += row;
  put(c, c20, alpha, beta, mode);
  put(c + 16, c21, alpha, beta, mode);
  c += row;
  put(c, c30, alpha, beta, mode);
  put(c + 16, c31, alpha, beta, mode);
}

/**
 * C[4×8] (+)= alpha · A·B over kc ≥ 1, from a panel of B packed by 8, and A whose four rows' elements stand side by side, `step`
 * bytes from one k to the next: a packed panel (16), or four columns of a matrix (its rows' distance).
 *
 * K is not unrolled: V8 gathers the loads of a block before its additions, and more live values than the 16 registers of SSE
 * would be spilled.
 */
// @ts-ignore: decorator
@inline
export function packedTile(
  a: usize, step: usize, b: usize, kc: i32, c: usize, row: usize, alpha: v128, beta: v128, mode: i32,
): void {
  let c00 = f32x4.splat(0), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00, c30 = c00, c31 = c00;
  const end = a + <usize>kc * step;
  do {
    const b0 = v128.load(b), b1 = v128.load(b, 16);
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
    a += step;
    b += 32;
  } while (a != end);
  putTile(c, row, c00, c01, c10, c11, c20, c21, c30, c31, alpha, beta, mode);
}

/**
 * C[6×8] (+)= alpha · A·B over kc ≥ 1, from a panel of A packed by 6 and one of B packed by 8.
 *
 * Twelve sums hide the latency of fused multiply-adds, which eight only just do, and with two vectors of B and one element of A
 * they take fifteen registers, all that V8 gives. Without fused ones a product needs a register of its own, and V8 spills.
 */
// @ts-ignore: decorator
@inline
export function tallTile(
  a: usize, b: usize, kc: i32, c: usize, row: usize, alpha: v128, beta: v128, mode: i32,
): void {
  let c00 = f32x4.splat(0), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00;
  let c30 = c00, c31 = c00, c40 = c00, c41 = c00, c50 = c00, c51 = c00;
  const end = a + <usize>kc * 24;
  do {
    const b0 = v128.load(b), b1 = v128.load(b, 16);
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
    x = v128.load32_splat(a, 16);
    c40 = madd(x, b0, c40);
    c41 = madd(x, b1, c41);
    x = v128.load32_splat(a, 20);
    c50 = madd(x, b0, c50);
    c51 = madd(x, b1, c51);
    a += 24;
    b += 32;
  } while (a != end);
  putTile(c, row, c00, c01, c10, c11, c20, c21, c30, c31, alpha, beta, mode);
  c += row << 2;
  put(c, c40, alpha, beta, mode);
  put(c + 16, c41, alpha, beta, mode);
  c += row;
  put(c, c50, alpha, beta, mode);
  put(c + 16, c51, alpha, beta, mode);
}

/**
 * C[2×16] (+)= alpha · A·B over kc ≥ 1, from two of the four rows of a packed panel of A and a panel of B packed by 16.
 *
 * Without fused multiply-adds the processor's decoding bounds the loop, so that every instruction counts. Two things make it the 54 for
 * two steps of k that it is: both addresses must come from an addition, or V8 copies each to clear its upper half, and the last
 * columns are taken first, which is the order that V8 gives the sums, so that loads stand between the multiplications.
 */
// @ts-ignore: decorator
@inline
export function wideTile(a: usize, b: usize, kc: i32, c: usize, row: usize, alpha: v128, beta: v128, mode: i32): void {
  let c00 = f32x4.splat(0), c01 = c00, c02 = c00, c03 = c00, c10 = c00, c11 = c00, c12 = c00, c13 = c00;
  const end = b + ((<usize>kc) << 6);
  do {
    const b3 = v128.load(b, 48), b2 = v128.load(b, 32), b1 = v128.load(b, 16), b0 = v128.load(b);
    let x = v128.load32_splat(a, 4);
    c13 = madd(b3, x, c13);
    c12 = madd(b2, x, c12);
    c11 = madd(b1, x, c11);
    c10 = madd(b0, x, c10);
    x = v128.load32_splat(a);
    c03 = madd(b3, x, c03);
    c02 = madd(b2, x, c02);
    c01 = madd(b1, x, c01);
    c00 = madd(b0, x, c00);
    a += 16;
    b += 64;
  } while (b != end);
  put(c, c00, alpha, beta, mode);
  put(c + 16, c01, alpha, beta, mode);
  put(c + 32, c02, alpha, beta, mode);
  put(c + 48, c03, alpha, beta, mode);
  c += row;
  put(c, c10, alpha, beta, mode);
  put(c + 16, c11, alpha, beta, mode);
  put(c + 32, c12, alpha, beta, mode);
  put(c + 48, c13, alpha, beta, mode);
}
