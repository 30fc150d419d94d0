// Stochastic gradient descent, as torch.optim.SGD.

import { requireBoolean, requireFinite, requireNonNegative } from "../arguments.js";
import { noGrad } from "../autograd/graph.js";
import { ArgumentError } from "../errors.js";
import { tidy } from "../memory.js";
import { add, mul, sub } from "../ops/elementwise.js";
import type { Tensor } from "../tensor.js";
import { Optimizer, type ParameterGroup, type UpdateContext } from "./optimizer.js";

export interface SGDOptions {
  /** Default 1e-3. */
  learningRate: number;
  /** Share of the last update that goes into the next (default 0). */
  momentum: number;
  /** Share of the gradient that the momentum leaves out, after the first step (default 0). */
  dampening: number;
  /** Share of the parameter added to the gradient (default 0). */
  weightDecay: number;
  /** Nesterov's momentum: the gradient is looked at one update ahead (default false). */
  nesterov: boolean;
}

/** Stochastic gradient descent, with momentum on request. State: `momentum`. */
export class SGD extends Optimizer<SGDOptions> {
  protected override readonly slotNames: readonly string[] = ["momentum"];

  /** @throws {ArgumentError} for options out of range, and for nesterov without momentum or with dampening */
  constructor(
    parameters: readonly Tensor[] | readonly ParameterGroup<SGDOptions>[],
    options: Partial<SGDOptions> = {},
  ) {
    super(
      parameters,
      {
        learningRate: 1e-3,
        momentum: 0,
        dampening: 0,
        weightDecay: 0,
        nesterov: false,
      },
      options,
    );
    for (const group of this.groups) {
      requireNonNegative("SGD", "learningRate", group.learningRate);
      requireNonNegative("SGD", "momentum", group.momentum);
      requireFinite("SGD", "dampening", group.dampening);
      requireNonNegative("SGD", "weightDecay", group.weightDecay);
      requireBoolean("SGD", "nesterov", group.nesterov);
      if (group.nesterov && (group.momentum === 0 || group.dampening !== 0))
        throw new ArgumentError("SGD: nesterov needs momentum and no dampening");
    }
  }

  protected override update(
    parameter: Tensor,
    gradient: Tensor,
    options: SGDOptions,
    { gradientScale }: UpdateContext,
  ): void {
    const { learningRate, momentum, dampening, weightDecay, nesterov } = options;
    noGrad(() =>
      tidy(() => {
        let step = mul(gradient, gradientScale);
        if (weightDecay !== 0) step = add(step, mul(parameter, weightDecay));
        if (momentum !== 0) {
          const started = this.hasSlot(parameter, "momentum");
          const buffer = this.slot(parameter, "momentum");
          buffer.copyFrom(started ? add(mul(buffer, momentum), mul(step, 1 - dampening)) : step);
          step = nesterov ? add(step, mul(buffer, momentum)) : buffer;
        }
        parameter.copyFrom(sub(parameter, mul(step, learningRate)));
      }),
    );
  }
}
