// Listening to the inputs of a model's linear layers while it runs.

import { ArgumentError, type Tensor } from "@nomoat/core";
import { requireFunction } from "@nomoat/core/extend";
import { Linear, LinearBase, type Module, requireModule } from "@nomoat/core/nn";

/** Stands in a model for a layer while inputs are recorded. */
class Recorder extends LinearBase {
  readonly weight: Tensor;
  readonly bias: Tensor | null;
  readonly #inner: Linear;
  readonly #listen: (x: Tensor) => void;

  constructor(inner: Linear, listen: (x: Tensor) => void) {
    super();
    this.weight = inner.weight;
    this.bias = inner.bias;
    this.#inner = inner;
    this.#listen = listen;
  }

  get inFeatures(): number {
    return this.#inner.inFeatures;
  }

  get outFeatures(): number {
    return this.#inner.outFeatures;
  }

  override forward(x: Tensor): Tensor {
    this.#listen(x);
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
 * Runs the model and hands the inputs of its `nn.Linear` layers to `listen`, with the layer's name. The model is afterwards as it
 * was. Where values have to be waited for (gpu), `listen` gives a promise; those of all calls are awaited before the model is put back.
 *
 * @param operation - name for messages
 * @throws {ArgumentError} when there is no such layer
 */
export async function recordInputs(
  operation: string,
  model: Module,
  run: () => unknown,
  only: (name: string) => boolean = () => true,
  listen: (name: string, x: Tensor) => void | Promise<void>,
): Promise<void> {
  requireModule(operation, model);
  requireFunction(operation, run);
  const layers = [...model.namedModules()].filter(
    (entry): entry is [string, Linear] => entry[1] instanceof Linear && entry[0] !== "" && only(entry[0]),
  );
  if (layers.length === 0) throw new ArgumentError(`${operation}: the model has no such float linear layer`);
  const replaced: [string, Linear][] = [];
  const waiting: Promise<void>[] = [];
  try {
    for (const [name, layer] of layers) {
      const recorder = new Recorder(layer, (x) => {
        const later = listen(name, x);
        if (later) waiting.push(later);
      });
      recorder.train(layer.training);
      model.replaceModule(name, recorder);
      replaced.push([name, layer]);
    }
    await run();
    await Promise.all(waiting);
  } finally {
    await Promise.allSettled(waiting);
    for (const [name, layer] of replaced) model.replaceModule(name, layer);
  }
}
