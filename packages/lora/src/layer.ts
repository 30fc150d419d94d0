// Layers with adapters around other layers: LoraLinear around any linear layer, dense or quantized, LoraEmbedding around an embedding,
// LoraConv2d around a convolution.
// Each is of the kind that it wraps, so the model and other packages need not know.

import { noGrad, type Tensor } from "@nomoat/core";
import { Conv2d, checkFeatures, Embedding, LinearBase, linearGroup, Module } from "@nomoat/core/nn";
import { adaptedBrand } from "./adapted.js";
import type { AdapterBranch } from "./branch.js";
import { sharedInputUpdates } from "./segments.js";
import { AdapterSlots } from "./slots.js";

/** What layers with adapters have in common. */
export interface AdaptedLayer extends Module {
  readonly [adaptedBrand]: true;
  base_layer: Module;
  readonly adapters: AdapterBranch[];
  /** The adapters' places, and what is merged. */
  readonly slots: AdapterSlots<Module>;
}

/** True for layers that carry adapters. */
export function isAdaptedLayer(module: Module): module is AdaptedLayer {
  return [LoraLinear, LoraEmbedding, LoraConv2d].some((kind) => module instanceof kind);
}

/** A layer that can carry adapters, in place of `base`. */
export function adaptable(base: Module): AdaptedLayer {
  if (isAdaptedLayer(base)) return base;
  const layer =
    base instanceof Embedding
      ? new LoraEmbedding(base)
      : base instanceof Conv2d
        ? new LoraConv2d(base)
        : new LoraLinear(base as LinearBase);
  return layer as unknown as AdaptedLayer;
}

/** How a layer runs rows that belong to different adapters; in mixed.ts. */
export interface RowAssignment {
  update(x: Tensor, y: Tensor, adapters: readonly AdapterBranch[], base: Module): Tensor;
  /** The same of several layers with one input, together; null where that cannot be. */
  updateGroup(
    x: Tensor,
    ys: readonly Tensor[],
    adapters: readonly (readonly AdapterBranch[])[],
  ): Tensor[] | null;
}

/** Layers whose rows belong to different adapters at the moment. */
export const rowsOfLayer = new WeakMap<Module, RowAssignment>();

/** The layer's output when its rows are assigned to adapters; null when they are not. */
function assignedRows(
  layer: AdaptedLayer,
  x: Tensor,
  original: { forward(x: Tensor): Tensor } & Module,
): Tensor | null {
  const assigned = rowsOfLayer.get(layer);
  if (!assigned) return null;
  const y = original.forward(x);
  const out = assigned.update(x, y, layer.adapters, original);
  if (out !== y) y.dispose();
  return out;
}

/** Passes `y` through the branches, letting go of what was before. */
function throughBranches(
  x: Tensor,
  output: Tensor,
  branches: readonly AdapterBranch[],
  original: Module,
  fromOriginal: boolean,
): Tensor {
  let y = output;
  for (const [i, branch] of branches.entries()) {
    const before = y;
    y = branch.update(x, before, { base: original, isBaseOutput: fromOriginal && i === 0 });
    if (before !== y && before !== x) before.dispose();
  }
  return y;
}

/**
 * base(x) + Σ weight · scaling · B(A(dropout(x))) over the enabled adapters, or as their variants have it.
 *
 * Its names in a state dict are `base_layer.…` (as in PEFT) and `adapters.N.…`.
 */
export class LoraLinear extends LinearBase {
  static override get brand(): string {
    return "@nomoat/lora/LoraLinear";
  }

  base_layer: LinearBase;
  readonly adapters: AdapterBranch[] = [];
  // Private, since a module's names are those of its own properties.
  readonly #slots: AdapterSlots<LinearBase>;

