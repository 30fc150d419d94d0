// VeRA (Kopiczko, Blankevoort and Asano, arXiv:2310.11454), as PEFT has it: W + diag(b)·B·diag(d)·A, with A and B random, frozen, and
// shared by all layers (each takes as many columns of A and rows of B as it needs), and the vectors d and b trained.

import {
  defaultGenerator,
  full,
  Generator,
  keep,
  matmul,
  mul,
  noGrad,
  slice,
  type Tensor,
  tidy,
} from "@nomoat/core";
import { kaimingUniform, type LinearBase, parameter } from "@nomoat/core/nn";
import { AdapterBranch, type BranchOptions, type LoraVariant, type UpdateContext } from "../branch.js";
import type { LoraConfig } from "../config.js";
import { type Mask, replayableMask } from "../low-rank.js";

const [keyA, keyB] = ["base_model.vera_A", "base_model.vera_B"];

class VeraBranch extends AdapterBranch {
  /** b [outFeatures]. */
  readonly lambdaB: Tensor;
  /** d [r]. */
  readonly lambdaD: Tensor;
  readonly scaling = 1;
  // Private: the adapter's, not this layer's.
  readonly #a: Tensor;
  readonly #b: Tensor;
  #dropout: number;

  constructor(options: BranchOptions, layer: LinearBase, lambdaB: Tensor, lambdaD: Tensor) {
    super(options.adapter);
    this.lambdaB = parameter(lambdaB);
    this.lambdaD = parameter(lambdaD);
    this.#a = keep(slice(options.shared.get(keyA) as Tensor, null, [0, layer.inFeatures]));
    this.#b = keep(slice(options.shared.get(keyB) as Tensor, [0, layer.outFeatures]));
    this.#dropout = options.config.loraDropout;
  }

  get r(): number {
    return this.lambdaD.shape[0];
  }

  override reconfigure(_: object, { loraDropout }: LoraConfig): void {
    this.#dropout = loraDropout;
  }

  override tensors(): Map<string, Tensor> {
    return new Map([
      ["vera_lambda_b", this.lambdaB],
      ["vera_lambda_d", this.lambdaD],
    ]);
  }

  #mask(x: Tensor): Mask | null {
    if (!this.training || (this.#dropout === 0 && !this.dropoutMask)) return null;
    const given = this.dropoutMask?.(x, this.#dropout);
    return given ? () => given : replayableMask(this.#dropout, this.dropoutGenerator ?? defaultGenerator());
  }

  override update(x: Tensor, y: Tensor, _context: UpdateContext): Tensor {
    return tidy(() => {
      const mask = this.#mask(x);
      const u = matmul(mask ? mul(x, mask(x)) : x, this.#a.cast(x.dtype), { transB: true });
      const v = matmul(u.mul(this.lambdaD.cast(x.dtype)), this.#b.cast(x.dtype), { transB: true });
      return y.add(v.mul(this.lambdaB.mul(this.weight).cast(x.dtype)).cast(y.dtype));
    });
  }

  override updateWeight(sum: Tensor, _original: Tensor): Tensor {
    return noGrad(() =>
      tidy(() => {
        const product = matmul(this.#b.mul(this.lambdaD), this.#a);
        return sum.add(product.mul(this.lambdaB.mul(this.weight).unsqueeze(1))).cast(sum.dtype);
      }),
    );
  }

  override dispose(): void {
    this.#a.dispose();
    this.#b.dispose();
    super.dispose();
  }
}

export const vera: LoraVariant = {
  name: "VeRA",
  handles: (config) => config.peftType === "VERA",
  shapes: ({ r }, layer) =>
    new Map([
      ["vera_lambda_b", [(layer as LinearBase).outFeatures]],
      ["vera_lambda_d", [r]],
    ]),
  shared: {
    shapes(targets, config) {
      const layers = targets.map((target) => target.layer as LinearBase);
      return new Map([
        [keyA, [config.r, Math.max(...layers.map((layer) => layer.inFeatures))]],
        [keyB, [Math.max(...layers.map((layer) => layer.outFeatures)), config.r]],
      ]);
    },
    create(shapes, config, place) {
      // Not the numbers that PyTorch draws from the same key.
      const generator = new Generator(config.projectionKey);
      const entries = Array.from(
        shapes,
        ([key, shape]) => [key, kaimingUniform(shape, 0, { ...place, generator })] as const,
      );
      return new Map(entries);
    },
  },
  create(layer, options, tensors) {
    const { config, dtype, device, target } = options;
    const place = { dtype, device };
    const { outFeatures } = layer as LinearBase;
    const start = config.initLoraWeights ? 0 : 1;
    const b = tensors?.get("vera_lambda_b") ?? full([outFeatures], start, place);
    const d = tensors?.get("vera_lambda_d") ?? full([target.r], config.dInitial, place);
    return new VeraBranch(options, layer as LinearBase, b, d);
  },
};
