// Biases that an adapter trains along (PEFT's bias: "all", "lora_only"). PEFT trains the base's own; here the adapter has copies that
// take their places while it is enabled, so that the base stays as it is.

import { ArgumentError, noGrad, type Tensor } from "@nomoat/core";
import { type Module, parameter } from "@nomoat/core/nn";
import type { LoraConfig } from "./config.js";
import { isAdaptedLayer } from "./layer.js";
import type { Replacement } from "./replacements.js";
import { candidateModules, type Target } from "./targets.js";

interface TrainedBias {
  /** Name of the layer in the model. */
  readonly at: string;
  /** The module that holds it: under adapters, the base that they were put on. */
  readonly owner: Module;
  readonly property: string;
  /** Key in a file, without PEFT's prefix: `….base_layer.bias` in layers that the adapter adapts. */
  readonly key: string;
  readonly original: Tensor;
  readonly copy: Tensor;
}

type Holder = Record<string, Tensor>;

/** Every adapter's copies. */
const copies = new WeakSet<Tensor>();

/** The copies of one adapter. */
export class TrainedBiases implements Replacement {
  readonly #model: Module;
  readonly #entries: TrainedBias[] = [];

  /**
   * Copies the biases that `config.bias` asks for: "all" parameters with "bias" in their names, or those of the adapted layers
   * ("lora_only"). What is trained as a whole (`modulesToSave`) is left out. The model stays as it is.
   */
  constructor(
    model: Module,
    config: Pick<LoraConfig, "bias" | "modulesToSave">,
    targets: readonly Pick<Target, "name">[],
    dtype: "float32" | "float64",
  ) {
    this.#model = model;
    if (config.bias === "none") return;
    const targeted = new Set(targets.map((target) => target.name));
    const whole = (name: string) =>
      (config.modulesToSave ?? []).some((entry) => `.${name}.`.includes(`.${entry}.`));
    for (const [at, module] of candidateModules(model)) {
      if (whole(at) || (config.bias === "lora_only" && !targeted.has(at))) continue;
      const owner = isAdaptedLayer(module) ? module.slots.original : module;
      for (const [property, original] of owner.namedParameters()) {
        if (property.includes(".") || !`${at}.${property}`.includes("bias")) continue;
        const copy = noGrad(() => (original.dtype === dtype ? original.clone() : original.cast(dtype)));
        const key = `${at}.${targeted.has(at) ? "base_layer." : ""}${property}`;
        copies.add(parameter(copy));
        this.#entries.push({ at, owner, property, key, original, copy });
      }
    }
  }

  get size(): number {
    return this.#entries.length;
  }

  *tensors(): Generator<[key: string, tensor: Tensor]> {
    for (const { key, copy } of this.#entries) yield [key, copy];
  }

  parameters(): Tensor[] {
    return this.#entries.map(({ copy }) => copy);
  }

  checkFree(): void {
    for (const { key, owner, property, original, copy } of this.#entries) {
      const current = (owner as unknown as Holder)[property];
      if ((current !== original && current !== copy) || copies.has(original))
        throw new ArgumentError(`bias: another adapter's ${key} is in place; disable that adapter first`);
    }
  }

  setActive(active: boolean): void {
    if (active) this.checkFree();
    for (const { at, owner, property, original, copy } of this.#entries) {
      const holder = owner as unknown as Holder;
      if (holder[property] !== (active ? original : copy)) continue;
      holder[property] = active ? copy : original;
      const layer = this.#model.getModule(at);
      if (isAdaptedLayer(layer)) layer.slots.refreshBias();
    }
  }

  releaseOriginals(): void {
    const used = new Set(this.#model.stateDict().values());
    for (const { original, copy } of this.#entries)
      for (const tensor of [original, copy]) if (!used.has(tensor)) tensor.dispose();
    this.#entries.length = 0;
  }

  dispose(): void {
    for (const { copy } of this.#entries) copy.dispose();
  }

  disposeAll(): void {
    this.dispose();
    for (const { original } of this.#entries) original.dispose();
  }
}
