// Low-rank adaptation of a convolution, as PEFT's lora.Conv2d: A convolves as the base does, to r channels, B mixes those at
// each pixel: W + s·B·A with A as a matrix [r, inChannels · kernel]. Also as DoRA, and begun from principal parts of the weight.
// In groups A sees all channels and B works group by group: such an update is none of the base's weight, and is not merged.

import {
  concat,
  conv2d,
  defaultGenerator,
  keep,
  matmul,
  mul,
  noGrad,
  type Tensor,
  tensor,
  tidy,
  zeros,
} from "@nomoat/core";
import { Conv2d, kaimingUniform, type Module, normal } from "@nomoat/core/nn";
import type { BranchOptions, LoraVariant, UpdateContext } from "../branch.js";
import { isPrincipal, principalFactors } from "../init/principal.js";
import { LoraConv2d } from "../layer.js";
import { fromTensor, type Matrix } from "../linalg.js";
import { Magnitudes, type WeightView } from "./dora.js";
import { baseOf, LoraBranch } from "./lora.js";

/** Number of groups. */
const groupsOf = (base: Conv2d): number => base.options.groups ?? 1;

/** [first, the rest]. */
const flat = (x: Tensor): Tensor => x.reshape([x.shape[0], x.size / x.shape[0]]);

class ConvBranch extends LoraBranch {
  readonly #base: Conv2d;
  /** A₀ and B₀ of a principal part, subtracted beside the base; no state. */
  readonly #beginning: readonly [a: Tensor, b: Tensor] | null;

  constructor(
    a: Tensor,
    b: Tensor,
    base: Conv2d,
    options: BranchOptions,
    extra: { bias: Tensor | null; principal: boolean },
  ) {
    const { adapter, target, config } = options;
    super(adapter, a, b, { scaling: target.scaling, dropout: config.loraDropout, bias: extra.bias });
    this.#base = base;
    const copy = (x: Tensor) => keep(noGrad(() => x.clone()));
    this.#beginning = extra.principal ? [copy(this.loraA), copy(this.loraB)] : null;
  }

