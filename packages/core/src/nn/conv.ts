// Convolution layers.

import { requireOptions } from "../arguments.js";
import { uniform } from "../creation.js";
import { ArgumentError } from "../errors.js";
import { type ConvolutionArguments, conv1d, conv2d, type PerAxis, perAxis } from "../ops/convolution.js";
import { checkShape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { fanIn, type InitOptions, kaimingUniform } from "./init.js";
import { Module, parameter, requireWeight } from "./module.js";

export interface ConvolutionOptions extends ConvolutionArguments, InitOptions {
  /** Whether to add a learned bias (default true). */
  bias?: boolean;
}

abstract class Convolution extends Module {
  /** [outChannels, inChannels / groups, kernel…]. */
  readonly weight: Tensor;
  /** [outChannels], or null. */
  readonly bias: Tensor | null;
  readonly options: Readonly<ConvolutionArguments>;

  constructor(weight: Tensor, bias: Tensor | null, options: ConvolutionArguments, rank: number) {
    super();
    requireWeight(`Conv${rank - 2}d`, "inChannels, outChannels, kernelSize", weight);
    requireOptions(`Conv${rank - 2}d`, options);
    if (weight.rank !== rank)
      throw new ArgumentError(
        `Conv${rank - 2}d: weight must have ${rank} axes, not ${weight.rank} ([${weight.shape.join(", ")}])`,
      );
    this.weight = parameter(weight);
    this.bias = bias && parameter(bias);
    this.options = options;
  }
}

/** Weight and bias uniform in ±1/√(inChannels / groups · kernel), as in PyTorch. */
function initial(
  name: string,
  inChannels: number,
  outChannels: number,
  kernel: readonly number[],
  options: ConvolutionOptions,
): [Tensor, Tensor | null, ConvolutionArguments] {
  requireOptions(name, options);
  const { bias = true, stride, padding, dilation, groups = 1, ...init } = options;
  checkShape(name, [inChannels, outChannels, ...kernel]);
  if (!(Number.isInteger(groups) && groups > 0) || inChannels % groups !== 0 || outChannels % groups !== 0) {
    throw new ArgumentError(
      `${name}: ${inChannels} input and ${outChannels} output channels do not divide into ${groups} groups`,
    );
  }
  const weight = kaimingUniform([outChannels, inChannels / groups, ...kernel], Math.sqrt(5), init);
  const bound = 1 / Math.sqrt(fanIn(weight.shape));
  return [
    weight,
    bias ? uniform([outChannels], -bound, bound, init) : null,
    { stride, padding, dilation, groups },
  ];
}

/** Cross-correlation of x [batch, inChannels, length]. */
export class Conv1d extends Convolution {
  static override get brand(): string {
    return "@nomoat/core/Conv1d";
  }

  /** Takes over `weight` [outChannels, inChannels / groups, kernelSize] and `bias` as parameters. */
  constructor(weight: Tensor, bias: Tensor | null = null, options: ConvolutionArguments = {}) {
    super(weight, bias, options, 3);
  }

  static create(
    inChannels: number,
    outChannels: number,
    kernelSize: number,
    options: ConvolutionOptions = {},
  ): Conv1d {
    const kernel = perAxis("Conv1d", "kernelSize", kernelSize, 1, 1);
    return new Conv1d(...initial("Conv1d", inChannels, outChannels, kernel, options));
  }

  override forward(x: Tensor): Tensor {
    return conv1d(x, this.weight, this.bias, this.options);
  }
}

/** Cross-correlation of x [batch, inChannels, height, width]. */
export class Conv2d extends Convolution {
  static override get brand(): string {
    return "@nomoat/core/Conv2d";
  }

  /** Takes over `weight` [outChannels, inChannels / groups, kernelHeight, kernelWidth] and `bias` as parameters. */
  constructor(weight: Tensor, bias: Tensor | null = null, options: ConvolutionArguments = {}) {
    super(weight, bias, options, 4);
  }

  static create(
    inChannels: number,
    outChannels: number,
    kernelSize: PerAxis,
    options: ConvolutionOptions = {},
  ): Conv2d {
    const kernel = perAxis("Conv2d", "kernelSize", kernelSize, 2, 1);
    return new Conv2d(...initial("Conv2d", inChannels, outChannels, kernel, options));
  }

  override forward(x: Tensor): Tensor {
    return conv2d(x, this.weight, this.bias, this.options);
  }
}
