// DoRA, weight-decomposed low-rank adaptation (Liu et al., arXiv:2402.09353), as PEFT has it: W' = m · (W + s·B·A) / ‖W + s·B·A‖ with a
// trained magnitude m and the norm over each row. The norm counts as a constant in backward (section 4.3 of the paper). It is computed
// from ‖W‖², W·Aᵀ and A·Aᵀ, so that no matrix of the size of W is made.

import { keep, matmul, mul, noGrad, sqrt, sum, type Tensor, tidy } from "@nomoat/core";
import { type LinearBase, type Module, parameter } from "@nomoat/core/nn";
import type { BranchOptions, LoraVariant, UpdateContext } from "../branch.js";
import { lowRankUpdate } from "../low-rank.js";
import { baseOf, factorShapes, givenOrInitial, LoraBranch } from "./lora.js";

/**
 * ‖W + s·B·A‖ of each row, outside the graph: ‖w + s·b·A‖² = ‖w‖² + 2s·b·(A·wᵀ) + s²·b·A·Aᵀ·bᵀ for a row w of W and b of B.
 * @param squared - ‖w‖² [rows]
 * @param crossed - W·Aᵀ [rows, r]
 */
export function rowNorms(squared: Tensor, crossed: Tensor, a: Tensor, b: Tensor, s: number): Tensor {
  const cross = sum(mul(b, crossed), 1).mul(2 * s);
  const square = sum(mul(matmul(b, matmul(a, a, { transB: true })), b), 1).mul(s * s);
  return sqrt(squared.add(cross).add(square).maximum(0));
}

class DoraBranch extends LoraBranch {
  /** m [outFeatures]. */
  readonly magnitude: Tensor;
  /** Rows' squared norms of W [outFeatures]; private, since it is no state. */
  readonly #squaredNorms: Tensor;

  constructor(
    adapter: string,
    a: Tensor,
    b: Tensor,
    magnitude: Tensor | undefined,
    base: LinearBase,
    options: BranchOptions,
  ) {
    const { target, config } = options;
    super(adapter, a, b, { scaling: target.scaling, dropout: config.loraDropout });
    this.#squaredNorms = keep(tidy(() => noGrad(() => sum(base.denseWeight().cast(a.dtype).square(), 1))));
    this.magnitude = parameter(magnitude ?? this.#norms(base));
  }

  override tensors(): Map<string, Tensor> {
    return super.tensors().set("lora_magnitude_vector", this.magnitude);
  }

  /** ‖W + s·B·A‖ of each row, outside the graph. */
  #norms(base: LinearBase): Tensor {
    return noGrad(() =>
      tidy(() => {
        const { loraA: a, loraB: b, scaling: s } = this;
        const rows = base.forward(a);
        const aw = base.bias ? rows.sub(base.bias) : rows;
        return rowNorms(this.#squaredNorms, aw.cast(a.dtype).transpose(), a, b, s);
      }),
    );
  }

  override update(x: Tensor, y: Tensor, context: UpdateContext): Tensor {
    return tidy(() => {
      const base = context.base as LinearBase;
      const mask = this.drawMask(x);
      const input = mask ? mul(x, mask(x)) : x;
      const clean = context.isBaseOutput && !mask ? y : base.forward(input);
      const { dtype } = y;
      const [a, b] = [this.loraA.cast(dtype), this.loraB.cast(dtype)];
      const scale = this.magnitude.div(this.#norms(base)).cast(dtype);
      const options = { scaling: this.scaling };
      // Where the whole output is scaled, y + (m/‖·‖ · adapted − y) is m/‖·‖ · adapted: the product is added to y where it stands.
      if (clean === y && !base.bias && this.weight === 1)
        return lowRankUpdate(input.cast(dtype), y, a, b, options).mul(scale);
      // Without bias; a copy where there is none, since the product below is added to it in place.
      const plain = base.bias ? clean.sub(base.bias) : clean.clone();
      const adapted = lowRankUpdate(input.cast(dtype), plain.clone(), a, b, options);
      return y.add(adapted.mul(scale).sub(plain).mul(this.weight));
    });
  }

  override updateWeight(sumSoFar: Tensor, original: Tensor): Tensor {
    return noGrad(() =>
      tidy(() => {
        const { loraA: a, loraB: b } = this;
        const adapted = original.cast(a.dtype).add(matmul(b, a, { alpha: this.scaling }));
        const norms = sqrt(sum(adapted.square(), 1));
        const scaled = adapted.mul(this.magnitude.div(norms).unsqueeze(1));
        return sumSoFar.add(scaled.sub(original).mul(this.weight)).cast(sumSoFar.dtype);
      }),
    );
  }

  override dispose(): void {
    this.#squaredNorms.dispose();
    super.dispose();
  }
}

export const dora: LoraVariant = {
  name: "DoRA",
  handles: (config) => config.useDora,
  shapes(target, layer: Module) {
    return factorShapes(target, layer).set("lora_magnitude_vector", [(layer as LinearBase).outFeatures]);
  },
  create(layer, options, tensors) {
    const { a, b } = givenOrInitial(layer, options, tensors);
    const base = baseOf(layer) as LinearBase;
    return new DoraBranch(options.adapter, a, b, tensors?.get("lora_magnitude_vector"), base, options);
  },
};
