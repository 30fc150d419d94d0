// Activation-aware scaling (AWQ, Lin et al., 2023): weights of input channels that carry large activations are scaled up before
// they are quantized, and the activations down; then the range of each group is clipped. Both are searched by the error of the
// layer's output.

import { ArgumentError, matmul, noGrad, ShapeError, type Tensor, tensor, tidy } from "@nomoat/core";
import { requireOptions } from "@nomoat/core/extend";
import type { BlockFormat, Grid } from "../formats/format.js";
import type { FormatName } from "../formats/index.js";
import { quantize, resolveFormat } from "../quantize.js";
import { QuantizedTensor, quantizationError, weightShape } from "../quantized-tensor.js";
import { requireStatistics } from "./gptq.js";
import { finiteValues, GridCoder, nearestCode } from "./grid.js";
import { searchLine } from "./line.js";
import type { ActivationStatistics } from "./statistics.js";

export interface AwqOptions {
  /** Any format that can be written. Those of integers in groups or rows are clipped as well. */
  readonly format: FormatName | BlockFormat;
  /** Name of the tensor in messages. */
  readonly name?: string;
  /** Strengths that are tried, evenly from 0 up to below 1 (default 10), with the weights' own magnitudes and without. */
  readonly steps?: number;
  /** Scales of the channels [inFeatures], positive, where they are known: nothing is searched but the clipping. */
  readonly scales?: ArrayLike<number>;
}

/** A layer among those that share their inputs, and scales. */
export interface AwqLayer {
  readonly weight: Tensor;
  readonly statistics: ActivationStatistics;
  readonly format: BlockFormat;
  readonly name: string;
}

/**
 * Mean squared error of a layer's outputs over the inputs of `statistics`: Σᵢ (wᵢ − ŵᵢ)·E[x·xᵀ]·(wᵢ − ŵᵢ)ᵀ over the rows, by
 * their number. In float32.
 *
 * @param weight - [outFeatures, inFeatures]
 * @param approximation - the same, dequantized
 */
export function outputError(weight: Tensor, approximation: Tensor, statistics: ActivationStatistics): number {
  const [rows, columns] = weightShape("outputError", weight);
  requireStatistics("outputError", statistics, columns);
  return noGrad(() =>
    tidy(() => energy(weight.detach().sub(approximation), momentsOf(weight, statistics)) / Math.max(1, rows)),
  );
}

/** E[x·xᵀ] as a tensor where `weight` is. */
function momentsOf({ device }: Tensor, { products, count, inFeatures }: ActivationStatistics): Tensor {
  const means = Float32Array.from(products, (sum) => sum / count);
  return tensor(means, { shape: [inFeatures, inFeatures], device });
}

/** Σᵢ dᵢ·M·dᵢᵀ over the rows of `d`. */
function energy(d: Tensor, moments: Tensor): number {
  return tidy(() => matmul(d, moments).mul(d).sum().item());
}

/** Mean magnitudes by source channel: of inputs, and of the weights that take them. */
function channelMagnitudes(
  layers: readonly AwqLayer[],
  channels: ArrayLike<number>,
): [Float64Array, Float64Array] {
  const n = Math.max(-1, ...Array.from(channels)) + 1;
  const counts = new Float64Array(n);
  const inputs = new Float64Array(n);
  const weights = new Float64Array(n);
  for (const { weight, statistics } of layers) {
    const columns = tidy(() => weight.detach().cast("float32").abs().mean(0).dataSync());
    for (let i = 0; i < channels.length; i++) {
      counts[channels[i]]++;
      inputs[channels[i]] += statistics.magnitudes[i] / statistics.count;
      weights[channels[i]] += Number(columns[i]);
    }
  }
  const mean = (sums: Float64Array) => sums.map((sum, i) => sum / Math.max(1, counts[i]));
  return [mean(inputs), mean(weights)];
}

/** Magnitudes relative to the largest; channels that carry nothing are as good as those that carry little. */
function relative(magnitudes: Float64Array): Float64Array {
  const largest = magnitudes.reduce((a, b) => Math.max(a, b), 0);
  return magnitudes.map((magnitude) => (largest > 0 ? Math.max(magnitude / largest, 1e-4) : 1));
}

/** With least · largest = 1. */
function centred(scales: Float64Array): Float32Array {
  const least = scales.reduce((a, b) => Math.min(a, b), Infinity);
  const largest = scales.reduce((a, b) => Math.max(a, b), 0);
  return Float32Array.from(scales, (scale) => scale / Math.sqrt(least * largest));
}

/**
 * Scales by channel for layers that share their inputs, those with the least sum of the layers' output errors, each relative to its
 * output. Tried are xᵃ and, as AutoAWQ does, xᵃ / w¹⁻ᵃ of the mean magnitudes x of the inputs and w of the weights.
 *
 * @param channels - where each input comes from: inputs of one source have one scale
 * @returns by source
 */
