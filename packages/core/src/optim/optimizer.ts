// What optimizers share: parameter groups, steps, savable state.

import {
  requireList,
  requireMap,
  requireNonNegative,
  requireOptions,
  requireThat,
  use,
} from "../arguments.js";
import { zeros } from "../creation.js";
import type { DType } from "../dtype.js";
import { ArgumentError, ShapeError } from "../errors.js";
import { keep } from "../memory.js";
import { formatShape, sameShape } from "../shape.js";
import type { Tensor } from "../tensor.js";

/** Parameters that share options, the learning rate among them; what a group leaves out comes from the optimizer. */
export type ParameterGroup<O> = { parameters: readonly Tensor[] } & Partial<O>;

export interface OptimizerState {
  /** Steps taken. */
  step: number;
  /**
   * How often each parameter was updated, in order: less often than `step` when it had no gradient in some. A state without it (of
   * an earlier version) counts as updated in every step.
   */
  updates?: readonly number[];
  /** Tensors by `index.name`, index counting parameters over all groups. */
  tensors: Map<string, Tensor>;
}

/** What a state tensor looks like. */
export interface SlotForm {
  readonly shape: readonly number[];
  readonly dtype: DType;
}

/** What an update is told besides gradient and options. */
export interface UpdateContext {
  /** Updates of this parameter so far, this one included: what running means are corrected by. */
  readonly count: number;
  /** Factor of the gradient. */
  readonly gradientScale: number;
}

/** A parameter's part of a step; `options` are its group's, with the scheduled learning rate. */
export interface Update<O> {
  readonly parameter: Tensor;
  readonly gradient: Tensor;
  readonly options: O;
  readonly context: UpdateContext;
}

/** What all optimizers share: groups of parameters with options of their own, states by parameter and name, saving and loading them. */
export abstract class Optimizer<O extends { learningRate: number }> {
  /** Parameters and options of each group; `learningRate` is the group's base rate, which schedules do not change. */
  readonly groups: ({ parameters: readonly Tensor[] } & O)[];
  /** Steps taken. */
  stepCount = 0;
  readonly #updates = new Map<Tensor, number>();
  #learningRateFactor = 1;
  /** Names of the state tensors of a parameter, for telling a foreign state; null for any. */
  protected readonly slotNames: readonly string[] | null = null;
  protected readonly slots = new Map<Tensor, Map<string, Tensor>>();

  constructor(
    parameters: readonly Tensor[] | readonly ParameterGroup<O>[],
    defaults: O,
    options: Partial<O> = {},
  ) {
    requireList("optimizer", "parameters", parameters);
    requireOptions("optimizer", defaults);
    requireOptions("optimizer", options, Object.keys(defaults));
    const given = parameters as readonly (Tensor | ParameterGroup<O>)[];
    for (const each of given) {
      const valid = typeof each === "object" && each !== null;
      requireThat(valid, "optimizer", "each of parameters", "a tensor or a group", each);
    }
    const groups =
      given.length > 0 && "parameters" in given[0]
        ? (given as readonly ParameterGroup<O>[])
        : [{ parameters: given as readonly Tensor[] } as unknown as ParameterGroup<O>];
    for (const group of groups) {
      requireList("optimizer", "parameters", group.parameters);
      requireOptions("optimizer", group, ["parameters", ...Object.keys(defaults)]);
    }
    this.groups = groups.map((group) => ({ ...defaults, ...options, ...group }));
    const seen = new Set<Tensor>();
    for (const parameter of this.parameters()) {
      use("optimizer", parameter);
      if (seen.has(parameter))
        throw new ArgumentError(
          `optimizer: a parameter of shape ${formatShape(parameter.shape)} is given twice`,
        );
      if (!parameter.isLeaf || !parameter.requiresGrad) {
        throw new ArgumentError(
          `optimizer: a tensor of shape ${formatShape(parameter.shape)} does not gather gradients`,
        );
      }
      seen.add(parameter);
    }
    if (seen.size === 0) throw new ArgumentError("optimizer: no parameters");
  }

  /** All parameters, in order. */
  parameters(): Tensor[] {
    return this.groups.flatMap((group) => group.parameters);
  }

  /**
   * Factor of every group's learning rate, 1 at first: where a schedule goes, as PyTorch's LambdaLR. Rates of groups keep their
   * ratios. It belongs to the schedule, which gives it again by the step, and is not part of the saved state.
   */
  get learningRateFactor(): number {
    return this.#learningRateFactor;
  }

  set learningRateFactor(value: number) {
    requireNonNegative("optimizer", "learningRateFactor", value);
    this.#learningRateFactor = value;
  }

