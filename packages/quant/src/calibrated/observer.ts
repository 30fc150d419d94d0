// Ranges of a layer's inputs over calibration data, for static quantization of activations: by minimum and maximum, by
// percentiles, or by the least squared error of what rounding to them gives.

import { ArgumentError, keep, noGrad, type Tensor, tidy } from "@nomoat/core";
import type { Module } from "@nomoat/core/nn";
import { type ActivationRange, activationGrid } from "../activations.js";
import { recordInputs } from "./recorder.js";

export interface CalibrateOptions {
  /**
   * "minmax": the least and the largest value. "percentile": what lies outside is cut off. "mse" (default): the range with the least
   * squared error of rounding into 256 steps, clipping included.
   */
  readonly method?: "minmax" | "percentile" | "mse";
  /** For "percentile": how much of the values is kept, in percent (default 99.99); half of the rest is cut off at each end. */
  readonly percentile?: number;
  /** Which layers (default: all `nn.Linear`). */
  readonly only?: (name: string) => boolean;
}

const bins = 4096;

/** A histogram of all values seen, over a range about 0 that doubles when it has to. */
export class ActivationHistogram {
  /** Values counted in bin i lie in [−reach + i · width, −reach + (i + 1) · width). */
  counts = new Float64Array(bins);
  /** A power of two; 0 before the first value that is not 0. */
  reach = 0;
  low = Infinity;
  high = -Infinity;
  /** Values seen. */
  count = 0;

  /** @throws {ArgumentError} for NaN and infinities */
  add(values: ArrayLike<number>): void {
    let most = 0;
    for (let i = 0; i < values.length; i++) {
      const value = values[i];
      if (!Number.isFinite(value)) throw new ArgumentError(`ActivationHistogram: ${value} at ${i}`);
      if (value < this.low) this.low = value;
      if (value > this.high) this.high = value;
      most = Math.max(most, Math.abs(value));
    }
    this.count += values.length;
    if (most > 0) this.#grow(most);
    const perWidth = this.reach === 0 ? 0 : bins / (2 * this.reach);
    for (let i = 0; i < values.length; i++) {
      this.counts[Math.min(bins - 1, Math.floor((values[i] + this.reach) * perWidth))]++;
    }
  }

  #grow(most: number): void {
    const wanted = 2 ** (Math.floor(Math.log2(most)) + 1);
    if (this.reach === 0) {
      // Until now there were zeros alone, in the first bin.
      const zeros = this.counts[0];
      this.counts.fill(0);
      this.counts[bins / 2] = zeros;
      this.reach = wanted;
    }
    for (; this.reach < wanted; this.reach *= 2) {
      const merged = new Float64Array(bins);
      for (let i = 0; i < bins; i++) merged[bins / 4 + (i >> 1)] += this.counts[i];
      this.counts = merged;
    }
  }

  /** @throws {ArgumentError} when nothing was seen, or for an unknown method */
  range({ method = "mse", percentile = 99.99 }: Omit<CalibrateOptions, "only"> = {}): ActivationRange {
    if (this.count === 0) throw new ArgumentError("ActivationHistogram: nothing was seen");
    const { low, high } = this;
    if (method === "minmax" || this.reach === 0) return { low, high };
    if (method === "percentile") {
      if (!(percentile > 0 && percentile <= 100))
        throw new ArgumentError(`calibrateActivations: percentile ${percentile} is not in (0, 100]`);
      const cut = (this.count * (1 - percentile / 100)) / 2;
      return { low: Math.max(low, this.#below(cut)), high: Math.min(high, this.#below(this.count - cut)) };
    }
    if (method !== "mse") {
      throw new ArgumentError(
        `calibrateActivations: unknown method ${String(method)} (known: minmax, percentile, mse)`,
      );
    }
    return this.#leastError();
  }

  /** The value that `wanted` of all values lie below, even within bins. */
  #below(wanted: number): number {
    const width = (2 * this.reach) / bins;
    let sum = 0;
    for (let i = 0; i < bins; i++) {
      if (this.counts[i] > 0 && sum + this.counts[i] >= wanted) {
        return -this.reach + (i + (wanted - sum) / this.counts[i]) * width;
      }
      sum += this.counts[i];
    }
    return this.high;
  }

  /** Both ends are pulled in by turns, in steps of a fiftieth of the whole, as long as one of them makes the error smaller. */
  #leastError(): ActivationRange {
    const step = 1 / 50;
    const ends = [1, 1];
    const rangeOf = ([a, b]: number[]) => ({
      low: Math.min(0, this.low) * a,
      high: Math.max(0, this.high) * b,
    });
    let best = rangeOf(ends);
    let least = this.#error(best);
    for (let improved = true; improved; ) {
      improved = false;
      // Two steps are tried as well: the error of clipping falls in stairs.
      for (const [a, b] of [
        [1, 0],
        [0, 1],
        [1, 1],
        [2, 0],
        [0, 2],
        [2, 2],
      ]) {
        const tried = [ends[0] - a * step, ends[1] - b * step];
        if (Math.min(...tried) < step) continue;
        const range = rangeOf(tried);
        const error = this.#error(range);
        if (error < least) {
          [best, least, improved] = [range, error, true];
          [ends[0], ends[1]] = tried;
        }
      }
    }
    return best;
  }

  /** Squared error of rounding to the grid of `range`: what clipping takes, and a step's squared over 12 from rounding. */
  #error(range: ActivationRange): number {
    const { scale, zeroPoint } = activationGrid(range);
    const width = (2 * this.reach) / bins;
    let error = (this.count * scale ** 2) / 12;
    for (let i = 0; i < bins; i++) {
      if (this.counts[i] === 0) continue;
      const place = (-this.reach + (i + 0.5) * width) / scale + zeroPoint;
      const beyond = Math.max(0, -128.5 - place, place - 127.5);
      error += this.counts[i] * (beyond * scale) ** 2;
    }
    return error;
  }
}

/**
 * Runs the model on calibration data and finds the ranges of the inputs of its `nn.Linear` layers, by name, for
 * `quantizeModel(model, { activations: ranges })`. The model is afterwards as it was.
 *
 * @param run - runs the model on the data; may return a promise
 * @returns ranges of the layers that were run
 * @throws {ArgumentError} when there is no such layer; naming a layer that saw NaN or infinities; for an unknown method
 */
export async function calibrateActivations(
  model: Module,
  run: () => unknown,
  options: CalibrateOptions = {},
): Promise<Map<string, ActivationRange>> {
  const histograms = new Map<string, ActivationHistogram>();
  const turns = new Map<string, Promise<void>>();
  await recordInputs("calibrateActivations", model, run, options.only, (name, x: Tensor) => {
    const histogram = histograms.get(name) ?? new ActivationHistogram();
    histograms.set(name, histogram);
    const add = (values: ArrayLike<number>) => {
      try {
        histogram.add(values);
      } catch (error) {
        throw new ArgumentError(`${name}: ${(error as Error).message}`);
      }
    };
    const copy = noGrad(() => tidy(() => keep(x.detach().cast("float32").clone())));
    if (copy.storage.backend.synchronous) {
      try {
        return add(copy.dataSync() as Float32Array);
      } finally {
        copy.dispose();
      }
    }
    // In the order of the calls: how a histogram grows depends on it.
    const before = turns.get(name);
    const turn = copy
      .data()
      .finally(() => copy.dispose())
      .then(async (values) => {
        await before;
        add(values as Float32Array);
      });
    turns.set(name, turn);
    return turn;
  });
  return new Map(Array.from(histograms, ([name, histogram]) => [name, histogram.range(options)]));
}
