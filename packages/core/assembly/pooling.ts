// Pooling of planes: the largest or the mean of each window, and their gradients.
//
// Integers: 0 input, 1 output, 2 indices or 0; 3 kind: 0 the largest, 1 the mean, 2 that with padding; then for each axis, rows first:
// length, number of windows, size of a window, stride (0: windows that divide the axis, as adaptive pooling has them), padding, dilation.
// Scratch: WINDOW bytes for each column of the output and one more, and a row of the input.

import { address, int } from "./abi";
import { loadFour } from "./windows";

const ROWS: i32 = 4;
const COLUMNS: i32 = 10;
const WINDOW: i32 = 16;

// @ts-ignore: decorator
@inline
function place(table: usize, i: i32): usize {
  return table + ((<usize>i) << 2);
}

// Windows i … i + count of an axis, 16 bytes each: the first element on the axis, the end on it, how many elements count in the mean,
// and whether all of the window lies on the axis.
function windowsOf(args: usize, axis: i32, i: i32, count: i32, to: usize): void {
  const length = int(args, axis), all = int(args, axis + 1), stride = int(args, axis + 3);
  const padding = int(args, axis + 4), dilation = int(args, axis + 5);
  for (const stop = i + count; i < stop; i++, to += WINDOW) {
    let start = i * stride - padding;
    let end = start + dilation * (int(args, axis + 2) - 1) + 1;
    if (!stride) {
      start = <i32>((<i64>i * length) / all);
      end = <i32>((<i64>(i + 1) * length + (all - 1)) / all);
    }
    const reach = int(args, 3) == 2 ? padding : 0;
    store<i32>(to, min(end, length + reach) - max(start, -reach), 8);
    store<i32>(to, <i32>(stride > 0 && start >= 0 && end <= length), 12);
    if (start < 0) start += ((dilation - 1 - start) / dilation) * dilation;
    store<i32>(to, start);
    store<i32>(to, min(end, length), 4);
  }
}

// The larger of equal places, which loses NaNs: rows that have any are noticed and taken one by one.
// @ts-ignore: decorator
@inline
function joined(best: v128, value: v128, mean: bool): v128 {
  return mean ? f32x4.add(best, value) : f32x4.pmax(best, value);
}

// The first of equals; a NaN stays.
// @ts-ignore: decorator
@inline
function joinedOne(best: f32, value: f32, mean: bool): f32 {
  return mean ? best + value : best < value || value != value ? value : best;
}

// One row from some rows, `step` bytes apart, of a plane: their sums or largest elements, one by one.
function joinOnes(from: usize, end: usize, step: usize, line: usize, stop: usize, mean: bool): void {
  for (; line < stop; line += 4, from += 4) {
    let best: f32 = mean ? 0 : -Infinity;
    for (let at = from; at < end; at += step) best = joinedOne(best, load<f32>(at), mean);
    store<f32>(line, best);
  }
}

// The same, sixteen and four at once, and of the largest the sum of all: a NaN where there is one (or infinities of both signs).
// @ts-ignore: decorator
@inline
function joinRows(from: usize, end: usize, step: usize, bytes: usize, mean: bool, line: usize): v128 {
  const first = f32x4.splat(mean ? 0 : -Infinity);
  const stop = line + bytes;
  let sum = f32x4.splat(0), sums = sum;
  for (; line + 64 <= stop; line += 64, from += 64) {
    let a = first, b = first, c = first, d = first;
    for (let at = from; at < end; at += step) {
      const x = v128.load(at), y = v128.load(at, 16), z = v128.load(at, 32), u = v128.load(at, 48);
      a = joined(a, x, mean);
      b = joined(b, y, mean);
      c = joined(c, z, mean);
      d = joined(d, u, mean);
      if (mean) continue;
      sum = f32x4.add(f32x4.add(sum, x), z);
      sums = f32x4.add(f32x4.add(sums, y), u);
    }
    v128.store(line, a);
    v128.store(line, b, 16);
    v128.store(line, c, 32);
    v128.store(line, d, 48);
  }
  for (; line + 16 <= stop; line += 16, from += 16) {
    let a = first;
    for (let at = from; at < end; at += step) {
      a = joined(a, v128.load(at), mean);
      if (!mean) sum = f32x4.add(sum, v128.load(at));
    }
    v128.store(line, a);
  }
  joinOnes(from, end, step, line, stop, mean);
  return f32x4.add(sum, sums);
}

