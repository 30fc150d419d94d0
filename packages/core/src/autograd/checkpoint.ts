// Gradient checkpointing (Chen et al., arXiv:1604.06174): a part of the graph is not kept but computed again in backward.

import { requireFunction, use } from "../arguments.js";
import { AutogradError } from "../errors.js";
import { tidy } from "../memory.js";
import type { Generator, GeneratorState } from "../random.js";
import { runtime } from "../runtime.js";
import type { Tensor } from "../tensor.js";
import { runBackward } from "./backward.js";
import { type Backward, GraphNode, SavedTensor, withGradMode } from "./graph.js";

/**
 * `fn(...inputs)`, keeping only the inputs for backward, which runs `fn` again with the same random numbers, whichever
 * generators they come from. `fn` may use parameters besides its inputs; their gradients arrive as usual.
 * @throws {AutogradError} when gradients of its gradients are asked for
 */
export function checkpoint(fn: (...inputs: Tensor[]) => Tensor, ...inputs: Tensor[]): Tensor {
  requireFunction("checkpoint", fn);
  for (const input of inputs) use("checkpoint", input);
  if (!runtime.gradEnabled) return fn(...inputs);
  const random = new Map<Generator, GeneratorState>();
  runtime.randomUses.push(random);
  let result: Tensor;
  try {
    result = withGradMode(false, () => tidy(() => fn(...inputs)));
    use("checkpoint", result);
  } finally {
    runtime.randomUses.splice(runtime.randomUses.indexOf(random), 1);
  }
  // A function that hands an input or a parameter through must not turn that one into a result.
  const output = inputs.includes(result) || result.requiresGrad ? result.detach() : result;
  const saved = inputs.map((input) => new SavedTensor(input));
  const backward: Backward = (context, dy) => {
    if (runtime.gradEnabled) throw new AutogradError("checkpoint: has no gradient of its gradient");
    const after = Array.from(random.keys(), (generator) => [generator, generator.state()] as const);
    for (const [generator, state] of random) generator.setState(state);
    try {
      const handles = saved.map((tensor, i) => {
        const handle = tensor.restore(null, "checkpoint").detach();
        if (context.wants[i]) handle.requiresGrad = true;
        return handle;
      });
      const again = withGradMode(true, () => tidy(() => fn(...handles)));
      if (!again.requiresGrad) return handles.map(() => undefined);
      const roots = [{ tensor: again, gradient: dy }];
      return runBackward(roots, { retainGraph: false, targets: handles, nested: true }).map((gradient) => {
        if (gradient) {
          gradient.kept = false;
          runtime.scopes.at(-1)?.push(gradient);
        }
        return gradient ?? undefined;
      });
    } finally {
      for (const [generator, state] of after) generator.setState(state);
    }
  };
  const node = new GraphNode("checkpoint", inputs, saved, backward, true);
  output.attach(node);
  return output;
}
