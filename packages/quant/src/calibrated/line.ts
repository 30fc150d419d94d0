// Lines for groups of weights by weighted squared error: what the calibrated methods fit and search with.

import type { Grid, GridCodes } from "../formats/format.js";
import { type GridCoder, nearestCode } from "./grid.js";

/** Σ weights·(values − rounded)²; without weights all count alike. */
export function lineError(
  grids: GridCodes,
  values: ArrayLike<number>,
  weights: ArrayLike<number> | null,
  grid: Grid,
): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) {
    const loss = values[i] - (grid.scale * nearestCode(grids, values[i], grid) + grid.offset);
    sum += weights === null ? loss * loss : weights[i] * loss * loss;
  }
  return sum;
}

/** True where codes have one more on one side: a line and the one of the other sign differ. */
export function isUneven({ offsets, least, most }: GridCodes): boolean {
  return offsets === "none" && least !== -most;
}

/** True for a line that can be used: finite, and not flat. */
function isLine({ scale, offset }: Grid): boolean {
  return Number.isFinite(scale) && Number.isFinite(offset) && scale !== 0;
}

/**
 * The line through (code, target) with the least weighted squared error, of those that the format can store; null when there is
 * none.
 */
export function fitLine(
  { offsets, nearest, most }: GridCodes,
  codes: ArrayLike<number>,
  targets: ArrayLike<number>,
  weights: ArrayLike<number> | null = null,
): Grid | null {
  let [sum, sumC, sumT, sumCC, sumCT] = [0, 0, 0, 0, 0];
  for (let i = 0; i < codes.length; i++) {
    const weight = weights === null ? 1 : weights[i];
    sum += weight;
    sumC += weight * codes[i];
    sumT += weight * targets[i];
    sumCC += weight * codes[i] ** 2;
    sumCT += weight * codes[i] * targets[i];
  }
  let scale = sumCT / sumCC;
  let offset = 0;
  if (offsets !== "none") {
    scale = (sum * sumCT - sumC * sumT) / (sum * sumCC - sumC ** 2);
    offset = (sumT - scale * sumC) / sum;
  }
  if (offsets === "multiples") {
    // With the zero point where it can be, the scale that suits it best.
    const zero = Math.max(0, Math.min(most, Math.round(-offset / scale)));
    scale = (sumCT - zero * sumT) / (sumCC - 2 * zero * sumC + sum * zero ** 2);
    offset = -scale * zero;
  }
  const found = nearest({ scale, offset });
  return isLine(found) ? found : null;
}

/** The line that spans `part` of the range of `values`, about its middle or, where there are no free offsets, about 0. */
export function spanningLine(grids: GridCodes, values: ArrayLike<number>, part = 1): Grid {
  const { least, most, offsets, nearest } = grids;
  let low = offsets === "free" ? values[0] : 0;
  let high = low;
  for (let i = 0; i < values.length; i++) {
    if (values[i] < low) low = values[i];
    if (values[i] > high) high = values[i];
  }
  if (offsets === "none") {
    // One end has a code more than the other: the larger magnitude gets it.
    const farther = -low >= high ? low : high;
    return nearest({ scale: (part * farther) / (-low >= high || least !== -most ? least : most), offset: 0 });
  }
  const scale = (part * (high - low)) / (most - least);
  const cut = offsets === "free" ? ((1 - part) * (high - low)) / 2 : (part - 1) * low;
  return nearest({ scale, offset: low + cut - scale * least });
}

/** Parts of the range that a search begins with, and how often it fits a line and rounds again from each. */
const searchedParts = [1, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55];
const refinements = 6;

/**
 * A line with little error for `values`: from round-to-nearest's and from spanning ones, fitting and rounding by turns. Never worse than
 * round-to-nearest's.
 *
 * @param weights - what squared errors count, for the fit
 * @param errorOf - what the results are told by, where that is more than the weighted sum
 */
export function searchLine(
  coder: GridCoder,
  values: ArrayLike<number>,
  weights: ArrayLike<number>,
  errorOf?: (grid: Grid) => number,
): Grid {
  const { grids } = coder;
  let best = coder.fit(values);
  if (!isLine(best)) return best;
  let least = errorOf ? errorOf(best) : lineError(grids, values, weights, best);
  const starts = [best, ...searchedParts.map((part) => spanningLine(grids, values, part))];
  if (isUneven(grids)) starts.push(...starts.map(({ scale }) => ({ scale: -scale, offset: 0 })));
  for (const start of starts) {
    if (!isLine(start)) continue;
    const found = refine(grids, values, weights, start);
    const error = errorOf ? errorOf(found.grid) : found.error;
    if (error < least) {
      least = error;
      best = found.grid;
    }
  }
  return best;
}

/** The best line on the way from `start`, by weighted error. */
function refine(
  grids: GridCodes,
  values: ArrayLike<number>,
  weights: ArrayLike<number>,
  start: Grid,
): { grid: Grid; error: number } {
  const codes = new Int16Array(values.length);
  let best = { grid: start, error: lineError(grids, values, weights, start) };
  let grid = start;
  for (let step = 0; step < refinements; step++) {
    for (let i = 0; i < values.length; i++) codes[i] = nearestCode(grids, values[i], grid);
    const next = fitLine(grids, codes, values, weights);
    if (!next || (next.scale === grid.scale && next.offset === grid.offset)) break;
    grid = next;
    const error = lineError(grids, values, weights, grid);
    if (error < best.error) best = { grid, error };
  }
  return best;
}
