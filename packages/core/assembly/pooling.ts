// Pooling of planes: the largest or the mean of each window, and their gradients.
//
// Integers: 0 input, 1 output, 2 indices, or 0 for the mean; 3 whether padding counts in the mean; then for each axis, rows first:
// length, number of windows, size of a window, stride (0: windows that divide the axis, as adaptive pooling has them), padding, dilation.
// Scratch: WINDOW bytes for each column of the output and one more, and for means' gradients a row of the input.

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
    const reach = int(args, 3) ? padding : 0;
    store<i32>(to, min(end, length + reach) - max(start, -reach), 8);
    store<i32>(to, <i32>(stride > 0 && start >= 0 && end <= length), 12);
    if (start < 0) start += ((dilation - 1 - start) / dilation) * dilation;
    store<i32>(to, start);
    store<i32>(to, min(end, length), 4);
  }
}

/** A unit is a row of the output; equal elements and NaNs: the first is the largest. An index of −1 is that of no element at all. */
export function pool(args: usize, begin: i32, end: i32, scratch: usize): void {
  const indices = address(args, 2);
  const w = int(args, COLUMNS), height = int(args, ROWS + 1), width = int(args, COLUMNS + 1);
  const down = int(args, ROWS + 5), across = int(args, COLUMNS + 5);
  const stride = int(args, COLUMNS + 3);
  const step = (<usize>stride) << 2;
  const row = scratch + <usize>(width * WINDOW);
  windowsOf(args, COLUMNS, 0, width, scratch);
  for (let unit = begin; unit < end; unit++) {
    const plane = address(args, 0) + (((<usize>(unit / height)) * (<usize>int(args, ROWS)) * (<usize>w)) << 2);
    windowsOf(args, ROWS, unit % height, 1, row);
    const y0 = load<i32>(row), y1 = load<i32>(row, 4), rowCount = load<i32>(row, 8);
    const out = address(args, 1) + (((<usize>unit) * (<usize>width)) << 2);
    const places = indices + (((<usize>unit) * (<usize>width)) << 2);
    for (let ox = 0; ox < width; ) {
      const window = scratch + <usize>(ox * WINDOW);
      const x0 = load<i32>(window), x1 = load<i32>(window, 4);
      const count = <f32>(rowCount * load<i32>(window, 8));
      if (stride <= 2 && ox + 4 <= width && load<i32>(window, 12) && load<i32>(window, 3 * WINDOW + 12)) {
        // Four windows side by side, all within the row.
        let best = f32x4.splat(indices ? -Infinity : 0);
        let found = i32x4.splat(-1);
        const lanes = i32x4.mul(i32x4.splat(stride), i32x4(0, 1, 2, 3));
        for (let y = y0; y < y1; y += down) {
          for (let x = x0; x < x1; x += across) {
            const value = loadFour(place(plane, y * w + x), step);
            if (indices) {
              // Not less or equal, or the first element: larger, or a NaN; never after a NaN.
              const larger = v128.andnot(f32x4.eq(best, best), f32x4.le(value, best));
              const better = v128.or(larger, i32x4.shr_s(found, 31));
              best = v128.bitselect(value, best, better);
              found = v128.bitselect(i32x4.add(lanes, i32x4.splat(y * w + x)), found, better);
            } else best = f32x4.add(best, value);
          }
        }
        if (indices) v128.store(place(places, ox), found);
        else best = f32x4.div(best, f32x4.splat(count));
        v128.store(place(out, ox), best);
        ox += 4;
        continue;
      }
      let best: f32 = indices ? -Infinity : 0;
      let found = -1;
      for (let y = y0; y < y1; y += down) {
        for (let x = x0; x < x1; x += across) {
          const value = load<f32>(place(plane, y * w + x));
          if (!indices) best += value;
          else if (found < 0 || (best == best && !(value <= best))) {
            best = value;
            found = y * w + x;
          }
        }
      }
      if (indices) store<i32>(place(places, ox), found);
      else best /= count;
      store<f32>(place(out, ox), best);
      ox++;
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
