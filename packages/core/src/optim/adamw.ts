// AdamW: Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101), as torch.optim.AdamW.

import { noGrad } from "../autograd/graph.js";
import { ArgumentError } from "../errors.js";
import { tidy } from "../memory.js";
import { operand } from "../ops/dispatch.js";
import { add, div, mul, sqrt, square, sub } from "../ops/elementwise.js";
import { fusedKernels } from "../ops/fused.js";
import type { Tensor } from "../tensor.js";
import { Optimizer, type ParameterGroup, requireNonNegative } from "./optimizer.js";

export interface AdamWOptions {
  /** Default 1e-3. */
  learningRate: number;
  /** Decay of the running means of gradient and squared gradient (default [0.9, 0.999]). */
  betas: readonly [number, number];
  /** Added to the denominator (default 1e-8). */
  epsilon: number;
  /** Share of the parameter, times the learning rate, taken off at each step (default 0.01). */
  weightDecay: number;
}

export class AdamW extends Optimizer<AdamWOptions> {
  protected override readonly slotNames: readonly string[] = ["m", "v"];

  /** @throws {ArgumentError} for options out of range */
  constructor(
    parameters: readonly Tensor[] | readonly ParameterGroup<AdamWOptions>[],
    options: Partial<AdamWOptions> = {},
  ) {
    super(parameters, {
      learningRate: 1e-3,
      betas: [0.9, 0.999],
      epsilon: 1e-8,
      weightDecay: 0.01,
      ...options,
    });
    for (const group of this.groups) {
      requireNonNegative("AdamW", "learningRate", group.learningRate);
      requireNonNegative("AdamW", "epsilon", group.epsilon);
      requireNonNegative("AdamW", "weightDecay", group.weightDecay);
      for (const beta of group.betas)
        if (!(beta >= 0 && beta < 1))
          throw new ArgumentError(`AdamW: betas must be within [0, 1), not ${beta}`);
    }
  }

  protected override update(
    parameter: Tensor,
    gradient: Tensor,
    options: AdamWOptions,
    gradientScale: number,
  ): void {
    const m = this.slot(parameter, "m");
    const v = this.slot(parameter, "v");
    const [beta1, beta2] = options.betas;
    const biasCorrection1 = 1 - beta1 ** this.stepCount;
    const biasCorrection2 = 1 - beta2 ** this.stepCount;
    const { learningRate, epsilon, weightDecay } = options;
    const kernels = fusedKernels([parameter, gradient, m, v], "adamw");
    if (kernels && parameter.isContiguous && gradient.isContiguous) {
      kernels.adamw(operand(parameter), operand(gradient), operand(m), operand(v), {
        learningRate,
        beta1,
        beta2,
        epsilon,
        weightDecay,
        biasCorrection1,
        biasCorrection2,
        gradientScale,
      });
      parameter.storage.version++;
      return;
    }
    noGrad(() =>
      tidy(() => {
        const g = mul(gradient, gradientScale);
        m.copyFrom(add(mul(m, beta1), mul(g, 1 - beta1)));
        v.copyFrom(add(mul(v, beta2), mul(square(g), 1 - beta2)));
        const denominator = add(sqrt(div(v, biasCorrection2)), epsilon);
        const decayed = mul(parameter, 1 - learningRate * weightDecay);
        parameter.copyFrom(sub(decayed, mul(div(div(m, biasCorrection1), denominator), learningRate)));
      }),
    );
  }
}
