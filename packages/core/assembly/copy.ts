// Copies between layouts of 1, 2 and 4 byte elements, and fills. The walk over outer axes is the odometer's.
//
// Operands: 0 out, 1 x. Argument 4 is the element's bytes. In copyRows rows are contiguous on both sides; copyStrided has any strides;
// transpose has x contiguous along one axis and out along another.

import { address, int } from "./abi";
import { advance, nextRun, rowAddress, rowStride, runBlocks, runStart, seek, STATE_BYTES } from "./odometer";

/** Copies n bytes; the regions do not overlap. */
export function copyBytes(dst: usize, src: usize, n: usize): void {
  if (n >= 1024) {
    memory.copy(dst, src, n);
    return;
  }
  const stop = dst + n;
  const whole = dst + (n & ~15);
  for (; dst < whole; dst += 16, src += 16) v128.store(dst, v128.load(src));
  for (; dst + 4 <= stop; dst += 4, src += 4) store<u32>(dst, load<u32>(src));
  for (; dst < stop; dst++, src++) store<u8>(dst, load<u8>(src));
}

/** Rows contiguous on both sides. */
export function copyRows(args: usize, begin: i32, end: i32, state: usize): void {
  seek(args, begin / int(args, 1), state);
  const bytes = <usize>int(args, 4);
  for (let unit = begin; unit < end; ) {
    const n = <usize>nextRun(args, unit, end, state) * bytes;
    const start = runStart(state) * bytes;
    copyBytes(rowAddress(state, 0) + start, rowAddress(state, 1) + start, n);
    unit += runBlocks(state);
    if (unit < end) advance(args, state);
  }
}

/** n elements of 4 bytes, a multiple of 4, from any stride to contiguous ones: broadcast, backwards, every other, and the rest. */
function gather4(dst: usize, src: usize, n: i32, stride: usize): void {
  const stop = dst + ((<usize>n) << 2);
  const next = stride << 2;
  if (stride == 0) {
    const value = v128.load32_splat(src);
    for (; dst < stop; dst += 16) v128.store(dst, value);
  } else if (stride == <usize>-4) {
    // From the last element on: memory is read forwards.
    let at = stop;
    src -= ((<usize>n) << 2) - 4;
    for (; at >= dst + 64; at -= 64, src += 64) {
      const a = v128.load(src);
      const b = v128.load(src, 16);
      const c = v128.load(src, 32);
      const d = v128.load(src, 48);
      v128.store(at - 16, i32x4.shuffle(a, a, 3, 2, 1, 0));
      v128.store(at - 32, i32x4.shuffle(b, b, 3, 2, 1, 0));
      v128.store(at - 48, i32x4.shuffle(c, c, 3, 2, 1, 0));
      v128.store(at - 64, i32x4.shuffle(d, d, 3, 2, 1, 0));
    }
    for (; at > dst; at -= 16, src += 16) {
      const a = v128.load(src);
      v128.store(at - 16, i32x4.shuffle(a, a, 3, 2, 1, 0));
    }
  } else if (stride == 8) {
    for (; dst + 32 <= stop; dst += 32, src += 64) {
      const a = i32x4.shuffle(v128.load(src), v128.load(src, 16), 0, 2, 4, 6);
      const b = i32x4.shuffle(v128.load(src, 32), v128.load(src, 48), 0, 2, 4, 6);
      v128.store(dst, a);
      v128.store(dst, b, 16);
    }
    if (dst < stop) v128.store(dst, i32x4.shuffle(v128.load(src), v128.load(src, 16), 0, 2, 4, 6));
  } else {
    for (; dst < stop; dst += 16, src += next) {
      const a = load<u32>(src);
      const b = load<u32>(src + stride);
      const c = load<u32>(src + 2 * stride);
      const d = load<u32>(src + 3 * stride);
      store<u32>(dst, a);
      store<u32>(dst, b, 4);
      store<u32>(dst, c, 8);
      store<u32>(dst, d, 12);
    }
  }
}

