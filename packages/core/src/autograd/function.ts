// Operations with a hand-written backward, for other packages and for users.

import { use } from "../arguments.js";
import { AutogradError } from "../errors.js";
import { tidy } from "../memory.js";
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
