// Which layer gets which format, for a budget of bits: those that lose most by few bits get more.

import { ArgumentError, noGrad, type Tensor, tidy, zerosLike } from "@nomoat/core";
import { outputError } from "./calibrated/awq.js";
import type { ActivationStatistics } from "./calibrated/statistics.js";
import { type BlockFormat, sizeOf, type WeightShape } from "./formats/format.js";
import { quantize } from "./quantize.js";
import { type QuantizedTensor, weightShape } from "./quantized-tensor.js";

/** A layer to be given a format. */
export interface Choosable {
  readonly name: string;
  readonly weight: Tensor;
  /** The formats to choose from; one alone is given. */
  readonly formats: readonly BlockFormat[];
  /** Of its inputs, where they are known. */
  readonly statistics?: ActivationStatistics;
}

interface Choice {
  readonly format: BlockFormat;
  readonly bits: number;
  /**
   * What layers are weighed against each other by: squared error of the outputs where the inputs are known, of the weight otherwise, relative
   * to the mean square, times the weight's size.
   */
  readonly loss: number;
}

const elementBytes = { uint8: 1, int8: 1, float32: 4 } as const;

/** Bits of a weight of `shape` in a format, scales included. */
export function bitsOf(format: BlockFormat, shape: WeightShape): number {
  return format
    .parts(shape)
    .reduce((bits, part) => bits + 8 * sizeOf(part.shape) * elementBytes[part.dtype], 0);
}

function measure({ name, weight, formats, statistics }: Choosable): Choice[] {
  const shape = weightShape("quantizeModel", weight);
  return formats.map((format) => {
    const bits = bitsOf(format, shape);
    if (formats.length === 1) return { format, bits, loss: 0 };
    const quantized = quantize(weight, { format, name: `${name}.weight` });
    try {
      const { noise = 0, signal = 0 } = statistics
        ? errorOfOutputs(weight, quantized, statistics)
        : (quantized.error ?? {});
      return { format, bits, loss: signal > 0 ? (noise / signal) * sizeOf(shape) : 0 };
    } finally {
      quantized.dispose();
    }
  });
}

function errorOfOutputs(weight: Tensor, quantized: QuantizedTensor, statistics: ActivationStatistics) {
  return noGrad(() =>
    tidy(() => {
      const noise = outputError(weight, quantized.dequantize(), statistics);
      return { noise, signal: outputError(weight, zerosLike(weight), statistics) };
    }),
  );
}

/**
 * Formats by layer, asking for each weight whose values it needs, with at most `bitsPerWeight` bits on average. Every layer starts with
 * its smallest format; then the step with the greatest fall of error × size a bit is taken, as long as one fits.
 *
 * @throws {ArgumentError} when even the smallest formats exceed the budget
 */
export function* chooseFormats(
  layers: readonly Choosable[],
  bitsPerWeight: number,
): Generator<Tensor, Map<string, BlockFormat>, Tensor> {
  const choices: Choice[][] = [];
  for (const layer of layers) {
    const weight = layer.formats.length > 1 ? yield layer.weight : layer.weight;
    choices.push(measure({ ...layer, weight }).sort((a, b) => a.bits - b.bits));
  }
  const size = layers.reduce((sum, { weight }) => sum + weight.size, 0);
  const chosen = choices.map(([smallest]) => smallest);
  let left = bitsPerWeight * size - chosen.reduce((sum, { bits }) => sum + bits, 0);
  if (!(left >= 0)) {
    const least = chosen.reduce((sum, { bits }) => sum + bits, 0) / size;
    throw new ArgumentError(
      `quantizeModel: ${bitsPerWeight} bits per weight are less than the ${least.toFixed(3)} of the smallest candidates`,
    );
  }
  for (;;) {
    let best = { rate: 0, layer: -1, choice: chosen[0] };
    for (const [layer, now] of chosen.entries()) {
      for (const choice of choices[layer]) {
        const more = choice.bits - now.bits;
        const gain = now.loss - choice.loss;
        if (gain <= 0 || more > left) continue;
        // Better for no more bits: always worth it.
        const rate = more > 0 ? gain / more : Infinity;
        if (rate > best.rate) best = { rate, layer, choice };
      }
    }
    if (best.layer < 0) break;
    left -= best.choice.bits - chosen[best.layer].bits;
    chosen[best.layer] = best.choice;
  }
  return new Map(layers.map(({ name }, i) => [name, chosen[i].format]));
}
