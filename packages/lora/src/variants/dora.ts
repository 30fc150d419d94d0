// DoRA, weight-decomposed low-rank adaptation (Liu et al., arXiv:2402.09353), as PEFT has it: W' = m · (W + s·B·A) / ‖W + s·B·A‖ with a
// trained magnitude m and the norm over each row. The norm counts as a constant in backward (section 4.3 of the paper). It is computed
// from ‖W‖², W·Aᵀ and A·Aᵀ, so that no matrix of the size of W is made.

import { type DType, keep, matmul, mul, noGrad, sqrt, sum, type Tensor, tidy } from "@nomoat/core";
import { type LinearBase, type Module, parameter } from "@nomoat/core/nn";
import type { BranchOptions, LoraVariant, UpdateContext } from "../branch.js";
import { lowRankUpdate } from "../low-rank.js";
import { baseOf, factorShapes, givenOrInitial, LoraBranch } from "./lora.js";

/**
 * ‖W + s·B·A‖ of each row, outside the graph: ‖w + s·b·A‖² = ‖w‖² + 2s·b·(A·wᵀ) + s²·b·A·Aᵀ·bᵀ for a row w of W and b of B.
 * @param squared - ‖w‖² [rows]
 * @param crossed - W·Aᵀ [rows, r]
 */
function rowNorms(squared: Tensor, crossed: Tensor, a: Tensor, b: Tensor, s: number): Tensor {
  const cross = sum(mul(b, crossed), 1).mul(2 * s);
  const square = sum(mul(matmul(b, matmul(a, a, { transB: true })), b), 1).mul(s * s);
  return sqrt(squared.add(cross).add(square).maximum(0));
}

/** How a kind of layer shows its weight W to the norms of W + s·B·A. */
export interface WeightView<B extends Module> {
  /** ‖w‖² of each row w that has a magnitude [rows], reckoned in `dtype`. */
  squared(base: B, dtype: DType): Tensor;
  /** W·Aᵀ [rows, r], in A's dtype. */
  crossed(base: B, a: Tensor): Tensor;
}

/** The magnitudes that the norms of an adapted weight are replaced by, whatever kind of layer has it. */
export class Magnitudes<B extends Module> {
  /** The trained ones, in PEFT's shape. */
  readonly vector: Tensor;
  readonly #branch: Pick<LoraBranch, "loraA" | "loraB" | "scaling">;
  readonly #view: WeightView<B>;
  readonly #squared: Tensor;

  /**
   * @param branch - which has its factors already
   * @param given - initial ones (default: the norms, so that nothing changes); taken over
   */
  constructor(
    branch: Pick<LoraBranch, "loraA" | "loraB" | "scaling">,
    base: B,
    given: Tensor | undefined,
    view: WeightView<B>,
    shape: readonly number[] = [-1],
  ) {
    this.#branch = branch;
    this.#view = view;
    this.#squared = keep(noGrad(() => tidy(() => view.squared(base, branch.loraA.dtype))));
    this.vector = parameter(given ?? noGrad(() => tidy(() => this.norms(base).reshape([...shape]))));
  }

  /** ‖W + s·B·A‖ of each row, outside the graph. */
  norms(base: B): Tensor {
    const { loraA, loraB, scaling } = this.#branch;
    return noGrad(() =>
      tidy(() => {
        const [a, b] = [loraA, loraB].map((factor) => factor.reshape([factor.shape[0], -1]));
        return rowNorms(this.#squared, this.#view.crossed(base, a), a, b, scaling);
      }),
    );
  }

  /** m / ‖W + s·B·A‖ in the shape of m, differentiable in m. */
  scale(base: B, dtype: DType): Tensor {
    return this.vector.div(this.norms(base).reshape(this.vector.shape)).cast(dtype);
  }

  /** Lets go of all but the trained ones, which are the branch's. */
  dispose(): void {
    this.#squared.dispose();
  }
}

const linearView: WeightView<LinearBase> = {
  squared: (base, dtype) => sum(base.denseWeight().cast(dtype).square(), 1),
  crossed(base, a) {
    const rows = base.forward(a);
    return (base.bias ? rows.sub(base.bias) : rows).cast(a.dtype).transpose();
  },
};

class DoraBranch extends LoraBranch {
  /** m [outFeatures]. */
  readonly magnitude: Tensor;
  // Private, since it is no state.
  readonly #magnitudes: Magnitudes<LinearBase>;

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
    this.#magnitudes = new Magnitudes(this, base, magnitude, linearView);
    this.magnitude = this.#magnitudes.vector;
  }

  override tensors(): Map<string, Tensor> {
    return super.tensors().set("lora_magnitude_vector", this.magnitude);
  }

  override update(x: Tensor, y: Tensor, context: UpdateContext): Tensor {
    return tidy(() => {
      const base = context.base as LinearBase;
      const mask = this.drawMask(x);
      const input = mask ? mul(x, mask(x)) : x;
      const clean = context.isBaseOutput && !mask ? y : base.forward(input);
      const { dtype } = y;
      const [a, b] = [this.loraA.cast(dtype), this.loraB.cast(dtype)];
      const scale = this.#magnitudes.scale(base, dtype);
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
    this.#magnitudes.dispose();
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
