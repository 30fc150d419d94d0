// Products of integer activations with a quantized weight for many rows. Rows of the weight are unpacked to int16, a few at a
// time and a part of their length, and multiplied where they lie in the cache with packed activations: a lane is a row of X, and
// what meets it is one pair of codes of the weight. So it is C's transpose that comes about, which is turned at the end.
//
// Sums are int32 over a block of 32 (or a longer run, where nothing changes within it), then scaled and added in float32.

import { address, int } from "../../core/assembly/abi";
import { BLOCKS, packedIntegers } from "./activations";
import { unpack } from "./dot";
import { hasOffsets } from "./integers";
import { WEIGHT_ARGUMENTS } from "./weight";

/** Most rows of X for which the weight is gone through row by row, as it lies in memory; X then stays in the cache instead. */
const FEW_ROWS: i32 = 32;
/** Rows of the weight that are unpacked at once. */
const UNPACKED: i32 = 8;
/** Bytes from one unpacked row to the next, an immediate of the loads: BLOCKS · 64, and 16 so that rows do not share banks of the cache. */
const ROW: usize = 1040;

// out [4 rows of X] += scaled sums of one row of the weight (its scale and offset are those at `sw` and `ow`).
// @ts-ignore: decorator
@inline
function add(out: usize, sums: v128, sx: v128, sw: usize, shifted: bool, xs: v128, ow: usize): void {
  const factor = f32x4.mul(sx, v128.load32_splat(sw));
  let x = f32x4.add(v128.load(out), f32x4.mul(f32x4.convert_i32x4_s(sums), factor));
  if (shifted) x = f32x4.add(x, f32x4.mul(xs, v128.load32_splat(ow)));
  v128.store(out, x);
}

/**
 * out[4 rows of the weight × 8 of X] += the unpacked rows at `w` times the panels at `a` and `b`, over `blocks` blocks, scaled after every
 * `run` of them. Scales (and sums) of X at sa and sb, four floats a block; of the weight at sw and ow, eight floats a block.
 */
// @ts-ignore: decorator
@inline
function tile4x8(
  w: usize, a: usize, b: usize, blocks: i32, run: i32, sa: usize, sb: usize, sums: usize, sw: usize, ow: usize,
  shifted: bool, out: usize, step: usize,
): void {
  const last = a + ((<usize>blocks) << 8);
  const length = (<usize>run) << 8;
  const scales = (<usize>run) << 4;
  do {
    let c00 = i32x4.splat(0), c01 = c00, c10 = c00, c11 = c00, c20 = c00, c21 = c00, c30 = c00, c31 = c00;
    const end = min(last, a + length);
    do {
      const x0 = v128.load(a), x1 = v128.load(b);
      let y = v128.load32_splat(w);
      c00 = i32x4.add(c00, i32x4.dot_i16x8_s(y, x0));
      c01 = i32x4.add(c01, i32x4.dot_i16x8_s(y, x1));
      y = v128.load32_splat(w, ROW);
      c10 = i32x4.add(c10, i32x4.dot_i16x8_s(y, x0));
      c11 = i32x4.add(c11, i32x4.dot_i16x8_s(y, x1));
      y = v128.load32_splat(w, 2 * ROW);
      c20 = i32x4.add(c20, i32x4.dot_i16x8_s(y, x0));
      c21 = i32x4.add(c21, i32x4.dot_i16x8_s(y, x1));
      y = v128.load32_splat(w, 3 * ROW);
      c30 = i32x4.add(c30, i32x4.dot_i16x8_s(y, x0));
      c31 = i32x4.add(c31, i32x4.dot_i16x8_s(y, x1));
      w += 4;
      a += 16;
      b += 16;
    } while (a != end);
    const s0 = v128.load(sa), s1 = v128.load(sb);
    const z0 = shifted ? v128.load(sa + sums) : s0, z1 = shifted ? v128.load(sb + sums) : s1;
    let to = out;
    add(to, c00, s0, sw, shifted, z0, ow);
    add(to + 16, c01, s1, sw, shifted, z1, ow);
    to += step;
    add(to, c10, s0, sw + 4, shifted, z0, ow + 4);
    add(to + 16, c11, s1, sw + 4, shifted, z1, ow + 4);
    to += step;
    add(to, c20, s0, sw + 8, shifted, z0, ow + 8);
    add(to + 16, c21, s1, sw + 8, shifted, z1, ow + 8);
    to += step;
    add(to, c30, s0, sw + 12, shifted, z0, ow + 12);
    add(to + 16, c31, s1, sw + 12, shifted, z1, ow + 12);
    sa += scales;
    sb += scales;
    sw += scales << 1;
    ow += scales << 1;
  } while (a != last);
}

