// Reductions of contiguous rows and of columns, one export a kind and dtype. float32 sums go over runs of 512 elements
// (columns: 64 rows) in float32 lanes and over the runs in float64, so that their error hardly grows with the length.
// Which elements meet in which order depends on shapes alone.
//
// Rows: arguments 0 row length, 1 blocks per row, 2 block length, 3 x, 4 byte stride of rows, 5 out, 6 whether only every other element
// counts; float 0 a factor of sums. Unit u is block u mod blocks of row u / blocks, and gives out[u].
// Columns of x [outer, rows, columns]: 0 rows, 1 columns, 2 column blocks, 3 row blocks, 4 rows per row block, 5 x,
// 6 byte stride of outer, 7 byte stride of rows, 8 out [outer, row blocks, columns]. A column block has 512 columns.

import { address, float, int } from "./abi";

const F_SUM: i32 = 0;
const F_PROD: i32 = 1;
const F_MAX: i32 = 2;
const F_MIN: i32 = 3;
const I_SUM: i32 = 4;
const I_PROD: i32 = 5;
const I_MAX: i32 = 6;
const I_MIN: i32 = 7;

/** Columns of one unit. */
const COLUMNS: i32 = 512;

// @ts-ignore: decorator
@inline
function identity(kind: i32): v128 {
  if (kind == F_PROD) return f32x4.splat(1.0);
  if (kind == F_MAX) return f32x4.splat(-Infinity);
  if (kind == F_MIN) return f32x4.splat(Infinity);
  if (kind == I_PROD) return i32x4.splat(1);
  if (kind == I_MAX) return i32x4.splat(i32.MIN_VALUE);
  if (kind == I_MIN) return i32x4.splat(i32.MAX_VALUE);
  return i32x4.splat(0);
}

// @ts-ignore: decorator
@inline
function combine(kind: i32, a: v128, b: v128): v128 {
  if (kind == F_SUM) return f32x4.add(a, b);
  if (kind == F_PROD) return f32x4.mul(a, b);
  if (kind == F_MAX) return f32x4.max(a, b);
  if (kind == F_MIN) return f32x4.min(a, b);
  if (kind == I_SUM) return i32x4.add(a, b);
  if (kind == I_PROD) return i32x4.mul(a, b);
  if (kind == I_MAX) return i32x4.max_s(a, b);
  return i32x4.min_s(a, b);
}

/** All elements of one contiguous run, in lane 0; or, when they lie `apart`, every other one, from the first to the last. */
// @ts-ignore: decorator
@inline
function reduceRun(kind: i32, x: usize, n: i32, apart: i32): v128 {
  const stop = x + ((<usize>n) << 2);
  const wide = x + ((<usize>(n & ~15)) << 2);
  const whole = x + ((<usize>(n & ~3)) << 2);
  let a = identity(kind);
  let b = a;
  let c = a;
  let d = a;
  for (; x < wide; x += 64) {
    a = combine(kind, a, v128.load(x));
    b = combine(kind, b, v128.load(x, 16));
    c = combine(kind, c, v128.load(x, 32));
    d = combine(kind, d, v128.load(x, 48));
  }
  for (; x < whole; x += 16) a = combine(kind, a, v128.load(x));
  a = combine(kind, combine(kind, a, b), combine(kind, c, d));
  a = combine(kind, a, i32x4.shuffle(a, a, 2, 3, 0, 1));
  // Those in between have met in the odd lanes.
  if (!apart) a = combine(kind, a, i32x4.shuffle(a, a, 1, 0, 3, 2));
  const step: usize = 4 << apart;
  for (; x < stop; x += step) a = combine(kind, a, v128.load32_splat(x));
  return a;
}

/** Σ x over a run, as in {@link reduceRun}. */
// @ts-ignore: decorator
@inline
function sumRun(x: usize, n: i32, apart: i32): f64 {
  let total: f64 = 0;
  for (; n > 512; n -= 512, x += 2048) total += <f64>f32x4.extract_lane(reduceRun(F_SUM, x, 512, apart), 0);
  return total + <f64>f32x4.extract_lane(reduceRun(F_SUM, x, n, apart), 0);
}

/** Σ x over n contiguous elements. */
export function sumOf(x: usize, n: i32): f64 {
  return sumRun(x, n, 0);
}

/** max x over n contiguous elements; NaN when one is. */
export function maxOf(x: usize, n: i32): f32 {
  return f32x4.extract_lane(reduceRun(F_MAX, x, n, 0), 0);
}

