// Operations with a hand-written backward, for other packages and for users.

import { use } from "../arguments.js";
import { AutogradError } from "../errors.js";
import { keep, tidy } from "../memory.js";
import { empty } from "../ops/dispatch.js";
import { runtime } from "../runtime.js";
import type { Tensor } from "../tensor.js";
import { gradientsThrough } from "./backward.js";
import { type BackwardContext, GraphNode, needsGraph, SavedTensor, withGradMode } from "./graph.js";

export interface ForwardContext {
  /** Which inputs will want a gradient; all false when nothing is recorded. */
  readonly wants: readonly boolean[];
  /** Keeps tensors (inputs or new ones) for backward. Call it at most once. */
  save(...tensors: Tensor[]): void;
}

export interface FunctionContext extends BackwardContext {
  /** The `wants` that forward saw. `wants` may be fewer now: only some gradients were asked for. */
  readonly wanted: readonly boolean[];
  /** The tensors that forward saved, in order. */
  saved(): Tensor[];
}

export interface FunctionDefinition<A> {
  /** Name in messages. */
  readonly name: string;
  /** Computes the output; runs unrecorded, temporaries are freed. The result must be a new tensor. */
  forward(context: ForwardContext, inputs: readonly Tensor[], attributes: A): Tensor;
  /** Gradients of the inputs that want one (undefined is zero). It runs unrecorded; temporaries are freed. */
  backward(context: FunctionContext, dy: Tensor, attributes: A): readonly (Tensor | undefined)[];
  /** The same function made of differentiable operations, for gradients of its gradients. Makes the inputs be kept too. */
  reference?(inputs: readonly Tensor[], attributes: A): Tensor;
}

/**
 * A differentiable function of tensors with a backward of its own.
 * Without a `reference`, gradients of its gradients are refused with an AutogradError, never silently zero.
 */
export function defineFunction<A = void>(
  definition: FunctionDefinition<A>,
): (inputs: readonly Tensor[], attributes: A) => Tensor {
  return (inputs, attributes) => {
    for (const input of inputs) use(definition.name, input);
    const recorded = needsGraph(inputs);
    const saved: SavedTensor[] = [];
    const wants = inputs.map((input) => recorded && input.requiresGrad);
    const context: ForwardContext = {
      wants,
      save: (...tensors) => {
        if (recorded) for (const tensor of tensors) saved.push(new SavedTensor(tensor));
      },
    };
    const output = withGradMode(false, () => tidy(() => definition.forward(context, inputs, attributes)));
    if (inputs.includes(output))
      throw new AutogradError(`${definition.name}: forward returned one of its inputs; clone it`);
    if (!recorded) return output;
    const { name, reference } = definition;
    const savedInputs = reference ? inputs.map((input) => new SavedTensor(input)) : [];
    const node: GraphNode = new GraphNode(name, inputs, [...saved, ...savedInputs], (backward, dy) => {
      if (runtime.gradEnabled) {
        if (!reference) throw new AutogradError(`${name}: has no gradient of its gradient`);
        return gradientsThrough(
          (values) => reference(values, attributes),
          savedInputs.map((input, i) => input.restore(node.edges[i]?.node ?? null, name)),
          dy,
          backward.wants,
        );
      }
      return definition.backward(
        {
          wants: backward.wants,
          wanted: wants,
          shape: backward.shape,
          accumulate: backward.accumulate,
          saved: () => saved.map((tensor) => tensor.restore(null, name)),
        },
        dy,
        attributes,
      );
    });
    output.attach(node);
    return output;
  };
}

/** As {@link FunctionDefinition}, of a function with several outputs, whose gradients are wanted together. */
export interface JointFunctionDefinition<A> {
  readonly name: string;
  /** Computes the outputs, one at least, as new tensors; runs unrecorded, temporaries are freed. */
  forward(context: ForwardContext, inputs: readonly Tensor[], attributes: A): Tensor[];
  /**
   * Gradients of the inputs that want one (undefined is zero), from those of the outputs (undefined where nothing depends on one). It
   * runs once, unrecorded; temporaries are freed.
   */
  backward(
    context: FunctionContext,
    dys: readonly (Tensor | undefined)[],
    attributes: A,
  ): readonly (Tensor | undefined)[];
}

/** Gradients of the outputs of one call, on their way to its backward. */
class GatheredGradients {
  #gradients: (Tensor | undefined)[] = [];

  put(index: number, dy: Tensor): void {
    this.#gradients[index]?.dispose();
    this.#gradients[index] = keep(dy.alias());
  }

  /** Hands them over to the current scope. */
  take(count: number): (Tensor | undefined)[] {
    const taken = Array.from({ length: count }, (_, i) => this.#gradients[i]);
    this.#gradients = [];
    for (const gradient of taken) {
      if (!gradient) continue;
      gradient.kept = false;
      runtime.scopes.at(-1)?.push(gradient);
    }
    return taken;
  }

  release(): void {
    for (const gradient of this.#gradients) gradient?.dispose();
    this.#gradients = [];
  }
}

/** A differentiable function with several outputs and a backward of its own; gradients of its gradients are refused. */
export function defineJointFunction<A = void>(
  definition: JointFunctionDefinition<A>,
): (inputs: readonly Tensor[], attributes: A) => Tensor[] {
  const { name } = definition;
  return (inputs, attributes) => {
    for (const input of inputs) use(name, input);
    const recorded = needsGraph(inputs);
    const saved: SavedTensor[] = [];
    const wanted = inputs.map((input) => recorded && input.requiresGrad);
    const context: ForwardContext = {
      wants: wanted,
      save: (...tensors) => {
        if (recorded) for (const tensor of tensors) saved.push(new SavedTensor(tensor));
      },
    };
    const outputs = withGradMode(false, () => tidy(() => definition.forward(context, inputs, attributes)));
    if (!recorded) return outputs;
    const count = outputs.length;
    const gathered = new GatheredGradients();
    const joint = new GraphNode(name, inputs, [...saved, gathered], ({ wants, shape, accumulate }) => {
      if (runtime.gradEnabled) throw new AutogradError(`${name}: has no gradient of its gradient`);
      const restored = () => saved.map((tensor) => tensor.restore(null, name));
      const backwardContext = { wants, wanted, shape, accumulate, saved: restored };
      return definition.backward(backwardContext, gathered.take(count), attributes);
    });
    // The outputs hang on the joint node by a tensor without elements. That node was made before theirs, so the walk comes to it when
    // it has been to all of them.
    const nothing = (like: Tensor) => empty(like.storage.backend, like.dtype, [0]);
    const link = nothing(outputs[0]);
    link.attach(joint);
    outputs.forEach((output, i) => {
      const node = new GraphNode(name, [link], [], (_, dy) => {
        gathered.put(i, dy);
        return [nothing(dy)];
      });
      output.attach(node);
    });
    link.dispose();
    return outputs;
  };
}
