// GPTQ (Frantar et al., 2022): columns are rounded one after another, and what each loses is made up for by those still to
// come, as the inputs' second moments tell. Float64 on the host.

import { ArgumentError, ShapeError, type Tensor } from "@nomoat/core";
import type { BlockFormat } from "../formats/format.js";
import type { FormatName } from "../formats/index.js";
import { resolveFormat } from "../quantize.js";
import { type QuantizedTensor, weightShape } from "../quantized-tensor.js";
import { inverseFactor } from "./cholesky.js";
import { finiteValues, GridCoder } from "./grid.js";
import type { ActivationStatistics } from "./statistics.js";

export interface GptqOptions {
  /** Integers in groups or rows: `int4_asym_g64`, `int8`, ggml's `q4_0`, `q4_1`, `q5_0`, `q5_1`, `q8_0`, ... */
  readonly format: FormatName | BlockFormat;
  /** Name of the tensor in messages. */
  readonly name?: string;
  /** Columns with the largest inputs first (default true); groups keep the grids of the weight as it was then. */
  readonly actOrder?: boolean;
  /** What is added to the diagonal of the moments, relative to its mean (default 0.01). */
  readonly damping?: number;
}

/** Columns whose updates of later ones are done together. No group begins within: groups are multiples of it, or rows. */
const blockColumns = 32;

/**
 * Quantizes a weight [outFeatures, inFeatures] so that its products with inputs like those of `statistics` change little. Takes
 * outFeatures · inFeatures² multiplications.
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
  const format = resolveFormat(options.format);
  const { name = "tensor", actOrder = true, damping = 0.01 } = options;
  const shape = weightShape("quantizeGptq", weight);
  const [rows, columns] = shape;
  const coder = new GridCoder("quantizeGptq", format, shape, name);
  requireStatistics("quantizeGptq", statistics, columns);
  if (!(damping > 0 && damping < 1))
    throw new ArgumentError(`quantizeGptq: damping ${damping} is not in (0, 1)`);
  const values = finiteValues("quantizeGptq", weight, format, name);
  const moment = (i: number) => statistics.products[i * columns + i];
  const order = Array.from({ length: columns }, (_, i) => i);
  if (actOrder) order.sort((a, b) => moment(b) - moment(a));
  const factor = inverseFactor(dampedMoments(statistics, order, damping), columns);

  const group = (column: number) => Math.floor(column / coder.group);
  const work = new Float64Array(columns);
  const losses = new Float64Array(blockColumns);
  for (let row = 0; row < rows; row++) {
    const original = values.subarray(row * columns, (row + 1) * columns);
    for (let i = 0; i < columns; i++) work[i] = original[order[i]];
    const fit = (g: number, source: Float32Array | Float64Array) => {
      const part = source.subarray(g * coder.group, (g + 1) * coder.group);
      coder.setGrid(row, g, coder.fit(Float32Array.from(part)));
    };
    if (actOrder) for (let g = 0; g < coder.groupsOfRow; g++) fit(g, original);
    for (let from = 0; from < columns; from += blockColumns) {
      const end = Math.min(from + blockColumns, columns);
      for (let i = from; i < end; i++) {
        // In the columns' own order a group's grid can wait for what the groups before have left it.
        if (!actOrder && i % coder.group === 0) fit(group(i), work);
        const grid = coder.grid(row, group(order[i]));
        const code = coder.code(work[i], grid);
        coder.codes[row * columns + order[i]] = code;
        const loss = (work[i] - (grid.scale * code + grid.offset)) / factor[i * columns + i];
        losses[i - from] = loss;
        for (let j = i + 1; j < end; j++) work[j] -= loss * factor[i * columns + j];
      }
      for (let i = from; i < end; i++) {
        const loss = losses[i - from];
        const at = i * columns;
        for (let j = end; j < columns; j++) work[j] -= loss * factor[at + j];
      }
    }
  }
  return coder.pack(weight);
}

/** @throws {ArgumentError} @throws {ShapeError} */
export function requireStatistics(method: string, statistics: ActivationStatistics, columns: number): void {
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
  order: readonly number[],
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