// @ts-ignore: decorator
@inline
function rows(kind: i32, args: usize, begin: i32, end: i32): void {
  const length = int(args, 0);
  const blocks = int(args, 1);
  const block = int(args, 2);
  const x = address(args, 3);
  const stride = address(args, 4);
  const out = address(args, 5);
  const apart = int(args, 6);
  for (let unit = begin; unit < end; unit++) {
    const start = (unit % blocks) * block;
    const n = (min(block, length - start) << apart) - apart;
    const run = x + <usize>(unit / blocks) * stride + ((<usize>start) << (2 + apart));
    const dst = out + ((<usize>unit) << 2);
    if (kind == F_SUM) store<f32>(dst, <f32>(sumRun(run, n, apart) * float(args, 0)));
    else v128.store_lane<u32>(dst, reduceRun(kind, run, n, apart), 0);
  }
}

/** One column, in lane 0. */
// @ts-ignore: decorator
@inline
function columnRun(kind: i32, x: usize, rows: i32, stride: usize): v128 {
  let total: f64 = 0;
  let y = identity(kind);
  for (let r = 0; r < rows; r++, x += stride) {
    if (kind == F_SUM) total += <f64>load<f32>(x);
    else y = combine(kind, y, v128.load32_splat(x));
  }
  return kind == F_SUM ? f32x4.splat(<f32>total) : y;
}

/** `n` columns (a multiple of 4), row after row as they lie in memory; `dst` holds what they have come to. */
// @ts-ignore: decorator
@inline
function combineColumns(kind: i32, x: usize, rows: i32, stride: usize, n: i32, dst: usize): void {
  const bytes = (<usize>n) << 2;
  for (let at: usize = 0; at < bytes; at += 16) v128.store(dst + at, identity(kind));
  let r = 0;
  for (; r + 4 <= rows; r += 4, x += 4 * stride) {
    for (let at: usize = 0; at < bytes; at += 16) {
      const p = x + at;
      const low = combine(kind, v128.load(p), v128.load(p + stride));
      const high = combine(kind, v128.load(p + 2 * stride), v128.load(p + 3 * stride));
      v128.store(dst + at, combine(kind, v128.load(dst + at), combine(kind, low, high)));
    }
  }
  for (; r < rows; r++, x += stride) {
    for (let at: usize = 0; at < bytes; at += 16) v128.store(dst + at, combine(kind, v128.load(dst + at), v128.load(x + at)));
  }
}

/**
 * Sums of `n` columns (a multiple of 4, at most COLUMNS), row after row as they lie in memory: 64 rows go into float32
 * sums, those into float64 totals. Scratch: sums, then totals.
 */
function sumColumns(x: usize, rows: i32, stride: usize, n: i32, dst: usize, sums: usize): void {
  const bytes = (<usize>n) << 2;
  const totals = sums + ((<usize>COLUMNS) << 2);
  memory.fill(totals, 0, bytes << 1);
  for (let row = 0; row < rows; row += 64, x += 64 * stride) {
    combineColumns(F_SUM, x, min(64, rows - row), stride, n, sums);
    for (let at: usize = 0; at < bytes; at += 16) {
      const sum = v128.load(sums + at);
      const total = totals + 2 * at;
      v128.store(total, f64x2.add(v128.load(total), f64x2.promote_low_f32x4(sum)));
      const high = f64x2.promote_low_f32x4(i32x4.shuffle(sum, sum, 2, 3, 2, 3));
      v128.store(total, f64x2.add(v128.load(total, 16), high), 16);
    }
  }
  for (let at: usize = 0; at < bytes; at += 16) {
    const low = f32x4.demote_f64x2_zero(v128.load(totals + 2 * at));
    const high = f32x4.demote_f64x2_zero(v128.load(totals + 2 * at, 16));
    v128.store(dst + at, i32x4.shuffle(low, high, 0, 1, 4, 5));
  }
}

// @ts-ignore: decorator
@inline
function columns(kind: i32, args: usize, begin: i32, end: i32, scratch: usize): void {
  const rows = int(args, 0);
  const columns = int(args, 1);
  const columnBlocks = int(args, 2);
  const rowBlocks = int(args, 3);
  const perBlock = int(args, 4);
  const x = address(args, 5);
  const outerStride = address(args, 6);
  const stride = address(args, 7);
  const out = address(args, 8);
  for (let unit = begin; unit < end; unit++) {
    const outRow = unit / columnBlocks;
    const first = (unit % columnBlocks) * COLUMNS;
    const last = min(first + COLUMNS, columns);
    const row = (outRow % rowBlocks) * perBlock;
    const n = min(perBlock, rows - row);
    const src = x + <usize>(outRow / rowBlocks) * outerStride + <usize>row * stride;
    const dst = out + ((<usize>outRow * <usize>columns) << 2);
    const at = (<usize>first) << 2;
    const whole = (last - first) & ~3;
    if (kind == F_SUM) sumColumns(src + at, n, stride, whole, dst + at, scratch);
    else combineColumns(kind, src + at, n, stride, whole, dst + at);
    for (let c = first + whole; c < last; c++) {
      v128.store_lane<u32>(dst + ((<usize>c) << 2), columnRun(kind, src + ((<usize>c) << 2), n, stride), 0);
    }
  }
}