/** As `tile4x8`, for eight rows of the weight and four of X. */
// @ts-ignore: decorator
@inline
function tile8x4(
  w: usize, a: usize, blocks: i32, run: i32, sa: usize, sums: usize, sw: usize, ow: usize,
  shifted: bool, out: usize, step: usize,
): void {
  const last = a + ((<usize>blocks) << 8);
  const length = (<usize>run) << 8;
  const scales = (<usize>run) << 4;
  do {
    let c0 = i32x4.splat(0), c1 = c0, c2 = c0, c3 = c0, c4 = c0, c5 = c0, c6 = c0, c7 = c0;
    const end = min(last, a + length);
    do {
      const x = v128.load(a);
      c0 = i32x4.add(c0, i32x4.dot_i16x8_s(v128.load32_splat(w), x));
      c1 = i32x4.add(c1, i32x4.dot_i16x8_s(v128.load32_splat(w, ROW), x));
      c2 = i32x4.add(c2, i32x4.dot_i16x8_s(v128.load32_splat(w, 2 * ROW), x));
      c3 = i32x4.add(c3, i32x4.dot_i16x8_s(v128.load32_splat(w, 3 * ROW), x));
      c4 = i32x4.add(c4, i32x4.dot_i16x8_s(v128.load32_splat(w, 4 * ROW), x));
      c5 = i32x4.add(c5, i32x4.dot_i16x8_s(v128.load32_splat(w, 5 * ROW), x));
      c6 = i32x4.add(c6, i32x4.dot_i16x8_s(v128.load32_splat(w, 6 * ROW), x));
      c7 = i32x4.add(c7, i32x4.dot_i16x8_s(v128.load32_splat(w, 7 * ROW), x));
      w += 4;
      a += 16;
    } while (a != end);
    const s = v128.load(sa);
    const z = shifted ? v128.load(sa + sums) : s;
    let to = out;
    add(to, c0, s, sw, shifted, z, ow);
    to += step;
    add(to, c1, s, sw + 4, shifted, z, ow + 4);
    to += step;
    add(to, c2, s, sw + 8, shifted, z, ow + 8);
    to += step;
    add(to, c3, s, sw + 12, shifted, z, ow + 12);
    to += step;
    add(to, c4, s, sw + 16, shifted, z, ow + 16);
    to += step;
    add(to, c5, s, sw + 20, shifted, z, ow + 20);
    to += step;
    add(to, c6, s, sw + 24, shifted, z, ow + 24);
    to += step;
    add(to, c7, s, sw + 28, shifted, z, ow + 28);
    sa += scales;
    sw += scales << 1;
    ow += scales << 1;
  } while (a != last);
}

/** out[8 rows of the weight × `rows` of X] += unpacked rows times packed ones; `rows` is a multiple of 4. */
// @ts-ignore: decorator
@inline
function integerKernel(
  w: usize, sw: usize, ow: usize, shifted: bool, a: usize, scales: usize, sums: usize, rows: i32, blocks: i32, run: i32,
  out: usize, step: usize,
): void {
  const panel = (<usize>blocks) << 8, table = (<usize>blocks) << 4;
  let i = 0;
  for (; i + 8 <= rows; i += 8) {
    for (let half: usize = 0; half < 2; half++) {
      const s = half << 4;
      const to = out + half * 4 * step;
      tile4x8(
        w + half * 4 * ROW, a, a + panel, blocks, run, scales, scales + table, sums, sw + s, ow + s, shifted, to, step,
      );
    }
    a += 2 * panel;
    scales += 2 * table;
    out += 32;
  }
  if (i < rows) tile8x4(w, a, blocks, run, scales, sums, sw, ow, shifted, out, step);
}

