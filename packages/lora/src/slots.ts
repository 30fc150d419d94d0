// The adapters of one layer and what is merged of them: the part that all layers with adapters share, whatever they compute.

import { ArgumentError, noGrad, type Tensor, tidy } from "@nomoat/core";
import { hostValues } from "@nomoat/core/extend";
import type { Module } from "@nomoat/core/nn";
import type { AdapterBranch } from "./branch.js";
import { onWasm } from "./linalg.js";
import type { LayerPlacer } from "./merge-quantizer.js";

/** A base that holds the updates of some adapters, made but not yet put in place. */
export interface MergePlan {
  readonly slots: AdapterSlots<Module>;
  readonly names: readonly string[];
  /** null: the original base. */
  readonly merged: Module | null;
  /** What made `merged`, for the next time. */
  readonly place: LayerPlacer | undefined;
}

/** The layer that owns the slots. Its properties of these names give the names in a state dict. */
export interface SlotOwner<B extends Module> {
  /** The layer that is adapted; while adapters are merged, one of the same kind with their updates in its weight. */
  base_layer: B;
  /** In the order in which they came. */
  readonly adapters: AdapterBranch[];
  readonly training: boolean;
}

/** How a base gives its weight and takes another. */
export interface MergeMethod<B extends Module> {
  /** The dense weight; the caller disposes it. */
  weight(base: B): Tensor;
  /** A layer of the same kind with this weight (copied). */
  withWeight(base: B, weight: Tensor): B;
}

/** Adds, finds, takes out, merges and unmerges the adapters of one layer. */
export class AdapterSlots<B extends Module> {
  readonly #owner: SlotOwner<B>;
  readonly #method: MergeMethod<B>;
  /** The base as it was before any merge; null while nothing is merged. */
  #original: B | null = null;
  /** Merged adapters and the weights that they had then. */
  readonly #merged = new Map<AdapterBranch, number>();
  /** How the last merge placed its weight. */
  #place: LayerPlacer | undefined;
  readonly #frozenByMerge = new Map<AdapterBranch, Tensor[]>();

  constructor(owner: SlotOwner<B>, method: MergeMethod<B>) {
    this.#owner = owner;
    this.#method = method;
  }

  /** The base without any adapter. */
  get original(): B {
    return this.#original ?? this.#owner.base_layer;
  }

