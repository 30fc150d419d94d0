// Windows of images as matrices that are never written out: element [p, j] stands at x + rows[p] + columns[j], tables of bytes that
// grow. The matrix product packs them bit by bit (gemm.ts); few output channels are summed where they stand. Images come in frames,
// with their padding around them.

import { address, int, madd } from "./abi";
import { columnAt, columnStep, NR, transposeVectors, wideColumns } from "./pack";

/** What places of a frame an axis of the matrix walks over: two lengths, the second innermost, and three strides, in arguments. */
export function windowOffsets(table: usize, args: usize, at: i32, first: i32, count: i32): void {
  const n1 = int(args, at), n2 = int(args, at + 1);
  const s0 = address(args, at + 2), s1 = address(args, at + 3), s2 = address(args, at + 4);
  let k = first % n2;
  const rest = first / n2;
  let j = rest % n1;
  let i = rest / n1;
  for (const end = table + ((<usize>count) << 2); table < end; table += 4) {
    store<u32>(table, <u32>((<usize>i) * s0 + (<usize>j) * s1 + (<usize>k) * s2));
    if (++k < n2) continue;
    k = 0;
    if (++j < n1) continue;
    j = 0;
    i++;
  }
}

// Four floats, `step` bytes apart: 4 or 8, without reading beyond the last.
// @ts-ignore: decorator
@inline
export function loadFour(x: usize, step: usize): v128 {
  return step == 4 ? v128.load(x) : i32x4.shuffle(v128.load(x), v128.load(x, 12), 0, 2, 5, 7);
}

// How far apart four places are that follow each other: 4 or 8; 0 where they do not follow so. Places grow, so that the last two tell.
// @ts-ignore: decorator
@inline
function stepOf(p0: usize, p1: usize, p2: usize, p3: usize): usize {
  const step = p1 - p0;
  return (step == 4 || step == 8) && p2 - p1 == step && p3 - p2 == step ? step : 0;
}

// @ts-ignore: decorator
@inline
function offset(table: usize, i: i32): usize {
  return <usize>load<u32>(table + ((<usize>i) << 2));
}

// Four columns of a panel, those beyond `last` repeating it.
function packFour(x: usize, rows: usize, columns: usize, last: i32, kc: i32, out: usize, step: usize): void {
  const c0 = x + offset(columns, 0), c1 = x + offset(columns, min(1, last));
  const c2 = x + offset(columns, min(2, last)), c3 = x + offset(columns, min(3, last));
  const across = stepOf(c0, c1, c2, c3);
  let p = 0;
  if (across) {
    for (; p < kc; p++) {
      v128.store(out, loadFour(c0 + offset(rows, p), across));
      out += step;
    }
    return;
  }
  while (p < kc) {
    const r = offset(rows, p);
    const down = p + 4 <= kc ? stepOf(r, offset(rows, p + 1), offset(rows, p + 2), offset(rows, p + 3)) : 0;
    if (down) {
      transposeVectors(loadFour(c0 + r, down), loadFour(c1 + r, down), loadFour(c2 + r, down), loadFour(c3 + r, down), out, step);
      out += step << 2;
      p += 4;
      continue;
    }
    store<f32>(out, load<f32>(c0 + r));
    store<f32>(out, load<f32>(c1 + r), 4);
    store<f32>(out, load<f32>(c2 + r), 8);
    store<f32>(out, load<f32>(c3 + r), 12);
    out += step;
    p++;
  }
}

/** Packs kc by nc of windows of the frame x for the macro-kernel, as packB. */
export function packWindows(x: usize, rows: usize, columns: usize, kc: i32, nc: i32, out: usize): void {
  const wide = wideColumns(nc);
  for (let j = 0; j < nc; j += 4) {
    const panel = j & ~(NR - 1);
    const to = out + columnAt(panel, wide, kc) + ((<usize>(j & 4)) << 2);
    packFour(x, rows, columns + ((<usize>j) << 2), nc - 1 - j, kc, to, columnStep(panel, wide));
  }
}

/**
 * Images with zeros around them, or cut: row r of a frame is row r − top of its image. A unit is a row of a frame.
 * Integers: x, out; rows and columns of an image; rows and columns of a frame; top, left.
 */
