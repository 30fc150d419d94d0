// Modules that an adapter trains as a whole (PEFT's modules_to_save): a trainable copy takes the module's place while the adapter is
// enabled, and the original comes back when it is not.

import { ArgumentError, noGrad, Tensor } from "@nomoat/core";
import { Linear, Module, parameter } from "@nomoat/core/nn";
import type { Replacement } from "./replacements.js";
import { candidateModules, isLinear, matchesName } from "./targets.js";
import { hasTrainedTokens } from "./trained-tokens.js";

interface SavedModule {
  readonly original: Module;
  readonly copy: Module;
}

class Blank extends Module {
  override forward(): void {}
}

/** A tensor of its own with the same values, trainable where it is a float; floats in `dtype`. */
function copyTensor(tensor: Tensor, dtype: "float32" | "float64"): Tensor {
  const float = /float/.test(tensor.dtype);
  const copy = noGrad(() => (float && tensor.dtype !== dtype ? tensor.cast(dtype) : tensor.clone()));
  return parameter(copy, float);
}

/**
 * A module of the same kind with tensors of its own. Quantized linear layers become dense ones. Works for modules whose state stands in
 * ordinary properties, as that of core's layers does.
 */
function copyModule(module: Module, dtype: "float32" | "float64"): Module {
  if (hasTrainedTokens(module))
    throw new ArgumentError(
      "modulesToSave: another adapter's trainableTokenIndices are in place; disable it first",
    );
  if (isLinear(module) && !(module instanceof Linear)) {
    const weight = module.denseWeight();
    try {
      return new Linear(copyTensor(weight, dtype), module.bias && copyTensor(module.bias, dtype));
    } finally {
      weight.dispose();
    }
  }
  const copyValue = (value: unknown): unknown => {
    if (value instanceof Tensor) return copyTensor(value, dtype);
    if (value instanceof Module) return copyModule(value, dtype);
    return Array.isArray(value) ? value.map(copyValue) : value;
  };
  // Module's private parts come from its constructor, everything else from the original.
  const copy: Module = Object.setPrototypeOf(new Blank(), Object.getPrototypeOf(module));
  for (const [key, descriptor] of Object.entries(Object.getOwnPropertyDescriptors(module))) {
    if ("value" in descriptor) descriptor.value = copyValue(descriptor.value);
    Object.defineProperty(copy, key, descriptor);
  }
  return copy;
}

/** Every adapter's copies. */
const copies = new WeakSet<Module>();

/** The copies of one adapter. */
export class SavedModules implements Replacement {
  readonly #model: Module;
  readonly #entries = new Map<string, SavedModule>();

  /**
   * Copies the modules that `names` names (by their names or ends); the model stays as it is.
   * @throws {ArgumentError} listing names that match nothing; for a module that carries adapters
   */
  constructor(model: Module, names: readonly string[], dtype: "float32" | "float64") {
    this.#model = model;
    const modules = candidateModules(model);
    const found = new Map<string, Module>();
    const faults: string[] = [];
    for (const entry of names) {
      const named = [...modules].filter(([name]) => matchesName(name, entry));
      if (named.length === 0) faults.push(`no module is called ${JSON.stringify(entry)}`);
      for (const [name, original] of named) found.set(name, original);
    }
    if (faults.length > 0) throw new ArgumentError(`modulesToSave: ${faults.join("; ")}`);
    try {
      for (const [name, original] of found) {
        const copy = copyModule(original, dtype);
        copies.add(copy);
        this.#entries.set(name, { original, copy });
      }
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  get size(): number {
    return this.#entries.size;
  }

  /** True while the copies are in the model. */
  get active(): boolean {
    for (const [name, { copy }] of this.#entries) return this.#model.getModule(name) === copy;
    return false;
  }

  /** Tensors by `module.tensor`. */
  *tensors(): Generator<[name: string, tensor: Tensor]> {
    for (const [name, { copy }] of this.#entries)
      for (const [key, tensor] of copy.stateDict()) yield [`${name}.${key}`, tensor];
  }

  parameters(): Tensor[] {
    return [...this.#entries.values()].flatMap(({ copy }) => copy.parameters());
  }

  /** Throws when another adapter's copy stands where one of these belongs. */
  checkFree(): void {
    for (const [name, { original, copy }] of this.#entries) {
      const current = this.#model.getModule(name);
      if ((current !== original && current !== copy) || copies.has(original))
        throw new ArgumentError(
          `modulesToSave: another adapter's ${name} is in place; disable that adapter first`,
        );
    }
  }

  /** Puts the copies (or the originals) into the model. */
  setActive(active: boolean): void {
    if (active) this.checkFree();
    for (const [name, { original, copy }] of this.#entries) {
      const [incoming, outgoing] = active ? [copy, original] : [original, copy];
      if (this.#model.getModule(name) !== outgoing) continue;
      incoming.train(outgoing.training);
      this.#model.replaceModule(name, incoming);
    }
  }

  /** Disposes the originals as far as no module of the model uses their tensors, and forgets all. */
  releaseOriginals(): void {
    const used = new Set(this.#model.stateDict().values());
    for (const { original } of this.#entries.values())
      for (const tensor of original.stateDict().values()) if (!used.has(tensor)) tensor.dispose();
    this.#entries.clear();
  }

  /** Disposes the copies. */
  dispose(): void {
    for (const { copy } of this.#entries.values()) copy.dispose();
  }

  disposeAll(): void {
    this.dispose();
    for (const { original } of this.#entries.values()) original.dispose();
  }
}
