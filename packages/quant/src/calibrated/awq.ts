// Activation-aware scaling (Lin et al., 2023): weights of input channels that carry large activations are scaled up before
// they are quantized, and the activations down. The strength is searched by the error of the layer's output.

import { ArgumentError, matmul, noGrad, type Tensor, tensor, tidy } from "@nomoat/core";
import type { BlockFormat } from "../formats/format.js";
import type { FormatName } from "../formats/index.js";
import { quantize } from "../quantize.js";
import { QuantizedTensor, quantizationError, weightShape } from "../quantized-tensor.js";
import { requireStatistics } from "./gptq.js";
import type { ActivationStatistics } from "./statistics.js";

export interface AwqOptions {
  /** Any format that can be written. */
  readonly format: FormatName | BlockFormat;
  /** Name of the tensor in messages. */
  readonly name?: string;
  /** Strengths that are tried, evenly from 0 up to below 1 (default 20). */
  readonly steps?: number;
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
    tidy(() => {
      const { device } = weight;
      const moments = tensor(
        Float32Array.from(statistics.products, (sum) => sum / statistics.count),
        {
          ...{ shape: [columns, columns], device },
        },
      );
      const difference = weight.detach().sub(approximation);
      return matmul(difference, moments).mul(difference).sum().item() / Math.max(1, rows);
    }),
  );
}

/** Scales for one strength: magnitudes to its power, with least · largest = 1. */
function scalesFor(magnitudes: Float64Array, strength: number): Float32Array {
  let largest = 0;
  for (const magnitude of magnitudes) largest = Math.max(largest, magnitude);
  // Channels that carry nothing are as good as those that carry little.
  const powers = magnitudes.map((magnitude) => Math.max(magnitude / largest, 1e-4) ** strength);
  const middle = Math.sqrt(powers.reduce((a, b) => Math.min(a, b), 1));
  return Float32Array.from(powers, (power) => power / middle);
}

/**
 * Quantizes weight · diag(scales) with the scales that give the least {@link outputError}.
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
  const { format, name, steps = 20 } = options;
  const [, columns] = weightShape("quantizeAwq", weight);
  requireStatistics("quantizeAwq", statistics, columns);
  if (!(Number.isInteger(steps) && steps > 0))
    throw new ArgumentError(`quantizeAwq: steps ${steps} is no count`);
  const { device } = weight;
  const attempt = (strength: number) =>
    noGrad(() =>
      tidy(() => {
        const scales = tensor(scalesFor(statistics.magnitudes, strength), { device });
        const quantized = quantize(weight.detach().mul(scales), { format, name, measure: false });
        const inputScales = scales.reciprocal();
        const dense = quantized.dequantize().mul(inputScales);
        return { quantized, inputScales, error: outputError(weight, dense, statistics) };
      }),
    );
  let best = attempt(0);
  for (let step = 1; step < steps; step++) {
    const next = attempt(step / steps);
    const worse = next.error < best.error ? best : next;
    if (worse === best) best = next;
    worse.quantized.dispose();
    worse.inputScales.dispose();
  }
  const { quantized, inputScales } = best;
  // The error of what the layer computes with, the scales taken off again.
  const error = noGrad(() =>
    tidy(() => quantizationError(weight.detach(), quantized.dequantize().mul(inputScales))),
  );
  const { format: found, shape, parts } = quantized;
  return { weight: new QuantizedTensor(found, shape, parts, error), inputScales };
}
