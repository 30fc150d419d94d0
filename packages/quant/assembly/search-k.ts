// Scales, minima and codes of the K-quants' sub-blocks, bit for bit as src/formats/k-search.ts finds them. Sums of a sub-block are taken in
// order, so four sub-blocks are searched at once, one in each lane of the vectors: element i of all four stands in vector i.

/** Bytes at `spare` for `quantizeKQuant`: values by lane, their weights, codes, tried codes, scales, minima, codes as bytes. */
export const K_SPARE_BYTES: usize = 4 * 1024 + 2 * 64 + 256;
const WEIGHTS: usize = 1024;
export const CODES: usize = 2048;
const TRIED: usize = 3072;
export const SCALES: usize = 4096;
export const MINIMA: usize = 4160;
export const BYTES: usize = 4224;

/** Magnitudes below count as zero. */
export const NOTHING: f32 = 1e-15;

// Codes nearest to `x`, within [least, most].
// @ts-ignore: decorator
@inline
function codesOf(x: v128, least: f32, most: f32): v128 {
  return f32x4.pmin(f32x4.splat(most), f32x4.pmax(f32x4.splat(least), f32x4.nearest(x)));
}

// @ts-ignore: decorator
@inline
export function roundCode(x: f32, least: f32, most: f32): f32 {
  return min<f32>(most, max<f32>(least, nearest(x)));
}

// The values of sub-blocks of `length` by lane, four sub-blocks after four.
export function spread(x: usize, length: i32, out: usize): void {
  const bytes = (<usize>length) << 2;
  for (let group: usize = 0; group < 1024; group += bytes << 2) {
    for (let at: usize = 0; at < bytes; at += 4) {
      const from = x + group + at, to = out + group + (at << 2);
      let v = v128.load32_zero(from);
      v = v128.load32_lane(from + bytes, v, 1);
      v = v128.load32_lane(from + 2 * bytes, v, 2);
      v128.store(to, v128.load32_lane(from + 3 * bytes, v, 3));
    }
  }
}

// The first value of each lane with the largest magnitude.
// @ts-ignore: decorator
@inline
function extremes(x: usize, bytes: usize): v128 {
  let extreme = f32x4.splat(0);
  for (let i: usize = 0; i < bytes; i += 16) {
    const value = v128.load(x + i);
    extreme = v128.bitselect(value, extreme, f32x4.gt(f32x4.abs(value), f32x4.abs(extreme)));
  }
  return extreme;
}

// make_qx_quants for Q6_K: scales of four sub-blocks of 16, codes 0 … 63.
export function searchSymmetric(x: usize, codes: usize, scales: usize): void {
  const extreme = extremes(x, 256), none = f32x4.splat(0);
  let best = none, scale = none, inverse = none;
  for (let turn = 0; turn < 19; turn++) {
    // The full range first; then 9 steps above it and 9 below.
    const step = turn == 0 ? 0 : turn <= 9 ? turn - 10 : turn - 9;
    const range: f32 = 32 + <f32>0.1 * <f32>step;
    const tried = f32x4.div(f32x4.splat(-range), extreme);
    let xl = none, ll = none;
    for (let i: usize = 0; i < 256; i += 16) {
      const value = v128.load(x + i);
      const code = codesOf(f32x4.mul(tried, value), -32, 31);
      const w = f32x4.mul(value, value);
      xl = f32x4.add(xl, f32x4.mul(f32x4.mul(w, value), code));
      ll = f32x4.add(ll, f32x4.mul(f32x4.mul(w, code), code));
    }
    const found = f32x4.div(xl, ll);
    let better: v128;
    if (turn == 0) {
      better = f32x4.ne(ll, none);
      inverse = tried;
    } else better = v128.and(f32x4.gt(ll, none), f32x4.gt(f32x4.mul(xl, xl), f32x4.mul(best, ll)));
    inverse = v128.bitselect(tried, inverse, better);
    scale = v128.bitselect(found, scale, better);
    best = v128.bitselect(f32x4.mul(found, xl), best, better);
  }
  const live = f32x4.ge(f32x4.abs(extreme), f32x4.splat(NOTHING));
  v128.store(scales, v128.and(scale, live));
  for (let i: usize = 0; i < 256; i += 16) {
    const code = codesOf(f32x4.mul(inverse, v128.load(x + i)), -32, 31);
    v128.store(codes + i, v128.and(f32x4.add(code, f32x4.splat(32)), live));
  }
}

