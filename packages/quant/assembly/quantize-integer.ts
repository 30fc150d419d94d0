// Quantizing to the integer formats, byte for byte as src/formats/integer.ts does it: scales, the search for the best of
// them at 4 bits, and codes.
//
// Values are finite: pmin and pmax, one instruction each, serve for min and max.

import { laneSum } from "../../core/assembly/abi";

// Parts of the range that the search tries, and how many.
const factors = memory.data<f32>(
  [1, 0.98, 0.96, 0.94, 0.92, 0.9, 0.88, 0.86, 0.84, 0.82, 0.8, 0.78, 0.76, 0.74, 0.72, 0.7, 0.68, 0.66, 0.64, 0.62],
  16,
);
const SEARCH_STEPS: usize = 20;
/** Bytes of one of the three tables of the grids that the search tries: scales, zero points, least errors. */
const TABLE: usize = SEARCH_STEPS << 2;
/** Bytes that `quantizeInteger` needs at `spare`: those tables. */
export const GRID_BYTES: usize = 3 * TABLE;

// Codes, less the zero point, of four values.
// @ts-ignore: decorator
@inline
function centered(value: v128, scale: v128, zero: v128, least: v128, most: v128, asymmetric: bool): v128 {
  let code = f32x4.nearest(f32x4.div(value, scale));
  if (asymmetric) code = f32x4.add(code, zero);
  code = f32x4.pmin(most, f32x4.pmax(least, code));
  if (asymmetric) code = f32x4.sub(code, zero);
  return code;
}

// @ts-ignore: decorator
@inline
function error4(value: v128, scale: v128, zero: v128, least: v128, most: v128, asymmetric: bool): v128 {
  const e = f32x4.sub(value, f32x4.mul(scale, centered(value, scale, zero, least, most, asymmetric)));
  return f32x4.mul(e, e);
}

// The scales at `grids` of four parts of the range, behind them the zero points, and then what the least and the largest value alone
// add to the error: sums of squares never fall, so the whole error is no less.
// @ts-ignore: decorator
@inline
function setGrids(lowest: f32, highest: f32, part: v128, least: v128, most: v128, asymmetric: bool, grids: usize): void {
  const lows = f32x4.splat(lowest), highs = f32x4.splat(highest);
  const low = f32x4.mul(lows, part), high = f32x4.mul(highs, part), none = f32x4.splat(0);
  let scale: v128, zero = none;
  if (asymmetric) {
    // Divided first: the range of two large floats overflows.
    scale = f32x4.sub(f32x4.div(high, most), f32x4.div(low, most));
    zero = f32x4.pmax(none, f32x4.pmin(most, f32x4.neg(f32x4.nearest(f32x4.div(low, scale)))));
    zero = v128.and(zero, f32x4.ne(scale, none));
  } else {
    scale = f32x4.div(f32x4.pmax(high, f32x4.neg(low)), most);
    const again = f32x4.div(f32x4.mul(scale, most), most);
    // Next to the largest float, most · scale overflows: one unit less does not.
    const finite = f32x4.lt(again, f32x4.splat(Infinity));
    scale = v128.bitselect(again, i32x4.sub(scale, i32x4.splat(1)), finite);
  }
  v128.store(grids, scale);
  v128.store(grids + TABLE, zero);
  const cut = f32x4.add(
    error4(lows, scale, zero, least, most, asymmetric), error4(highs, scale, zero, least, most, asymmetric),
  );
  v128.store(grids + 2 * TABLE, cut);
}

// Up to four values, zeros behind them.
function loadSome(x: usize, count: i32): v128 {
  let value = v128.load32_zero(x);
  if (count > 1) value = v128.load32_lane(x + 4, value, 1);
  if (count > 2) value = v128.load32_lane(x + 8, value, 2);
  return value;
}

// Squared error of a grid in four sums; or, once it is clear that it is not below `limit`, some number that is not either.
// @ts-ignore: decorator
@inline
function squaredError(x: usize, count: i32, scale: v128, zero: v128, least: v128, most: v128, limit: f32, asymmetric: bool): f32 {
  let sums = f32x4.splat(0);
  let i = 0;
  for (; i + 16 <= count; i += 16) {
    sums = f32x4.add(sums, error4(v128.load(x), scale, zero, least, most, asymmetric));
    sums = f32x4.add(sums, error4(v128.load(x, 16), scale, zero, least, most, asymmetric));
    sums = f32x4.add(sums, error4(v128.load(x, 32), scale, zero, least, most, asymmetric));
    sums = f32x4.add(sums, error4(v128.load(x, 48), scale, zero, least, most, asymmetric));
    x += 64;
    const sum = laneSum(sums);
    if (sum >= limit) return sum;
  }
  for (; i + 4 <= count; i += 4) {
    sums = f32x4.add(sums, error4(v128.load(x), scale, zero, least, most, asymmetric));
    x += 16;
  }
  // Zeros have no error.
  if (i < count) sums = f32x4.add(sums, error4(loadSome(x, count - i), scale, zero, least, most, asymmetric));
  return laneSum(sums);
}

// Offset in `grids` of the best grid.
// @ts-ignore: decorator
@inline
function search(x: usize, count: i32, grids: usize, least: v128, most: v128, asymmetric: bool): usize {
  let best: usize = 0;
  let smallest: f32 = Infinity;
  for (let at: usize = 0; at < TABLE; at += 4) {
    if (load<f32>(grids + at) == 0) break;
    if (load<f32>(grids + at, 2 * TABLE) >= smallest) continue;
    const scale = v128.load32_splat(grids + at), zero = v128.load32_splat(grids + at, TABLE);
    const error = squaredError(x, count, scale, zero, least, most, smallest, asymmetric);
    if (error < smallest) {
      smallest = error;
      best = at;
      if (error == 0) break;
    }
  }
  return best;
}

