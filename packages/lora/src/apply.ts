// Puts a new adapter on a model.

import { type BackendName, type Generator, keep, type Tensor } from "@nomoat/core";
import { requireOptions } from "@nomoat/core/extend";
import { type Module, requireModule } from "@nomoat/core/nn";
import { Adapter, adaptersOf, checkAdapterName } from "./adapter.js";
import { TrainedBiases } from "./biases.js";
import type { AdapterBranch, LoraVariant } from "./branch.js";
import { type LoraConfig, resolveLoraConfig } from "./config.js";
import { type AdaptedLayer, adaptable } from "./layer.js";
import { type Replacement, Replacements } from "./replacements.js";
import { SavedModules } from "./saved-modules.js";
import { resolveTargets, type Target } from "./targets.js";
import { TrainedTokens } from "./trained-tokens.js";
import { adalora } from "./variants/adalora.js";
import { convLora } from "./variants/conv.js";
import { dora } from "./variants/dora.js";
import { embeddingLora } from "./variants/embedding.js";
import { ia3 } from "./variants/ia3.js";
import { plainLora } from "./variants/lora.js";
import { loha, lokr } from "./variants/product.js";
import { residualLora } from "./variants/residual.js";
import { vera } from "./variants/vera.js";

export interface ApplyOptions {
  /** For initial values (default: core's default generator, which dropout always draws from). */
  generator?: Generator;
  /** dtype of the low-rank matrices (default: float64 for a model with float64 weights, else float32). */
  dtype?: "float32" | "float64";
}

/** Every variant; the first that handles a configuration is taken. */
export const variants: readonly LoraVariant[] = [
  adalora,
  vera,
  ia3,
  loha,
  lokr,
  embeddingLora,
  convLora,
  dora,
  residualLora,
  plainLora,
];

/** The variant that `config` asks for on `layer`. */
export function variantOf(config: LoraConfig, layer: Module): LoraVariant {
  return variants.find((variant) => variant.handles(config, layer)) ?? plainLora;
}

/**
 * Shapes of the tensors that an adapter of this configuration would have, nothing being made: by the target's name and PEFT's suffix;
 * those that all layers share, which are frozen, by their keys.
 */
export function adapterShapes(
  targets: readonly Target[],
  config: LoraConfig,
): { layers: Map<string, Map<string, readonly number[]>>; shared: Map<string, readonly number[]> } {
  const layers = new Map(
    targets.map((target) => [
      target.name,
      variantOf(config, target.layer).shapes(target, target.layer, config),
    ]),
  );
  const shared = variantOf(config, targets[0].layer).shared?.shapes(targets, config) ?? new Map();
  return { layers, shared };
}

/** dtype and backend that new matrices have on this model. */
export function placeOf(model: Module): { dtype: "float32" | "float64"; device: BackendName } {
  let dtype: "float32" | "float64" = "float32";
  let device: BackendName | null = null;
  for (const tensor of model.stateDict().values()) {
    device ??= tensor.device;
    if (tensor.dtype === "float64") dtype = "float64";
  }
  return { dtype, device: device ?? "wasm" };
}

/** Freezes all parameters but those of adapters. */
function freezeBase(model: Module): void {
  const trained = new Set<Tensor>();
  for (const adapter of adaptersOf(model).values())
    for (const tensor of adapter.parameters()) trained.add(tensor);
  for (const tensor of model.parameters()) {
    if (trained.has(tensor)) continue;
    tensor.requiresGrad = false;
    tensor.zeroGrad();
  }
}

/**
 * Copies of the parts of the model that `config` wants trained as they are: modules to save, rows of tokens, biases.
 * @throws {ArgumentError} for names that match nothing, or modules that carry adapters
 */
export function replacementsOf(
  model: Module,
  config: LoraConfig,
  targets: readonly Target[],
  dtype: "float32" | "float64",
): Replacements {
  const parts: Replacement[] = [];
  try {
    // Rows of tokens first: whatever replaces modules must not find them.
    const tokens = new TrainedTokens(model, config, targets, dtype);
    parts.push(tokens);
    parts.unshift(new SavedModules(model, config.modulesToSave ?? [], dtype));
    parts.push(new TrainedBiases(model, config, targets, dtype));
    return new Replacements(parts);
  } catch (error) {
    for (const part of parts) part.dispose();
    throw error;
  }
}

/** Puts branches into the model, wrapping layers that are not adapted yet. */
export function attach(
  model: Module,
  name: string,
  config: LoraConfig,
  parts: readonly { target: Target; branch: AdapterBranch }[],
  saved = new Replacements(),
  shared: ReadonlyMap<string, Tensor> = new Map(),
): Adapter {
  saved.checkFree();
  freezeBase(model);
  const layers = new Map<string, AdaptedLayer>();
  for (const { target, branch } of parts) {
    // Not target.layer: while files were read another adapter may have wrapped it.
    const current = model.getModule(target.name);
    const layer = adaptable(current);
    if (layer !== current) model.replaceModule(target.name, layer);
    layer.slots.add(branch);
    layers.set(target.name, layer);
  }
  saved.setActive(true);
  for (const tensor of shared.values()) keep(tensor);
  return new Adapter(model, name, config, layers, saved, shared);
}

/**
 * Adapts the layers of `model` that `config` names: freezes every parameter of the model, and replaces each target by a layer that
 * adds a low-rank update to it. A fresh adapter changes no output. It takes part beside adapters that are on the model already;
 * `adapter.setActive()` makes it the only one.
 *
 * @param config - any part of a {@link LoraConfig}
 * @param name - up to 100 letters, digits, `_`, `-`, `.`; new on this model
 * @throws {ArgumentError} for a faulty configuration, a name that is taken, or target modules that match nothing; the model is as it
 *   was then
 */
export function applyLora(
  model: Module,
  config: Partial<LoraConfig> = {},
  name = "default",
  options: ApplyOptions = {},
): Adapter {
  requireModule("applyLora", model);
  requireOptions("applyLora", options);
  const complete = resolveLoraConfig(config);
  checkAdapterName(model, name);
  const targets = resolveTargets(model, complete);
  const { dtype, device } = placeOf(model);
  const saved = replacementsOf(model, complete, targets, options.dtype ?? dtype);
  const parts: { target: Target; branch: AdapterBranch }[] = [];
  const place = { dtype: options.dtype ?? dtype, device };
  const together = variantOf(complete, targets[0].layer).shared;
  const shared = together
    ? together.create(together.shapes(targets, complete), complete, place)
    : new Map<string, Tensor>();
  try {
    for (const target of targets) {
      const branch = variantOf(complete, target.layer).create(target.layer, {
        adapter: name,
        config: complete,
        target,
        ...place,
        shared,
        generator: options.generator,
      });
      parts.push({ target, branch });
    }
    return attach(model, name, complete, parts, saved, shared);
  } catch (error) {
    for (const { branch } of parts) branch.dispose();
    for (const tensor of shared.values()) tensor.dispose();
    saved.dispose();
    throw error;
  }
}
