// LayerNorm and GroupNorm.

import { requireNonNegative, requireOptions } from "../arguments.js";
import { ones, zeros } from "../creation.js";
import { ArgumentError } from "../errors.js";
import { groupNorm, layerNorm } from "../ops/norm.js";
import type { Shape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import type { InitOptions } from "./init.js";
import { Module, parameter, requireWeight } from "./module.js";

/** (x − mean) / √(variance + eps) · weight + bias over the axes that weight has. */
export class LayerNorm extends Module {
  static override get brand(): string {
    return "@nomoat/core/LayerNorm";
  }

  readonly weight: Tensor;
  readonly bias: Tensor | null;
  readonly eps: number;

  /** Takes over `weight` and `bias`, of the shape of the axes to normalise, as parameters. */
  constructor(weight: Tensor, bias: Tensor | null = null, eps = 1e-5) {
    super();
    requireWeight("LayerNorm", "shape", weight);
    requireNonNegative("LayerNorm", "eps", eps);
    this.weight = parameter(weight);
    this.bias = bias && parameter(bias);
    this.eps = eps;
  }

  static create(
    shape: number | Shape,
    options: InitOptions & { bias?: boolean; eps?: number } = {},
  ): LayerNorm {
    requireOptions("LayerNorm", options);
    const { bias = true, eps = 1e-5, ...init } = options;
    const axes = typeof shape === "number" ? [shape] : shape;
    return new LayerNorm(ones(axes, init), bias ? zeros(axes, init) : null, eps);
  }

  override forward(x: Tensor): Tensor {
    return layerNorm(x, this.weight, this.bias, this.eps);
  }
}

/** Each of `groups` parts of the channels of x [batch, channels, ...] normalised, then scaled and shifted by channel. */
export class GroupNorm extends Module {
  static override get brand(): string {
    return "@nomoat/core/GroupNorm";
  }

  readonly groups: number;
  readonly weight: Tensor;
  readonly bias: Tensor | null;
  readonly eps: number;

  /** Takes over `weight` and `bias` [channels] as parameters. */
  constructor(groups: number, weight: Tensor, bias: Tensor | null = null, eps = 1e-5) {
    super();
    requireNonNegative("GroupNorm", "eps", eps);
    requireWeight("GroupNorm", "groups, channels", weight);
    if (!(Number.isInteger(groups) && groups > 0 && weight.size % groups === 0))
      throw new ArgumentError(`GroupNorm: ${weight.size} channels do not divide into ${groups} groups`);
    this.groups = groups;
    this.weight = parameter(weight);
    this.bias = bias && parameter(bias);
    this.eps = eps;
  }

  static create(
    groups: number,
    channels: number,
    options: InitOptions & { bias?: boolean; eps?: number } = {},
  ): GroupNorm {
    requireOptions("GroupNorm", options);
    const { bias = true, eps = 1e-5, ...init } = options;
    return new GroupNorm(groups, ones([channels], init), bias ? zeros([channels], init) : null, eps);
  }

  override forward(x: Tensor): Tensor {
    return groupNorm(x, this.groups, this.weight, this.bias, this.eps);
  }
}
