// Losses that compare element by element: mean squared error, binary cross entropy, Kullback-Leibler divergence.

import { requireOneOf, requireOptions } from "../arguments.js";
import { withGradMode } from "../autograd/graph.js";
import type { OwnRule } from "../autograd/rule.js";
import { requireFloat } from "../dtype.js";
import { ShapeError } from "../errors.js";
import { tidy } from "../memory.js";
import { formatShape, sameShape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { commonBackend, finishBy } from "./dispatch.js";
import {
  add,
  cast,
  div,
  exp,
  greater,
  log,
  mul,
  neg,
  sigmoid,
  softplus,
  square,
  sub,
  where,
} from "./elementwise.js";
import { sum } from "./reduce.js";
import { mean } from "./statistics.js";

/** What becomes of the losses of elements: their mean, their sum, or they stay as they are. */
export type Reduction = "mean" | "sum" | "none";

/** Names of {@link Reduction}s. */
export const reductions: readonly Reduction[] = ["mean", "sum", "none"];

function check(operation: string, input: Tensor, target: Tensor): void {
  commonBackend(operation, [input, target]);
  requireFloat(operation, "the input", input.dtype);
  requireFloat(operation, "the target", target.dtype);
  if (!sameShape(input.shape, target.shape)) {
    throw new ShapeError(
      `${operation}: target ${formatShape(target.shape)} should be ${formatShape(input.shape)}, as the input`,
    );
  }
}

function reduced(operation: string, losses: Tensor, reduction: Reduction): Tensor {
  requireOneOf(operation, "reduction", reduction, reductions);
  return reduction === "none" ? losses : (reduction === "sum" ? sum : mean)(losses);
}

/** A loss by `forward`, unrecorded and reduced, whose gradients are those of `rule`: one step of the graph in place of its parts. */
function pointwise(
  rule: OwnRule<{ scale: number }>,
  inputs: readonly [input: Tensor, target: Tensor],
  reduction: Reduction,
  forward: () => Tensor,
): Tensor {
  const out = withGradMode(false, () => tidy(() => reduced(rule.name, forward(), reduction)));
  return finishBy(rule, inputs, { scale: reduction === "mean" ? 1 / inputs[0].size : 1 }, out);
}

/** (prediction − target)², averaged, summed or for each element, as torch.nn.functional.mse_loss. Shapes must be equal. */
export function mse(prediction: Tensor, target: Tensor, options: { reduction?: Reduction } = {}): Tensor {
  check("mse", prediction, target);
  requireOptions("mse", options, ["reduction"]);
  return pointwise(mseRule, [prediction, target], options.reduction ?? "mean", () =>
    square(sub(prediction, target)),
  );
}

export const mseRule: OwnRule<{ scale: number }> = {
  name: "mse",
  needs: () => [0, 1],
  backward: (c, dy) => {
    const [prediction, target] = [c.input(0), c.input(1)];
    const slope = mul(sub(prediction, target), mul(dy, 2 * c.attributes.scale));
    return [
      c.wants[0] ? cast(slope, prediction.dtype) : undefined,
      c.wants[1] ? cast(neg(slope), target.dtype) : undefined,
    ];
  },
};

export interface BinaryCrossEntropyArguments {
  reduction?: Reduction;
  /** Factor of each loss; broadcasts. */
  weight?: Tensor;
  /** Factor of the losses of positive targets; broadcasts. */
  posWeight?: Tensor;
}

/**
 * −target · log σ(logits) − (1 − target) · log(1 − σ(logits)) without overflow, as
 * torch.nn.functional.binary_cross_entropy_with_logits.
 * @param target - probabilities, of logits' shape
 */
export function bceWithLogits(
  logits: Tensor,
  target: Tensor,
  options: BinaryCrossEntropyArguments = {},
): Tensor {
  check("bceWithLogits", logits, target);
  requireOptions("bceWithLogits", options, ["reduction", "weight", "posWeight"]);
  const { weight, posWeight, reduction = "mean" } = options;
  commonBackend("bceWithLogits", [logits, ...[weight, posWeight].filter((t) => t !== undefined)]);
  if (!weight && !posWeight)
    return pointwise(bceWithLogitsRule, [logits, target], reduction, () =>
      sub(softplus(logits), mul(logits, target)),
    );
  return tidy(() => {
    let losses: Tensor;
    if (posWeight) {
      // (1 − t)·x + (1 + (p − 1)·t)·log(1 + e^−x)
      const factor = add(mul(sub(posWeight, 1), target), 1);
      losses = add(mul(sub(1, target), logits), mul(factor, softplus(neg(logits))));
    } else losses = sub(softplus(logits), mul(logits, target));
    return reduced("bceWithLogits", weight ? mul(losses, weight) : losses, reduction);
  });
}

export const bceWithLogitsRule: OwnRule<{ scale: number }> = {
  name: "bceWithLogits",
  needs: () => [0, 1],
  backward: (c, dy) => {
    const [logits, target] = [c.input(0), c.input(1)];
    const scaled = c.attributes.scale === 1 ? dy : mul(dy, c.attributes.scale);
    return [
      c.wants[0] ? cast(mul(sub(sigmoid(logits), target), scaled), logits.dtype) : undefined,
      c.wants[1] ? cast(neg(mul(logits, scaled)), target.dtype) : undefined,
    ];
  },
};

export interface KlDivergenceArguments {
  /** "batchmean" (default) is the sum over the length of the first axis, the divergence as it is defined; "mean" is over all elements. */
  reduction?: Reduction | "batchmean";
  /** Whether target holds log probabilities too (default false). */
  logTarget?: boolean;
}

/**
 * Σ target · (log target − input) for log probabilities `input`, as torch.nn.functional.kl_div. Where target is 0 so is the term.
 */
export function klDivergence(input: Tensor, target: Tensor, options: KlDivergenceArguments = {}): Tensor {
  check("klDivergence", input, target);
  requireOptions("klDivergence", options, ["reduction", "logTarget"]);
  const { reduction = "batchmean", logTarget = false } = options;
  return tidy(() => {
    let losses: Tensor;
    if (logTarget) losses = mul(exp(target), sub(target, input));
    else {
      const positive = greater(target, 0);
      const safe = where(positive, target, 1);
      losses = where(positive, mul(target, sub(log(safe), input)), 0);
    }
    if (reduction === "batchmean") return div(sum(losses), input.shape[0] ?? 1);
    return reduced("klDivergence", losses, reduction);
  });
}
