// Rows of embeddings that an adapter trains (PEFT's trainable_token_indices): the rows of some tokens are replaced by trained ones, in
// the embedding and in the output layers that share its weight. The whole matrix is neither trained nor saved.

import { ArgumentError, embedding, gather, noGrad, type Tensor, tensor, tidy, where } from "@nomoat/core";
import { checkFeatures, Embedding, Linear, LinearBase, Module, parameter } from "@nomoat/core/nn";
import { isAdapted } from "./adapted.js";
import type { LoraConfig } from "./config.js";
import { overwrite } from "./overwrite.js";
import type { Replacement } from "./replacements.js";
import { candidateModules, kindOf, matchesName } from "./targets.js";

/** Key of the rows after a module's name, in PEFT's files. */
const suffix = "token_adapter.trainable_tokens_delta";
/** Where PEFT looks when a model has several embeddings. */
const usualName = "embed_tokens";

/** Trained rows of one weight. */
interface TokenRows {
  readonly indices: readonly number[];
  /** [indices.length, embeddingDim]. */
  readonly delta: Tensor;
}

/** An embedding, some of whose rows are trained. */
class TokenEmbedding extends Module {
  readonly trainable_tokens_delta: Tensor;
  // Private, since other adapters must not find it; the base stays frozen.
  readonly #base: Embedding;
  /** For each token its row of the trained ones, or −1. */
  readonly #places: Tensor;

  constructor(base: Embedding, { indices, delta }: TokenRows) {
    super();
    this.trainable_tokens_delta = delta;
    this.#base = base;
    const places = new Int32Array(base.weight.shape[0]).fill(-1);
    indices.forEach((token, row) => {
      places[token] = row;
    });
    this.#places = parameter(tensor(places, { dtype: "int32", device: delta.device }), false);
  }

  /** The base's weight [numEmbeddings, embeddingDim], without the trained rows. */
  get weight(): Tensor {
    return this.#base.weight;
  }

  /** int32 indices [...] → [..., embeddingDim]. */
  override forward(indices: Tensor): Tensor {
    return tidy(() => {
      const plain = this.#base.forward(indices);
      const rows = gather(this.#places, indices);
      const trained = embedding(this.trainable_tokens_delta, rows.maximum(0)).cast(plain.dtype);
      return where(rows.less(0).unsqueeze(-1), plain, trained);
    });
  }

  /** Lets go of all but the base. */
  release(): void {
    this.#places.dispose();
    super.dispose();
  }

  override dispose(): void {
    this.release();
    this.#base.dispose();
  }
}

/** An output layer, some of whose rows are trained: its own, or those of the embedding whose weight it shares. */
class TokenLinear extends LinearBase {
  readonly trainable_tokens_delta: Tensor;
  readonly bias = null;
  readonly #base: Linear;
  readonly #indices: readonly number[];

  constructor(base: Linear, { indices, delta }: TokenRows) {
    super();
    this.trainable_tokens_delta = delta;
    this.#base = base;
    this.#indices = indices;
  }

  get inFeatures(): number {
    return this.#base.inFeatures;
  }

  get outFeatures(): number {
    return this.#base.outFeatures;
  }

