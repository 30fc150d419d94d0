// Windows of images as matrices that are never written out: element [p, j] stands at x + rows[p] + columns[j], tables of bytes that
// grow. The matrix product packs them bit by bit (gemm.ts); few output channels are summed where they stand. Images come in frames,
// with their padding around them.

import { address, int, laneSum, madd } from "./abi";
import { copyBytes } from "./copy";
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
  for (let j = 0; j < nc; j += NR) {
    let to = out + columnAt(j, wide, kc);
    const step = columnStep(j, wide);
    const c = columns + ((<usize>j) << 2);
    const from = x + offset(c, 0);
    const across = offset(c, 1) - offset(c, 0);
    // Places grow: if the eighth is seven steps of four bytes away, all of them follow each other.
    if (j + NR <= nc && across == 4 && offset(c, 7) - offset(c, 0) == 28) {
      for (let at = rows, end = rows + ((<usize>kc) << 2); at < end; at += 4) {
        const y = from + <usize>load<u32>(at);
        v128.store(to, v128.load(y));
        v128.store(to, v128.load(y, 16), 16);
        to += step;
      }
      continue;
    }
    packFour(x, rows, c, nc - 1 - j, kc, to, step);
    if (j + 4 < nc) packFour(x, rows, c + 16, nc - 5 - j, kc, to + 16, step);
  }
}

function zeros(to: usize, end: usize): usize {
  for (; to < end; to += 4) store<f32>(to, 0);
  return end;
}

// Rows begin … end of frames around planes at x; arguments from `at` on: rows and columns of a plane, those of a frame, top, left.
function frameRows(args: usize, at: i32, x: usize, begin: i32, end: i32, out: usize): void {
  const h = int(args, at), w = int(args, at + 1), rows = int(args, at + 2), columns = int(args, at + 3);
  const top = int(args, at + 4), left = int(args, at + 5);
  const from = max(0, left), to = max(from, min(columns, left + w));
  for (let unit = begin; unit < end; unit++) {
    const y = (unit % rows) - top;
    const stop = out + ((<usize>columns) << 2);
    if (y >= 0 && y < h) {
      const row = x + ((((<usize>(unit / rows)) * (<usize>h) + <usize>y) * (<usize>w) + <usize>(from - left)) << 2);
      out = zeros(out, out + ((<usize>from) << 2));
      copyBytes(out, row, (<usize>(to - from)) << 2);
      out += (<usize>(to - from)) << 2;
    }
    out = zeros(out, stop);
  }
}

/**
 * Images with zeros around them, or cut: row r of a frame is row r − top of its image. A unit is a row of a frame.
 * Integers: x, out; 2 as `frameRows`.
 */
export function frame(args: usize, begin: i32, end: i32, _scratch: usize): void {
  const out = address(args, 1) + (((<usize>begin) * (<usize>int(args, 5))) << 2);
  frameRows(args, 2, address(args, 0), begin, end, out);
}

// Sixteen sums side by side over k elements of windows at x.
// @ts-ignore: decorator
@inline
function sumSixteen(x: usize, rows: usize, k: i32, w: usize, bias: f32, out: usize, step: usize): void {
  let s0 = f32x4.splat(bias), s1 = s0, s2 = s0, s3 = s0;
  for (const end = rows + ((<usize>k) << 2); rows < end; rows += 4, w += 4) {
    const at = x + <usize>load<u32>(rows);
    const factor = v128.load32_splat(w);
    s0 = madd(factor, loadFour(at, step), s0);
    s1 = madd(factor, loadFour(at + (step << 2), step), s1);
    s2 = madd(factor, loadFour(at + (step << 3), step), s2);
    s3 = madd(factor, loadFour(at + step * 12, step), s3);
  }
  v128.store(out, s0);
  v128.store(out, s1, 16);
  v128.store(out, s2, 32);
  v128.store(out, s3, 48);
}

/**
 * Windows times few rows of weights, summed where they stand. A unit is a row of the result [images, channels, rows, columns].
 * Integers: 0 images, 1 weights [channels, k], 2 out; 3 channels, 4 channels that share their windows, 5 rows, 6 columns; 7 k;
 * 8 bytes of an image, 9 of the windows' channels, 10 from one row of windows to the next, 11 from one column; 12 the walk over k;
 * 17 bias [channels] or 0; 18 how many channels to frame for each group, 0 where images are frames already; 19 as `frameRows`.
 * Scratch: k offsets, and such frames.
 */
