// What calibrated methods need to know of a layer's inputs, gathered while a model runs.

import { matmul, noGrad, ShapeError, type Tensor, tidy } from "@nomoat/core";
import type { Module } from "@nomoat/core/nn";
import { recordInputs } from "./recorder.js";

/** Sums over all inputs x of a linear layer. */
export class ActivationStatistics {
  readonly inFeatures: number;
  /** Σ x·xᵀ, [inFeatures, inFeatures], row-major. */
  readonly products: Float64Array;
  /** Σ |x|, [inFeatures]. */
  readonly magnitudes: Float64Array;
  /** Inputs seen. */
  count = 0;

  constructor(inFeatures: number) {
    this.inFeatures = inFeatures;
    this.products = new Float64Array(inFeatures * inFeatures);
    this.magnitudes = new Float64Array(inFeatures);
  }

  /** Adds inputs [..., inFeatures]. Products of one call are summed in float32, calls in float64. */
  add(x: Tensor): void {
    if (x.rank === 0 || x.shape.at(-1) !== this.inFeatures) {
      throw new ShapeError(
        `ActivationStatistics: inputs are [..., ${this.inFeatures}], not [${x.shape.join(", ")}]`,
      );
    }
    noGrad(() =>
      tidy(() => {
        const rows = x.detach().reshape(-1, this.inFeatures);
        const products = matmul(rows, rows, { transA: true }).dataSync();
        for (let i = 0; i < this.products.length; i++) this.products[i] += Number(products[i]);
        const magnitudes = rows.abs().sum(0).dataSync();
        for (let i = 0; i < this.inFeatures; i++) this.magnitudes[i] += Number(magnitudes[i]);
        this.count += rows.shape[0];
      }),
    );
  }
}

/**
 * Runs the model on calibration data and gathers the inputs' statistics of its `nn.Linear` layers, by name. The model is
 * afterwards as it was. A layer costs 8 · inFeatures² bytes.
 *
 * @param run - runs the model on the data; may return a promise
 * @param only - which layers (default: all)
 * @throws {ArgumentError} when there is no such layer
 */
export async function collectStatistics(
  model: Module,
  run: () => unknown,
  only: (name: string) => boolean = () => true,
): Promise<Map<string, ActivationStatistics>> {
  const found = new Map<string, ActivationStatistics>();
  await recordInputs("collectStatistics", model, run, only, (name, x) => {
    const statistics = found.get(name) ?? new ActivationStatistics(x.shape.at(-1) ?? 0);
    found.set(name, statistics);
    statistics.add(x);
  });
  return found;
}