  /** The few trained columns of the output replace the base's: the weight is not copied. */
  override forward(x: Tensor): Tensor {
    checkFeatures("TokenLinear", x, this.inFeatures);
    return tidy(() => {
      const plain = this.#base.forward(x);
      const delta = this.trainable_tokens_delta.cast(x.dtype);
      const columns = x.matmul(delta, { transB: true });
      return overwrite(plain, columns.cast(plain.dtype), this.#indices, -1);
    });
  }

  /** The weight [outFeatures, inFeatures] with the trained rows, in the graph, for losses that multiply by it piece by piece. */
  productWeight(): Tensor {
    const { weight } = this.#base;
    return tidy(() => overwrite(weight, this.trainable_tokens_delta.cast(weight.dtype), this.#indices, 0));
  }

  override denseWeight(): Tensor {
    return noGrad(() => this.productWeight());
  }

  override withDenseWeight(weight: Tensor): Linear {
    return this.#base.withDenseWeight(weight);
  }

  /** Lets go of all but the base. */
  release(): void {
    this.trainable_tokens_delta.dispose();
  }

  override dispose(): void {
    this.release();
    this.#base.dispose();
  }
}

type Trained = Embedding | Linear;

const isTrainable = (module: Module): module is Trained =>
  module instanceof Embedding || (module instanceof Linear && !module.bias);

interface Entry {
  /** Name of the module in the model. */
  readonly at: string;
  /** True: follows another entry's rows, and is not saved. */
  readonly tied: boolean;
  readonly rows: TokenRows;
  readonly original: Trained;
  readonly copy: TokenEmbedding | TokenLinear;
}

/** Every adapter's modules. */
const copies = new WeakSet<Module>();

/** True for an adapter's layers with trained rows. */
export const hasTrainedTokens = (module: Module): boolean => copies.has(module);

/** Names of modules and the tokens whose rows are trained, as `config.trainableTokenIndices` gives them. */
function namedTokens(
  modules: ReadonlyMap<string, Module>,
  given: NonNullable<LoraConfig["trainableTokenIndices"]>,
): [entry: string, indices: readonly number[]][] {
  if (!Array.isArray(given)) return Object.entries(given as Readonly<Record<string, readonly number[]>>);
  const embeddings = [...modules].filter(
    ([, module]) => module instanceof Embedding || hasTrainedTokens(module),
  );
  const [only] = embeddings.length === 1 ? embeddings[0] : [usualName];
  return [[only, given]];
}

/** The trained rows of one adapter. */
export class TrainedTokens implements Replacement {
  readonly #model: Module;
  readonly #entries: Entry[] = [];

  /**
   * Copies the rows; the model stays as it is.
   * @throws {ArgumentError} listing names that match nothing, modules that carry adapters, are trained as a whole or have no rows, and
   *   tokens outside of them
   */
  constructor(
    model: Module,
    config: Pick<LoraConfig, "trainableTokenIndices" | "modulesToSave">,
    targets: readonly { readonly name: string }[],
    dtype: "float32" | "float64",
  ) {
    this.#model = model;
    const given = config.trainableTokenIndices;
    if (given === null) return;
    const modules = candidateModules(model);
    const whole = (name: string) =>
      (config.modulesToSave ?? []).some((entry) => `.${name}.`.includes(`.${entry}.`));
    const targeted = new Set(targets.map(({ name }) => name));
    const faults: string[] = [];
    const chosen = new Map<string, { module: Trained; indices: readonly number[] }>();
    for (const [entry, indices] of namedTokens(modules, given)) {
      const found = [...modules].filter(([name]) => matchesName(name, entry));
      if (found.length === 0) faults.push(`no module is called ${JSON.stringify(entry)}`);
      for (const [name, module] of found) {
        if (hasTrainedTokens(module))
          faults.push(`another adapter's rows of ${name} are in place; disable it first`);
        else if (isAdapted(module) || targeted.has(name)) faults.push(`${name} carries an adapter`);
        else if (whole(name)) faults.push(`${name} is trained as a whole (modulesToSave)`);
        else if (!isTrainable(module))
          faults.push(`${name} (${kindOf(module)}) is no embedding and no dense linear layer without bias`);
        else {
          const [rows] = module.weight.shape;
          const outside = indices.filter((index) => index >= rows);
          if (outside.length > 0)
            faults.push(`${name} has ${rows} rows, not ${outside.slice(0, 5).join(", ")}`);
          chosen.set(name, { module, indices });
        }
      }
    }
    if (faults.length > 0) throw new ArgumentError(`trainableTokenIndices: ${faults.join("; ")}`);
    const rowsOf = new Map<Tensor, TokenRows>();
    const wanted = [...chosen];
    // What shares a weight follows the first that has it, unless it has tokens of its own.
    for (const [at, module] of modules) {
      if (chosen.has(at) || !(module instanceof Linear) || !isTrainable(module)) continue;
      const source = wanted.find(([, one]) => one.module.weight === module.weight);
      if (source) chosen.set(at, { module, indices: source[1].indices });
    }
    for (const [at, { module, indices }] of chosen) {
      const { weight } = module;
      const first = rowsOf.get(weight);
      const tied = first !== undefined && first.indices.join() === indices.join();
      const rows = tied ? first : { indices, delta: copyRows(weight, indices, dtype) };
      if (!first) rowsOf.set(weight, rows);
      const copy =
        module instanceof Linear ? new TokenLinear(module, rows) : new TokenEmbedding(module, rows);
      copies.add(copy);
      this.#entries.push({ at, tied, rows, original: module, copy });
    }
  }

  get size(): number {
    return this.#entries.length;
  }

  *tensors(): Generator<[key: string, tensor: Tensor]> {
    for (const { at, tied, rows } of this.#entries) if (!tied) yield [`${at}.${suffix}`, rows.delta];
  }

  parameters(): Tensor[] {
    return this.#entries.filter(({ tied }) => !tied).map(({ rows }) => rows.delta);
  }

  checkFree(): void {
    for (const { at, original, copy } of this.#entries) {
      const current = this.#model.getModule(at);
      if (current !== original && current !== copy)
        throw new ArgumentError(
          `trainableTokenIndices: another adapter is on ${at}; disable or remove that adapter first`,
        );
    }
  }

  setActive(active: boolean): void {
    if (active) this.checkFree();
    for (const { at, original, copy } of this.#entries) {
      const [incoming, outgoing] = active ? [copy, original] : [original, copy];
      if (this.#model.getModule(at) !== outgoing) continue;
      incoming.train(outgoing.training);
      this.#model.replaceModule(at, incoming);
    }
  }

  /** Plain layers with the trained rows take the places; layers that shared a weight share the new one. */
  releaseOriginals(): void {
    const merged = new Map<Tensor, Tensor>();
    for (const { at, original, rows } of this.#entries) {
      const { weight } = original;
      const key = rows.delta;
      const whole = merged.get(key) ?? mergedWeight(weight, rows);
      merged.set(key, whole);
      const plain = original instanceof Linear ? new Linear(whole) : new Embedding(whole);
      plain.train(original.training);
      plain.requiresGrad(false);
      this.#model.replaceModule(at, plain);
    }
    const used = new Set(this.#model.stateDict().values());
    for (const { original } of this.#entries) if (!used.has(original.weight)) original.weight.dispose();
    this.dispose();
    this.#entries.length = 0;
  }

  dispose(): void {
    for (const { copy } of this.#entries) copy.release();
  }

  disposeAll(): void {
    // With the originals, which they stand before.
    for (const { copy } of this.#entries) copy.dispose();
  }
}

/** The rows as a parameter. */
function copyRows(weight: Tensor, indices: readonly number[], dtype: "float32" | "float64"): Tensor {
  return parameter(
    noGrad(() =>
      tidy(() => {
        const places = tensor(Int32Array.from(indices), { dtype: "int32", device: weight.device });
        return gather(weight, places).cast(dtype);
      }),
    ),
  );
}

function mergedWeight(weight: Tensor, { indices, delta }: TokenRows): Tensor {
  return noGrad(() => tidy(() => overwrite(weight, delta.cast(weight.dtype), indices, 0)));
}
