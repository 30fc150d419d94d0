// What attention's kernels share: products of blocks by the tile of the matrix product, powers of two, and masks.
//
// A block of scores is [BLOCK, BLOCK] floats, row-major, a row a query. Scores are in units of log 2: 2^score is wanted, which is
// cheaper than e^score, and the factor log2 e disappears in the scale.

import { constant, madd } from "./abi";
import { ADD, packedTile, putTile, STORE } from "./tile";

/** Queries and keys of a block. */
export const BLOCK: i32 = 64;
/** Bytes of one row of a block of scores. */
export const ROW: usize = 256;

/** log2 e, and ln 2 for the way back. */
export const LOG2_E: f64 = 1.4426950408889634;
export const LN_2: f64 = 0.6931471805599453;

/** headDim rounded up to whole tiles. */
// @ts-ignore: decorator
@inline
export function padded(depth: i32): i32 {
  return (depth + 7) & ~7;
}

/** Address of position `t` of one head of an operand whose description starts at argument i. */
// @ts-ignore: decorator
@inline
export function vectorOf(args: usize, i: i32, batch: i32, head: i32, t: i32): usize {
  return argument(args, i) + <usize>batch * argument(args, i + 1) + <usize>head * argument(args, i + 2) + <usize>t * argument(args, i + 3);
}

// @ts-ignore: decorator
@inline
function argument(args: usize, i: i32): usize {
  return <usize>load<u32>(args + ((<usize>i) << 2));
}

/** Keys of the `n` from k0 on that query `row` sees, where it sees the keys up to row + shift. */
// @ts-ignore: decorator
@inline
export function visibleKeys(causal: i32, row: i32, shift: i32, k0: i32, n: i32): i32 {
  return causal ? max(0, min(n, row + shift + 1 - k0)) : n;
}

/** scores [4, n, rounded up to 8] = factor · a · b, a packed by 4 and b by 8 over `depth`. */
export function scoreRows(a: usize, b: usize, depth: i32, n: i32, factor: f32, scores: usize): void {
  const alpha = f32x4.splat(factor);
  const panel = (<usize>depth) << 5;
  for (let column = 0; column < n; column += 8, b += panel, scores += 32) {
    packedTile(a, 16, b, depth, scores, ROW, alpha, alpha, STORE);
  }
}

/** As packedTile, with four rows of a block of scores as A, added to C. */
// @ts-ignore: decorator
@inline
function rowTile(a: usize, b: usize, kc: i32, c: usize, row: usize): void {
  let c00 = f32x4.splat(0), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00, c30 = c00, c31 = c00;
  const end = a + ((<usize>kc) << 2);
  do {
    const b0 = v128.load(b), b1 = v128.load(b, 16);
    let x = v128.load32_splat(a);
    c00 = madd(x, b0, c00);
    c01 = madd(x, b1, c01);
    x = v128.load32_splat(a, ROW);
    c10 = madd(x, b0, c10);
    c11 = madd(x, b1, c11);
    x = v128.load32_splat(a, 2 * ROW);
    c20 = madd(x, b0, c20);
    c21 = madd(x, b1, c21);
    x = v128.load32_splat(a, 3 * ROW);
    c30 = madd(x, b0, c30);
    c31 = madd(x, b1, c31);
    a += 4;
    b += 32;
  } while (a != end);
  const one = f32x4.splat(1);
  putTile(c, row, c00, c01, c10, c11, c20, c21, c30, c31, one, one, ADD);
}

/** out [4, width] += weights [4, n] · b, weights being rows of a block of scores and b panels of 8 columns, `panel` bytes each. */
export function addRows(weights: usize, b: usize, panel: usize, n: i32, out: usize, width: i32): void {
  const row = (<usize>width) << 2;
  for (let column = 0; column < width; column += 8, b += panel, out += 32) {
    rowTile(weights, b, n, out, row);
  }
}

/** out [4, width] += weightsᵀ · b, weights [n, 4] being columns of a block of scores. */
export function addColumns(weights: usize, b: usize, panel: usize, n: i32, out: usize, width: i32): void {
  const one = f32x4.splat(1);
  const row = (<usize>width) << 2;
  for (let column = 0; column < width; column += 8, b += panel, out += 32) {
    packedTile(weights, ROW, b, n, out, row, one, one, ADD);
  }
}

// −127, 1.5·2^23, then 2^r = 1 + r·(c1 + c2·r + …) on |r| ≤ ½, of least relative error (2e-9).
const EXP2: usize = memory.data<f32>([
  -127.0, 12582912.0,
  1.0, 0.6931471824645996, 0.24022647738456726, 0.055503323674201965, 0.00961843691766262, 0.0013398875016719103,
  0.00015353361959569156,
]);

/** 2^x for x below 127: within 1 ulp; exactly 0 from −127 down. */
// @ts-ignore: decorator
@inline
export function exp2(x: v128): v128 {
  x = f32x4.pmax(x, constant(EXP2, 0));
  // Adding 1.5·2^23 rounds to an integer, which then stands in the low bits.
  const t = f32x4.add(x, constant(EXP2, 1));
  const r = f32x4.sub(x, f32x4.sub(t, constant(EXP2, 1)));
  let p = madd(constant(EXP2, 8), r, constant(EXP2, 7));
  p = madd(p, r, constant(EXP2, 6));
  p = madd(p, r, constant(EXP2, 5));
  p = madd(p, r, constant(EXP2, 4));
  p = madd(p, r, constant(EXP2, 3));
  p = madd(p, r, constant(EXP2, 2));
  // p · 2^n by adding n to the exponent; p ≥ 1 where n is −127, so that the sign is never reached.
  return i32x4.add(p, i32x4.shl(t, 23));
}

/** How a mask says which keys are seen; any other kind is a float a key, added to the score: below −1e30 the key is not seen. */
export const NO_MASK: i32 = 0;
/** A byte a key, 0 where it is not seen. */
export const BOOL_MASK: i32 = 1;

/** Lays a mask over the scores of one query; `stride` is the bytes from one key's to the next. */
export function maskScores(kind: i32, mask: usize, stride: usize, n: i32, scores: usize): void {
  const end = scores + ((<usize>n) << 2);
  if (kind == BOOL_MASK) {
    for (; scores < end; scores += 4, mask += stride) if (load<u8>(mask) == 0) store<f32>(scores, -Infinity);
    return;
  }
  if (stride == 4) {
    const least = f32x4.splat(-1e30);
    const factor = f32x4.splat(<f32>LOG2_E);
    const hidden = f32x4.splat(-Infinity);
    for (; scores + 16 <= end; scores += 16, mask += 16) {
      const m = v128.load(mask);
      const added = madd(m, factor, v128.load(scores));
      v128.store(scores, v128.bitselect(hidden, added, f32x4.lt(m, least)));
    }
  }
  for (; scores < end; scores += 4, mask += stride) {
    const m = load<f32>(mask);
    store<f32>(scores, m < -1e30 ? -Infinity : load<f32>(scores) + m * <f32>LOG2_E);
  }
}