// C[rows×columns] = the transpose of `from`, lines of `step` bytes.
function transpose(from: usize, step: usize, rows: i32, columns: i32, c: usize, row: usize): void {
  let j = 0;
  for (; j + 4 <= columns; j += 4) {
    const line = from + (<usize>j) * step;
    let to = c + ((<usize>j) << 2);
    let i = 0;
    for (; i + 4 <= rows; i += 4) {
      const at = line + ((<usize>i) << 2);
      const r0 = v128.load(at), r1 = v128.load(at + step), r2 = v128.load(at + 2 * step), r3 = v128.load(at + 3 * step);
      const a = i32x4.shuffle(r0, r1, 0, 4, 1, 5), b = i32x4.shuffle(r0, r1, 2, 6, 3, 7);
      const d = i32x4.shuffle(r2, r3, 0, 4, 1, 5), e = i32x4.shuffle(r2, r3, 2, 6, 3, 7);
      v128.store(to, i32x4.shuffle(a, d, 0, 1, 4, 5));
      v128.store(to + row, i32x4.shuffle(a, d, 2, 3, 6, 7));
      v128.store(to + 2 * row, i32x4.shuffle(b, e, 0, 1, 4, 5));
      v128.store(to + 3 * row, i32x4.shuffle(b, e, 2, 3, 6, 7));
      to += row << 2;
    }
    for (; i < rows; i++) {
      const at = line + ((<usize>i) << 2);
      store<f32>(to, load<f32>(at));
      store<f32>(to, load<f32>(at + step), 4);
      store<f32>(to, load<f32>(at + 2 * step), 8);
      store<f32>(to, load<f32>(at + 3 * step), 12);
      to += row;
    }
  }
  for (; j < columns; j++) {
    const line = from + (<usize>j) * step;
    let to = c + ((<usize>j) << 2);
    for (let i: usize = 0; i < <usize>rows; i++) {
      store<f32>(to, load<f32>(line + (i << 2)));
      to += row;
    }
  }
}

/**
 * C [m×n] = X·Wᵀ from rows packed by packIntegers. A unit is a group of columns for a group of rows of C, rows first. Integers after the
 * weight's: packed rows, C, m, n, columns of a group (a multiple of 8), rows of a group (a multiple of 4), blocks within which no scale
 * changes. Scratch: 8 unpacked rows of 1040 bytes, 1024 bytes of scales and offsets, columns × rows of a group floats.
 */
export function multiplyIntegerTiles(args: usize, begin: i32, end: i32, scratch: usize): void {
  const packed = address(args, WEIGHT_ARGUMENTS), c = address(args, WEIGHT_ARGUMENTS + 1);
  const m = int(args, WEIGHT_ARGUMENTS + 2), n = int(args, WEIGHT_ARGUMENTS + 3);
  const groupColumns = int(args, WEIGHT_ARGUMENTS + 4), groupRows = int(args, WEIGHT_ARGUMENTS + 5);
  const run = int(args, WEIGHT_ARGUMENTS + 6);
  const blocks = (int(args, 5) + 31) >> 5;
  const shifted = hasOffsets(int(args, 0));
  const packedRows = (m + 3) & ~3;
  const row = (<usize>n) << 2;
  const scales = scratch + <usize>UNPACKED * ROW, offsets = scales + 512, turned = offsets + 512;
  const groups = (m + groupRows - 1) / groupRows;
  for (let unit = begin; unit < end; unit++) {
    const i = (unit % groups) * groupRows;
    const j = (unit / groups) * groupColumns;
    const columns = min(groupColumns, n - j), rows = min(groupRows, m - i);
    const height = (rows + 3) & ~3;
    const step = (<usize>height) << 2;
    memory.fill(turned, 0, (<usize>((columns + 7) & ~7)) * step);
    const parts = (blocks + BLOCKS - 1) / BLOCKS, lines = (columns + UNPACKED - 1) / UNPACKED;
    for (let visit = 0; visit < parts * lines; visit++) {
      const along = rows <= FEW_ROWS;
      const first = (along ? visit % parts : visit / lines) * BLOCKS;
      const q = (along ? visit / parts : visit % lines) * UNPACKED;
      const count = min(BLOCKS, blocks - first);
      const codes = packedIntegers(packed, packedRows, first);
      const tables = codes + (<usize>packedRows) * ((<usize>count) << 6);
      const a = codes + (<usize>i) * ((<usize>count) << 6), sa = tables + (<usize>i) * ((<usize>count) << 2);
      const sums = (<usize>packedRows) * ((<usize>count) << 2);
      for (let p: usize = 0; p < <usize>UNPACKED; p++) {
        // Beyond the edge the last row stands in; its products go nowhere.
        const line = min(j + q + <i32>p, n - 1);
        unpack(args, line, first, count, scratch + p * ROW, scales + (p << 2), offsets + (p << 2), 32);
      }
      const to = turned + (<usize>q) * step;
      if (shifted) integerKernel(scratch, scales, offsets, true, a, sa, sums, height, count, run, to, step);
      else integerKernel(scratch, scales, offsets, false, a, sa, sums, height, count, run, to, step);
    }
    transpose(turned, step, rows, columns, c + (<usize>i) * row + ((<usize>j) << 2), row);
  }
}
