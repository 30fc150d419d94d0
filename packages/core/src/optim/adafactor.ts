// Adafactor (Shazeer and Stern, arXiv:1804.04235): the mean of squared gradients of a matrix is kept as its row and column means.
// The formulas are those of torch.optim.Adafactor.

import { requireNonNegative, requireThat } from "../arguments.js";
import { noGrad } from "../autograd/graph.js";
import { tidy } from "../memory.js";
import { hostValues } from "../ops/dispatch.js";
import { add, div, maximum, mul, rsqrt, square, sub } from "../ops/elementwise.js";
import { mean } from "../ops/statistics.js";
import type { Tensor } from "../tensor.js";
import { Optimizer, type ParameterGroup, type SlotForm, type UpdateContext } from "./optimizer.js";

export interface AdafactorOptions {
  /** The largest step, relative to the parameter's size (default 1e-2). */
  learningRate: number;
  /** The decay at step t is 1 − t^beta2Decay (default −0.8). */
  beta2Decay: number;
  /** Least squared gradient's root (default 2⁻²³), and least size of a parameter that steps are relative to (default 1e-3). */
  epsilons: readonly [number, number];
  /** Root mean square that updates are cut to (default 1). */
  clipThreshold: number;
  /** Share of the parameter, times the learning rate, taken off at each step (default 0). */
  weightDecay: number;
}

/** State: for [..., rows, columns] a `row` [..., rows, 1] and a `column` [..., 1, columns]; else `v`. */
export class Adafactor extends Optimizer<AdafactorOptions> {
  /** @throws {ArgumentError} for options out of range */
  constructor(
    parameters: readonly Tensor[] | readonly ParameterGroup<AdafactorOptions>[],
    options: Partial<AdafactorOptions> = {},
  ) {
    super(
      parameters,
      {
        learningRate: 1e-2,
        beta2Decay: -0.8,
        epsilons: [2 ** -23, 1e-3],
        clipThreshold: 1,
        weightDecay: 0,
      },
      options,
    );
    for (const group of this.groups) {
      requireNonNegative("Adafactor", "learningRate", group.learningRate);
      requireNonNegative("Adafactor", "−beta2Decay", -group.beta2Decay);
      requireThat(group.epsilons?.length === 2, "Adafactor", "epsilons", "two numbers", group.epsilons);
      for (const epsilon of group.epsilons) requireNonNegative("Adafactor", "epsilons", epsilon);
      requireThat(group.clipThreshold > 0, "Adafactor", "clipThreshold", "above 0", group.clipThreshold);
      requireNonNegative("Adafactor", "weightDecay", group.weightDecay);
    }
  }

  protected override slotForm(parameter: Tensor, name: string): SlotForm | null {
    const { shape, dtype, rank } = parameter;
    if (rank < 2) return name === "v" ? parameter : null;
    if (name === "row") return { shape: shape.with(-1, 1), dtype };
    return name === "column" ? { shape: shape.with(-2, 1), dtype } : null;
  }

  protected override update(
    parameter: Tensor,
    gradient: Tensor,
    options: AdafactorOptions,
    { count, gradientScale }: UpdateContext,
  ): void {
    const { learningRate, beta2Decay, epsilons, clipThreshold, weightDecay } = options;
    const fresh = count ** beta2Decay;
    const move = (slot: Tensor, to: Tensor) => slot.copyFrom(add(mul(slot, 1 - fresh), mul(to, fresh)));
    const rootMeanSquare = (t: Tensor) =>
      Math.sqrt(
        Number(hostValues("Adafactor", mean(square(t)), "there use another optimizer, AdamW say")[0]),
      );
    if (parameter.size === 0) return;
    noGrad(() =>
      tidy(() => {
        const g = mul(gradient, gradientScale);
        const squares = square(g);
        let variance: Tensor;
        if (parameter.rank < 2) variance = move(this.slot(parameter, "v"), squares);
        else {
          const row = move(this.slot(parameter, "row"), mean(squares, -1, true));
          const column = move(this.slot(parameter, "column"), mean(squares, -2, true));
          variance = div(mul(row, column), maximum(mean(row, -2, true), epsilons[0]));
        }
        const update = mul(rsqrt(maximum(variance, epsilons[0] ** 2)), g);
        const size = Math.max(epsilons[1], rootMeanSquare(parameter));
        const rate = size * Math.min(learningRate, 1 / Math.sqrt(count));
        const cut = Math.max(1, rootMeanSquare(update) / clipThreshold);
        const decayed = mul(parameter, 1 - learningRate * weightDecay);
        parameter.copyFrom(sub(decayed, mul(update, rate / cut)));
      }),
    );
  }
}
