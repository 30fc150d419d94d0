// What calibrated methods need to know of a layer's inputs, gathered while a model runs.

import { ArgumentError, matmul, noGrad, ShapeError, type Tensor, tidy } from "@nomoat/core";
import { Linear, LinearBase, type Module } from "@nomoat/core/nn";

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

/** Stands in a model for a layer while inputs are recorded. */
class Recorder extends LinearBase {
  readonly weight: Tensor;
  readonly bias: Tensor | null;
  readonly #inner: Linear;
  readonly #statistics: ActivationStatistics;

  constructor(inner: Linear, statistics: ActivationStatistics) {
    super();
    this.weight = inner.weight;
    this.bias = inner.bias;
    this.#inner = inner;
    this.#statistics = statistics;
  }

  get inFeatures(): number {
    return this.#inner.inFeatures;
  }

  get outFeatures(): number {
    return this.#inner.outFeatures;
  }

  override forward(x: Tensor): Tensor {
    this.#statistics.add(x);
    return this.#inner.forward(x);
  }

  override denseWeight(): Tensor {
    return this.#inner.denseWeight();
  }

  override withDenseWeight(weight: Tensor): Linear {
    return this.#inner.withDenseWeight(weight);
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
  const layers = [...model.namedModules()].filter(
    (entry): entry is [string, Linear] => entry[1] instanceof Linear && entry[0] !== "" && only(entry[0]),
  );
  if (layers.length === 0)
    throw new ArgumentError("collectStatistics: the model has no such float linear layer");
  const found = new Map<string, ActivationStatistics>();
  try {
    for (const [name, layer] of layers) {
      const statistics = new ActivationStatistics(layer.inFeatures);
      found.set(name, statistics);
      const recorder = new Recorder(layer, statistics);
      recorder.train(layer.training);
      model.replaceModule(name, recorder);
    }
    await run();
  } finally {
    for (const [name, layer] of layers) if (found.has(name)) model.replaceModule(name, layer);
  }
  return found;
}
