// A linear layer with adapters around any other linear layer, dense or quantized. It is a linear layer itself, so the model and
// other packages need not know.

import { ArgumentError, type Tensor } from "@nomoat/core";
import { checkFeatures, LinearBase } from "@nomoat/core/nn";
import { adaptedBrand } from "./adapted.js";
import type { AdapterBranch } from "./branch.js";

/** A base that holds the updates of some adapters, made but not yet put in place. */
export interface MergePlan {
  readonly layer: LoraLinear;
  readonly names: readonly string[];
  /** null: the original base. */
  readonly merged: LinearBase | null;
}

/**
 * base(x) + Σ weight · scaling · B(A(dropout(x))) over the enabled adapters.
 *
 * Its names in a state dict are `base_layer.…` (as in PEFT) and `adapters.N.…`.
 */
export class LoraLinear extends LinearBase {
  readonly [adaptedBrand] = true;
  /** The layer that is adapted; while adapters are merged, one of the same kind with their updates in its weight. */
  base_layer: LinearBase;
  /** In the order in which they came. */
  readonly adapters: AdapterBranch[] = [];
  /** The base as it was before any merge; null while nothing is merged. */
  #original: LinearBase | null = null;
  /** Merged adapters and the weights that they had then. */
  readonly #merged = new Map<AdapterBranch, number>();
  readonly #frozenByMerge = new Map<AdapterBranch, Tensor[]>();

  /** Wraps `base`, which this layer owns from now on. */
  constructor(base: LinearBase) {
    super();
    this.base_layer = base;
    this.training = base.training;
  }

  get inFeatures(): number {
    return this.base_layer.inFeatures;
  }

  get outFeatures(): number {
    return this.base_layer.outFeatures;
  }

  get bias(): Tensor | null {
    return this.base_layer.bias;
  }

  /** The base without any adapter. */
  get original(): LinearBase {
    return this.#original ?? this.base_layer;
  }

  /** Names of the merged adapters. */
  get mergedAdapters(): string[] {
    return Array.from(this.#merged.keys(), (branch) => branch.adapter);
  }

  /** The part of the adapter of that name, if it has one here. */
  branch(name: string): AdapterBranch | undefined {
    return this.adapters.find((branch) => branch.adapter === name);
  }

  /** Adds an adapter's part. @throws {ArgumentError} when its name is taken */
  add(branch: AdapterBranch): void {
    if (this.branch(branch.adapter)) throw new ArgumentError(`adapter "${branch.adapter}" exists already`);
    branch.train(this.training);
    this.adapters.push(branch);
  }

  /** Takes an adapter's part out; the caller disposes it. @throws {ArgumentError} while it is merged, or when there is none */
  take(name: string): AdapterBranch {
    const at = this.adapters.findIndex((branch) => branch.adapter === name);
    if (at < 0) throw new ArgumentError(`there is no adapter "${name}"`);
    if (this.#merged.has(this.adapters[at]))
      throw new ArgumentError(`adapter "${name}" is merged; unmerge it first`);
    return this.adapters.splice(at, 1)[0];
  }

  /** Which layer to run, and which adapters beside it. What is merged but disabled or reweighted since runs from the original. */
  #parts(): { base: LinearBase; branches: AdapterBranch[] } {
    const enabled = this.adapters.filter((branch) => branch.enabled);
    for (const [branch, weight] of this.#merged) {
      if (!branch.enabled || branch.weight !== weight) return { base: this.original, branches: enabled };
    }
    return { base: this.base_layer, branches: enabled.filter((branch) => !this.#merged.has(branch)) };
  }

  /** x [..., inFeatures] → [..., outFeatures]. */
  override forward(x: Tensor): Tensor {
    checkFeatures("LoraLinear", x, this.inFeatures);
    const { base, branches } = this.#parts();
    let y = base.forward(x);
    for (const branch of branches) {
      const before = y;
      y = branch.update(x, before, base);
      if (before !== y && before !== x) before.dispose();
    }
    return y;
  }

  /** The weight with the updates of the enabled adapters, dense; the caller disposes it. */
  override denseWeight(): Tensor {
    const { base, branches } = this.#parts();
    return addUpdates(base.denseWeight(), branches);
  }

  /** A layer of the base's kind, without adapters. */
  override withDenseWeight(weight: Tensor): LinearBase {
    return this.original.withDenseWeight(weight);
  }

  /**
   * Prepares the base that has exactly the named adapters merged; nothing is changed yet.
   * @throws {ArgumentError} for an adapter that is not here, or has values that are not finite
   */
  planMerge(names: readonly string[]): MergePlan {
    const branches = names.map((name) => {
      const branch = this.branch(name);
      if (!branch) throw new ArgumentError(`merge: there is no adapter "${name}"`);
      for (const [suffix, tensor] of branch.tensors()) {
        if (!tensor.dataSync().every(Number.isFinite))
          throw new ArgumentError(`merge: adapter "${name}": ${suffix} has values that are not finite`);
      }
      return branch;
    });
    if (branches.length === 0) return { layer: this, names, merged: null };
    const weight = addUpdates(this.original.denseWeight(), branches);
    try {
      const merged = this.original.withDenseWeight(weight);
      merged.train(this.original.training).requiresGrad(false);
      return { layer: this, names, merged };
    } finally {
      weight.dispose();
    }
  }

  /** Puts a plan of {@link planMerge} in place. The original base is kept, unchanged, for {@link unmerge}. */
  commitMerge(plan: MergePlan): void {
    const original = this.original;
    if (this.base_layer !== original) this.base_layer.dispose();
    this.#merged.clear();
    this.#original = plan.merged ? original : null;
    this.base_layer = plan.merged ?? original;
    for (const branch of this.adapters) {
      if (plan.names.includes(branch.adapter)) {
        this.#merged.set(branch, branch.weight);
        this.#freeze(branch);
      } else this.#thaw(branch);
    }
  }

  // A merged adapter gets no gradients from this layer; asking for them anyway has to fail, not to do nothing.
  #freeze(branch: AdapterBranch): void {
    if (this.#frozenByMerge.has(branch)) return;
    const trainable = branch.trainableParameters();
    for (const tensor of trainable) tensor.requiresGrad = false;
    this.#frozenByMerge.set(branch, trainable);
  }

  #thaw(branch: AdapterBranch): void {
    for (const tensor of this.#frozenByMerge.get(branch) ?? []) tensor.requiresGrad = true;
    this.#frozenByMerge.delete(branch);
  }

  /** Merges the named adapters (default: the enabled ones) besides those merged already. `forward` never does that. */
  merge(names = this.adapters.filter((branch) => branch.enabled).map((branch) => branch.adapter)): void {
    this.commitMerge(this.planMerge([...new Set([...this.mergedAdapters, ...names])]));
  }

  /** Takes the named adapters (default: all) out of the base again; with the last one the original base is back, byte for byte. */
  unmerge(names = this.mergedAdapters): void {
    this.commitMerge(this.planMerge(this.mergedAdapters.filter((name) => !names.includes(name))));
  }

  /** Disposes base, original and adapters. */
  override dispose(): void {
    this.#original?.dispose();
    super.dispose();
  }
}

/** `weight` with all updates; takes `weight` over. */
function addUpdates(weight: Tensor, branches: readonly AdapterBranch[]): Tensor {
  let sum = weight;
  for (const branch of branches) {
    const before = sum;
    sum = branch.updateWeight(before);
    before.dispose();
  }
  return sum;
}