// @ts-ignore: decorator
@inline
function rowOf<T>(dst: usize, src: usize, n: i32, dstStride: usize, srcStride: usize): void {
  let i = 0;
  if (sizeof<T>() == 4 && dstStride == 4) {
    // Four at once; of every other element without the last four, beside which a vector would read on.
    i = (n - <i32>(srcStride == 8)) & ~3;
    gather4(dst, src, i, srcStride);
    dst += <usize>i * 4;
    src += <usize>i * srcStride;
  }
  for (; i < n; i++, dst += dstStride, src += srcStride) store<T>(dst, load<T>(src));
}

/** n elements between any strides. */
export function copyRow(dst: usize, src: usize, n: i32, dstStride: usize, srcStride: usize, bytes: i32): void {
  if (bytes == 4) rowOf<u32>(dst, src, n, dstStride, srcStride);
  else if (bytes == 2) rowOf<u16>(dst, src, n, dstStride, srcStride);
  else rowOf<u8>(dst, src, n, dstStride, srcStride);
}

/** Any strides on both sides. */
export function copyStrided(args: usize, begin: i32, end: i32, state: usize): void {
  seek(args, begin / int(args, 1), state);
  const bytes = int(args, 4);
  const dstStride = rowStride(args, 0);
  const srcStride = rowStride(args, 1);
  for (let unit = begin; unit < end; ) {
    const n = nextRun(args, unit, end, state);
    const start = runStart(state);
    copyRow(rowAddress(state, 0) + start * dstStride, rowAddress(state, 1) + start * srcStride, n, dstStride, srcStride, bytes);
    unit += runBlocks(state);
    if (unit < end) advance(args, state);
  }
}

/** Fills rows: argument 4 the element's bytes, 5 its bits repeated to 32. */
export function fill(args: usize, begin: i32, end: i32, state: usize): void {
  seek(args, begin / int(args, 1), state);
  const bytes = int(args, 4);
  const bits = int(args, 5);
  const stride = rowStride(args, 0);
  const all = i32x4.splat(bits);
  for (let unit = begin; unit < end; ) {
    const n = nextRun(args, unit, end, state);
    let dst = rowAddress(state, 0) + runStart(state) * stride;
    if (stride == <usize>bytes) {
      const stop = dst + <usize>n * <usize>bytes;
      for (; dst + 16 <= stop; dst += 16) v128.store(dst, all);
      if (bytes == 4) for (; dst < stop; dst += 4) store<u32>(dst, bits);
      else if (bytes == 2) for (; dst < stop; dst += 2) store<u16>(dst, <u16>bits);
      else for (; dst < stop; dst++) store<u8>(dst, <u8>bits);
    } else if (bytes == 4) {
      for (let i = 0; i < n; i++, dst += stride) store<u32>(dst, bits);
    } else if (bytes == 2) {
      for (let i = 0; i < n; i++, dst += stride) store<u16>(dst, <u16>bits);
    } else {
      for (let i = 0; i < n; i++, dst += stride) store<u8>(dst, <u8>bits);
    }
    unit += runBlocks(state);
    if (unit < end) advance(args, state);
  }
}

/** Side of a tile of {@link transpose}, in elements. */
const TILE: i32 = 128;

/**
 * out [..., p, q] contiguous along q, x contiguous along p. Arguments: 0 extent of p, 1 extent of q, 4 element bytes;
 * slot 17 is out's byte stride along p, slot 27 x's along q. A unit is one tile of 128 × 128 of one plane. Scratch: the
 * odometer's state, then 1024 bytes.
 */
export function transpose(args: usize, begin: i32, end: i32, state: usize): void {
  const p = int(args, 0);
  const q = int(args, 1);
  const bytes = int(args, 4);
  const tilesP = (p + TILE - 1) / TILE;
  const tilesQ = (q + TILE - 1) / TILE;
  const tiles = tilesP * tilesQ;
  const outStride = address(args, 17);
  const xStride = address(args, 27);
  for (let unit = begin; unit < end; unit++) {
    const tile = unit % tiles;
    if (unit == begin) seek(args, unit / tiles, state);
    else if (tile == 0) advance(args, state);
    const p0 = (tile / tilesQ) * TILE;
    const q0 = (tile % tilesQ) * TILE;
    const pn = min(TILE, p - p0);
    const qn = min(TILE, q - q0);
    const dst = rowAddress(state, 0) + <usize>p0 * outStride + <usize>(q0 * bytes);
    const src = rowAddress(state, 1) + <usize>q0 * xStride + <usize>(p0 * bytes);
    if (bytes == 4) transposeTile(dst, src, pn, qn, outStride, xStride, state + <usize>STATE_BYTES);
    else for (let i: usize = 0; i < <usize>pn; i++) copyRow(dst + i * outStride, src + i * <usize>bytes, qn, <usize>bytes, xStride, bytes);
  }
}

