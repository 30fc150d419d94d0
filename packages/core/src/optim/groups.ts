// Which parameters weight decay acts on.

import { describe, requireFunction, requireNonNegative } from "../arguments.js";
import { ArgumentError } from "../errors.js";
import type { Tensor } from "../tensor.js";

/** Parameters with the share of them that a step takes off. */
export interface WeightDecayGroup {
  parameters: Tensor[];
  weightDecay: number;
}

/**
 * The trainable parameters of `module` in two groups for an optimizer: those that decay, and those that do not (biases and the scales of
 * norms, which have one axis, unless `decays` says otherwise). Groups without parameters are left out.
 *
 * @throws {ArgumentError} when `weightDecay` is negative or not finite
 */
export function weightDecayGroups(
  module: { namedParameters(): Iterable<readonly [name: string, parameter: Tensor]> },
  weightDecay: number,
  decays: (name: string, parameter: Tensor) => boolean = (_, parameter) => parameter.rank > 1,
): WeightDecayGroup[] {
  if (typeof module?.namedParameters !== "function")
    throw new ArgumentError(`weightDecayGroups: expected a module, not ${describe(module)}`);
  requireNonNegative("weightDecayGroups", "weightDecay", weightDecay);
  requireFunction("weightDecayGroups", decays);
  const groups: WeightDecayGroup[] = [
    { parameters: [], weightDecay },
    { parameters: [], weightDecay: 0 },
  ];
  for (const [name, parameter] of module.namedParameters()) {
    if (parameter.requiresGrad) groups[decays(name, parameter) ? 0 : 1].parameters.push(parameter);
  }
  return groups.filter(({ parameters }) => parameters.length > 0);
}
