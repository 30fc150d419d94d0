// Half-quadratic quantization (Badri and Shaji, 2023): no calibration data. The zero point of a group, and here its scale too, is
// fitted to the weights less their sparse outliers, by turns with the outliers themselves.

import type { Tensor } from "@nomoat/core";
import type { BlockFormat, Grid, GridCodes } from "../formats/format.js";
import type { FormatName } from "../formats/index.js";
import { resolveFormat } from "../quantize.js";
import { type QuantizedTensor, weightShape } from "../quantized-tensor.js";
import { finiteValues, GridCoder } from "./grid.js";

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

function squaredError(coder: GridCoder, values: Float32Array, grid: Grid): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) {
    sum += (values[i] - (grid.scale * coder.code(values[i], grid) + grid.offset)) ** 2;
  }
  return sum;
}

/** The line through (code, target) with the least squared error, of those that the format can store; null when there is none. */
function fitLine(
  { offsets, nearest, most }: GridCodes,
  codes: Int16Array,
  targets: Float64Array,
): Grid | null {
  const n = codes.length;
  let [sumC, sumT, sumCC, sumCT] = [0, 0, 0, 0];
  for (let i = 0; i < n; i++) {
    sumC += codes[i];
    sumT += targets[i];
    sumCC += codes[i] ** 2;
    sumCT += codes[i] * targets[i];
  }
  let scale = sumCT / sumCC;
  let offset = 0;
  if (offsets !== "none") {
    scale = (n * sumCT - sumC * sumT) / (n * sumCC - sumC ** 2);
    offset = (sumT - scale * sumC) / n;
  }
  if (offsets === "multiples") {
    // With the zero point where it can be, the scale that suits it best.
    const zero = Math.max(0, Math.min(most, Math.round(-offset / scale)));
    scale = (sumCT - zero * sumT) / (sumCC - 2 * zero * sumC + n * zero ** 2);
    offset = -scale * zero;
  }
  const found = nearest({ scale, offset });
  return Number.isFinite(found.scale) && Number.isFinite(found.offset) && found.scale !== 0 ? found : null;
}

/** Starts, as parts of the range that round-to-nearest spans. */
const starts = [1, 0.9, 0.8];

/** The best line on the way, by squared error: never worse than that of round-to-nearest, where it starts. */
function optimize(coder: GridCoder, values: Float32Array, iterations: number): Grid {
  const { grids } = coder;
  let best = coder.fit(values);
  if (best.scale === 0) return best;
  let least = squaredError(coder, values, best);
  const first = best;
  const codes = new Int16Array(values.length);
  const targets = new Float64Array(values.length);
  for (const start of starts) {
    // About the middle of the codes.
    const middle = first.offset + (first.scale * (grids.least + grids.most)) / 2;
    const scale = first.scale * start;
    let grid = grids.nearest({ scale, offset: middle - (scale * (grids.least + grids.most)) / 2 });
    if (grid.scale === 0) break;
    for (let step = 0, beta = firstBeta; step < iterations && least > 0; step++, beta *= growth) {
      for (let i = 0; i < values.length; i++) {
        codes[i] = coder.code(values[i], grid);
        const residual = (values[i] - grid.offset) / grid.scale - codes[i];
        targets[i] = values[i] - grid.scale * shrink(residual, beta);
      }
      const next = fitLine(grids, codes, targets);
      if (!next || (next.scale === grid.scale && next.offset === grid.offset)) break;
      grid = next;
      const error = squaredError(coder, values, grid);
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
      for (let i = 0; i < part.length; i++) coder.codes[from + i] = coder.code(part[i], grid);
    }
  }
  return coder.pack(weight);
}
