// Turns an operation that ran into a graph node: what its rule needs is saved, nothing else.

import type { Tensor } from "../tensor.js";
import { type Backward, type BackwardContext, GraphNode, SavedTensor } from "./graph.js";
import type { Need, Rule } from "./rule.js";

/** What a rule sees: attributes, shapes, and those values that it said it needs. */
export interface RuleContext<A> extends BackwardContext {
  readonly attributes: A;
  input(index: number): Tensor;
  output(): Tensor;
  extra(index: number): Tensor;
}

/** Joins `output` to the graph as the result of the named operation on `inputs`, whose rule is `rule`. */
export function recordNode<A>(
  name: string,
  rule: Rule<A>,
  inputs: readonly Tensor[],
  attributes: A,
  output: Tensor,
  extras: readonly Tensor[],
): void {
  const needed = new Set<Need>();
  for (let i = 0; i < inputs.length; i++) {
    if (inputs[i].requiresGrad) for (const need of rule.needs(i, inputs.length)) needed.add(need);
  }
  const all: SavedTensor[] = [];
  const save = (tensor: Tensor): SavedTensor => {
    const saved = new SavedTensor(tensor);
    all.push(saved);
    return saved;
  };
  const savedInputs = inputs.map((input, i) => (needed.has(i) ? save(input) : null));
  const savedOutput = needed.has("output") ? save(output) : null;
  const savedExtras = needed.has("extras") ? extras.map(save) : [];

  const missing = (what: string): never => {
    throw new Error(`gradient rule of ${name} read ${what}, which it does not list in its needs`);
  };
  const backward: Backward = (context, dy) => {
    const ruleContext: RuleContext<A> = {
      wants: context.wants,
      shape: context.shape,
      accumulate: context.accumulate,
      attributes,
      input: (i) => savedInputs[i]?.restore(node.edges[i]?.node ?? null, name) ?? missing(`input ${i}`),
      output: () => savedOutput?.restore(node, name) ?? missing("the output"),
      extra: (i) => savedExtras[i]?.restore(null, name) ?? missing(`extra ${i}`),
    };
    return rule.backward(ruleContext, dy);
  };
  const { remake } = rule;
  const { shape } = output;
  const inputValue = (i: number): Tensor =>
    savedInputs[i]?.restore(null, name) ?? node.edges[i]?.node?.remake() ?? missing(`input ${i}`);
  const remaking =
    remake && inputs.every((input, i) => savedInputs[i] !== null || input.node?.makes(input) === true)
      ? { version: output.storage.version, make: () => remake(inputValue, attributes, shape) }
      : null;
  const node = new GraphNode(name, inputs, all, backward, false, remaking);
  output.attach(node);
}