export function windowRows(args: usize, begin: i32, end: i32, scratch: usize): void {
  const channels = int(args, 3), group = int(args, 4), height = int(args, 5), n = int(args, 6), k = int(args, 7);
  const step = address(args, 11);
  const framed = int(args, 18);
  const frames = scratch + ((<usize>k) << 2);
  windowOffsets(scratch, args, 12, 0, k);
  let before: usize = 0;
  for (let unit = begin; unit < end; unit++) {
    const y = unit % height;
    const rest = unit / height;
    const channel = rest % channels;
    let x = address(args, 0) + (<usize>(rest / channels)) * address(args, 8) + (<usize>(channel / group)) * address(args, 9);
    if (framed) {
      if (x != before) frameRows(args, 19, x, 0, framed * int(args, 21), frames);
      before = x;
      x = frames;
    }
    x += (<usize>y) * address(args, 10);
    const w = address(args, 1) + (((<usize>channel) * (<usize>k)) << 2);
    const bias: f32 = address(args, 17) ? load<f32>(address(args, 17) + ((<usize>channel) << 2)) : 0;
    const out = address(args, 2) + (((<usize>unit) * (<usize>n)) << 2);
    let j = 0;
    if (n >= 4 && (step == 4 || step == 8)) {
      // The last vectors may begin within those before.
      while (n >= 16 && j < n) {
        j = min(j, n - 16);
        if (step == 4) sumSixteen(x + ((<usize>j) << 2), scratch, k, w, bias, out + ((<usize>j) << 2), 4);
        else sumSixteen(x + ((<usize>j) << 3), scratch, k, w, bias, out + ((<usize>j) << 2), 8);
        j += 16;
      }
      while (j < n) {
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

/**
 * The gradient of few rows of weights: for each of their elements the sum over all windows of its place in them times the window's
 * gradient. A unit is four elements of a channel. Integers as for `windowRows`: 1 the gradient [channels, images, rows, columns], 2 out
 * [channels, k], 3 images. Scratch: k offsets.
 */
export function windowDots(args: usize, begin: i32, end: i32, scratch: usize): void {
  const images = int(args, 3), group = int(args, 4), height = int(args, 5), n = int(args, 6), k = int(args, 7);
  const step = address(args, 11);
  const fours = (k + 3) >> 2;
  windowOffsets(scratch, args, 12, 0, k);
  for (let unit = begin; unit < end; unit++) {
    const channel = unit / fours;
    const p = (unit % fours) << 2;
    const rest = k - p;
    const t0 = offset(scratch, p), t1 = offset(scratch, min(p + 1, k - 1));
    const t2 = offset(scratch, min(p + 2, k - 1)), t3 = offset(scratch, min(p + 3, k - 1));
    let dy = address(args, 1) + (((<usize>channel) * (<usize>images) * (<usize>height) * (<usize>n)) << 2);
    let sum0 = f32x4.splat(0), sum1 = sum0, sum2 = sum0, sum3 = sum0;
    for (let image = 0; image < images; image++) {
      const x = address(args, 0) + (<usize>image) * address(args, 8) + (<usize>(channel / group)) * address(args, 9);
      // Image by image: sums stay small.
      let s0 = f32x4.splat(0), s1 = s0, s2 = s0, s3 = s0;
      for (let y = 0; y < height; y++) {
        let at = x + (<usize>y) * address(args, 10);
        let j = 0;
        if (step == 4) {
          for (; j + 4 <= n; j += 4, dy += 16, at += 16) {
            const d = v128.load(dy);
            s0 = madd(d, v128.load(at + t0), s0);
            s1 = madd(d, v128.load(at + t1), s1);
            s2 = madd(d, v128.load(at + t2), s2);
            s3 = madd(d, v128.load(at + t3), s3);
          }
        }
        for (; j < n; j++, dy += 4, at += step) {
          const d = v128.load32_zero(dy);
          s0 = madd(d, v128.load32_zero(at + t0), s0);
          s1 = madd(d, v128.load32_zero(at + t1), s1);
          s2 = madd(d, v128.load32_zero(at + t2), s2);
          s3 = madd(d, v128.load32_zero(at + t3), s3);
        }
      }
      sum0 = f32x4.add(sum0, s0);
      sum1 = f32x4.add(sum1, s1);
      sum2 = f32x4.add(sum2, s2);
      sum3 = f32x4.add(sum3, s3);
    }
    const out = address(args, 2) + ((<usize>(channel * k + p)) << 2);
    store<f32>(out, laneSum(sum0));
    if (rest > 1) store<f32>(out, laneSum(sum1), 4);
    if (rest > 2) store<f32>(out, laneSum(sum2), 8);
    if (rest > 3) store<f32>(out, laneSum(sum3), 12);
  }
}
