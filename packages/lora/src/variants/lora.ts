// Plain low-rank adaptation (Hu et al., arXiv:2106.09685): W + s·B·A. Rank-stabilized LoRA differs in s alone.

import { defaultGenerator, matmul, noGrad, type Tensor, tensor, tidy, zeros } from "@nomoat/core";
import { type LinearBase, type Module, parameter } from "@nomoat/core/nn";
import {
  AdapterBranch,
  type BranchOptions,
  type LoraVariant,
  type LowRankPair,
  type UpdateContext,
} from "../branch.js";
import type { LoraConfig } from "../config.js";
import { initialFactors } from "../init/index.js";
import { orthogonalFactors } from "../init/principal.js";
import { isAdaptedLayer } from "../layer.js";
import type { Matrix } from "../linalg.js";
import { lowRankUpdate, type Mask, replayableMask } from "../low-rank.js";

/** Low-rank matrices on one layer. */
export class LoraBranch extends AdapterBranch {
  /** A [r, inFeatures]. */
  readonly loraA: Tensor;
  /** B [outFeatures, r]. */
  readonly loraB: Tensor;
  /** What B adds besides [outFeatures], scaled as the rest; null without `loraBias`. */
  readonly loraBias: Tensor | null;
  scaling: number;
  /** Probability of dropping an element of the input in training. */
  dropout: number;

  /** Takes over `a`, `b` and `bias` as parameters. */
  constructor(
    adapter: string,
    a: Tensor,
    b: Tensor,
    options: { scaling: number; dropout: number; bias?: Tensor | null },
  ) {
    super(adapter);
    this.loraA = parameter(a);
    this.loraB = parameter(b);
    this.loraBias = options.bias ? parameter(options.bias) : null;
    this.scaling = options.scaling;
    this.dropout = options.dropout;
  }

  get r(): number {
    return this.loraA.shape[0];
  }

  override tensors(): Map<string, Tensor> {
    return new Map([
      ["lora_A.weight", this.loraA],
      ["lora_B.weight", this.loraB],
      ...(this.loraBias ? [["lora_B.bias", this.loraBias] as const] : []),
    ]);
  }

  override reconfigure({ scaling }: { scaling: number }, { loraDropout }: LoraConfig): void {
    this.scaling = scaling;
    this.dropout = loraDropout;
  }

  /** True when this pass would drop elements of the input. */
  get dropsOut(): boolean {
    return this.training && (this.dropout > 0 || this.dropoutMask !== null);
  }

  override lowRankPair(): LowRankPair | null {
    // What is built on this one adds to it.
    if (this.constructor !== LoraBranch || this.loraBias) return null;
    return { a: this.loraA, b: this.loraB, dropsOut: this.dropsOut };
  }

  /** The mask of this pass; null when nothing is dropped. */
  drawMask(x: Tensor): Mask | null {
    const source = this.dropoutMask;
    if (!this.dropsOut) return null;
    // By default core's generator, since checkpoints repeat its numbers.
    if (!source) return replayableMask(this.dropout, this.dropoutGenerator ?? defaultGenerator());
    const given = source(x, this.dropout);
    return () => given;
  }

  override update(x: Tensor, y: Tensor, _context: UpdateContext): Tensor {
    const { loraBias } = this;
    if (!loraBias) return this.#product(x, y);
    return tidy(() => this.#product(x, y).add(loraBias.mul(this.scaling * this.weight).cast(y.dtype)));
  }

  #product(x: Tensor, y: Tensor): Tensor {
    const options = { scaling: this.scaling * this.weight, mask: this.drawMask(x) };
    if (y.dtype === this.loraA.dtype && x.dtype === y.dtype)
      return lowRankUpdate(x, y, this.loraA, this.loraB, options);
    // A base of another dtype: the matrices follow its output.
    return tidy(() =>
      lowRankUpdate(x.cast(y.dtype), y, this.loraA.cast(y.dtype), this.loraB.cast(y.dtype), options),
    );
  }

  override biasUpdate(weight: number): Tensor | null {
    return this.loraBias && noGrad(() => this.loraBias?.mul(this.scaling * weight) ?? null);
  }

  override mergeObstacle(original: Module): string | null {
    return this.loraBias && !(original as LinearBase).bias
      ? "loraBias has no bias of the layer to be merged into"
      : null;
  }

  override updateWeight(weight: Tensor, _original: Tensor): Tensor {
    return noGrad(() =>
      tidy(() => {
        const work = weight.dtype === "float64" ? weight.dtype : this.loraA.dtype;
        const sum = weight.dtype === work ? weight.clone() : weight.cast(work);
        const [a, b] = [this.loraA.cast(work), this.loraB.cast(work)];
        matmul(b, a, { alpha: this.scaling * this.weight, beta: 1, out: sum });
        return sum.cast(weight.dtype);
      }),
    );
  }
}

/** Plain low-rank adaptation; see {@link LoraBranch}. */
export const plainLora: LoraVariant = {
  name: "LoRA",
  handles: () => true,
  shapes(target, layer, config) {
    const shapes = factorShapes(target, layer);
    return config.loraBias ? shapes.set("lora_B.bias", [(layer as LinearBase).outFeatures]) : shapes;
  },
  create(layer, options, tensors) {
    const { config, target, dtype, device } = options;
    const { a, b } = givenOrInitial(layer, options, tensors);
    const { outFeatures } = layer as LinearBase;
    const bias = config.loraBias
      ? (tensors?.get("lora_B.bias") ?? zeros([outFeatures], { dtype, device }))
      : null;
    const { scaling } = target;
    return new LoraBranch(options.adapter, a, b, { scaling, dropout: config.loraDropout, bias });
  },
};

/** The layer without adapters, whether it carries some or not. */
export function baseOf(layer: Module): Module {
  return isAdaptedLayer(layer) ? layer.slots.original : layer;
}

/** Shapes of A and B. */
export function factorShapes({ r }: { r: number }, layer: Module): Map<string, readonly number[]> {
  const { inFeatures, outFeatures } = layer as LinearBase;
  return new Map([
    ["lora_A.weight", [r, inFeatures]],
    ["lora_B.weight", [outFeatures, r]],
  ]);
}

/** A and B out of a file, or fresh ones. */
export function givenOrInitial(
  layer: Module,
  options: BranchOptions,
  tensors: ReadonlyMap<string, Tensor> | undefined,
): { a: Tensor; b: Tensor } {
  const a = tensors?.get("lora_A.weight");
  const b = tensors?.get("lora_B.weight");
  if (a && b) return { a, b };
  const { config, target, dtype, device, generator } = options;
  const { inFeatures, outFeatures } = layer as LinearBase;
  if (config.initLoraWeights === "orthogonal") {
    const size = { inFeatures, outFeatures };
    const factors = orthogonalFactors(target.r, size, generator ?? defaultGenerator());
    const place = ({ rows, columns, data }: Matrix) =>
      tensor(data, { shape: [rows, columns], dtype, device });
    return { a: place(factors.a), b: place(factors.b) };
  }
  return initialFactors(
    config.initLoraWeights,
    { r: target.r, inFeatures, outFeatures },
    { dtype, device, generator },
  );
}