// make_q3_quants: scales of four sub-blocks of 16, codes 0 … 7.
export function searchThreeBits(x: usize, codes: usize, scales: usize): void {
  const extreme = extremes(x, 256), none = f32x4.splat(0);
  const inverse = f32x4.div(f32x4.splat(-4), extreme);
  const live = f32x4.ge(f32x4.abs(extreme), f32x4.splat(NOTHING));
  let sumXL = none, sumLL = none;
  for (let i: usize = 0; i < 256; i += 16) {
    const value = v128.load(x + i);
    const code = codesOf(f32x4.mul(inverse, value), -4, 3);
    const w = f32x4.mul(value, value);
    sumXL = f32x4.add(sumXL, f32x4.mul(f32x4.mul(w, value), code));
    sumLL = f32x4.add(sumLL, f32x4.mul(f32x4.mul(w, code), code));
    v128.store(codes + i, code);
  }
  // A lane that does not change in one turn does not in the next.
  for (let turn = 0, changed = true; turn < 5 && changed; turn++) {
    changed = false;
    for (let i: usize = 0; i < 256; i += 16) {
      const value = v128.load(x + i), code = v128.load(codes + i);
      const w = f32x4.mul(value, value);
      const wx = f32x4.mul(w, value);
      let xl = f32x4.sub(sumXL, f32x4.mul(wx, code));
      let ll = f32x4.sub(sumLL, f32x4.mul(f32x4.mul(w, code), code));
      const next = codesOf(f32x4.div(f32x4.mul(value, ll), xl), -4, 3);
      let better = v128.and(v128.and(f32x4.gt(xl, none), f32x4.ne(next, code)), live);
      xl = f32x4.add(xl, f32x4.mul(wx, next));
      ll = f32x4.add(ll, f32x4.mul(f32x4.mul(w, next), next));
      better = v128.and(better, f32x4.gt(ll, none));
      better = v128.and(
        better, f32x4.gt(f32x4.mul(f32x4.mul(xl, xl), sumLL), f32x4.mul(f32x4.mul(sumXL, sumXL), ll)),
      );
      if (!v128.any_true(better)) continue;
      changed = true;
      v128.store(codes + i, v128.bitselect(next, code, better));
      sumXL = v128.bitselect(xl, sumXL, better);
      sumLL = v128.bitselect(ll, sumLL, better);
    }
  }
  const scale = v128.and(f32x4.div(sumXL, sumLL), f32x4.gt(sumLL, none));
  v128.store(scales, v128.and(scale, live));
  for (let i: usize = 0; i < 256; i += 16) {
    v128.store(codes + i, v128.and(f32x4.add(v128.load(codes + i), f32x4.splat(4)), live));
  }
}

// Weighted error of the codes at `tried` on the line scale · code + least.
// @ts-ignore: decorator
@inline
function errorOf(x: usize, weights: usize, tried: usize, bytes: usize, scale: v128, least: v128, absolute: bool): v128 {
  let error = f32x4.splat(0);
  for (let i: usize = 0; i < bytes; i += 16) {
    const difference = f32x4.sub(f32x4.add(f32x4.mul(scale, v128.load(tried + i)), least), v128.load(x + i));
    const cost = absolute ? f32x4.abs(difference) : f32x4.mul(difference, difference);
    error = f32x4.add(error, f32x4.mul(v128.load(weights + i), cost));
  }
  return error;
}

