// Lion (Chen et al., arXiv:2302.06675): steps of one size, in the direction of the sign of a running mean.

import { requireNonNegative } from "../arguments.js";
import { noGrad } from "../autograd/graph.js";
import { tidy } from "../memory.js";
import { add, mul, sign, sub } from "../ops/elementwise.js";
import type { Tensor } from "../tensor.js";
import { requireBetas } from "./adam.js";
import { Optimizer, type ParameterGroup, type UpdateContext } from "./optimizer.js";

export interface LionOptions {
  /** Default 1e-4: a third to a tenth of AdamW's. */
  learningRate: number;
  /** Weight of the running mean in the update, and its decay (default [0.9, 0.99]). */
  betas: readonly [number, number];
  /** Share of the parameter, times the learning rate, taken off at each step (default 0). */
  weightDecay: number;
}

/** Lion: steps of one size. State: `m`, the running mean of gradients. */
export class Lion extends Optimizer<LionOptions> {
  protected override readonly slotNames: readonly string[] = ["m"];

  /** @throws {ArgumentError} for options out of range */
  constructor(
    parameters: readonly Tensor[] | readonly ParameterGroup<LionOptions>[],
    options: Partial<LionOptions> = {},
  ) {
    super(parameters, { learningRate: 1e-4, betas: [0.9, 0.99], weightDecay: 0 }, options);
    for (const group of this.groups) {
      requireNonNegative("Lion", "learningRate", group.learningRate);
      requireNonNegative("Lion", "weightDecay", group.weightDecay);
      requireBetas("Lion", group.betas);
    }
  }

  protected override update(
    parameter: Tensor,
    gradient: Tensor,
    options: LionOptions,
    { gradientScale }: UpdateContext,
  ): void {
    const m = this.slot(parameter, "m");
    const { learningRate, weightDecay, betas } = options;
    noGrad(() =>
      tidy(() => {
        const g = mul(gradient, gradientScale);
        const direction = sign(add(mul(m, betas[0]), mul(g, 1 - betas[0])));
        const decayed = mul(parameter, 1 - learningRate * weightDecay);
        parameter.copyFrom(sub(decayed, mul(direction, learningRate)));
        m.copyFrom(add(mul(m, betas[1]), mul(g, 1 - betas[1])));
      }),
    );
  }
}