export function rows_sum(args: usize, begin: i32, end: i32, _scratch: usize): void {
  rows(F_SUM, args, begin, end);
}

export function columns_sum(args: usize, begin: i32, end: i32, scratch: usize): void {
  columns(F_SUM, args, begin, end, scratch);
}

export function rows_prod(args: usize, begin: i32, end: i32, _scratch: usize): void {
  rows(F_PROD, args, begin, end);
}

export function columns_prod(args: usize, begin: i32, end: i32, scratch: usize): void {
  columns(F_PROD, args, begin, end, scratch);
}

export function rows_max(args: usize, begin: i32, end: i32, _scratch: usize): void {
  rows(F_MAX, args, begin, end);
}

export function columns_max(args: usize, begin: i32, end: i32, scratch: usize): void {
  columns(F_MAX, args, begin, end, scratch);
}

export function rows_min(args: usize, begin: i32, end: i32, _scratch: usize): void {
  rows(F_MIN, args, begin, end);
}

export function columns_min(args: usize, begin: i32, end: i32, scratch: usize): void {
  columns(F_MIN, args, begin, end, scratch);
}

export function rowsInt_sum(args: usize, begin: i32, end: i32, _scratch: usize): void {
  rows(I_SUM, args, begin, end);
}

export function columnsInt_sum(args: usize, begin: i32, end: i32, scratch: usize): void {
  columns(I_SUM, args, begin, end, scratch);
}

export function rowsInt_prod(args: usize, begin: i32, end: i32, _scratch: usize): void {
  rows(I_PROD, args, begin, end);
}

export function columnsInt_prod(args: usize, begin: i32, end: i32, scratch: usize): void {
  columns(I_PROD, args, begin, end, scratch);
}

export function rowsInt_max(args: usize, begin: i32, end: i32, _scratch: usize): void {
  rows(I_MAX, args, begin, end);
}

export function columnsInt_max(args: usize, begin: i32, end: i32, scratch: usize): void {
  columns(I_MAX, args, begin, end, scratch);
}

export function rowsInt_min(args: usize, begin: i32, end: i32, _scratch: usize): void {
  rows(I_MIN, args, begin, end);
}

export function columnsInt_min(args: usize, begin: i32, end: i32, scratch: usize): void {
  columns(I_MIN, args, begin, end, scratch);
}

// @ts-ignore: decorator
@inline
function argRows(kind: i32, args: usize, begin: i32, end: i32): void {
  const length = int(args, 0);
  const x = address(args, 1);
  const out = address(args, 2);
  for (let row = begin; row < end; row++) {
    const src = x + (((<usize>row) * <usize>length) << 2);
    const best = reduceRun(kind, src, length, 0);
    const value = i32x4.splat(i32x4.extract_lane(best, 0));
    let i = 0;
    for (; i < length; i++) {
      const element = v128.load32_splat(src + ((<usize>i) << 2));
      // The best is NaN exactly when a NaN is among the elements: then the first of those is wanted.
      if (kind == F_MAX || kind == F_MIN) {
        if (v128.any_true(v128.or(f32x4.eq(element, value), f32x4.ne(element, element)))) break;
      } else if (v128.any_true(i32x4.eq(element, value))) break;
    }
    store<i32>(out + ((<usize>row) << 2), i);
  }
}

/** Index of the first best element of contiguous rows. Arguments: 0 row length, 1 x, 2 out int32; a unit is a row. */
export function argRows_argmax(args: usize, begin: i32, end: i32, _scratch: usize): void {
  argRows(F_MAX, args, begin, end);
}

export function argRows_argmin(args: usize, begin: i32, end: i32, _scratch: usize): void {
  argRows(F_MIN, args, begin, end);
}

export function argRowsInt_argmax(args: usize, begin: i32, end: i32, _scratch: usize): void {
  argRows(I_MAX, args, begin, end);
}

export function argRowsInt_argmin(args: usize, begin: i32, end: i32, _scratch: usize): void {
  argRows(I_MIN, args, begin, end);
}
