// An adapter as one object: its parts in all layers of a model, switched, merged and taken off together.

import { ArgumentError, type Generator, noGrad, type Tensor } from "@nomoat/core";
import { describe, requireFunction, requireList } from "@nomoat/core/extend";
import { type Module, requireModule } from "@nomoat/core/nn";
import type { AdapterBranch, MaskSource } from "./branch.js";
import type { LoraConfig } from "./config.js";
import { type AdaptedLayer, isAdaptedLayer } from "./layer.js";
import { type MergeOptions, mergeLayers } from "./merge-layers.js";
import type { Replacements } from "./replacements.js";
import { runThenRestore } from "./scope.js";

/** What stands before a module's name in PEFT's files. */
export const peftPrefix = "base_model.model.";

const names = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$/;

/** Throws unless `name` can be that of a new adapter of `model`. */
export function checkAdapterName(model: Module, name: string): void {
  requireModule("adapter", model);
  if (!names.test(name) || name === "__proto__") {
    throw new ArgumentError(
      `adapter name ${JSON.stringify(name)}: expected up to 100 letters, digits, "_", "-" or "." (not first)`,
    );
  }
  for (const [at, layer] of adaptedLayers(model)) {
    if (layer.slots.branch(name))
      throw new ArgumentError(`adapter "${name}" exists already (at ${at}): give another name, or remove it`);
  }
}

/** Throws unless `adapter` is one, of any copy of this package. */
export function requireAdapter(operation: string, adapter: unknown): void {
  if (typeof (adapter as Adapter | null)?.branches !== "function")
    throw new ArgumentError(`${operation}: expected an adapter, not ${describe(adapter)}`);
}

/** The layers of `model` that carry adapters, by name. */
export function adaptedLayers(model: Module): Map<string, AdaptedLayer> {
  requireModule("adaptedLayers", model);
  const found = new Map<string, AdaptedLayer>();
  for (const [name, module] of model.namedModules()) if (isAdaptedLayer(module)) found.set(name, module);
  return found;
}

/** A set of low-rank updates, one for each of some layers of a model. Made by `applyLora` and `loadAdapter`. */
export class Adapter {
  readonly model: Module;
  #name: string;
  #config: LoraConfig;
  /** The layers that it adapts, by their names in the model. */
  readonly layers: ReadonlyMap<string, AdaptedLayer>;
  readonly #saved: Replacements;
  /** Frozen, by PEFT's full keys. */
  readonly #shared: ReadonlyMap<string, Tensor>;
  #removed = false;

  /** @internal The branches are in the layers already. */
  constructor(
    model: Module,
    name: string,
    config: LoraConfig,
    layers: ReadonlyMap<string, AdaptedLayer>,
    saved: Replacements,
    shared: ReadonlyMap<string, Tensor>,
  ) {
    this.model = model;
    this.#name = name;
    this.#config = config;
    this.layers = layers;
    this.#saved = saved;
    this.#shared = shared;
    registryOf(model).set(name, this);
    for (const layer of layers.values()) {
      const branch = layer.slots.branch(name);
      if (branch) branch.onDispose = () => this.#disposeWithModel();
    }
  }

  /** A model that is disposed takes its adapters along, and what they hold besides their branches. */
  #disposeWithModel(): void {
    if (this.#removed) return;
    this.#forget();
    this.#saved.disposeAll();
  }

  #forget(): void {
    for (const tensor of this.#shared.values()) tensor.dispose();
    this.#removed = true;
    registryOf(this.model).delete(this.name);
  }

  /** Its name on the model. */
  get name(): string {
    return this.#name;
  }

  get config(): LoraConfig {
    return this.#config;
  }

