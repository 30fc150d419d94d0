// What calibrated methods need to know of a layer's inputs, gathered while a model runs.

import { keep, matmul, noGrad, ShapeError, type Tensor, tidy } from "@nomoat/core";
import { hostValues } from "@nomoat/core/extend";
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

  /**
   * Adds inputs [..., inFeatures]. Products of one call are summed in float32, calls in float64.
   * @throws {BackendError} for what has to be waited for: see {@link addLater}
   */
  add(x: Tensor): void {
    const { products, magnitudes, rows } = this.#sums(x);
    const read = (sums: Tensor) => hostValues("ActivationStatistics", sums, "use await addLater(x)");
    try {
      this.#take(read(products), read(magnitudes), rows);
    } finally {
      for (const each of [products, magnitudes]) each.dispose();
    }
  }

  /** {@link add} on any backend. The sums are under way when this returns, and `x` may be disposed. */
  async addLater(x: Tensor): Promise<void> {
    const { products, magnitudes, rows } = this.#sums(x);
    try {
      const [ofProducts, ofMagnitudes] = await Promise.all([products.data(), magnitudes.data()]);
      this.#take(ofProducts, ofMagnitudes, rows);
    } finally {
      for (const each of [products, magnitudes]) each.dispose();
    }
  }

  /** Σ x·xᵀ and Σ |x| of one call; the caller disposes them. */
  #sums(x: Tensor): { products: Tensor; magnitudes: Tensor; rows: number } {
    if (x.rank === 0 || x.shape.at(-1) !== this.inFeatures) {
      throw new ShapeError(
        `ActivationStatistics: inputs are [..., ${this.inFeatures}], not [${x.shape.join(", ")}]`,
      );
    }
    return noGrad(() =>
      tidy(() => {
        const rows = x.detach().reshape(-1, this.inFeatures);
        const products = keep(matmul(rows, rows, { transA: true }));
        return { products, magnitudes: keep(rows.abs().sum(0)), rows: rows.shape[0] };
      }),
    );
  }

  #take(products: ArrayLike<number>, magnitudes: ArrayLike<number>, rows: number): void {
    for (let i = 0; i < this.products.length; i++) this.products[i] += Number(products[i]);
    for (let i = 0; i < this.inFeatures; i++) this.magnitudes[i] += Number(magnitudes[i]);
    this.count += rows;
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
    return x.storage.backend.synchronous ? statistics.add(x) : statistics.addLater(x);
  });
  return found;
}
