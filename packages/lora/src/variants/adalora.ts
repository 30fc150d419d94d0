// AdaLoRA (Zhang et al., arXiv:2303.10512), as PEFT has it: W + s·B·diag(e)·A, an SVD whose singular values e are pruned while it is
// trained. The scaling is alpha / (initR + 1e-5), also after pruning. See rank-allocator.ts for what prunes.

import { gather, matmul, noGrad, randn, type Tensor, tensor, tidy, zeros } from "@nomoat/core";
import { type LinearBase, normal, parameter } from "@nomoat/core/nn";
import type { BranchOptions, LoraVariant, UpdateContext } from "../branch.js";
import type { LoraConfig } from "../config.js";
import { lowRankUpdate } from "../low-rank.js";
import type { Target } from "../targets.js";
import { LoraBranch } from "./lora.js";

/** Low-rank matrices and singular values on one layer. */
export class AdaLoraBranch extends LoraBranch {
  /** Singular values e [r, 1]. */
  readonly loraE: Tensor;
  /** Which of them are left, where pruning has begun. */
  rankMask: readonly boolean[] | null;

  constructor(a: Tensor, b: Tensor, e: Tensor, options: BranchOptions) {
    const { adapter, target, config } = options;
    super(adapter, a, b, { scaling: target.scaling, dropout: config.loraDropout });
    this.loraE = parameter(e);
    this.rankMask = config.rankMasks?.[`${target.name}.lora_E`] ?? null;
  }

  override tensors(): Map<string, Tensor> {
    return new Map([
      ["lora_A", this.loraA],
      ["lora_B", this.loraB],
      ["lora_E", this.loraE],
    ]);
  }

  override reconfigure(target: Pick<Target, "scaling" | "name">, config: LoraConfig): void {
    super.reconfigure(target, config);
    this.rankMask = config.rankMasks?.[`${target.name}.lora_E`] ?? null;
  }

  /** Without the pruned parts. */
  override savedTensors(): Map<string, Tensor> {
    const mask = this.rankMask;
    if (mask?.length !== this.r || mask.every(Boolean)) return this.tensors();
    const kept = Int32Array.from(mask.flatMap((left, i) => (left ? [i] : [])));
    return noGrad(() =>
      tidy(() => {
        const rows = tensor(kept, { dtype: "int32", device: this.loraA.device });
        return new Map([
          ["lora_A", gather(this.loraA, rows)],
          ["lora_B", gather(this.loraB.transpose(), rows).transpose().clone()],
          ["lora_E", gather(this.loraE, rows)],
        ]);
      }),
    );
  }

  override update(x: Tensor, y: Tensor, _context: UpdateContext): Tensor {
    if (this.r === 0) return y;
    const options = { scaling: this.scaling * this.weight, mask: this.drawMask(x) };
    return tidy(() => {
      const scaled = this.loraA.mul(this.loraE).cast(y.dtype);
      return lowRankUpdate(x.cast(y.dtype), y, scaled, this.loraB.cast(y.dtype), options);
    });
  }

  override updateWeight(weight: Tensor, _original: Tensor): Tensor {
    if (this.r === 0) return weight.clone();
    return noGrad(() =>
      tidy(() => {
        const delta = matmul(this.loraB, this.loraA.mul(this.loraE), { alpha: this.scaling * this.weight });
        return weight.cast(delta.dtype).add(delta).cast(weight.dtype);
      }),
    );
  }
}

export const adalora: LoraVariant = {
  name: "AdaLoRA",
  handles: (config) => config.peftType === "ADALORA",
  shapes({ r }, layer) {
    const { inFeatures, outFeatures } = layer as LinearBase;
    return new Map([
      ["lora_A", [r, inFeatures]],
      ["lora_B", [outFeatures, r]],
      ["lora_E", [r, 1]],
    ]);
  },
  create(layer, options, tensors) {
    const { config, target, dtype, device, generator } = options;
    const place = { dtype, device };
    const random = generator ? { ...place, generator } : place;
    const { r } = target;
    const { inFeatures, outFeatures } = layer as LinearBase;
    const std = config.initLoraWeights ? 0.02 : 1;
    const a = tensors?.get("lora_A") ?? normal([r, inFeatures], std, random);
    const b = tensors?.get("lora_B") ?? normal([outFeatures, r], std, random);
    const e =
      tensors?.get("lora_E") ?? (config.initLoraWeights ? zeros([r, 1], place) : randn([r, 1], random));
    return new AdaLoraBranch(a, b, e, options);
  },
};
