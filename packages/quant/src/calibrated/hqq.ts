// Half-quadratic quantization (Badri and Shaji, 2023): no calibration data. The zero point of a group, and here its scale too, is
// fitted to the weights less their sparse outliers, by turns with the outliers themselves.

import type { Tensor } from "@nomoat/core";
import { requireOptions } from "@nomoat/core/extend";
import type { BlockFormat, Grid } from "../formats/format.js";
import type { FormatName } from "../formats/index.js";
import { resolveFormat } from "../quantize.js";
import { type QuantizedTensor, weightShape } from "../quantized-tensor.js";
import { finiteValues, GridCoder, nearestCode } from "./grid.js";
import { fitLine, isUneven, lineError } from "./line.js";

export interface HqqOptions {
  /** Integers in groups or rows: `int4_asym_g64`, `int8`, ggml's `q4_0`, `q4_1`, `q5_0`, `q5_1`, `q8_0`, ... */
  readonly format: FormatName | BlockFormat;
  /** Name of the tensor in messages. */
  readonly name?: string;
  /** Turns of the two steps (default 20). */
  readonly iterations?: number;
}

/** The paper's norm, weight of the split and its growth; residuals are in steps of the grid here. */
const norm = 0.7;
const firstBeta = 10;
const growth = 1.01;

/** argmin over e of |e|ᵖ + β/2·(e − x)², the generalised soft threshold. */
function shrink(x: number, beta: number): number {
  const magnitude = Math.abs(x);
  return magnitude === 0 ? 0 : Math.sign(x) * Math.max(0, magnitude - magnitude ** (norm - 1) / beta);
}

/** Starts, as parts of the range that round-to-nearest spans. */
const starts = [1, 0.9, 0.8];

/** The best line on the way, by squared error: never worse than that of round-to-nearest, where it starts. */
function optimize(coder: GridCoder, values: Float32Array, iterations: number): Grid {
  const { grids } = coder;
  let best = coder.fit(values);
  if (best.scale === 0) return best;
  let least = lineError(grids, values, null, best);
  const first = best;
  const codes = new Int16Array(values.length);
  const targets = new Float64Array(values.length);
  const signed = isUneven(grids) ? [...starts, ...starts.map((part) => -part)] : starts;
  for (const start of signed) {
    // About the middle of the codes.
    const middle = first.offset + (first.scale * (grids.least + grids.most)) / 2;
    const scale = first.scale * start;
    let grid = grids.nearest({ scale, offset: middle - (scale * (grids.least + grids.most)) / 2 });
    if (grid.scale === 0) break;
    for (let step = 0, beta = firstBeta; step < iterations && least > 0; step++, beta *= growth) {
      for (let i = 0; i < values.length; i++) {
        codes[i] = nearestCode(grids, values[i], grid);
        const residual = (values[i] - grid.offset) / grid.scale - codes[i];
        targets[i] = values[i] - grid.scale * shrink(residual, beta);
      }
      const next = fitLine(grids, codes, targets);
      if (!next || (next.scale === grid.scale && next.offset === grid.offset)) break;
      grid = next;
      const error = lineError(grids, values, null, grid);
      if (error < least) {
        least = error;
        best = grid;
      }
    }
  }
  return best;
}

/**
 * Quantizes a weight [outFeatures, inFeatures] by half-quadratic optimization of each group's scale and zero point.
 *
 * @returns a QuantizedTensor that the caller disposes; its squared error is at most that of `quantize`
 * @throws {ArgumentError} for formats other than integers in groups or rows; for values that cannot be quantized
 */
export function quantizeHqq(weight: Tensor, options: HqqOptions): QuantizedTensor {
  requireOptions("quantizeHqq", options);
  const format = resolveFormat(options.format);
  const { name = "tensor", iterations = 20 } = options;
  const shape = weightShape("quantizeHqq", weight);
  const coder = new GridCoder("quantizeHqq", format, shape, name);
  const values = finiteValues("quantizeHqq", weight, format, name);
  for (let row = 0; row < shape[0]; row++) {
    for (let group = 0; group < coder.groupsOfRow; group++) {
      const from = row * shape[1] + group * coder.group;
      const part = values.subarray(from, Math.min(from + coder.group, (row + 1) * shape[1]));
      const grid = optimize(coder, part, iterations);
      coder.setGrid(row, group, grid);
      for (let i = 0; i < part.length; i++) coder.codes[from + i] = nearestCode(coder.grids, part[i], grid);
    }
  }
  return coder.pack(weight);
}
