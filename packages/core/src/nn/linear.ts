// Linear layers, dense ones and the base class of whatever can stand in for them (quantized, low-rank).

import { describe, requireList, requireOptions, use } from "../arguments.js";
import { noGrad } from "../autograd/graph.js";
import { uniform } from "../creation.js";
import { ArgumentError } from "../errors.js";
import { operand } from "../ops/dispatch.js";
import { fusedKernels } from "../ops/fused.js";
import { linear } from "../ops/matmul.js";
import { checkShape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { type InitOptions, kaimingUniform } from "./init.js";
import { checkFeatures, Module, parameter, requireWeight } from "./module.js";

/** What every linear layer can do. Those who wrap or replace linear layers rely on nothing else. */
export abstract class LinearBase extends Module {
  static override get brand(): string {
    return "@nomoat/core/LinearBase";
  }

  abstract readonly inFeatures: number;
  abstract readonly outFeatures: number;
  /** [outFeatures], or null. */
  abstract readonly bias: Tensor | null;

  /** x [..., inFeatures] → [..., outFeatures]. */
  abstract override forward(x: Tensor): Tensor;

  /**
   * The outputs of `layers`, of which this is the first, for x; null where it knows no way that serves them all at once, and they run
   * one after the other. Not called by users: {@link linearGroup} asks.
   */
  forwardGroup(_x: Tensor, _layers: readonly LinearBase[]): Tensor[] | null {
    return null;
  }

  /** The weight as a dense float tensor [outFeatures, inFeatures], outside the graph; the caller disposes it. */
  abstract denseWeight(): Tensor;

  /** A layer of the same kind and format with another dense weight [outFeatures, inFeatures] (copied) and the same bias. */
  abstract withDenseWeight(weight: Tensor): LinearBase;
}

/**
 * The outputs of several linear layers for one input: what each layer's `forward` gives, to float32 rounding. Their products share the
 * packing of x, and layers of one kind what else they have in common (low-rank adapters: their narrow products, forward and backward).
 *
 * @param x - [..., inFeatures] of every layer
 */
export function linearGroup(x: Tensor, layers: readonly LinearBase[]): Tensor[] {
  requireList("linearGroup", "layers", layers);
  use("linearGroup", x);
  layers.forEach((layer, i) => {
    if (!(layer instanceof LinearBase))
      throw new ArgumentError(`linearGroup: layers[${i}] must be a linear layer, not ${describe(layer)}`);
  });
  const run = () =>
    (layers.length > 1 && layers[0].forwardGroup(x, layers)) || layers.map((layer) => layer.forward(x));
  const kernels = layers.length > 1 && x.isContiguous ? fusedKernels([x], "sharePacking") : null;
  return kernels ? kernels.sharePacking(operand(x), run) : run();
}

export interface LinearOptions extends InitOptions {
  /** Whether to add a learned bias (default true). */
  bias?: boolean;
}

/** y = x · weightᵀ + bias, weight [outFeatures, inFeatures]. */
export class Linear extends LinearBase {
  static override get brand(): string {
    return "@nomoat/core/Linear";
  }

  readonly weight: Tensor;
  readonly bias: Tensor | null;

  /** Takes over `weight` and `bias` as parameters. */
  constructor(weight: Tensor, bias: Tensor | null = null) {
    super();
    requireWeight("Linear", "inFeatures, outFeatures", weight);
    if (bias) use("Linear", bias);
    if (weight.rank !== 2)
      throw new ArgumentError(
        `Linear: weight must be [outFeatures, inFeatures], not [${weight.shape.join(", ")}]`,
      );
    if (bias && (bias.rank !== 1 || bias.shape[0] !== weight.shape[0])) {
      throw new ArgumentError(`Linear: bias [${bias.shape.join(", ")}] should be [${weight.shape[0]}]`);
    }
    this.weight = parameter(weight);
    this.bias = bias && parameter(bias);
  }

  /** Uniform in ±1/√inFeatures, as in PyTorch. */
  static create(inFeatures: number, outFeatures: number, options: LinearOptions = {}): Linear {
    requireOptions("Linear", options);
    const { bias = true, ...init } = options;
    checkShape("Linear", [inFeatures, outFeatures]);
    const bound = 1 / Math.sqrt(Math.max(1, inFeatures));
    const weight = kaimingUniform([outFeatures, inFeatures], Math.sqrt(5), init);
    return new Linear(weight, bias ? uniform([outFeatures], -bound, bound, init) : null);
  }

  get inFeatures(): number {
    return this.weight.shape[1];
  }

  get outFeatures(): number {
    return this.weight.shape[0];
  }

  override forward(x: Tensor): Tensor {
    checkFeatures("Linear", x, this.inFeatures);
    return linear(x, this.weight, this.bias);
  }

  override denseWeight(): Tensor {
    return this.weight.detach();
  }

  override withDenseWeight(weight: Tensor): Linear {
    use("withDenseWeight", weight);
    return noGrad(() => new Linear(weight.clone(), this.bias?.clone() ?? null));
  }
}
