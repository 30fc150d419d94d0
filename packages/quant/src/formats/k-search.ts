// The searches by which ggml's reference quantizers find scales of sub-blocks of K-quants (make_qx_quants, make_q3_quants and
// make_qkx2_quants of ggml-quants.c). Every operation is rounded to float32 on its own and in their order; a build of ggml that
// contracts products and sums into one instruction can differ from it by a code.

import { roundEven } from "./integer.js";

const { fround } = Math;
/** Magnitudes below count as zero. */
const nothing = fround(1e-15);

/** `code` within [least, most]. */
export function clampCode(code: number, least: number, most: number): number {
  return Math.max(least, Math.min(most, code));
}

/** The first value with the largest magnitude, 0 among zeros. */
function extremeOf(x: Float32Array): number {
  let extreme = 0;
  for (const value of x) if (Math.abs(value) > Math.abs(extreme)) extreme = value;
  return extreme;
}

/**
 * Scale and codes −most … most − 1 (stored with `most` added) for x ≈ scale · code, by squared error weighted with x²: the best of 19
 * steps about the full range.
 */
export function searchSymmetric(x: Float32Array, most: number, codes: Uint8Array): number {
  const extreme = extremeOf(x);
  codes.fill(0);
  if (Math.abs(extreme) < nothing) return 0;
  const attempt = (inverse: number): [sumXL: number, sumLL: number] => {
    let sumXL = 0;
    let sumLL = 0;
    for (const value of x) {
      const code = clampCode(roundEven(fround(inverse * value)), -most, most - 1);
      const w = fround(value * value);
      sumXL = fround(sumXL + fround(fround(w * value) * code));
      sumLL = fround(sumLL + fround(fround(w * code) * code));
    }
    return [sumXL, sumLL];
  };
  const store = (inverse: number) => {
    for (const [i, value] of x.entries()) {
      codes[i] = most + clampCode(roundEven(fround(inverse * value)), -most, most - 1);
    }
  };
  const inverse = fround(-most / extreme);
  const [sumXL, sumLL] = attempt(inverse);
  store(inverse);
  let scale = sumLL === 0 ? 0 : fround(sumXL / sumLL);
  let best = fround(scale * sumXL);
  for (let step = -9; step <= 9; step++) {
    if (step === 0) continue;
    const tried = fround(-fround(most + fround(fround(0.1) * step)) / extreme);
    const [xl, ll] = attempt(tried);
    if (ll > 0 && fround(xl * xl) > fround(best * ll)) {
      store(tried);
      scale = fround(xl / ll);
      best = fround(scale * xl);
    }
  }
  return scale;
}

/** The same for 3 bits (codes −4 … 3, stored with 4 added): from the full range, codes are improved one by one, five times at most. */
export function searchThreeBits(x: Float32Array, codes: Uint8Array): number {
  const most = 4;
  const extreme = extremeOf(x);
  codes.fill(0);
  if (Math.abs(extreme) < nothing) return 0;
  const inverse = fround(-most / extreme);
  const found = Array.from(x, (value) => clampCode(roundEven(fround(inverse * value)), -most, most - 1));
  let sumXL = 0;
  let sumLL = 0;
  for (const [i, code] of found.entries()) {
    const w = fround(x[i] * x[i]);
    sumXL = fround(sumXL + fround(fround(w * x[i]) * code));
    sumLL = fround(sumLL + fround(fround(w * code) * code));
  }
  for (let turn = 0, changed = true; turn < 5 && changed; turn++) {
    changed = false;
    for (const [i, code] of found.entries()) {
      const w = fround(x[i] * x[i]);
      let xl = fround(sumXL - fround(fround(w * x[i]) * code));
      if (!(xl > 0)) continue;
      let ll = fround(sumLL - fround(fround(w * code) * code));
      const next = clampCode(roundEven(fround(fround(x[i] * ll) / xl)), -most, most - 1);
      if (next === code) continue;
      xl = fround(xl + fround(fround(w * x[i]) * next));
      ll = fround(ll + fround(fround(w * next) * next));
      if (ll > 0 && fround(fround(xl * xl) * sumLL) > fround(fround(sumXL * sumXL) * ll)) {
        found[i] = next;
        sumXL = xl;
        sumLL = ll;
        changed = true;
      }
    }
  }
  for (const [i, code] of found.entries()) codes[i] = code + most;
  return sumLL > 0 ? fround(sumXL / sumLL) : 0;
}