  /** The rate of the next step for each group: its own times {@link learningRateFactor}. */
  learningRates(): number[] {
    return this.groups.map((group) => group.learningRate * this.#learningRateFactor);
  }

  /** Updates every parameter that has a gradient. `gradientScale` multiplies gradients first (clipping without another pass). */
  step(options: { gradientScale?: number } = {}): void {
    requireOptions("optimizer.step", options, ["gradientScale"]);
    const { gradientScale = 1 } = options;
    requireThat(
      typeof gradientScale === "number",
      "optimizer.step",
      "gradientScale",
      "a number",
      gradientScale,
    );
    // Kernels take a gradient for as long as its parameter.
    for (const { grad, shape } of this.parameters()) {
      if (grad && !sameShape(grad.shape, shape))
        throw new ShapeError(
          `optimizer.step: a gradient ${formatShape(grad.shape)} for a parameter ${formatShape(shape)}`,
        );
    }
    const rates = this.learningRates();
    this.stepCount++;
    const updates: Update<O>[] = [];
    this.groups.forEach((group, i) => {
      const scheduled = { ...group, learningRate: rates[i] };
      for (const parameter of group.parameters) {
        if (!parameter.grad) continue;
        const count = (this.#updates.get(parameter) ?? 0) + 1;
        this.#updates.set(parameter, count);
        const context = { count, gradientScale };
        updates.push({ parameter, gradient: parameter.grad, options: scheduled, context });
      }
    });
    this.updateAll(updates);
  }

  /** The updates of one step. */
  protected updateAll(updates: readonly Update<O>[]): void {
    for (const { parameter, gradient, options, context } of updates)
      this.update(parameter, gradient, options, context);
  }

  /** One update of `parameter`, see {@link Update}. */
  protected abstract update(parameter: Tensor, gradient: Tensor, options: O, context: UpdateContext): void;

  /** What the state tensor `name` of `parameter` looks like (by default as the parameter); null when it has none of that name. */
  protected slotForm(parameter: Tensor, name: string): SlotForm | null {
    return (this.slotNames?.includes(name) ?? true) ? parameter : null;
  }

  /** True when `parameter` has a state tensor `name` already. */
  protected hasSlot(parameter: Tensor, name: string): boolean {
    return this.slots.get(parameter)?.has(name) ?? false;
  }

  /** The state tensor `name` of `parameter`, zeros at first. */
  protected slot(parameter: Tensor, name: string): Tensor {
    let slots = this.slots.get(parameter);
    if (!slots) this.slots.set(parameter, (slots = new Map()));
    let tensor = slots.get(name);
    if (!tensor) {
      const { shape, dtype } = this.slotForm(parameter, name) ?? parameter;
      slots.set(name, (tensor = keep(zeros(shape, { dtype, device: parameter.device }))));
    }
    return tensor;
  }

  /** Disposes gradients. */
  zeroGrad(): void {
    for (const parameter of this.parameters()) parameter.zeroGrad();
  }

  /** The state, for saving: the tensors themselves, not copies. */
  stateDict(): OptimizerState {
    const tensors = new Map<string, Tensor>();
    const updates = this.parameters().map((parameter, i) => {
      for (const [name, tensor] of this.slots.get(parameter) ?? []) tensors.set(`${i}.${name}`, tensor);
      return this.#updates.get(parameter) ?? 0;
    });
    return { step: this.stepCount, updates, tensors };
  }

  /**
   * Takes over the values of a saved state; state that it does not hold is disposed.
   * @throws {ArgumentError} naming the tensor that belongs to no parameter or has another shape or backend, or the count that
   * is out of range; nothing is changed then
   */
  loadStateDict(state: OptimizerState): void {
    requireThat(
      typeof state === "object" && state !== null,
      "optimizer.loadStateDict",
      "the state",
      "an object",
      state,
    );
    requireMap("optimizer.loadStateDict", "tensors", state.tensors);
    const parameters = this.parameters();
    const places: [Tensor, string, Tensor][] = [];
    for (const [key, tensor] of state.tensors) {
      use("optimizer.loadStateDict", tensor);
      const [, index, name] = /^(0|[1-9]\d*)\.(.+)$/.exec(key) ?? [];
      const parameter = index === undefined ? undefined : parameters[Number(index)];
      const form = parameter && name !== undefined ? this.slotForm(parameter, name) : null;
      if (!parameter || !form || !sameShape(form.shape, tensor.shape)) {
        throw new ArgumentError(
          `optimizer.loadStateDict: "${key}" ${formatShape(tensor.shape)} fits no parameter`,
        );
      }
      if (tensor.device !== parameter.device)
        throw new ArgumentError(
          `optimizer.loadStateDict: "${key}" is on ${tensor.device}, its parameter on ${parameter.device}`,
        );
      places.push([parameter, name, tensor]);
    }
    if (!Number.isSafeInteger(state.step) || state.step < 0)
      throw new ArgumentError(`optimizer.loadStateDict: step ${state.step}`);
    const updates = state.updates ?? parameters.map(() => state.step);
    requireList("optimizer.loadStateDict", "updates", updates);
    if (updates.length !== parameters.length)
      throw new ArgumentError(
        `optimizer.loadStateDict: ${updates.length} update counts for ${parameters.length} parameters`,
      );
    updates.forEach((count, i) => {
      if (!Number.isSafeInteger(count) || count < 0 || count > state.step)
        throw new ArgumentError(
          `optimizer.loadStateDict: ${count} updates of parameter ${i} in ${state.step} steps`,
        );
    });
    for (const [parameter, slots] of this.slots) {
      for (const [name, tensor] of slots) {
        if (places.some(([owner, slot]) => owner === parameter && slot === name)) continue;
        tensor.dispose();
        slots.delete(name);
      }
    }
    for (const [parameter, name, tensor] of places) this.slot(parameter, name).copyFrom(tensor);
    this.stepCount = state.step;
    parameters.forEach((parameter, i) => {
      this.#updates.set(parameter, updates[i]);
    });
  }

  /** Disposes the state. */
  dispose(): void {
    for (const slots of this.slots.values()) for (const tensor of slots.values()) tensor.dispose();
    this.slots.clear();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
