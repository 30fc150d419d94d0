// Low-rank adaptation of a convolution over two axes, as PEFT's lora.Conv2d: A convolves as the base does, to r channels, B mixes those at
// each pixel: W + s·B·A with A as a matrix [r, inChannels · kernel].

import { conv2d, matmul, mul, noGrad, type Tensor, tidy, zeros } from "@nomoat/core";
import { Conv2d, kaimingUniform, type Module, normal } from "@nomoat/core/nn";
import type { BranchOptions, LoraVariant, UpdateContext } from "../branch.js";
import { LoraConv2d } from "../layer.js";
import { baseOf, LoraBranch } from "./lora.js";

class ConvBranch extends LoraBranch {
  readonly #base: Conv2d;

  constructor(a: Tensor, b: Tensor, base: Conv2d, { adapter, target, config }: BranchOptions) {
    super(adapter, a, b, { scaling: target.scaling, dropout: config.loraDropout });
    this.#base = base;
  }

  override update(x: Tensor, y: Tensor, _context: UpdateContext): Tensor {
    return tidy(() => {
      const mask = this.mask(x);
      const input = (mask ? mul(x, mask(x)) : x).cast(y.dtype);
      const u = conv2d(input, this.loraA.cast(y.dtype), null, this.#base.options);
      const v = conv2d(u, this.loraB.cast(y.dtype));
      return y.add(v.mul(this.scaling * this.weight));
    });
  }

  override updateWeight(sum: Tensor, _original: Tensor): Tensor {
    return noGrad(() =>
      tidy(() => {
        const a = this.loraA.reshape([this.r, this.loraA.size / this.r]);
        const b = this.loraB.reshape([this.loraB.shape[0], this.r]);
        const delta = matmul(b, a, { alpha: this.scaling * this.weight });
        return sum.cast(delta.dtype).add(delta.reshape(sum.shape)).cast(sum.dtype);
      }),
    );
  }
}

/** The convolution without adapters. */
const convolution = (layer: Module) => baseOf(layer) as Conv2d;

export const convLora: LoraVariant = {
  name: "convolution LoRA",
  handles: (_, layer) => layer instanceof Conv2d || layer instanceof LoraConv2d,
  shapes({ r }, layer) {
    const [outChannels, ...kernel] = convolution(layer).weight.shape;
    return new Map([
      ["lora_A.weight", [r, ...kernel]],
      ["lora_B.weight", [outChannels, r, 1, 1]],
    ]);
  },
  create(layer, options, tensors) {
    const { config, target, dtype, device, generator } = options;
    const place = { dtype, device };
    const random = generator ? { ...place, generator } : place;
    const shapes = convLora.shapes(target, layer, config);
    const [shapeA, shapeB] = [...shapes.values()].map((shape) => [...shape]);
    const fresh = (shape: number[]) => kaimingUniform(shape, Math.sqrt(5), random);
    const a =
      tensors?.get("lora_A.weight") ??
      (config.initLoraWeights === "gaussian" ? normal(shapeA, 1 / target.r, random) : fresh(shapeA));
    const b =
      tensors?.get("lora_B.weight") ??
      (config.initLoraWeights === false ? fresh(shapeB) : zeros(shapeB, place));
    return new ConvBranch(a, b, convolution(layer), options);
  },
};