/** What the search with a minimum tries: inverse scales of (first + step · i + most) over the range, i from 0 to `steps`. */
export interface MinimumSearch {
  readonly most: number;
  readonly first: number;
  readonly step: number;
  readonly steps: number;
  /** The error is |x − x̂| instead of its square. */
  readonly absolute: boolean;
}

/**
 * Scale, minimum (≤ 0) and codes 0 … most for x ≈ scale · code + minimum: of all tries the line with the least weighted error.
 * @returns the scale and the minimum's negative
 */
export function searchWithMinimum(
  x: Float32Array,
  weights: Float32Array,
  codes: Uint8Array,
  search: MinimumSearch,
): [scale: number, minimum: number] {
  const { most, absolute } = search;
  let min = x[0];
  let max = x[0];
  let sumW = weights[0];
  let sumX = fround(sumW * x[0]);
  for (let i = 1; i < x.length; i++) {
    if (x[i] < min) min = x[i];
    if (x[i] > max) max = x[i];
    sumW = fround(sumW + weights[i]);
    sumX = fround(sumX + fround(weights[i] * x[i]));
  }
  if (min > 0) min = 0;
  codes.fill(0);
  const range = fround(max - min);
  const inverse = fround(most / range);
  // The second: a range of denormals, where ggml would compute with infinity.
  if (max === min || !Number.isFinite(inverse)) return [0, -min];
  const errorOf = (tried: Uint8Array, scale: number, least: number) => {
    let error = 0;
    for (let i = 0; i < x.length; i++) {
      const difference = fround(fround(fround(scale * tried[i]) + least) - x[i]);
      const cost = absolute ? Math.abs(difference) : fround(difference * difference);
      error = fround(error + fround(weights[i] * cost));
    }
    return error;
  };
  const tried = new Uint8Array(x.length);
  const round = (factor: number, least: number) => {
    for (let i = 0; i < x.length; i++) {
      tried[i] = clampCode(roundEven(fround(factor * fround(x[i] - least))), 0, most);
    }
  };
  let scale = fround(1 / inverse);
  round(inverse, min);
  codes.set(tried);
  let best = errorOf(codes, scale, min);
  for (let i = 0; i <= search.steps; i++) {
    const factor = fround(fround(fround(search.first) + fround(fround(search.step) * i)) + most);
    // The minimum of the best line so far, as in ggml; the range stays.
    round(fround(factor / fround(max - min)), min);
    let sumL = 0;
    let sumLL = 0;
    let sumXL = 0;
    for (let j = 0; j < x.length; j++) {
      const wl = fround(weights[j] * tried[j]);
      sumL = fround(sumL + wl);
      sumLL = fround(sumLL + fround(wl * tried[j]));
      sumXL = fround(sumXL + fround(wl * x[j]));
    }
    const determinant = fround(fround(sumW * sumLL) - fround(sumL * sumL));
    if (!(determinant > 0)) continue;
    let thisScale = fround(fround(fround(sumW * sumXL) - fround(sumX * sumL)) / determinant);
    let thisMin = fround(fround(fround(sumLL * sumX) - fround(sumL * sumXL)) / determinant);
    if (thisMin > 0) {
      thisMin = 0;
      thisScale = fround(sumXL / sumLL);
    }
    const error = errorOf(tried, thisScale, thisMin);
    if (error < best) {
      codes.set(tried);
      best = error;
      scale = thisScale;
      min = thisMin;
    }
  }
  return [scale, -min];
}