export function searchAwqScales(
  layers: readonly AwqLayer[],
  channels: ArrayLike<number>,
  steps: number,
): Float32Array {
  const [inputs, weights] = channelMagnitudes(layers, channels).map(relative);
  return noGrad(() =>
    tidy(() => {
      const moments = layers.map(({ weight, statistics }) => momentsOf(weight, statistics));
      const energies = layers.map(({ weight }, i) => energy(weight.detach().cast("float32"), moments[i]));
      const errorOf = (scales: Float32Array) =>
        layers.reduce((sum, { weight, format, name }, i) => {
          const error = tidy(() => {
            const { device } = weight;
            const factors = tensor(
              Float32Array.from(channels, (source) => scales[source]),
              { device },
            );
            const w = weight.detach().cast("float32");
            const quantized = quantize(w.mul(factors), { format, name, measure: false });
            const dense = quantized.dequantize();
            quantized.dispose();
            return energy(w.sub(dense.div(factors)), moments[i]);
          });
          return sum + (energies[i] > 0 ? error / energies[i] : error);
        }, 0);
      let best: Float32Array = new Float32Array(inputs.length).fill(1);
      let least = errorOf(best);
      for (let step = 0; step < steps; step++) {
        const strength = step / steps;
        const powers = inputs.map((x) => x ** strength);
        for (const scales of [powers, powers.map((power, i) => power / weights[i] ** (1 - strength))]) {
          const tried = centred(scales);
          const error = errorOf(tried);
          if (error < least) [best, least] = [tried, error];
        }
      }
      return best;
    }),
  );
}

/** Up to so many columns a group's errors are weighed together, with the moments between them; beyond, each alone. */
const widestBlock = 256;

/** The weight with the lines that give each group, alone, the least error of the output; its columns are scaled by `scales`. */
function clip(
  scaled: Tensor,
  { products }: ActivationStatistics,
  scales: ArrayLike<number>,
  format: BlockFormat,
  name: string,
): QuantizedTensor {
  const shape = weightShape("quantizeAwq", scaled);
  const [rows, columns] = shape;
  const coder = new GridCoder("quantizeAwq", format, shape, name);
  const { grids } = coder;
  const values = finiteValues("quantizeAwq", scaled, format, name);
  for (let group = 0; group < coder.groupsOfRow; group++) {
    const from = group * coder.group;
    const count = Math.min(coder.group, columns - from);
    // Moments of the inputs as the scaled weight has them.
    const moment = (i: number, j: number) =>
      products[(from + i) * columns + from + j] / (scales[from + i] * scales[from + j]);
    const diagonal = Float64Array.from({ length: count }, (_, i) => moment(i, i));
    const whole = count <= widestBlock;
    const block = Float64Array.from({ length: whole ? count ** 2 : 0 }, (_, at) =>
      moment(Math.floor(at / count), at % count),
    );
    const losses = new Float64Array(count);
    for (let row = 0; row < rows; row++) {
      const at = row * columns + from;
      const part = values.subarray(at, at + count);
      const errorOf = (grid: Grid) => {
        let sum = 0;
        for (let i = 0; i < count; i++) {
          losses[i] = part[i] - (grid.scale * nearestCode(grids, part[i], grid) + grid.offset);
          let before = 0;
          for (let j = 0; j < i; j++) before += block[i * count + j] * losses[j];
          sum += losses[i] * (2 * before + diagonal[i] * losses[i]);
        }
        return sum;
      };
      const grid = searchLine(coder, part, diagonal, whole ? errorOf : undefined);
      coder.setGrid(row, group, grid);
      for (let i = 0; i < count; i++) coder.codes[at + i] = nearestCode(grids, part[i], grid);
    }
  }
  return coder.pack(scaled);
}

/**
 * Quantizes weight · diag(scales) with the scales, and for integer formats the clipping, that give the least {@link outputError}.
 *
 * @returns the weight and what the layer's inputs are to be multiplied by (1/scales), as `QuantizedLinear` takes them; the
 * caller disposes both
 * @throws {ArgumentError} as `quantize`; for statistics without inputs
 */
export function quantizeAwq(
  weight: Tensor,
  statistics: ActivationStatistics,
  options: AwqOptions,
): { weight: QuantizedTensor; inputScales: Tensor } {
  requireOptions("quantizeAwq", options);
  const { name = "tensor", steps = 10 } = options;
  const format = resolveFormat(options.format);
  const [, columns] = weightShape("quantizeAwq", weight);
  requireStatistics("quantizeAwq", statistics, columns);
  if (!(Number.isInteger(steps) && steps > 0))
    throw new ArgumentError(`quantizeAwq: steps ${steps} is no count`);
  const given = options.scales;
  if (given && given.length !== columns)
    throw new ShapeError(`quantizeAwq: ${given.length} scales for a weight of ${columns} inFeatures`);
  if (given && !Array.from(given).every((scale) => scale > 0 && Number.isFinite(scale)))
    throw new ArgumentError("quantizeAwq: scales must be positive and finite");
  const channels = Array.from({ length: columns }, (_, i) => i);
  const scales = Float32Array.from(
    given ?? searchAwqScales([{ weight, statistics, format, name }], channels, steps),
  );
  return noGrad(() =>
    tidy(() => {
      const original = weight.detach();
      const factors = tensor(scales, { device: weight.device });
      const inputScales = factors.reciprocal();
      const scaled = original.cast("float32").mul(factors);
      const computed = (q: QuantizedTensor) => q.dequantize().mul(inputScales);
      let quantized = quantize(scaled, { format, name, measure: false });
      if (format.grid && format.rowWise) {
        const clipped = clip(scaled, statistics, scales, format, name);
        const moments = momentsOf(weight, statistics);
        const [with_, without] = [clipped, quantized].map((q) => energy(original.sub(computed(q)), moments));
        const worse = with_ < without ? quantized : clipped;
        if (worse === quantized) quantized = clipped;
        worse.dispose();
      }
      // The error of what the layer computes with, the scales taken off again.
      const error = quantizationError(original, computed(quantized));
      const { shape, parts } = quantized;
      return { weight: new QuantizedTensor(format, shape, parts, error), inputScales };
    }),
  );
}
