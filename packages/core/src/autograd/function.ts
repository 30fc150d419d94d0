// Operations with a hand-written backward, for other packages and for users.

import { AutogradError } from "../errors.js";
import { tidy } from "../memory.js";
import { runtime } from "../runtime.js";
import type { Tensor } from "../tensor.js";
import { type BackwardContext, GraphNode, needsGraph, SavedTensor, withGradMode } from "./graph.js";

export interface ForwardContext {
  /** Which inputs will want a gradient; all false when nothing is recorded. */
  readonly wants: readonly boolean[];
  /** Keeps tensors (inputs or new ones) for backward. Call it at most once. */
  save(...tensors: Tensor[]): void;
}

export interface FunctionContext extends BackwardContext {
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
}

/**
 * A differentiable function of tensors with a backward of its own.
 * Gradients of its gradients are refused with an AutogradError, never silently zero.
 */
export function defineFunction<A = void>(
  definition: FunctionDefinition<A>,
): (inputs: readonly Tensor[], attributes: A) => Tensor {
  return (inputs, attributes) => {
    for (const input of inputs) input.use(definition.name);
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
    if (!recorded) return output;
    const node = new GraphNode(definition.name, inputs, saved, (backward, dy) => {
      if (runtime.gradEnabled) throw new AutogradError(`${definition.name}: has no gradient of its gradient`);
      return definition.backward(
        {
          wants: backward.wants,
          shape: backward.shape,
          accumulate: backward.accumulate,
          saved: () => saved.map((tensor) => tensor.restore(null, definition.name)),
        },
        dy,
        attributes,
      );
    });
    output.attach(node);
    return output;
  };
}