  /** The two convolutions, one after the other; `bias` is added to the second. */
  protected product(x: Tensor, a: Tensor, b: Tensor, bias: Tensor | null = null): Tensor {
    const { dtype } = x;
    const u = conv2d(x, a.cast(dtype), null, { ...this.#base.options, groups: 1 });
    return conv2d(u, b.cast(dtype), bias?.cast(dtype), { groups: groupsOf(this.#base) });
  }

  override update(x: Tensor, y: Tensor, _context: UpdateContext): Tensor {
    return tidy(() => {
      const plain = x.cast(y.dtype);
      const mask = this.drawMask(plain);
      const v = this.product(mask ? mul(plain, mask(plain)) : plain, this.loraA, this.loraB, this.loraBias);
      const [a0, b0] = this.#beginning ?? [];
      const all = a0 && b0 ? v.sub(this.product(plain, a0, b0)) : v;
      return y.add(all.mul(this.scaling * this.weight));
    });
  }

  override mergeObstacle(original: Module): string | null {
    if (groupsOf(original as Conv2d) > 1)
      return "an update of a grouped convolution reads all channels, which the weight of a group does not";
    return super.mergeObstacle(original);
  }

  override updateWeight(sum: Tensor, original: Tensor): Tensor {
    return noGrad(() => tidy(() => sum.add(this.delta(original).mul(this.weight)).cast(sum.dtype)));
  }

  /** The update of the weight, in its shape. */
  protected delta(original: Tensor): Tensor {
    const product = (a: Tensor, b: Tensor) =>
      matmul(flat(b), flat(a), { alpha: this.scaling }).reshape(original.shape);
    const whole = product(this.loraA, this.loraB);
    return this.#beginning ? whole.sub(product(...this.#beginning)) : whole;
  }

  /** With a beginning: the whole update as one of rank 2r, [A; A₀] and [B, −B₀]. */
  override savedTensors(): Map<string, Tensor> {
    const beginning = this.#beginning;
    if (!beginning) return this.tensors();
    const [a0, b0] = beginning;
    return noGrad(() =>
      tidy(
        () =>
          new Map([
            ["lora_A.weight", concat([this.loraA, a0], 0)],
            ["lora_B.weight", concat([this.loraB, b0.neg()], 1)],
          ]),
      ),
    );
  }

  override dispose(): void {
    for (const tensor of this.#beginning ?? []) tensor.dispose();
    super.dispose();
  }
}

/** Output channels. */
const kernelView: WeightView<Conv2d> = {
  squared: ({ weight }, dtype) => flat(weight.cast(dtype)).square().sum(1),
  crossed: ({ weight }, a) => matmul(flat(weight.cast(a.dtype)), a, { transB: true }),
};

class ConvDoraBranch extends ConvBranch {
  /** m [1, outChannels, 1, 1]. */
  readonly magnitude: Tensor;
  // Private, since it is no state.
  readonly #magnitudes: Magnitudes<Conv2d>;

  constructor(a: Tensor, b: Tensor, magnitude: Tensor | undefined, base: Conv2d, options: BranchOptions) {
    super(a, b, base, options, { bias: null, principal: false });
    this.#magnitudes = new Magnitudes(this, base, magnitude, kernelView, [1, -1, 1, 1]);
    this.magnitude = this.#magnitudes.vector;
  }

  override tensors(): Map<string, Tensor> {
    return super.tensors().set("lora_magnitude_vector", this.magnitude);
  }

  override update(x: Tensor, y: Tensor, context: UpdateContext): Tensor {
    return tidy(() => {
      const base = context.base as Conv2d;
      const plain = x.cast(y.dtype);
      const mask = this.drawMask(plain);
      const input = mask ? mul(plain, mask(plain)) : plain;
      const clean = conv2d(input, base.weight.cast(y.dtype), null, base.options);
      const adapted = clean.add(this.product(input, this.loraA, this.loraB).mul(this.scaling));
      const scale = this.#magnitudes.scale(base, y.dtype);
      return y.add(adapted.mul(scale).sub(clean).mul(this.weight));
    });
  }

  protected override delta(original: Tensor): Tensor {
    const adapted = original.cast(this.loraA.dtype).add(super.delta(original));
    const norms = flat(adapted).square().sum(1).sqrt();
    return adapted.mul(this.magnitude.reshape([-1]).div(norms).reshape([-1, 1, 1, 1])).sub(original);
  }

  override dispose(): void {
    this.#magnitudes.dispose();
    super.dispose();
  }
}

/** The convolution without adapters. */
const convolution = (layer: Module) => baseOf(layer) as Conv2d;

/** A and B in the shapes of a convolution: given, random, or of the weight's principal part. */
function factors(
  layer: Module,
  options: BranchOptions,
  tensors: ReadonlyMap<string, Tensor> | undefined,
): { a: Tensor; b: Tensor } {
  const [a, b] = ["lora_A.weight", "lora_B.weight"].map((key) => tensors?.get(key));
  if (a && b) return { a, b };
  const { config, target, dtype, device, generator } = options;
  const place = { dtype, device };
  const random = generator ? { ...place, generator } : place;
  const shapes = convLora.shapes(target, layer, config);
  const [shapeA, shapeB] = ["lora_A.weight", "lora_B.weight"].map((key) => [
    ...(shapes.get(key) as number[]),
  ]);
  const init = config.initLoraWeights;
  if (isPrincipal(init)) {
    const dense = noGrad(() =>
      tidy(() => fromTensor(`applyLora: ${init}`, flat(convolution(layer).weight.detach()))),
    );
    const parts = principalFactors(init, dense, target.r, target.scaling, generator ?? defaultGenerator());
    const shaped = ({ data }: Matrix, shape: number[]) => tensor(data, { shape, ...place });
    return { a: shaped(parts.a, shapeA), b: shaped(parts.b, shapeB) };
  }
  const fresh = (shape: number[]) => kaimingUniform(shape, Math.sqrt(5), random);
  return {
    a: init === "gaussian" ? normal(shapeA, 1 / target.r, random) : fresh(shapeA),
    b: init === false ? fresh(shapeB) : zeros(shapeB, place),
  };
}

export const convLora: LoraVariant = {
  name: "convolution LoRA",
  handles: (_, layer) => layer instanceof Conv2d || layer instanceof LoraConv2d,
  shapes({ r }, layer, config) {
    const base = convolution(layer);
    const groups = groupsOf(base);
    const [outChannels, inChannels, ...kernel] = base.weight.shape;
    const shapes = new Map<string, readonly number[]>([
      ["lora_A.weight", [r, inChannels * groups, ...kernel]],
      ["lora_B.weight", [outChannels, r / groups, 1, 1]],
    ]);
    if (config.loraBias) shapes.set("lora_B.bias", [outChannels]);
    return config.useDora ? shapes.set("lora_magnitude_vector", [1, outChannels, 1, 1]) : shapes;
  },
  create(layer, options, tensors) {
    const { config, dtype, device } = options;
    const { a, b } = factors(layer, options, tensors);
    const base = convolution(layer);
    if (config.useDora) return new ConvDoraBranch(a, b, tensors?.get("lora_magnitude_vector"), base, options);
    const bias = config.loraBias
      ? (tensors?.get("lora_B.bias") ?? zeros([base.weight.shape[0]], { dtype, device }))
      : null;
    const principal = !tensors && isPrincipal(config.initLoraWeights);
    return new ConvBranch(a, b, base, options, { bias, principal });
  },
};
