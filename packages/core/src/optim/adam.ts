// Adam (Kingma and Ba, arXiv:1412.6980) and what AdamW shares with it.

import { requireBoolean, requireNonNegative, requireThat } from "../arguments.js";
import { noGrad } from "../autograd/graph.js";
import type { AdamWUpdate, Backend } from "../backend/types.js";
import { ArgumentError } from "../errors.js";
import { tidy } from "../memory.js";
import { operand } from "../ops/dispatch.js";
import { add, div, maximum, mul, sqrt, square, sub } from "../ops/elementwise.js";
import { fusedKernels } from "../ops/fused.js";
import type { Tensor } from "../tensor.js";
import { Optimizer, type ParameterGroup, type Update, type UpdateContext } from "./optimizer.js";

export interface AdamOptions {
  /** Default 1e-3. */
  learningRate: number;
  /** Decay of the running means of gradient and squared gradient (default [0.9, 0.999]). */
  betas: readonly [number, number];
  /** Added to the denominator (default 1e-8). */
  epsilon: number;
  /** Adam: share of the parameter added to the gradient (default 0). AdamW: share taken off the parameter at each step, times the rate (default 0.01). */
  weightDecay: number;
  /** Divide by the largest mean of squares so far (Reddi, Kale and Kumar, arXiv:1904.09237; default false). */
  amsgrad: boolean;
}

/** Throws unless `betas` are two numbers within [0, 1). */
export function requireBetas(optimizer: string, betas: readonly number[]): void {
  requireThat(Array.isArray(betas) && betas.length === 2, optimizer, "betas", "two numbers", betas);
  for (const beta of betas) {
    if (!(beta >= 0 && beta < 1))
      throw new ArgumentError(`${optimizer}: betas must be within [0, 1), not ${beta}`);
  }
}

/** The step of Adam and AdamW: they differ in where weight decay acts. */
export abstract class AdamFamily<O extends AdamOptions = AdamOptions> extends Optimizer<O> {
  protected override readonly slotNames: readonly string[] = ["m", "v", "vMax"];
  /** True when weight decay acts on the parameter itself, not through the gradient. */
  protected abstract readonly decoupled: boolean;

  constructor(
    name: string,
    parameters: readonly Tensor[] | readonly ParameterGroup<O>[],
    defaults: O,
    options: Partial<O>,
  ) {
    super(parameters, defaults, options);
    for (const group of this.groups) {
      requireNonNegative(name, "learningRate", group.learningRate);
      requireNonNegative(name, "epsilon", group.epsilon);
      requireNonNegative(name, "weightDecay", group.weightDecay);
      requireBetas(name, group.betas);
      requireBoolean(name, "amsgrad", group.amsgrad);
    }
  }

  /** What the kernels of a backend take together. */
  readonly #waiting = new Map<Backend, AdamWUpdate[]>();

  protected override updateAll(updates: readonly Update<O>[]): void {
    try {
      super.updateAll(updates);
      for (const [{ fused }, list] of this.#waiting) fused.adamw!(list);
    } finally {
      this.#waiting.clear();
    }
  }

  protected override update(parameter: Tensor, gradient: Tensor, options: O, context: UpdateContext): void {
    const { count, gradientScale } = context;
    const m = this.slot(parameter, "m");
    const v = this.slot(parameter, "v");
    const [beta1, beta2] = options.betas;
    const biasCorrection1 = 1 - beta1 ** count;
    const biasCorrection2 = 1 - beta2 ** count;
    const { learningRate, epsilon, weightDecay, amsgrad } = options;
    const decoupled = this.decoupled || weightDecay === 0;
    const fused = decoupled && !amsgrad && fusedKernels([parameter, gradient, m, v], "adamw") !== null;
    if (fused && parameter.isContiguous && gradient.isContiguous) {
      const { backend } = parameter.storage;
      let waiting = this.#waiting.get(backend);
      if (!waiting) this.#waiting.set(backend, (waiting = []));
      waiting.push({
        parameter: operand(parameter),
        gradient: operand(gradient),
        m: operand(m),
        v: operand(v),
        options: {
          learningRate,
          beta1,
          beta2,
          epsilon,
          weightDecay,
          biasCorrection1,
          biasCorrection2,
          gradientScale,
        },
      });
      parameter.storage.version++;
      return;
    }
    noGrad(() =>
      tidy(() => {
        let g = mul(gradient, gradientScale);
        if (!decoupled) g = add(g, mul(parameter, weightDecay));
        m.copyFrom(add(mul(m, beta1), mul(g, 1 - beta1)));
        v.copyFrom(add(mul(v, beta2), mul(square(g), 1 - beta2)));
        const most = amsgrad ? this.slot(parameter, "vMax") : v;
        if (amsgrad) most.copyFrom(maximum(most, v));
        const denominator = add(sqrt(div(most, biasCorrection2)), epsilon);
        const decayed = decoupled ? mul(parameter, 1 - learningRate * weightDecay) : parameter;
        parameter.copyFrom(sub(decayed, mul(div(div(m, biasCorrection1), denominator), learningRate)));
      }),
    );
  }
}

/** Adam as torch.optim.Adam: weight decay is a term of the gradient. {@link AdamW} is usually what one wants. */
export class Adam extends AdamFamily {
  protected override readonly decoupled = false;

  /** @throws {ArgumentError} for options out of range */
  constructor(
    parameters: readonly Tensor[] | readonly ParameterGroup<AdamOptions>[],
    options: Partial<AdamOptions> = {},
  ) {
    super(
      "Adam",
      parameters,
      {
        learningRate: 1e-3,
        betas: [0.9, 0.999],
        epsilon: 1e-8,
        weightDecay: 0,
        amsgrad: false,
      },
      options,
    );
  }
}
