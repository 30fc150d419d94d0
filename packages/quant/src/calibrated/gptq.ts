// GPTQ (Frantar et al., 2022): columns are rounded one after another, and what each loses is made up for by those still to
// come, as the inputs' second moments tell. Float64 on the host. Two things go beyond the paper: a group's line is searched by what
// its rounding will cost, on the columns as they are when their turn comes; and coordinate descent goes over the codes afterwards
// (as in QuantEase, Behdin et al., 2023).

import { ArgumentError, ShapeError, type Tensor } from "@nomoat/core";
import { describe, requireOptions } from "@nomoat/core/extend";
import type { BlockFormat } from "../formats/format.js";
import type { FormatName } from "../formats/index.js";
import { resolveFormat } from "../quantize.js";
import { type QuantizedTensor, weightShape } from "../quantized-tensor.js";
import { inverseFactor } from "./cholesky.js";
import { finiteValues, GridCoder, nearestCode } from "./grid.js";
import { searchLine } from "./line.js";
import type { ActivationStatistics } from "./statistics.js";

export interface GptqOptions {
  /** Integers in groups or rows: `int4_asym_g64`, `int8`, ggml's `q4_0`, `q4_1`, `q5_0`, `q5_1`, `q8_0`, ... */
  readonly format: FormatName | BlockFormat;
  /** Name of the tensor in messages. */
  readonly name?: string;
  /** Groups with the largest inputs first, and within each its columns with the largest (default true). */
  readonly actOrder?: boolean;
  /** What is added to the diagonal of the moments, relative to its mean (default 0.01). */
  readonly damping?: number;
  /** Passes of coordinate descent over the codes afterwards, at most (default 4; 0 for none). */
  readonly passes?: number;
}

/**
 * Quantizes a weight [outFeatures, inFeatures] so that its products with inputs like those of `statistics` change little. Takes
 * 1.5 · outFeatures · inFeatures² multiplications, and inFeatures for each code that moves afterwards.
 *
 * @returns a QuantizedTensor that the caller disposes
 * @throws {ArgumentError} for formats other than integers in groups or rows, values that cannot be quantized, statistics
 * without inputs
 */
export function quantizeGptq(
  weight: Tensor,
  statistics: ActivationStatistics,
  options: GptqOptions,
): QuantizedTensor {
  requireOptions("quantizeGptq", options);
  const format = resolveFormat(options.format);
  const { name = "tensor", actOrder = true, damping = 0.01, passes = 4 } = options;
  const shape = weightShape("quantizeGptq", weight);
  const [rows, columns] = shape;
  const coder = new GridCoder("quantizeGptq", format, shape, name);
  requireStatistics("quantizeGptq", statistics, columns);
  if (!(damping > 0 && damping < 1))
    throw new ArgumentError(`quantizeGptq: damping ${damping} is not in (0, 1)`);
  if (!(Number.isInteger(passes) && passes >= 0))
    throw new ArgumentError(`quantizeGptq: passes ${passes} is no count`);
  const values = finiteValues("quantizeGptq", weight, format, name);
  const order = columnOrder(statistics, coder, actOrder);
  const moments = dampedMoments(statistics, order, damping);
  const factor = inverseFactor(moments.slice(), columns);
  const original = new Float64Array(columns);
  const codes = new Int16Array(columns);
  for (let row = 0; row < rows; row++) {
    const place = (i: number) => row * columns + order[i];
    for (let i = 0; i < columns; i++) original[i] = values[place(i)];
    const rounded = compensate(coder, row, order, original, factor, codes);
    if (passes > 0) descend(coder, row, order, original, moments, codes, rounded, passes);
    for (let i = 0; i < columns; i++) coder.codes[place(i)] = codes[i];
  }
  return coder.pack(weight);
}

/** Columns in the order in which they are rounded. A group stays together, so that its line can wait for what the others leave it. */
function columnOrder(
  { products, inFeatures: n }: ActivationStatistics,
  { group }: GridCoder,
  actOrder: boolean,
): Int32Array {
  const columns = Int32Array.from({ length: n }, (_, i) => i);
  if (!actOrder) return columns;
  const moment = (i: number) => products[i * n + i];
  const mean = Array.from({ length: Math.ceil(n / group) }, (_, g) => {
    const own = columns.subarray(g * group, (g + 1) * group);
    return own.reduce((sum, i) => sum + moment(i), 0) / own.length;
  });
  const groupOf = (i: number) => Math.floor(i / group);
  return columns.sort((a, b) => {
    const [g, h] = [groupOf(a), groupOf(b)];
    return g === h ? moment(b) - moment(a) : mean[h] - mean[g] || g - h;
  });
}

