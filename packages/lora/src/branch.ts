// One adapter on one layer: what every variant of low-rank adaptation has in common. The variants stand in variants/, one file each.

import type { BackendName, Generator, Tensor } from "@nomoat/core";
import { Module } from "@nomoat/core/nn";
import type { LoraConfig } from "./config.js";
import type { Target } from "./targets.js";

/** What a variant is given to make its branch. */
export interface BranchOptions {
  /** Name of the adapter. */
  readonly adapter: string;
  readonly config: LoraConfig;
  readonly target: Pick<Target, "name" | "r" | "alpha" | "scaling">;
  /** dtype and backend of the matrices. */
  readonly dtype: "float32" | "float64";
  readonly device: BackendName;
  /** Frozen tensors that all branches of the adapter share, by PEFT's full keys. */
  readonly shared: ReadonlyMap<string, Tensor>;
  /** For initial values; undefined for the default generator. */
  readonly generator: Generator | undefined;
}

/** Makes the dropout mask for an input of a layer; see {@link AdapterBranch.dropoutMask}. */
export type MaskSource = (x: Tensor, p: number) => Tensor;

/** See {@link AdapterBranch.lowRankPair}. */
export interface LowRankPair {
  /** A [r, inFeatures]. */
  readonly a: Tensor;
  /** B [outFeatures, r]. */
  readonly b: Tensor;
  /** True when this pass would drop elements of the input. */
  readonly dropsOut: boolean;
}

/** What an update may want to know besides the layer's input and output. */
export interface UpdateContext {
  /** The layer without adapters. */
  readonly base: Module;
  /** True when the output so far is that of `base`, with no other adapter's update in it. */
  readonly isBaseOutput: boolean;
}

/** An adapter's part in one layer: its tensors, and what they do to the layer's output and weight. */
export abstract class AdapterBranch extends Module {
  /** Name of the adapter. */
  adapter: string;
  /** False: without effect. */
  enabled = true;
  /** Factor of the whole update. */
  weight = 1;
  /** Gives masks in the place of random ones, for tests and replays: 0 or 1/(1−p), in the shape of the input. */
  dropoutMask: MaskSource | null = null;
  /** What dropout draws from; null for the default generator. */
  dropoutGenerator: Generator | null = null;

  /** @internal Told when it is disposed, by the model or by whoever took it out. */
  onDispose: (() => void) | null = null;

  constructor(adapter: string) {
    super();
    this.adapter = adapter;
  }

  /** Rank of the update. */
  abstract readonly r: number;
  /** Factor of the low-rank product, without {@link weight}. */
  abstract readonly scaling: number;

  /** Trained tensors by PEFT's suffix: `lora_A.weight`, … */
  abstract tensors(): Map<string, Tensor>;

  /** What is saved, by PEFT's suffix: by default the trained tensors. The caller disposes what is not one of them. */
  savedTensors(): Map<string, Tensor> {
    return this.tensors();
  }

  /**
   * The layer's output with this adapter's update.
   * @param x - the layer's input [..., inFeatures]
   * @param y - its output so far [..., outFeatures], which may be written over: only its handle is the caller's afterwards
   */
  abstract update(x: Tensor, y: Tensor, context: UpdateContext): Tensor;

  /**
   * A weight plus this adapter's update, a new tensor.
   * @param sum - what to add to, [outFeatures, inFeatures] (an embedding: [numEmbeddings, embeddingDim]); stays as it is
   * @param original - the base's own weight, which the update is reckoned from
   */
  abstract updateWeight(sum: Tensor, original: Tensor): Tensor;

  /**
   * The matrices where the update is {@link scaling} · {@link weight} · B·A and nothing else at the moment, but for dropout of the
   * input; null otherwise. Such updates of several layers or adapters run together.
   */
  lowRankPair(): LowRankPair | null {
    return null;
  }

  /** Takes over the scaling and the dropout of another configuration. */
  reconfigure(_target: Pick<Target, "name" | "scaling">, _config: LoraConfig): void {}

  /**
   * What the update adds to the layer's bias [outFeatures]; null for nothing. The caller disposes it.
   * @param weight - a factor of {@link weight}'s kind
   * @param original - the base's own bias
   */
  biasUpdate(_weight: number, _original: Tensor): Tensor | null {
    return null;
  }

  /** Why this update cannot become part of the weight of `original`; null when it can. */
  mergeObstacle(_original: Module): string | null {
    return null;
  }

  override dispose(): void {
    super.dispose();
    this.onDispose?.();
  }

  override forward(): never {
    throw new Error("an adapter's branch runs within its layer only");
  }
}

/** A way to adapt linear layers. */
export interface LoraVariant {
  /** Name for messages. */
  readonly name: string;
  /** Whether this variant is the one that `config` asks for on this layer. */
  handles(config: LoraConfig, layer: Module): boolean;
  /** Shapes by suffix of the tensors that a branch on a layer of this size has. */
  shapes(
    target: Pick<Target, "r" | "name">,
    layer: Module,
    config: LoraConfig,
  ): Map<string, readonly number[]>;
  /** Frozen tensors that all layers of an adapter share, where there are such. */
  readonly shared?: {
    /** Shapes by PEFT's full keys. */
    shapes(targets: readonly Target[], config: LoraConfig): Map<string, readonly number[]>;
    /** Initial ones. */
    create(
      shapes: ReadonlyMap<string, readonly number[]>,
      config: LoraConfig,
      place: Pick<BranchOptions, "dtype" | "device">,
    ): Map<string, Tensor>;
  };
  /**
   * A branch for `layer`, with the given tensors (taken over, in {@link shapes}' shapes) or, without, initial ones.
   */
  create(layer: Module, options: BranchOptions, tensors?: ReadonlyMap<string, Tensor>): AdapterBranch;
}
