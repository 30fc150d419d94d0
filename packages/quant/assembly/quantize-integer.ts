// Quantizing to the integer formats, byte for byte as src/formats/integer.ts does it: scales, the search for the best of
// them at 4 bits, and codes.

import { laneSum } from "../../core/assembly/abi";

/** A scale and a zero point; the one of the call in progress, since functions return one value. */
let gridScale: f32 = 0;
let gridZero: f32 = 0;

function setGrid(low: f32, high: f32, most: f32, asymmetric: bool): void {
  if (asymmetric) {
    // Divided first: the range of two large floats overflows.
    gridScale = high / most - low / most;
    gridZero = gridScale == 0 ? 0 : max<f32>(0, min<f32>(most, -nearest(low / gridScale)));
    return;
  }
  const scale: f32 = max<f32>(-low, high) / most;
  const again: f32 = (scale * most) / most;
  // Next to the largest float, most · scale overflows: one unit less does not.
  gridScale = isFinite(again) ? again : reinterpret<f32>(reinterpret<u32>(scale) - 1);
  gridZero = 0;
}

// @ts-ignore: decorator
@inline
function centered1(x: f32, least: f32, most: f32): f32 {
  if (gridScale == 0) return 0;
  return max(least, min(most, nearest(x / gridScale) + gridZero)) - gridZero;
}

// Codes of four values, less the zero point. Finite values: pmin and pmax are one instruction each.
// @ts-ignore: decorator
@inline
function error4(x: usize, scale: v128, zero: v128, least: v128, most: v128, asymmetric: bool): v128 {
  const value = v128.load(x);
  let code = f32x4.nearest(f32x4.div(value, scale));
  if (asymmetric) code = f32x4.add(code, zero);
  code = f32x4.pmin(most, f32x4.pmax(least, code));
  if (asymmetric) code = f32x4.sub(code, zero);
  const e = f32x4.sub(value, f32x4.mul(scale, code));
  return f32x4.mul(e, e);
}

// Squared error of the grid in four sums; or, once it is clear that it is not below `limit`, some number that is not either:
// sums of squares never fall.
// @ts-ignore: decorator
@inline
function squaredError(x: usize, count: i32, leastCode: f32, mostCode: f32, limit: f32, asymmetric: bool): f32 {
  const scale = f32x4.splat(gridScale), zero = f32x4.splat(gridZero);
  const least = f32x4.splat(leastCode), most = f32x4.splat(mostCode);
  let sums = f32x4.splat(0);
  let i = 0;
  for (; i + 16 <= count; i += 16) {
    sums = f32x4.add(sums, error4(x, scale, zero, least, most, asymmetric));
    sums = f32x4.add(sums, error4(x + 16, scale, zero, least, most, asymmetric));
    sums = f32x4.add(sums, error4(x + 32, scale, zero, least, most, asymmetric));
    sums = f32x4.add(sums, error4(x + 48, scale, zero, least, most, asymmetric));
    x += 64;
    const sum = laneSum(sums);
    if (sum >= limit) return sum;
  }
  for (; i + 4 <= count; i += 4) {
    sums = f32x4.add(sums, error4(x, scale, zero, least, most, asymmetric));
    x += 16;
  }
  let s0 = f32x4.extract_lane(sums, 0), s1 = f32x4.extract_lane(sums, 1), s2 = f32x4.extract_lane(sums, 2);
  const s3 = f32x4.extract_lane(sums, 3);
  for (let lane = 0; i < count; i++) {
    const value = load<f32>(x);
    const e: f32 = value - gridScale * centered1(value, leastCode, mostCode);
    if (lane == 0) s0 += e * e;
    else if (lane == 1) s1 += e * e;
    else s2 += e * e;
    lane++;
    x += 4;
  }
  return s0 + s2 + (s1 + s3);
}

function searchError(x: usize, count: i32, least: f32, most: f32, limit: f32, asymmetric: bool): f32 {
  if (asymmetric) return squaredError(x, count, least, most, limit, true);
  return squaredError(x, count, least, most, limit, false);
}

const SEARCH_STEPS: i32 = 20;

/** One group of `count` values: codes to `out`, scale to `scaleAt`, and for asymmetric formats the zero point to `zeroAt`. */
export function quantizeInteger(
  x: usize, count: i32, out: usize, bits: i32, asymmetric: bool, scaleAt: usize, zeroAt: usize,
): void {
  const most: f32 = asymmetric ? <f32>((1 << bits) - 1) : <f32>((1 << (bits - 1)) - 1);
  const least: f32 = asymmetric ? 0 : -most;
  let low: f32 = 0, high: f32 = 0;
  for (let i: usize = 0; i < <usize>count; i++) {
    const value = load<f32>(x + (i << 2));
    low = min(low, value);
    high = max(high, value);
  }
  setGrid(low, high, most, asymmetric);
  if (bits == 4) {
    let bestScale = gridScale, bestZero = gridZero;
    let smallest = gridScale == 0 ? <f32>0 : searchError(x, count, least, most, <f32>Infinity, asymmetric);
    for (let step = 1; step < SEARCH_STEPS && smallest > 0; step++) {
      const exact: f64 = 1 - 0.02 * <f64>step;
      const factor = <f32>exact;
      setGrid(low * factor, high * factor, most, asymmetric);
      if (gridScale == 0) break;
      // What is cut off the largest magnitude alone is too much, and will be more with every further step.
      const cut: f32 = max<f32>(-low, high) - gridScale * most;
      if (!asymmetric && cut * cut >= smallest) break;
      const error = searchError(x, count, least, most, smallest, asymmetric);
      if (error < smallest) {
        smallest = error;
        bestScale = gridScale;
        bestZero = gridZero;
      }
    }
    gridScale = bestScale;
    gridZero = bestZero;
  }
  store<f32>(scaleAt, gridScale);
  if (asymmetric) store<u8>(zeroAt, <u8>gridZero);
  if (bits == 8) {
    for (let i: usize = 0; i < <usize>count; i++) {
      store<u8>(out + i, <u8><i32>(centered1(load<f32>(x + (i << 2)), least, most) + gridZero));
    }
    return;
  }
  const bias: f32 = asymmetric ? gridZero : 8;
  for (let i = 0; i < count; i += 2) {
    const first = <u32>(centered1(load<f32>(x), least, most) + bias);
    const second = i + 1 < count ? <u32>(centered1(load<f32>(x, 4), least, most) + bias) : 0;
    store<u8>(out, first | (second << 4));
    x += 8;
    out++;
  }
}
