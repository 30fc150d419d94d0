// (IA)³ (Liu et al., arXiv:2205.05638), as PEFT has it: a trained vector l scales the features (of a convolution the channels) of a layer's
// output, bias included, or, in feedforward layers, of its input. In sums with other adapters it counts as the difference that it makes to the base.

import { noGrad, ones, randn, type Tensor, tidy } from "@nomoat/core";
import { type Conv2d, type LinearBase, parameter } from "@nomoat/core/nn";
import { AdapterBranch, type LoraVariant, type UpdateContext } from "../branch.js";
import type { LoraConfig } from "../config.js";
import { Pattern } from "../pattern.js";
import { isConvolution } from "../targets.js";
import { baseOf } from "./lora.js";

class Ia3Branch extends AdapterBranch {
  /** l: [1, inFeatures] in feedforward layers, else [outFeatures, 1]; of a convolution [1, channels, 1, 1]. */
  readonly ia3L: Tensor;
  readonly scaling = 1;
  readonly r = 1;
  readonly #feedforward: boolean;

  constructor(adapter: string, l: Tensor, feedforward: boolean) {
    super(adapter);
    this.ia3L = parameter(l);
    this.#feedforward = feedforward;
  }

  override tensors(): Map<string, Tensor> {
    return new Map([["ia3_l", this.ia3L]]);
  }

  override update(x: Tensor, y: Tensor, context: UpdateContext): Tensor {
    const base = context.base as LinearBase | Conv2d;
    return tidy(() => {
      const l = isConvolution(base) ? this.ia3L : this.ia3L.reshape([-1]);
      if (this.#feedforward) {
        const scaled = base.forward(x.mul(l.cast(x.dtype)));
        if (context.isBaseOutput && this.weight === 1) return scaled;
        return y.add(scaled.sub(base.forward(x)).mul(this.weight));
      }
      const plain = context.isBaseOutput ? y : base.forward(x);
      return y.add(plain.mul(l.sub(1).mul(this.weight).cast(y.dtype)));
    });
  }

  override updateWeight(sum: Tensor, original: Tensor): Tensor {
    return noGrad(() =>
      tidy(() => {
        const factor = this.ia3L.sub(1).mul(this.weight);
        // Features stand on the weight's second axis where they are inputs, on its first where they are outputs.
        const aligned = this.#feedforward ? factor : factor.reshape([-1, ...original.shape.slice(1).fill(1)]);
        return sum.add(original.mul(aligned)).cast(sum.dtype);
      }),
    );
  }

  /** The layer's output is scaled with its bias; its input is not. */
  override biasUpdate(weight: number, original: Tensor): Tensor | null {
    if (this.#feedforward) return null;
    return noGrad(() => tidy(() => original.mul(this.ia3L.reshape([-1]).sub(1).mul(weight))));
  }
}

/** Whether a layer's input is scaled; a list names ends of names, as in PEFT without regard to dots. */
function isFeedforward(config: LoraConfig, name: string): boolean {
  const { feedforwardModules: entries } = config;
  if (entries === null) return false;
  if (typeof entries === "string") return new Pattern(entries).test(name);
  return entries.some((entry) => name.endsWith(entry));
}

export const ia3: LoraVariant = {
  name: "(IA)³",
  handles: (config) => config.peftType === "IA3",
  shapes(target, layer, config) {
    const feedforward = isFeedforward(config, target.name);
    const base = baseOf(layer);
    if (isConvolution(base)) {
      const { weight, options } = base as Conv2d;
      const channels = feedforward ? weight.shape[1] * (options.groups ?? 1) : weight.shape[0];
      return new Map([["ia3_l", [1, channels, 1, 1]]]);
    }
    const { inFeatures, outFeatures } = base as LinearBase;
    return new Map([["ia3_l", feedforward ? [1, inFeatures] : [outFeatures, 1]]]);
  },
  create(layer, options, tensors) {
    const { adapter, config, target, dtype, device, generator } = options;
    const shape = ia3.shapes(target, layer, config).get("ia3_l") as number[];
    const place = { dtype, device };
    const fresh = () =>
      config.initLoraWeights ? ones(shape, place) : randn(shape, generator ? { ...place, generator } : place);
    return new Ia3Branch(adapter, tensors?.get("ia3_l") ?? fresh(), isFeedforward(config, target.name));
  },
};
