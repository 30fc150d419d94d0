// An adapter that began with a principal part of the base's weight (PiSSA, OLoRA): W + s·(B·A − B₀·A₀). PEFT takes s·B₀·A₀ out of the
// base's weight; here the base stays as it is and the beginning is subtracted beside it, which is the same, and exact on quantized bases.

import { concat, defaultGenerator, keep, matmul, noGrad, type Tensor, tensor, tidy } from "@nomoat/core";
import type { LinearBase } from "@nomoat/core/nn";
import type { BranchOptions, LoraVariant, UpdateContext } from "../branch.js";
import { isPrincipal, principalFactors } from "../init/principal.js";
import { fromTensor, type Matrix } from "../linalg.js";
import { lowRankUpdate } from "../low-rank.js";
import { baseOf, factorShapes, LoraBranch, plainLora } from "./lora.js";

class ResidualBranch extends LoraBranch {
  // No state: they follow from the base's weight.
  readonly #a0: Tensor;
  readonly #b0: Tensor;

  constructor(a: Tensor, b: Tensor, options: BranchOptions) {
    const { target, config } = options;
    super(options.adapter, a, b, { scaling: target.scaling, dropout: config.loraDropout });
    this.#a0 = keep(noGrad(() => this.loraA.clone()));
    this.#b0 = keep(noGrad(() => this.loraB.clone()));
  }

  override update(x: Tensor, y: Tensor, context: UpdateContext): Tensor {
    return tidy(() => {
      const sum = super.update(x, y, context);
      const [a, b] = [this.#a0.cast(y.dtype), this.#b0.cast(y.dtype)];
      return lowRankUpdate(x.cast(y.dtype), sum, a, b, { scaling: -this.scaling * this.weight });
    });
  }

  override updateWeight(sum: Tensor, original: Tensor): Tensor {
    return noGrad(() =>
      tidy(() => {
        const updated = super.updateWeight(sum, original);
        const beginning = matmul(this.#b0, this.#a0, { alpha: this.scaling * this.weight });
        return updated.sub(beginning).cast(sum.dtype);
      }),
    );
  }

  /** The whole update as one of rank 2r: [A; A₀] and [B, −B₀]. */
  override savedTensors(): Map<string, Tensor> {
    return noGrad(() =>
      tidy(
        () =>
          new Map([
            ["lora_A.weight", concat([this.loraA, this.#a0], 0)],
            ["lora_B.weight", concat([this.loraB, this.#b0.neg()], 1)],
          ]),
      ),
    );
  }

  override dispose(): void {
    this.#a0.dispose();
    this.#b0.dispose();
    super.dispose();
  }
}

export const residualLora: LoraVariant = {
  name: "LoRA from principal parts",
  handles: (config) => isPrincipal(config.initLoraWeights),
  shapes: factorShapes,
  create(layer, options, tensors) {
    if (tensors) return plainLora.create(layer, options, tensors);
    const { config, target, dtype, device, generator } = options;
    const weight = (baseOf(layer) as LinearBase).denseWeight();
    let dense: Matrix;
    try {
      dense = fromTensor(`applyLora: ${config.initLoraWeights}`, weight);
    } finally {
      weight.dispose();
    }
    const { r, scaling } = target;
    const factors = principalFactors(
      config.initLoraWeights,
      dense,
      r,
      scaling,
      generator ?? defaultGenerator(),
    );
    const place = ({ rows, columns, data }: Matrix) =>
      tensor(data, { shape: [rows, columns], dtype, device });
    return new ResidualBranch(place(factors.a), place(factors.b), options);
  },
};
