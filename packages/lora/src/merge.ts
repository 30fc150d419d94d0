// Merging adapters into the base's weights, and out again.

import { requireOptions } from "@nomoat/core/extend";
import type { Module } from "@nomoat/core/nn";
import { Adapter, adaptedLayers, adaptersOf } from "./adapter.js";
import type { AdaptedLayer } from "./layer.js";
import { type MergeOptions, mergeLayers } from "./merge-layers.js";

/** The enabled adapters of a layer. */
const enabledOf = (layer: AdaptedLayer): string[] =>
  layer.adapters.filter((branch) => branch.enabled).map((branch) => branch.adapter);

/**
 * Merges an adapter, or every enabled adapter of a model, into the base's weights, dense or quantized.
 * @throws {ArgumentError} for values that are not finite; nothing is changed then
 */
export function merge(target: Adapter | Module, options: MergeOptions = {}): void {
  requireOptions("merge", options);
  if (target instanceof Adapter) target.merge(options);
  else
    mergeLayers(
      adaptedLayers(target),
      (merged, layer) => [...new Set([...merged, ...enabledOf(layer)])],
      options,
    );
}

/** Takes an adapter, or every adapter of a model, out of the base's weights again. */
export function unmerge(target: Adapter | Module): void {
  if (target instanceof Adapter) target.unmerge();
  else mergeLayers(adaptedLayers(target), () => []);
}

/**
 * Merges every enabled adapter for good: the model has plain layers again, and adapters and original weights are disposed.
 * Adapter objects of this model are of no use afterwards.
 */
export function mergeAndUnload<M extends Module>(model: M, options: MergeOptions = {}): M {
  requireOptions("mergeAndUnload", options);
  const layers = adaptedLayers(model);
  mergeLayers(layers, (_, layer) => enabledOf(layer), { ...options, anew: true });
  for (const [at, layer] of layers) {
    const { base_layer } = layer;
    const { original } = layer.slots;
    model.replaceModule(at, base_layer);
    if (original !== base_layer) original.dispose();
  }
  for (const adapter of [...adaptersOf(model).values()]) adapter.unload();
  for (const layer of layers.values()) for (const branch of layer.adapters) branch.dispose();
  return model;
}
