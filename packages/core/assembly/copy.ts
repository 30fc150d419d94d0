// Copies between layouts of 1, 2 and 4 byte elements, and fills. The walk over outer axes is the odometer's.
//
// Operands: 0 out, 1 x. copyRows counts bytes (rows are contiguous on both sides); copyStrided has any strides;
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

/** Rows contiguous on both sides; lengths and starts count bytes. */
export function copyRows(args: usize, begin: i32, end: i32, state: usize): void {
  seek(args, begin / int(args, 1), state);
  for (let unit = begin; unit < end; ) {
    const n = nextRun(args, unit, end, state);
    const start = runStart(state);
    copyBytes(rowAddress(state, 0) + start, rowAddress(state, 1) + start, <usize>n);
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
    for (; dst < stop; dst += 16, src += next) {
      const x = v128.load(src - 12);
      v128.store(dst, i32x4.shuffle(x, x, 3, 2, 1, 0));
    }
  } else if (stride == 8) {
    for (; dst < stop; dst += 16, src += next) {
      v128.store(dst, i32x4.shuffle(v128.load(src), v128.load(src, 16), 0, 2, 4, 6));
    }
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
function strided<T>(args: usize, begin: i32, end: i32, state: usize): void {
  seek(args, begin / int(args, 1), state);
  const dstStride = rowStride(args, 0);
  const srcStride = rowStride(args, 1);
  for (let unit = begin; unit < end; ) {
    const n = nextRun(args, unit, end, state);
    let dst = rowAddress(state, 0) + runStart(state) * dstStride;
    let src = rowAddress(state, 1) + runStart(state) * srcStride;
    let i = 0;
    if (sizeof<T>() == 4 && dstStride == 4) {
      // Four at once; without the last four, beside which a vector would read on.
      i = n <= 4 ? 0 : (n - 1) & ~3;
      gather4(dst, src, i, srcStride);
      dst += <usize>i * 4;
      src += <usize>i * srcStride;
    }
    for (; i < n; i++, dst += dstStride, src += srcStride) store<T>(dst, load<T>(src));
    unit += runBlocks(state);
    if (unit < end) advance(args, state);
  }
}

/** Any strides on both sides; argument 4 is the element's bytes. */
export function copyStrided(args: usize, begin: i32, end: i32, state: usize): void {
  const bytes = int(args, 4);
  if (bytes == 4) strided<u32>(args, begin, end, state);
  else if (bytes == 2) strided<u16>(args, begin, end, state);
  else strided<u8>(args, begin, end, state);
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
    if (bytes == 4) tile4(dst, src, pn, qn, outStride, xStride, state + <usize>STATE_BYTES);
    else if (bytes == 2) tileOf<u16>(dst, src, 0, 0, pn, qn, outStride, xStride);
    else tileOf<u8>(dst, src, 0, 0, pn, qn, outStride, xStride);
  }
}

/** Element by element, from p0 and q0 on. */
// @ts-ignore: decorator
@inline
function tileOf<T>(dst: usize, src: usize, p0: i32, q0: i32, pn: i32, qn: i32, outStride: usize, xStride: usize): void {
  for (let i = p0; i < pn; i++) {
    let d = dst + <usize>i * outStride + <usize>q0 * sizeof<T>();
    let s = src + <usize>i * sizeof<T>() + <usize>q0 * xStride;
    for (let j = q0; j < qn; j++, d += sizeof<T>(), s += xStride) store<T>(d, load<T>(s));
  }
}

/**
 * Blocks of 16 × 16 by way of `block`, then the rims. Whole cache lines are read and then written at once: rows that are
 * a power of two apart share cache sets and would push each other out half done.
 */
function tile4(dst: usize, src: usize, pn: i32, qn: i32, outStride: usize, xStride: usize, block: usize): void {
  const wholeP = pn & ~15;
  const wholeQ = qn & ~15;
  for (let j = 0; j < wholeQ; j += 16) {
    for (let i = 0; i < wholeP; i += 16) {
      let s = src + <usize>j * xStride + ((<usize>i) << 2);
      for (let at = block; at < block + 64; at += 16) {
        transpose4(s, xStride, at);
        transpose4(s + 16, xStride, at + 4 * 64);
        transpose4(s + 32, xStride, at + 8 * 64);
        transpose4(s + 48, xStride, at + 12 * 64);
        s += 4 * xStride;
      }
      let d = dst + <usize>i * outStride + ((<usize>j) << 2);
      for (let at = block; at < block + 1024; at += 64, d += outStride) {
        v128.store(d, v128.load(at));
        v128.store(d, v128.load(at, 16), 16);
        v128.store(d, v128.load(at, 32), 32);
        v128.store(d, v128.load(at, 48), 48);
      }
    }
  }
  if (wholeP < pn) tileOf<u32>(dst, src, wholeP, 0, pn, wholeQ, outStride, xStride);
  if (wholeQ < qn) tileOf<u32>(dst, src, 0, wholeQ, pn, qn, outStride, xStride);
}

/** Four rows of four floats, transposed to rows 64 bytes apart. */
// @ts-ignore: decorator
@inline
function transpose4(src: usize, stride: usize, dst: usize): void {
  const a = v128.load(src);
  const b = v128.load(src + stride);
  const c = v128.load(src + 2 * stride);
  const e = v128.load(src + 3 * stride);
  const ab0 = i32x4.shuffle(a, b, 0, 4, 1, 5);
  const ab1 = i32x4.shuffle(a, b, 2, 6, 3, 7);
  const ce0 = i32x4.shuffle(c, e, 0, 4, 1, 5);
  const ce1 = i32x4.shuffle(c, e, 2, 6, 3, 7);
  v128.store(dst, i32x4.shuffle(ab0, ce0, 0, 1, 4, 5));
  v128.store(dst, i32x4.shuffle(ab0, ce0, 2, 3, 6, 7), 64);
  v128.store(dst, i32x4.shuffle(ab1, ce1, 0, 1, 4, 5), 128);
  v128.store(dst, i32x4.shuffle(ab1, ce1, 2, 3, 6, 7), 192);
}