// Codes of four values with `bias` added, as int32.
// @ts-ignore: decorator
@inline
function codes4(
  value: v128, scale: v128, zero: v128, least: v128, most: v128, bias: v128, asymmetric: bool,
): v128 {
  return i32x4.trunc_sat_f32x4_s(f32x4.add(centered(value, scale, zero, least, most, asymmetric), bias));
}

// Two codes a byte of eight values, in the first four bytes.
// @ts-ignore: decorator
@inline
function nibbles8(first: v128, second: v128): v128 {
  const all = i16x8.narrow_i32x4_u(first, second);
  const pairs = v128.and(v128.or(all, i32x4.shr_u(all, 12)), i32x4.splat(255));
  const bytes = i16x8.narrow_i32x4_u(pairs, pairs);
  return i8x16.narrow_i16x8_u(bytes, bytes);
}

// @ts-ignore: decorator
@inline
function quantizeGroup(
  x: usize, count: i32, out: usize, bits: i32, asymmetric: bool, scaleAt: usize, zeroAt: usize, grids: usize,
): void {
  const most = f32x4.splat(asymmetric ? <f32>((1 << bits) - 1) : <f32>((1 << (bits - 1)) - 1));
  const least = asymmetric ? f32x4.splat(0) : f32x4.neg(most);
  let lows = f32x4.splat(0), highs = lows;
  let i = 0;
  for (; i + 4 <= count; i += 4) {
    const value = v128.load(x + ((<usize>i) << 2));
    lows = f32x4.pmin(lows, value);
    highs = f32x4.pmax(highs, value);
  }
  if (i < count) {
    const value = loadSome(x + ((<usize>i) << 2), count - i);
    lows = f32x4.pmin(lows, value);
    highs = f32x4.pmax(highs, value);
  }
  lows = f32x4.pmin(lows, i32x4.shuffle(lows, lows, 2, 3, 0, 1));
  highs = f32x4.pmax(highs, i32x4.shuffle(highs, highs, 2, 3, 0, 1));
  const low = min(f32x4.extract_lane(lows, 0), f32x4.extract_lane(lows, 1));
  const high = max(f32x4.extract_lane(highs, 0), f32x4.extract_lane(highs, 1));
  let best: usize = 0;
  setGrids(low, high, v128.load(factors), least, most, asymmetric, grids);
  if (bits == 4) {
    for (let at: usize = 16; at < TABLE; at += 16) {
      setGrids(low, high, v128.load(factors + at), least, most, asymmetric, grids + at);
    }
    best = search(x, count, grids, least, most, asymmetric);
  }
  const gridScale = load<f32>(grids + best), gridZero = load<f32>(grids + best, TABLE);
  store<f32>(scaleAt, gridScale);
  if (asymmetric) store<u8>(zeroAt, <u8>gridZero);
  const zero = f32x4.splat(gridZero), bias = asymmetric ? zero : f32x4.splat(bits == 4 ? 8 : 0);
  // Without a scale all values are 0, or so small that they count as 0: divided by 1 they are 0.
  const scale = f32x4.splat(gridScale == 0 ? 1 : gridScale);
  i = 0;
  for (; i + 8 <= count; i += 8) {
    const first = codes4(v128.load(x), scale, zero, least, most, bias, asymmetric);
    const second = codes4(v128.load(x, 16), scale, zero, least, most, bias, asymmetric);
    if (bits == 4) {
      v128.store32_lane(out, nibbles8(first, second), 0);
      out += 4;
    } else {
      const codes = i16x8.narrow_i32x4_s(first, second);
      v128.store64_lane(out, asymmetric ? i8x16.narrow_i16x8_u(codes, codes) : i8x16.narrow_i16x8_s(codes, codes), 0);
      out += 8;
    }
    x += 32;
  }
  for (; i < count; i += 2) {
    // What is beyond the end counts as no code, not as a value of 0.
    const codes = codes4(loadSome(x, min(2, count - i)), scale, zero, least, most, bias, asymmetric);
    const first = i32x4.extract_lane(codes, 0), second = i + 1 < count ? i32x4.extract_lane(codes, 1) : 0;
    if (bits == 4) store<u8>(out++, first | (second << 4));
    else {
      store<u8>(out++, first);
      if (i + 1 < count) store<u8>(out++, second);
    }
    x += 8;
  }
}

/**
 * One group of `count` values: codes to `out`, scale to `scaleAt`, and for asymmetric formats the zero point to `zeroAt`. `spare`:
 * GRID_BYTES bytes.
 */
export function quantizeInteger(
  x: usize, count: i32, out: usize, bits: i32, asymmetric: bool, scaleAt: usize, zeroAt: usize, spare: usize,
): void {
  if (bits == 8) {
    if (asymmetric) quantizeGroup(x, count, out, 8, true, scaleAt, zeroAt, spare);
    else quantizeGroup(x, count, out, 8, false, scaleAt, zeroAt, spare);
  } else if (asymmetric) quantizeGroup(x, count, out, 4, true, scaleAt, zeroAt, spare);
  else quantizeGroup(x, count, out, 4, false, scaleAt, zeroAt, spare);
}