/**
 * By blocks of 16 × 16, so that whole cache lines are read and then written at once: rows that are a power of two apart share cache
 * sets and would push each other out half done.
 */
function transposeTile(dst: usize, src: usize, pn: i32, qn: i32, outStride: usize, xStride: usize, block: usize): void {
  for (let j = 0; j < qn; j += 16) {
    for (let i = 0; i < pn; i += 16) {
      let s = src + <usize>j * xStride + ((<usize>i) << 2);
      let d = dst + <usize>i * outStride + ((<usize>j) << 2);
      if (i + 16 > pn || j + 16 > qn) {
        transposeBlock(d, s, min(16, pn - i), min(16, qn - j), outStride, xStride);
        continue;
      }
      for (let at = block; at < block + 64; at += 16, s += 4 * xStride) {
        transpose4(s, xStride, at, 64);
        transpose4(s + 16, xStride, at + 4 * 64, 64);
        transpose4(s + 32, xStride, at + 8 * 64, 64);
        transpose4(s + 48, xStride, at + 12 * 64, 64);
      }
      for (let at = block; at < block + 1024; at += 64, d += outStride) {
        v128.store(d, v128.load(at));
        v128.store(d, v128.load(at, 16), 16);
        v128.store(d, v128.load(at, 32), 32);
        v128.store(d, v128.load(at, 48), 48);
      }
    }
  }
}

/** dst[i][j] = src[j][i] of 4-byte elements. Rows of src are read along, four at a time: they may be far apart, and dst's few. */
export function transposeBlock(dst: usize, src: usize, rows: i32, columns: i32, dstStride: usize, srcStride: usize): void {
  const wholeRows = rows & ~3;
  const whole = columns & ~3;
  let d = dst;
  let s = src;
  for (let j = 0; j < whole; j += 4, d += 16, s += 4 * srcStride) {
    let to = d;
    let from = s;
    for (let i = 0; i < wholeRows; i += 4, to += 4 * dstStride, from += 16) transpose4(from, srcStride, to, dstStride);
  }
  // The rims: the last columns of all rows, the last rows whole.
  for (let i = whole == columns ? wholeRows : 0; i < rows; i++) {
    const j = i < wholeRows ? whole : 0;
    const row = dst + <usize>i * dstStride + ((<usize>j) << 2);
    copyRow(row, src + ((<usize>i) << 2) + <usize>j * srcStride, columns - j, 4, srcStride, 4);
  }
}

/** Four rows of four elements, transposed. */
// @ts-ignore: decorator
@inline
function transpose4(src: usize, stride: usize, dst: usize, dstStride: usize): void {
  const a = v128.load(src);
  const b = v128.load(src + stride);
  const c = v128.load(src + 2 * stride);
  const e = v128.load(src + 3 * stride);
  const ab0 = i32x4.shuffle(a, b, 0, 4, 1, 5);
  const ab1 = i32x4.shuffle(a, b, 2, 6, 3, 7);
  const ce0 = i32x4.shuffle(c, e, 0, 4, 1, 5);
  const ce1 = i32x4.shuffle(c, e, 2, 6, 3, 7);
  v128.store(dst, i32x4.shuffle(ab0, ce0, 0, 1, 4, 5));
  v128.store(dst + dstStride, i32x4.shuffle(ab0, ce0, 2, 3, 6, 7));
  v128.store(dst + 2 * dstStride, i32x4.shuffle(ab1, ce1, 0, 1, 4, 5));
  v128.store(dst + 3 * dstStride, i32x4.shuffle(ab1, ce1, 2, 3, 6, 7));
}
