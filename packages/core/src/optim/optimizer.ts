// What optimizers share: parameter groups, steps, savable state.

import { zeros } from "../creation.js";
import type { DType } from "../dtype.js";
import { ArgumentError } from "../errors.js";
import { keep } from "../memory.js";
import { formatShape, sameShape } from "../shape.js";
import type { Tensor } from "../tensor.js";

/** Parameters that share options; what a group leaves out comes from the optimizer. */
export type ParameterGroup<O> = { parameters: readonly Tensor[] } & Partial<O>;

export interface OptimizerState {
  /** Steps taken. */
  step: number;
  /** Tensors by `index.name`, index counting parameters over all groups. */
  tensors: Map<string, Tensor>;
}

/** What a state tensor looks like. */
export interface SlotForm {
  readonly shape: readonly number[];
  readonly dtype: DType;
}

export abstract class Optimizer<O extends { learningRate: number }> {
  readonly groups: ({ parameters: readonly Tensor[] } & O)[];
  /** Steps taken. */
  stepCount = 0;
  /** Names of the state tensors of a parameter, for telling a foreign state; null for any. */
  protected readonly slotNames: readonly string[] | null = null;
  protected readonly slots = new Map<Tensor, Map<string, Tensor>>();

  constructor(parameters: readonly Tensor[] | readonly ParameterGroup<O>[], defaults: O) {
    const given = parameters as readonly (Tensor | ParameterGroup<O>)[];
    const groups =
      given.length > 0 && "parameters" in given[0]
        ? (given as readonly ParameterGroup<O>[])
        : [{ parameters: given as readonly Tensor[] } as unknown as ParameterGroup<O>];
    this.groups = groups.map((group) => ({ ...defaults, ...group }));
    const seen = new Set<Tensor>();
    for (const parameter of this.parameters()) {
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

  /** Sets the learning rate of every group. */
  set learningRate(value: number) {
    for (const group of this.groups) group.learningRate = value;
  }

  get learningRate(): number {
    return this.groups[0].learningRate;
  }

  /** Updates every parameter that has a gradient. `gradientScale` multiplies gradients first (clipping without another pass). */
  step(options: { gradientScale?: number } = {}): void {
    this.stepCount++;
    for (const group of this.groups) {
      for (const parameter of group.parameters) {
        if (parameter.grad) this.update(parameter, parameter.grad, group, options.gradientScale ?? 1);
      }
    }
  }

  protected abstract update(parameter: Tensor, gradient: Tensor, options: O, gradientScale: number): void;

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
    this.parameters().forEach((parameter, i) => {
      for (const [name, tensor] of this.slots.get(parameter) ?? []) tensors.set(`${i}.${name}`, tensor);
    });
    return { step: this.stepCount, tensors };
  }

  /**
   * Takes over the values of a saved state; state that it does not hold is disposed.
   * @throws {ArgumentError} naming the tensor that belongs to no parameter or has another shape or backend; nothing is changed then
   */
  loadStateDict(state: OptimizerState): void {
    const parameters = this.parameters();
    const places: [Tensor, string, Tensor][] = [];
    for (const [key, tensor] of state.tensors) {
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
    for (const [parameter, slots] of this.slots) {
      for (const [name, tensor] of slots) {
        if (places.some(([owner, slot]) => owner === parameter && slot === name)) continue;
        tensor.dispose();
        slots.delete(name);
      }
    }
    for (const [parameter, name, tensor] of places) this.slot(parameter, name).copyFrom(tensor);
    this.stepCount = state.step;
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

/** Throws unless `value` is finite and at least 0. */
export function requireNonNegative(optimizer: string, name: string, value: number): void {
  if (!(Number.isFinite(value) && value >= 0))
    throw new ArgumentError(`${optimizer}: ${name} must be finite and not negative, not ${value}`);
}
