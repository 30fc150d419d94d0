// Into what a merged weight goes, where it is not the base's own kind of layer. Quantizers of other packages come as functions.

import { ArgumentError, noGrad, type Tensor } from "@nomoat/core";
import { Linear, type LinearBase, type Module } from "@nomoat/core/nn";
import { isLinear } from "./targets.js";

/**
 * Makes a layer of a merged weight: of any kind, with the same sizes and a bias of its own where `base` has one.
 * @param weight - dense [outFeatures, inFeatures]; the caller's
 * @param name - of the layer in the model
 */
export type MergeQuantizer = (weight: Tensor, base: LinearBase, name: string) => LinearBase;

/** Makes the layer that holds a merged weight; null for the base's own way. */
export type LayerPlacer = (weight: Tensor, base: Module) => Module | null;

/** `quantize` for one layer of a model, its result checked. */
export function layerPlacer(name: string, quantize: MergeQuantizer | undefined): LayerPlacer | undefined {
  if (!quantize) return undefined;
  return (weight, base) => {
    // Embeddings and convolutions are dense already.
    if (!isLinear(base)) return null;
    const layer = noGrad(() => quantize(weight, base, name));
    const sizes = layer.inFeatures === base.inFeatures && layer.outFeatures === base.outFeatures;
    const bias = base.bias ? layer.bias !== null && layer.bias !== base.bias : layer.bias === null;
    if (sizes && bias) return layer;
    if (layer !== base) layer.dispose();
    throw new ArgumentError(
      `merge: options.quantize gave ${name} a layer of other sizes, or without a bias of its own`,
    );
  };
}

/** Merges into plain linear layers with weights of this dtype, whatever the base is: no update is rounded away. */
export function denseMerge(dtype: "float32" | "float16" | "bfloat16" = "float32"): MergeQuantizer {
  if (!["float32", "float16", "bfloat16"].includes(dtype))
    throw new ArgumentError(`denseMerge: dtype must be "float32", "float16" or "bfloat16", not ${dtype}`);
  return (weight, base) => {
    const copy = weight.dtype === dtype ? weight.clone() : weight.cast(dtype);
    return noGrad(() => new Linear(copy, base.bias?.clone() ?? null));
  };
}