// make_qkx2_quants: scales and minima (their negatives) of four sub-blocks of bytes / 16 elements, codes 0 … most.
// @ts-ignore: decorator
@inline
function searchMinimum(
  x: usize, weights: usize, codes: usize, tried: usize, bytes: usize, most: f32, first: f32, steps: i32, absolute: bool,
  scales: usize, minima: usize,
): void {
  const none = f32x4.splat(0);
  let value = v128.load(x);
  let least = value, largest = value;
  let sumW = v128.load(weights);
  let sumX = f32x4.mul(sumW, value);
  for (let i: usize = 16; i < bytes; i += 16) {
    value = v128.load(x + i);
    const w = v128.load(weights + i);
    least = f32x4.pmin(least, value);
    largest = f32x4.pmax(largest, value);
    sumW = f32x4.add(sumW, w);
    sumX = f32x4.add(sumX, f32x4.mul(w, value));
  }
  least = f32x4.pmin(least, none);
  const inverse = f32x4.div(f32x4.splat(most), f32x4.sub(largest, least));
  const live = v128.and(f32x4.ne(largest, least), f32x4.lt(f32x4.abs(inverse), f32x4.splat(Infinity)));
  const flat = least;
  let scale = f32x4.div(f32x4.splat(1), inverse);
  for (let i: usize = 0; i < bytes; i += 16) {
    v128.store(codes + i, codesOf(f32x4.mul(inverse, f32x4.sub(v128.load(x + i), least)), 0, most));
  }
  let best = errorOf(x, weights, codes, bytes, scale, least, absolute);
  for (let step = 0; step <= steps; step++) {
    const range: f32 = first + <f32>0.1 * <f32>step + most;
    const factor = f32x4.div(f32x4.splat(range), f32x4.sub(largest, least));
    let sumL = none, sumLL = none, sumXL = none;
    for (let i: usize = 0; i < bytes; i += 16) {
      value = v128.load(x + i);
      const code = codesOf(f32x4.mul(factor, f32x4.sub(value, least)), 0, most);
      v128.store(tried + i, code);
      const wl = f32x4.mul(v128.load(weights + i), code);
      sumL = f32x4.add(sumL, wl);
      sumLL = f32x4.add(sumLL, f32x4.mul(wl, code));
      sumXL = f32x4.add(sumXL, f32x4.mul(wl, value));
    }
    const determinant = f32x4.sub(f32x4.mul(sumW, sumLL), f32x4.mul(sumL, sumL));
    let thisScale = f32x4.div(f32x4.sub(f32x4.mul(sumW, sumXL), f32x4.mul(sumX, sumL)), determinant);
    let thisLeast = f32x4.div(f32x4.sub(f32x4.mul(sumLL, sumX), f32x4.mul(sumL, sumXL)), determinant);
    const above = f32x4.gt(thisLeast, none);
    thisLeast = v128.andnot(thisLeast, above);
    thisScale = v128.bitselect(f32x4.div(sumXL, sumLL), thisScale, above);
    const error = errorOf(x, weights, tried, bytes, thisScale, thisLeast, absolute);
    const better = v128.and(v128.and(f32x4.lt(error, best), f32x4.gt(determinant, none)), live);
    if (!v128.any_true(better)) continue;
    for (let i: usize = 0; i < bytes; i += 16) {
      v128.store(codes + i, v128.bitselect(v128.load(tried + i), v128.load(codes + i), better));
    }
    best = v128.bitselect(error, best, better);
    scale = v128.bitselect(thisScale, scale, better);
    least = v128.bitselect(thisLeast, least, better);
  }
  for (let i: usize = 0; i < bytes; i += 16) v128.store(codes + i, v128.and(v128.load(codes + i), live));
  v128.store(scales, v128.and(scale, live));
  v128.store(minima, f32x4.neg(v128.bitselect(least, flat, live)));
}

// Q2_K: weights |x|, sub-blocks of 16.
export function searchQ2_K(at: usize, scales: usize, minima: usize): void {
  for (let i: usize = 0; i < 256; i += 16) v128.store(at + WEIGHTS + i, f32x4.abs(v128.load(at + i)));
  searchMinimum(at, at + WEIGHTS, at + CODES, at + TRIED, 256, 3, -0.5, 15, true, scales, minima);
}

// Q4_K and Q5_K: weights |x| and the root of the mean square, sub-blocks of 32.
export function searchShifted(at: usize, most: f32, first: f32, steps: i32, scales: usize, minima: usize): void {
  let squares = f32x4.splat(0);
  for (let i: usize = 0; i < 512; i += 16) {
    const value = v128.load(at + i);
    squares = f32x4.add(squares, f32x4.mul(value, value));
  }
  const mean = f32x4.sqrt(f32x4.div(squares, f32x4.splat(32)));
  for (let i: usize = 0; i < 512; i += 16) {
    v128.store(at + WEIGHTS + i, f32x4.add(mean, f32x4.abs(v128.load(at + i))));
  }
  searchMinimum(at, at + WEIGHTS, at + CODES, at + TRIED, 512, most, first, steps, false, scales, minima);
}
