// One adapter on one layer: what every variant of low-rank adaptation has in common. The variants stand in variants/, one file each.

import type { Generator, Tensor } from "@nomoat/core";
import { type LinearBase, Module } from "@nomoat/core/nn";
import type { LoraConfig } from "./config.js";
import type { Mask } from "./low-rank.js";
import type { Target } from "./targets.js";

/** What a variant is given to make its branch. */
export interface BranchOptions {
  /** Name of the adapter. */
  readonly adapter: string;
  readonly config: LoraConfig;
  readonly target: Pick<Target, "name" | "r" | "alpha" | "scaling">;
  /** dtype and backend of the matrices. */
  readonly dtype: "float32" | "float64";
  readonly device: "wasm" | "reference";
  /** For initial values and, where the config drops out, masks; undefined for the default generator. */
  readonly generator: Generator | undefined;
}

/** Makes the dropout mask for an input of a layer; see {@link AdapterBranch.dropoutMask}. */
export type MaskSource = (x: Tensor, p: number) => Tensor;

/** An adapter's part in one layer: its tensors, and what they do to the layer's output and weight. */
export abstract class AdapterBranch extends Module {
  /** Name of the adapter. */
  readonly adapter: string;
  /** False: without effect. */
  enabled = true;
  /** Factor of the whole update. */
  weight = 1;
  /** Gives masks in the place of random ones, for tests and replays: 0 or 1/(1−p), in the shape of the input. */
  dropoutMask: MaskSource | null = null;

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

  /**
   * The layer's output with this adapter's update.
   * @param x - the layer's input [..., inFeatures]
   * @param y - its output so far [..., outFeatures], which may be written over: only its handle is the caller's afterwards
   * @param base - the layer without adapters
   */
  abstract update(x: Tensor, y: Tensor, base: LinearBase): Tensor;

  /** The weight with this adapter's update, a new tensor; `weight` [outFeatures, inFeatures] stays as it is. */
  abstract updateWeight(weight: Tensor): Tensor;

  override forward(): never {
    throw new Error("an adapter's branch runs within its layer only");
  }
}

/** A way to adapt linear layers. */
export interface LoraVariant {
  /** Name for messages. */
  readonly name: string;
  /** Whether this variant is the one that `config` asks for. */
  handles(config: LoraConfig): boolean;
  /** Shapes by suffix of the tensors that a branch on a layer of this size has. */
  shapes(target: { r: number }, layer: LinearBase, config: LoraConfig): Map<string, readonly number[]>;
  /**
   * A branch for `layer`, with the given tensors (taken over, in {@link shapes}' shapes) or, without, initial ones.
   */
  create(layer: LinearBase, options: BranchOptions, tensors?: ReadonlyMap<string, Tensor>): AdapterBranch;
}

export type { Mask };