/**
 * GPTQ's pass over one row: sets the lines of its groups.
 * @param original - the row, in `order`
 * @param factor - U of the moments' inverse Uᵀ·U, in that order
 * @param codes - what the columns are rounded to, in that order
 * @returns the values that the codes stand for
 */
function compensate(
  coder: GridCoder,
  row: number,
  order: Int32Array,
  original: Float64Array,
  factor: Float64Array,
  codes: Int16Array,
): Float64Array {
  const n = original.length;
  const work = original.slice();
  const losses = new Float64Array(n);
  for (let from = 0, end = 0; from < n; from = end) {
    const group = Math.floor(order[from] / coder.group);
    end = from + Math.min(coder.group, n - group * coder.group);
    // What column i loses costs its square over Uᵢᵢ², for columns to come cannot make up for more.
    const cost = Float64Array.from({ length: end - from }, (_, i) => factor[(from + i) * (n + 1)] ** -2);
    const grid = searchLine(coder, work.subarray(from, end), cost);
    coder.setGrid(row, group, grid);
    for (let i = from; i < end; i++) {
      codes[i] = nearestCode(coder.grids, work[i], grid);
      const rounded = grid.scale * codes[i] + grid.offset;
      const loss = (work[i] - rounded) / factor[i * n + i];
      work[i] = rounded;
      losses[i] = loss;
      for (let j = i + 1; j < end; j++) work[j] -= loss * factor[i * n + j];
    }
    // The columns behind the group wait until it is done, and are then near at hand.
    for (let i = from; i < end; i++) {
      const loss = losses[i];
      const at = i * n;
      for (let j = end; j < n; j++) work[j] -= loss * factor[at + j];
    }
  }
  return work;
}

/**
 * Moves one code after another of a row to where the error of the products, ε·M·εᵀ, is least while the others stay; again until none
 * moves, or `passes` times.
 * @param rounded - the values of `codes`, changed with them
 */
function descend(
  coder: GridCoder,
  row: number,
  order: Int32Array,
  original: Float64Array,
  moments: Float64Array,
  codes: Int16Array,
  rounded: Float64Array,
  passes: number,
): void {
  const n = original.length;
  // M·ε, followed from then on: a code that moves changes it by a row of M.
  const slope = new Float64Array(n);
  const add = (i: number, factor: number) => {
    const at = i * n;
    for (let j = 0; j < n; j++) slope[j] += factor * moments[at + j];
  };
  for (let i = 0; i < n; i++) add(i, original[i] - rounded[i]);
  for (let pass = 0, moved = true; moved && pass < passes; pass++) {
    moved = false;
    for (let i = 0; i < n; i++) {
      const grid = coder.grid(row, Math.floor(order[i] / coder.group));
      const code = nearestCode(coder.grids, rounded[i] + slope[i] / moments[i * n + i], grid);
      if (code === codes[i]) continue;
      const value = grid.scale * code + grid.offset;
      add(i, rounded[i] - value);
      codes[i] = code;
      rounded[i] = value;
      moved = true;
    }
  }
}

/** @throws {ArgumentError} @throws {ShapeError} */
export function requireStatistics(method: string, statistics: ActivationStatistics, columns: number): void {
  if (typeof statistics?.inFeatures !== "number")
    throw new ArgumentError(
      `${method}: expected statistics, as collectStatistics gathers, not ${describe(statistics)}`,
    );
  if (statistics.inFeatures !== columns) {
    throw new ShapeError(
      `${method}: statistics of ${statistics.inFeatures} features for a weight of ${columns}`,
    );
  }
  if (statistics.count === 0) throw new ArgumentError(`${method}: the statistics hold no inputs`);
}

/** The moments with rows and columns in `order`, and enough on the diagonal to be positive definite. */
function dampedMoments(
  { products, inFeatures: n }: ActivationStatistics,
  order: Int32Array,
  damping: number,
): Float64Array {
  let trace = 0;
  for (let i = 0; i < n; i++) trace += products[i * n + i];
  const added = trace > 0 ? (damping * trace) / n : 1;
  const out = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) out[i * n + j] = products[order[i] * n + order[j]];
    out[i * n + i] += added;
  }
  return out;
}