// Windows side by side that lie within the row, four at once, the last four again where fewer are left.
// @ts-ignore: decorator
@inline
function joinColumns(
  line: usize, count: i32, size: i32, across: usize, step: usize, mean: bool, factor: f32, out: usize,
): void {
  const first = f32x4.splat(mean ? 0 : -Infinity);
  const bytes = (<usize>size) * across;
  let j = 0;
  for (; j + 8 <= count; j += 8) {
    let a = first, b = first;
    let at = line + (<usize>j) * step;
    for (const end = at + bytes; at < end; at += across) {
      a = joined(a, loadFour(at, step), mean);
      b = joined(b, loadFour(at + (step << 2), step), mean);
    }
    v128.store(place(out, j), mean ? f32x4.mul(a, f32x4.splat(factor)) : a);
    v128.store(place(out, j), mean ? f32x4.mul(b, f32x4.splat(factor)) : b, 16);
  }
  while (j < count) {
    j = min(j, count - 4);
    let a = first;
    let at = line + (<usize>j) * step;
    for (const end = at + bytes; at < end; at += across) a = joined(a, loadFour(at, step), mean);
    v128.store(place(out, j), mean ? f32x4.mul(a, f32x4.splat(factor)) : a);
    j += 4;
  }
}

// Where those stand, from the last to the first, which stays.
function findColumns(args: usize, plane: usize, start: i32, y0: i32, y1: i32, count: i32, out: usize, places: usize): void {
  const w = int(args, COLUMNS), down = int(args, ROWS + 5), across = int(args, COLUMNS + 5), stride = int(args, COLUMNS + 3);
  const span = across * (int(args, COLUMNS + 2) - 1);
  const lanes = i32x4.mul(i32x4.splat(stride), i32x4(0, 1, 2, 3));
  const last = y1 - 1 - ((y1 - 1 - y0) % down);
  for (let j = 0; j < count; j += 4) {
    j = min(j, count - 4);
    const best = v128.load(place(out, j));
    let found = i32x4.splat(-1);
    for (let y = last; y >= y0; y -= down) {
      const row = y * w + start + j * stride;
      for (let at = row + span; at >= row; at -= across) {
        const here = f32x4.eq(loadFour(place(plane, at), (<usize>stride) << 2), best);
        found = v128.bitselect(i32x4.add(lanes, i32x4.splat(at)), found, here);
      }
    }
    v128.store(place(places, j), found);
  }
}