export function frame(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const h = int(args, 2), w = int(args, 3), rows = int(args, 4), columns = int(args, 5);
  const top = int(args, 6), left = int(args, 7);
  const from = max(0, left), to = max(from, min(columns, left + w));
  let out = address(args, 1) + (((<usize>begin) * (<usize>columns)) << 2);
  for (let unit = begin; unit < end; unit++) {
    const y = (unit % rows) - top;
    const inside = y >= 0 && y < h;
    const x = address(args, 0) + ((((<usize>(unit / rows)) * (<usize>h) + <usize>y) * (<usize>w) + <usize>(from - left)) << 2);
    const bytes = inside ? (<usize>(to - from)) << 2 : 0;
    const before = inside ? (<usize>from) << 2 : (<usize>columns) << 2;
    memory.fill(out, 0, before);
    memory.copy(out + before, x, bytes);
    out += before + bytes;
    const after = inside ? (<usize>(columns - to)) << 2 : 0;
    memory.fill(out, 0, after);
    out += after;
  }
}

/**
 * Windows times few rows of weights, summed where they stand. A unit is a row of the result [images, channels, rows, columns].
 * Integers: 0 frames, 1 weights [channels, k], 2 out; 3 channels, 4 channels that share their windows, 5 rows, 6 columns; 7 k;
 * 8 bytes of an image, 9 of the windows' channels, 10 from one row of windows to the next, 11 from one column; 12 the walk over k;
 * 17 bias [channels] or 0.
 * Scratch: k offsets.
 */
export function windowRows(args: usize, begin: i32, end: i32, scratch: usize): void {
  const channels = int(args, 3), group = int(args, 4), height = int(args, 5), n = int(args, 6), k = int(args, 7);
  const step = address(args, 11);
  windowOffsets(scratch, args, 12, 0, k);
  for (let unit = begin; unit < end; unit++) {
    const y = unit % height;
    const rest = unit / height;
    const channel = rest % channels;
    const x =
      address(args, 0) +
      (<usize>(rest / channels)) * address(args, 8) +
      (<usize>(channel / group)) * address(args, 9) +
      (<usize>y) * address(args, 10);
    const w = address(args, 1) + (((<usize>channel) * (<usize>k)) << 2);
    const bias: f32 = address(args, 17) ? load<f32>(address(args, 17) + ((<usize>channel) << 2)) : 0;
    const out = address(args, 2) + (((<usize>unit) * (<usize>n)) << 2);
    let j = 0;
    if (step == 4 || step == 8) {
      for (; j + 16 <= n; j += 16) {
        let s0 = f32x4.splat(bias), s1 = s0, s2 = s0, s3 = s0;
        for (let p = 0; p < k; p++) {
          const at = x + (<usize>j) * step + offset(scratch, p);
          const factor = v128.load32_splat(w + ((<usize>p) << 2));
          s0 = madd(factor, loadFour(at, step), s0);
          s1 = madd(factor, loadFour(at + (step << 2), step), s1);
          s2 = madd(factor, loadFour(at + (step << 3), step), s2);
          s3 = madd(factor, loadFour(at + step * 12, step), s3);
        }
        const to = out + ((<usize>j) << 2);
        v128.store(to, s0);
        v128.store(to, s1, 16);
        v128.store(to, s2, 32);
        v128.store(to, s3, 48);
      }
      while (n >= 4 && j < n) {
        // The last vector may begin within the one before.
        j = min(j, n - 4);
        let sum = f32x4.splat(bias);
        for (let p = 0; p < k; p++) {
          const at = x + (<usize>j) * step + offset(scratch, p);
          sum = madd(v128.load32_splat(w + ((<usize>p) << 2)), loadFour(at, step), sum);
        }
        v128.store(out + ((<usize>j) << 2), sum);
        j += 4;
      }
    }
    for (; j < n; j++) {
      let sum = bias;
      for (let p = 0; p < k; p++) {
        sum += load<f32>(w + ((<usize>p) << 2)) * load<f32>(x + (<usize>j) * step + offset(scratch, p));
      }
      store<f32>(out + ((<usize>j) << 2), sum);
    }
  }
}