  /** Names of the merged adapters. */
  get merged(): string[] {
    return Array.from(this.#merged.keys(), (branch) => branch.adapter);
  }

  /** The part of the adapter of that name, if it has one here. */
  branch(name: string): AdapterBranch | undefined {
    return this.#owner.adapters.find((branch) => branch.adapter === name);
  }

  /** Adds an adapter's part. @throws {ArgumentError} when its name is taken */
  add(branch: AdapterBranch): void {
    if (this.branch(branch.adapter)) throw new ArgumentError(`adapter "${branch.adapter}" exists already`);
    branch.train(this.#owner.training);
    this.#owner.adapters.push(branch);
  }

  /** Takes an adapter's part out; the caller disposes it. @throws {ArgumentError} while it is merged, or when there is none */
  take(name: string): AdapterBranch {
    const { adapters } = this.#owner;
    const at = adapters.findIndex((branch) => branch.adapter === name);
    if (at < 0) throw new ArgumentError(`there is no adapter "${name}"`);
    if (this.#merged.has(adapters[at]))
      throw new ArgumentError(`adapter "${name}" is merged; unmerge it first`);
    return adapters.splice(at, 1)[0];
  }

  /** Which layer to run, and which adapters beside it. What is merged but disabled or reweighted since runs from the original. */
  parts(): { base: B; branches: AdapterBranch[] } {
    const enabled = this.#owner.adapters.filter((branch) => branch.enabled);
    for (const [branch, weight] of this.#merged) {
      if (!branch.enabled || branch.weight !== weight) return { base: this.original, branches: enabled };
    }
    return {
      base: this.#owner.base_layer,
      branches: enabled.filter((branch) => !this.#merged.has(branch)),
    };
  }

  /** The weight with the updates of the adapters that take part; the caller disposes it. */
  effectiveWeight(): Tensor {
    const { base, branches } = this.parts();
    return this.#withUpdates(this.#method.weight(base), branches);
  }

  /** `weight` with all updates, each reckoned from the original weight; takes `weight` over. */
  #withUpdates(weight: Tensor, branches: readonly AdapterBranch[]): Tensor {
    if (branches.length === 0) return weight;
    const original = this.#method.weight(this.original);
    let sum = weight;
    for (const branch of branches) {
      const before = sum;
      sum = branch.updateWeight(before, original);
      before.dispose();
    }
    original.dispose();
    return sum;
  }

  /**
   * Prepares the base that has exactly the named adapters merged; nothing is changed yet.
   * @param place - makes the layer of the merged weight (default: as in the merge before, or the base's own way)
   * @throws {ArgumentError} for an adapter that is not here, or has values that are not finite
   */
  planMerge(names: readonly string[], place = this.#place): MergePlan {
    const branches = names.map((name) => {
      const branch = this.branch(name);
      if (!branch) throw new ArgumentError(`merge: there is no adapter "${name}"`);
      const obstacle = branch.mergeObstacle(this.original);
      if (obstacle) throw new ArgumentError(`merge: adapter "${name}": ${obstacle}`);
      for (const [suffix, tensor] of branch.tensors()) {
        if (!hostValues("merge", tensor, onWasm).every(Number.isFinite))
          throw new ArgumentError(`merge: adapter "${name}": ${suffix} has values that are not finite`);
      }
      return branch;
    });
    const slots = this as unknown as AdapterSlots<Module>;
    if (branches.length === 0) return { slots, names, merged: null, place: undefined };
    const { original } = this;
    const weight = this.#withUpdates(this.#method.weight(original), branches);
    try {
      const merged =
        (place?.(weight, original) as B | null | undefined) ?? this.#method.withWeight(original, weight);
      merged.train(original.training).requiresGrad(false);
      this.#writeBias(
        merged,
        branches.map((branch) => [branch, branch.weight]),
      );
      return { slots, names, merged, place };
    } finally {
      weight.dispose();
    }
  }

  /** Puts another layer of the same sizes, taken over, in the place of the base, which is disposed. @throws {ArgumentError} while anything is merged */
  replaceOriginal(base: B): void {
    if (this.#original) throw new ArgumentError(`${this.merged.join(", ")}: merged; unmerge first`);
    const owner = this.#owner;
    base.train(owner.training).requiresGrad(false);
    owner.base_layer.dispose();
    owner.base_layer = base;
  }

  /** Brings the merged base's bias up to date after a change of the original's. */
  refreshBias(): void {
    if (this.#original) this.#writeBias(this.#owner.base_layer, this.#merged);
  }

  /** Writes the original's bias with the updates of `branches` into `merged`, where there is one. */
  #writeBias(merged: B, branches: Iterable<readonly [AdapterBranch, number]>): void {
    const target = (merged as { bias?: Tensor | null }).bias;
    const source = (this.original as { bias?: Tensor | null }).bias;
    if (!target || !source) return;
    noGrad(() =>
      tidy(() => {
        let sum = source;
        for (const [branch, weight] of branches) {
          const update = branch.biasUpdate(weight, source);
          if (update) sum = sum.add(update.cast(sum.dtype));
        }
        target.copyFrom(sum);
      }),
    );
  }

  /** Puts a plan of {@link planMerge} in place. The original base is kept, unchanged, to be put back. */
  commitMerge(plan: MergePlan): void {
    const owner = this.#owner;
    const { original } = this;
    if (owner.base_layer !== original) owner.base_layer.dispose();
    this.#merged.clear();
    this.#original = plan.merged ? original : null;
    this.#place = plan.place;
    owner.base_layer = (plan.merged as B | null) ?? original;
    for (const branch of owner.adapters) {
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

  /** Merges the named adapters (default: the enabled ones) besides those merged already. */
  merge(names?: readonly string[]): void {
    const enabled = this.#owner.adapters.filter((branch) => branch.enabled).map((branch) => branch.adapter);
    this.commitMerge(this.planMerge([...new Set([...this.merged, ...(names ?? enabled)])]));
  }

  /** Takes the named adapters (default: all) out again; with the last one the original base is back, byte for byte. */
  unmerge(names: readonly string[] = this.merged): void {
    this.commitMerge(this.planMerge(this.merged.filter((name) => !names.includes(name))));
  }

  /** Disposes the original where it is not the base. */
  dispose(): void {
    this.#original?.dispose();
  }
}