  /** Wraps `base`, which this layer owns from now on. */
  constructor(base: LinearBase) {
    super();
    this.base_layer = base;
    this.training = base.training;
    this.#slots = new AdapterSlots<LinearBase>(this, {
      weight: (layer) => layer.denseWeight(),
      withWeight: (layer, weight) => layer.withDenseWeight(weight),
    });
  }

  get [adaptedBrand](): true {
    return true;
  }

  get slots(): AdapterSlots<LinearBase> {
    return this.#slots;
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
    return this.slots.original;
  }

  /** Names of the merged adapters. */
  get mergedAdapters(): string[] {
    return this.slots.merged;
  }

  /** x [..., inFeatures] → [..., outFeatures]. */
  override forward(x: Tensor): Tensor {
    checkFeatures("LoraLinear", x, this.inFeatures);
    const { original } = this;
    const mixed = assignedRows(this as unknown as AdaptedLayer, x, original);
    if (mixed) return mixed;
    const { base, branches } = this.slots.parts();
    return throughBranches(x, base.forward(x), branches, original, base === original);
  }

  /** Layers with one input share the products of their bases, and, where their updates are plain, those with their A. */
  override forwardGroup(x: Tensor, layers: readonly LinearBase[]): Tensor[] | null {
    const group: LoraLinear[] = [];
    for (const layer of layers) {
      // Who put a forward of their own in the place of this class's wants it called.
      if (!(layer instanceof LoraLinear) || layer.forward !== LoraLinear.prototype.forward) return null;
      checkFeatures("LoraLinear", x, layer.inFeatures);
      group.push(layer);
    }
    const assigned = rowsOfLayer.get(this);
    if (group.some((layer) => rowsOfLayer.get(layer) !== assigned)) return null;
    if (assigned) {
      const ys = linearGroup(
        x,
        group.map(({ original }) => original),
      );
      const adapters = group.map((layer) => layer.adapters);
      const outs =
        assigned.updateGroup(x, ys, adapters) ??
        group.map(({ original }, i) => assigned.update(x, ys[i], adapters[i], original));
      for (const y of ys) if (!outs.includes(y)) y.dispose();
      return outs;
    }
    const parts = group.map((layer) => layer.slots.parts());
    const ys = linearGroup(
      x,
      parts.map(({ base }) => base),
    );
    const branches = parts.map((part) => part.branches);
    const outs = sharedInputUpdates(x, ys, branches);
    if (!outs)
      return group.map(({ original }, i) =>
        throughBranches(x, ys[i], branches[i], original, parts[i].base === original),
      );
    for (const y of ys) y.dispose();
    return outs;
  }

  /** The weight with the updates of the enabled adapters, dense; the caller disposes it. */
  override denseWeight(): Tensor {
    return this.slots.effectiveWeight();
  }

  /** A layer of the base's kind, without adapters. */
  override withDenseWeight(weight: Tensor): LinearBase {
    return this.original.withDenseWeight(weight);
  }

  /** Merges the named adapters (default: the enabled ones) besides those merged already. `forward` never does that. */
  merge(names?: readonly string[]): void {
    this.slots.merge(names);
  }

  /** Takes the named adapters (default: all) out of the base again; with the last one the original base is back. */
  unmerge(names?: readonly string[]): void {
    this.slots.unmerge(names);
  }

  /** Disposes base, original and adapters. */
  override dispose(): void {
    this.slots.dispose();
    super.dispose();
  }
}

/** An embedding with low-rank updates: rows of W + Σ weight · scaling · (B·A)ᵀ. */
export class LoraEmbedding extends Module {
  static override get brand(): string {
    return "@nomoat/lora/LoraEmbedding";
  }

  base_layer: Embedding;
  readonly adapters: AdapterBranch[] = [];
  readonly #slots: AdapterSlots<Embedding>;

  /** Wraps `base`, which this layer owns from now on. */
  constructor(base: Embedding) {
    super();
    this.base_layer = base;
    this.training = base.training;
    this.#slots = new AdapterSlots<Embedding>(this, {
      weight: (layer) => layer.weight.detach(),
      withWeight: (_, weight) => new Embedding(weight.clone()),
    });
  }

  /** The base's weight [numEmbeddings, embeddingDim], without what is not merged: what tied output layers read. */
  get weight(): Tensor {
    return this.base_layer.weight;
  }

  get [adaptedBrand](): true {
    return true;
  }

  get slots(): AdapterSlots<Embedding> {
    return this.#slots;
  }

  /** int32 indices [...] → [..., embeddingDim]. */
  override forward(indices: Tensor): Tensor {
    const { original } = this.slots;
    const mixed = assignedRows(this as unknown as AdaptedLayer, indices, original);
    if (mixed) return mixed;
    const { base, branches } = this.slots.parts();
    return throughBranches(indices, base.forward(indices), branches, original, base === original);
  }

  /** Disposes base, original and adapters. */
  override dispose(): void {
    this.slots.dispose();
    super.dispose();
  }
}

/** A convolution over two axes with low-rank updates. */
export class LoraConv2d extends Module {
  base_layer: Conv2d;
  readonly adapters: AdapterBranch[] = [];
  readonly #slots: AdapterSlots<Conv2d>;

  /** Wraps `base`, which this layer owns from now on. */
  constructor(base: Conv2d) {
    super();
    this.base_layer = base;
    this.training = base.training;
    this.#slots = new AdapterSlots<Conv2d>(this, {
      weight: (layer) => layer.weight.detach(),
      withWeight: (layer, weight) =>
        noGrad(() => new Conv2d(weight.clone(), layer.bias?.clone() ?? null, layer.options)),
    });
  }

  get bias(): Tensor | null {
    return this.base_layer.bias;
  }

  get [adaptedBrand](): true {
    return true;
  }

  get slots(): AdapterSlots<Conv2d> {
    return this.#slots;
  }

  /** x [batch, inChannels, height, width] → [batch, outChannels, height, width], as the base has it. */
  override forward(x: Tensor): Tensor {
    const { original } = this.slots;
    const mixed = assignedRows(this as unknown as AdaptedLayer, x, original);
    if (mixed) return mixed;
    const { base, branches } = this.slots.parts();
    return throughBranches(x, base.forward(x), branches, original, base === original);
  }

  /** Disposes base, original and adapters. */
  override dispose(): void {
    this.slots.dispose();
    super.dispose();
  }
}
