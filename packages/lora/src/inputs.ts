// What linear layers get as inputs while a model runs over some text: sums that tell how much of an output an error of the weight
// changes, and along which directions the inputs vary.

import { noGrad, type Tensor, tensor, tidy } from "@nomoat/core";
import { hostValues, requireFunction } from "@nomoat/core/extend";
import { type LinearBase, type Module, requireModule } from "@nomoat/core/nn";
import { isAdaptedLayer } from "./layer.js";
import { type Matrix, matrix, onWasm } from "./linalg.js";
import { runThenRestore } from "./scope.js";
import { candidateModules, isLinear } from "./targets.js";

/** Sums over the rows x of a layer's inputs. Costs 8 · inFeatures² bytes. */
export class InputMoments {
  readonly inFeatures: number;
  /** Rows seen. */
  count = 0;
  /** Σ |x| [inFeatures]. */
  readonly magnitudes: Float64Array;
  /** Mean of the first call's rows: what is subtracted before products are taken, so that little cancels. */
  #shift: Float64Array | null = null;
  /** Σ (x − shift). */
  readonly #sums: Float64Array;
  /** Σ (x − shift)(x − shift)ᵀ, row-major. */
  readonly #products: Float64Array;

  constructor(inFeatures: number) {
    this.inFeatures = inFeatures;
    this.magnitudes = new Float64Array(inFeatures);
    this.#sums = new Float64Array(inFeatures);
    this.#products = new Float64Array(inFeatures ** 2);
  }

  /** Adds the rows of x [..., inFeatures]. Those of one call are summed in the dtype of x, calls in float64. */
  add(x: Tensor): void {
    const n = this.inFeatures;
    if (x.size === 0) return;
    noGrad(() =>
      tidy(() => {
        const rows = x.detach().reshape(-1, n);
        this.#shift ??= Float64Array.from(hostValues("layerInputs", rows.mean(0), onWasm), Number);
        const { dtype, device } = rows;
        const centred = rows.sub(tensor(this.#shift, { shape: [n], dtype, device }));
        const gather = (into: Float64Array, values: Tensor) => {
          hostValues("layerInputs", values, onWasm).forEach((value, i) => {
            into[i] += Number(value);
          });
        };
        gather(this.magnitudes, rows.abs().sum(0));
        gather(this.#sums, centred.sum(0));
        gather(this.#products, centred.matmul(centred, { transA: true }));
        this.count += rows.shape[0];
      }),
    );
  }

  /** Σ x·xᵀ [inFeatures, inFeatures], row-major. */
  products(): Float64Array {
    const shift = this.#shift ?? new Float64Array(this.inFeatures);
    return this.#with(
      (i, j) => shift[i] * this.#sums[j] + this.#sums[i] * shift[j] + this.count * shift[i] * shift[j],
    );
  }

  /** Σ (x − mean)(x − mean)ᵀ: the covariance times {@link count}. */
  scatter(): Matrix {
    const n = this.inFeatures;
    const count = Math.max(1, this.count);
    return matrix(
      n,
      n,
      this.#with((i, j) => (-this.#sums[i] * this.#sums[j]) / count),
    );
  }

  #with(added: (i: number, j: number) => number): Float64Array {
    const n = this.inFeatures;
    return this.#products.map((value, at) => value + added(Math.floor(at / n), at % n));
  }
}

/**
 * Runs `run` while `record` is told the inputs of the given layers.
 * @returns what `run` returns
 */
export function whileObserving<T>(
  layers: Iterable<readonly [name: string, layer: LinearBase]>,
  record: (name: string, x: Tensor) => void,
  run: () => T,
): T {
  const observed = [...layers];
  for (const [name, layer] of observed) {
    // An own property hides the class's method until it is deleted.
    Object.defineProperty(layer, "forward", {
      configurable: true,
      value: (x: Tensor) => {
        record(name, x);
        return Object.getPrototypeOf(layer).forward.call(layer, x);
      },
    });
  }
  return runThenRestore(run, () => {
    for (const [, layer] of observed) Reflect.deleteProperty(layer, "forward");
  });
}

/**
 * What the adapted linear layers of a model get as inputs while `run` runs it over a text, by their names: for `mergeReport`, and for
 * merges with error compensation. The enabled adapters take part, as they would after the merge.
 *
 * @param run - runs the model, for instance by llama's `perplexity`; may return a promise
 */
export async function layerInputs(model: Module, run: () => unknown): Promise<Map<string, InputMoments>> {
  requireModule("layerInputs", model);
  requireFunction("layerInputs", run);
  const layers = new Map<string, LinearBase>();
  for (const [name, layer] of candidateModules(model))
    if (isAdaptedLayer(layer) && isLinear(layer)) layers.set(name, layer);
  const moments = new Map(
    Array.from(layers, ([name, { inFeatures }]) => [name, new InputMoments(inFeatures)] as const),
  );
  await whileObserving(layers, (name, x) => moments.get(name)?.add(x), run);
  return moments;
}
