// Half-quadratic quantization (Badri and Shaji, 2023): no calibration data. The scale and zero point of a group are fitted to
// the weights less their sparse outliers, by turns with the outliers themselves.

import type { Tensor } from "@nomoat/core";
import type { BlockFormat } from "../formats/format.js";
import type { FormatName } from "../formats/index.js";
import { resolveFormat } from "../quantize.js";
import { type QuantizedTensor, weightShape } from "../quantized-tensor.js";
import { finiteValues, type Grid, GridCoder } from "./grid.js";

export interface HqqOptions {
  /** Integers in groups or rows: `int4_asym_g64`, `int4_g128`, `int8`, ... */
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
  for (const x of values) sum += (x - grid.scale * (coder.code(x, grid) - grid.zero)) ** 2;
  return sum;
}

/** The best grid on the way, by squared error: never worse than the one of round-to-nearest, where it starts. */
function optimize(coder: GridCoder, values: Float32Array, iterations: number): Grid {
  let grid = coder.fit(values);
  if (grid.scale === 0) return grid;
  let best = grid;
  let least = squaredError(coder, values, grid);
  for (let step = 0, beta = firstBeta; step < iterations && least > 0; step++, beta *= growth) {
    const { scale, zero } = grid;
    const codes = Array.from(values, (x) => coder.code(x, grid));
    const targets = codes.map((code, i) => {
      const residual = values[i] / scale - (code - zero);
      return values[i] - scale * shrink(residual, beta);
    });
    const shift = codes.reduce((sum, code, i) => sum + code - targets[i] / scale, 0) / codes.length;
    const next = coder.clampZero(shift);
    let above = 0;
    let below = 0;
    for (const [i, code] of codes.entries()) {
      above += targets[i] * (code - next);
      below += (code - next) ** 2;
    }
    const fitted = Math.fround(above / below);
    if (!(fitted > 0 && Number.isFinite(fitted)) || (fitted === scale && next === zero)) break;
    grid = { scale: fitted, zero: next };
    const error = squaredError(coder, values, grid);
    if (error < least) {
      least = error;
      best = grid;
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
  const coder = new GridCoder("quantizeHqq", format, shape);
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