  /**
   * Gives it another name, everywhere on the model. Its place in the order of adapters stays.
   * @throws {ArgumentError} for a name that is taken or faulty
   */
  rename(name: string): this {
    const branches = [...this.branches().values()];
    if (name === this.#name) return this;
    checkAdapterName(this.model, name);
    for (const branch of branches) branch.adapter = name;
    const adapters = registryOf(this.model);
    const order = [...adapters.values()];
    this.#name = name;
    adapters.clear();
    for (const adapter of order) adapters.set(adapter.#name, adapter);
    return this;
  }

  /** @internal What another adapter's values can be written into, by PEFT's keys. */
  swappableTensors(): Map<string, Tensor> {
    return new Map([...this.stateDict(), ...this.#shared]);
  }

  /** @internal Takes over a configuration with the same layers and ranks; its branches stay as they are. */
  setConfig(config: LoraConfig): void {
    this.#config = config;
  }

  /** Its parts, by the names of their layers. */
  branches(): Map<string, AdapterBranch> {
    if (this.#removed) throw new ArgumentError(`adapter "${this.name}" was removed`);
    return new Map(
      Array.from(this.layers, ([at, layer]) => [at, layer.slots.branch(this.name) as AdapterBranch]),
    );
  }

  /** Its tensors by PEFT's keys (`base_model.model.….lora_A.weight`): the tensors themselves, not copies. */
  stateDict(): Map<string, Tensor> {
    const state = new Map<string, Tensor>();
    for (const [at, branch] of this.branches()) {
      for (const [suffix, tensor] of branch.tensors()) state.set(`${peftPrefix}${at}.${suffix}`, tensor);
    }
    for (const [key, tensor] of this.#saved.tensors()) state.set(`${peftPrefix}${key}`, tensor);
    return state;
  }

  /** What is saved, by PEFT's keys: mostly {@link stateDict}. The caller disposes what is not in it. */
  savedStateDict(): Map<string, Tensor> {
    const state = new Map<string, Tensor>();
    for (const [at, branch] of this.branches()) {
      for (const [suffix, tensor] of branch.savedTensors()) state.set(`${peftPrefix}${at}.${suffix}`, tensor);
    }
    for (const [key, tensor] of this.#shared) state.set(key, tensor.detach());
    for (const [key, tensor] of this.#saved.tensors()) state.set(`${peftPrefix}${key}`, tensor);
    return state;
  }

  /**
   * Copies values into the adapter's tensors, for a change of adapter without a change of layers. All faults are found before
   * anything is written.
   * @throws {ArgumentError} listing every missing, unexpected and misshapen key; also while the adapter is merged
   */
  loadStateDict(state: ReadonlyMap<string, Tensor>): void {
    if (this.merged) throw new ArgumentError(`adapter "${this.name}" is merged; unmerge it first`);
    const own = this.stateDict();
    const faults: string[] = [];
    for (const [key, tensor] of own) {
      const given = state.get(key);
      if (!given) faults.push(`missing ${key}`);
      else if (given.shape.join() !== tensor.shape.join())
        faults.push(`${key} is [${given.shape.join(", ")}], expected [${tensor.shape.join(", ")}]`);
    }
    for (const key of state.keys()) if (!own.has(key)) faults.push(`unexpected ${key}`);
    if (faults.length > 0) throw new ArgumentError(`adapter "${this.name}": ${faults.join("; ")}`);
    noGrad(() => {
      for (const [key, tensor] of own) tensor.copyFrom(state.get(key) as Tensor);
    });
  }

  /** Tensors by PEFT's keys, trainable or not. */
  namedParameters(): [name: string, parameter: Tensor][] {
    return [...this.stateDict()];
  }

  /** True when parts of the model itself give way to this adapter's while it is enabled: modules to save, trained biases. */
  get replacesParts(): boolean {
    return this.#saved.size > 0;
  }

  /** Its tensors in the order of the layers: what an optimizer takes. */
  parameters(): Tensor[] {
    const branches = [...this.branches().values()];
    return [...branches.flatMap((branch) => branch.parameters()), ...this.#saved.parameters()];
  }

  /** Those of its tensors that gather gradients. */
  trainableParameters(): Tensor[] {
    return this.parameters().filter((tensor) => tensor.requiresGrad);
  }

  /** Number of its parameters. */
  get parameterCount(): number {
    return this.parameters().reduce((sum, tensor) => sum + tensor.size, 0);
  }

  /** What it is in a line: `Adapter "default": LORA, rank 8, 35 layers, 46080 parameters`. */
  toString(): string {
    if (this.#removed) return `Adapter "${this.name}" (removed)`;
    const { peftType, r } = this.config;
    const rank = /^(LORA|ADALORA|LOHA|LOKR|VERA)$/.test(peftType) ? `, rank ${r}` : "";
    return `Adapter "${this.name}": ${peftType}${rank}, ${this.layers.size} layers, ${this.parameterCount} parameters`;
  }

  /** For `console.log` in Node, which would show the whole model. */
  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return this.toString();
  }

  /** Sets whether its parameters gather gradients. */
  requiresGrad(value: boolean): this {
    for (const tensor of this.parameters()) tensor.requiresGrad = value;
    return this;
  }

  /** False when disabled, and after `remove`. */
  get active(): boolean {
    return !this.#removed && [...this.branches().values()].some((branch) => branch.enabled);
  }

  /** Makes it the only enabled adapter of its model. */
  setActive(): this {
    setActiveAdapters(this.model, [this.name]);
    return this;
  }

  /**
   * Lets it take part, beside the other enabled adapters: updates add up.
   * @throws {ArgumentError} when both have modules to save, or trained biases, of one name
   */
  enable(): this {
    const branches = this.branches().values();
    this.#saved.setActive(true);
    for (const branch of branches) branch.enabled = true;
    return this;
  }

  /** Takes it out of the sum, merged or not; its values stay. */
  disable(): this {
    for (const branch of this.branches().values()) branch.enabled = false;
    this.#saved.setActive(false);
    return this;
  }

  /** Runs `fn` (which may return a promise) without this adapter. */
  withDisabled<T>(fn: () => T): T {
    this.branches();
    return withDisabled([this], fn);
  }

  /** Factor of the whole update (default 1). */
  get weight(): number {
    for (const branch of this.branches().values()) return branch.weight;
    return 1;
  }

  set weight(value: number) {
    if (!Number.isFinite(value)) throw new ArgumentError(`adapter weight must be finite, not ${value}`);
    for (const branch of this.branches().values()) branch.weight = value;
  }

  /** Sets where dropout masks come from, by layer; null for random ones. */
  setDropoutMasks(source: ((layer: string) => MaskSource | null) | null): this {
    for (const [at, branch] of this.branches()) branch.dropoutMask = source ? source(at) : null;
    return this;
  }

  /**
   * Sets what dropout draws from; null for the default generator. A generator of its own gives an adapter the same masks whatever runs
   * beside it.
   */
  setDropoutGenerator(generator: Generator | null): this {
    for (const branch of this.branches().values()) branch.dropoutGenerator = generator;
    return this;
  }

  /** True while it is merged into the base, in any layer. */
  get merged(): boolean {
    return [...this.layers.values()].some((layer) => layer.slots.merged.includes(this.name));
  }

  /**
   * Puts its update into the base's weights: the model runs without extra work. The base's own weights are kept for `unmerge`.
   * @throws {ArgumentError} for values that are not finite; nothing is changed then
   */
  merge(options: MergeOptions = {}): this {
    this.branches();
    mergeLayers(this.layers, (merged) => [...new Set([...merged, this.name])], options);
    return this;
  }

  /** Takes its update out of the base's weights; when no other adapter is merged these are the original ones, byte for byte. */
  unmerge(): this {
    mergeLayers(this.layers, (merged) => merged.filter((name) => name !== this.name));
    return this;
  }

  /** @internal Forgets it after its parts became the model's own. */
  unload(): void {
    if (this.active) this.#saved.releaseOriginals();
    else this.#saved.dispose();
    this.#forget();
  }

  /** Takes it off the model and disposes it (unmerged first); a layer without adapters is the base's own layer again. Idempotent. */
  remove(): void {
    if (this.#removed) return;
    this.unmerge();
    this.#saved.setActive(false);
    this.#saved.dispose();
    this.#forget();
    for (const layer of this.layers.values()) layer.slots.take(this.name).dispose();
    for (const [at, layer] of adaptedLayers(this.model)) {
      if (layer.adapters.length === 0) this.model.replaceModule(at, layer.slots.original);
    }
  }
}

const registry = new WeakMap<Module, Map<string, Adapter>>();

function registryOf(model: Module): Map<string, Adapter> {
  requireModule("adapters", model);
  let adapters = registry.get(model);
  if (!adapters) registry.set(model, (adapters = new Map()));
  return adapters;
}

/** The adapters on a model, by name, in the order in which they came. */
export function adaptersOf(model: Module): ReadonlyMap<string, Adapter> {
  return registryOf(model);
}

/**
 * Enables the adapters of these names and disables all others.
 * @throws {ArgumentError} for a name that the model does not have
 */
export function setActiveAdapters(model: Module, active: readonly string[]): void {
  requireList("setActiveAdapters", "active", active);
  const adapters = registryOf(model);
  for (const name of active) {
    if (!adapters.has(name)) throw new ArgumentError(`setActiveAdapters: there is no adapter "${name}"`);
  }
  for (const [name, adapter] of adapters) if (!active.includes(name)) adapter.disable();
  for (const name of active) adapters.get(name)?.enable();
}

/** Runs `fn` (which may return a promise) without any adapter of `model`. */
export function withAdaptersDisabled<T>(model: Module, fn: () => T): T {
  requireFunction("withAdaptersDisabled", fn);
  return withDisabled([...registryOf(model).values()], fn);
}

function withDisabled<T>(adapters: readonly Adapter[], fn: () => T): T {
  const enabled = adapters.filter((adapter) => adapter.active);
  for (const adapter of enabled) adapter.disable();
  const restore = () => {
    for (const adapter of enabled) adapter.enable();
  };
  return runThenRestore(fn, restore);
}