/** A unit is a row of the output. Of equal elements, and of NaNs, the first has the index; −1 is that of no element at all. */
export function pool(args: usize, begin: i32, end: i32, scratch: usize): void {
  const indices = address(args, 2);
  const mean = int(args, 3) > 0;
  const w = int(args, COLUMNS), height = int(args, ROWS + 1), width = int(args, COLUMNS + 1);
  const size = int(args, COLUMNS + 2), stride = int(args, COLUMNS + 3);
  const down = int(args, ROWS + 5), across = int(args, COLUMNS + 5);
  const bytes = (<usize>w) << 2;
  const row = scratch + <usize>(width * WINDOW);
  const line = row + WINDOW;
  windowsOf(args, COLUMNS, 0, width, scratch);
  // The windows from `first` to `last` lie on the axis.
  let first = 0;
  while (first < width && !load<i32>(scratch + <usize>(first * WINDOW), 12)) first++;
  let last = first;
  while (last < width && load<i32>(scratch + <usize>(last * WINDOW), 12)) last++;
  if (stride > 2 || last - first < 4) last = first = -1;
  for (let unit = begin; unit < end; unit++) {
    const plane = address(args, 0) + (<usize>(unit / height)) * (<usize>int(args, ROWS)) * bytes;
    windowsOf(args, ROWS, unit % height, 1, row);
    const y0 = load<i32>(row), y1 = load<i32>(row, 4);
    const out = address(args, 1) + (((<usize>unit) * (<usize>width)) << 2);
    const places = indices + (((<usize>unit) * (<usize>width)) << 2);
    const from = plane + (<usize>y0) * bytes, until = plane + (<usize>y1) * bytes;
    const step = (<usize>down) * bytes;
    let vectors = first;
    if (mean) joinRows(from, until, step, bytes, true, line);
    else {
      const sum = joinRows(from, until, step, bytes, false, line);
      if (v128.any_true(f32x4.ne(sum, sum))) {
        joinOnes(from, until, step, line, line + bytes, false);
        vectors = -1;
      }
    }
    for (let ox = 0; ox < width; ox++) {
      const window = scratch + <usize>(ox * WINDOW);
      const x0 = load<i32>(window), x1 = load<i32>(window, 4);
      const factor: f32 = 1 / <f32>(load<i32>(row, 8) * load<i32>(window, 8));
      if (ox == vectors) {
        const begins = place(line, x0), count = last - first;
        if (stride == 1) joinColumns(begins, count, size, (<usize>across) << 2, 4, mean, factor, place(out, ox));
        else joinColumns(begins, count, size, (<usize>across) << 2, 8, mean, factor, place(out, ox));
        if (indices) findColumns(args, plane, x0, y0, y1, count, place(out, ox), place(places, ox));
        ox = last - 1;
        continue;
      }
      let best: f32 = mean ? 0 : -Infinity;
      for (let x = x0; x < x1; x += across) {
        best = joinedOne(best, load<f32>(place(line, x)), mean);
      }
      store<f32>(place(out, ox), mean ? best * factor : best);
      if (indices) {
        let found = -1;
        for (let y = y0; found < 0 && y < y1; y += down) {
          for (let x = x0; found < 0 && x < x1; x += across) {
            const value = load<f32>(place(plane, y * w + x));
            if (value == best || value != value) found = y * w + x;
          }
        }
        store<i32>(place(places, ox), found);
      }
    }
  }
}

/** From the output's gradient to the input's. A unit is a plane. */
export function poolBackward(args: usize, begin: i32, end: i32, scratch: usize): void {
  const indices = address(args, 2);
  const w = int(args, COLUMNS), height = int(args, ROWS + 1), width = int(args, COLUMNS + 1);
  const bytes = (<usize>w) << 2;
  const outputs = ((<usize>height) * (<usize>width)) << 2;
  const row = scratch + <usize>(width * WINDOW);
  const line = row + WINDOW;
  windowsOf(args, COLUMNS, 0, width, scratch);
  for (let unit = begin; unit < end; unit++) {
    let dy = address(args, 0) + (<usize>unit) * outputs;
    const stop = dy + outputs;
    const dx = address(args, 1) + (<usize>unit) * (<usize>int(args, ROWS)) * bytes;
    memory.fill(dx, 0, (<usize>int(args, ROWS)) * bytes);
    if (indices) {
      for (let at = indices + (<usize>unit) * outputs; dy < stop; at += 4, dy += 4) {
        const found = load<i32>(at);
        if (found < 0) continue;
        const to = place(dx, found);
        store<f32>(to, load<f32>(to) + load<f32>(dy));
      }
      continue;
    }
    for (let oy = 0; oy < height; oy++) {
      // A row of windows adds the same to each of its rows of the input.
      windowsOf(args, ROWS, oy, 1, row);
      memory.fill(line, 0, bytes);
      for (let window = scratch; window < row; window += WINDOW, dy += 4) {
        const value = load<f32>(dy) / <f32>(load<i32>(row, 8) * load<i32>(window, 8));
        const last = load<i32>(window, 4);
        for (let x = load<i32>(window); x < last; x++) {
          const to = place(line, x);
          store<f32>(to, load<f32>(to) + value);
        }
      }
      for (let y = load<i32>(row); y < load<i32>(row, 4); y++) {
        const to = place(dx, y * w);
        let at: usize = 0;
        for (; at + 16 <= bytes; at += 16) v128.store(to + at, f32x4.add(v128.load(to + at), v128.load(line + at)));
        for (; at < bytes; at += 4) store<f32>(to + at, load<f32>(to + at) + load<f32>(line + at));
      }
    }
  }
}
