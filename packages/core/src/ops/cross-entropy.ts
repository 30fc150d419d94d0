// Cross entropy of logits; fused with the linear layer that makes them it stands in linear-cross-entropy.ts.

import { requireInteger, requireOneOf, requireOptions, requireProbability } from "../arguments.js";
import { noGrad } from "../autograd/graph.js";
import { dense, fusedBackward, like, type OwnRule } from "../autograd/rule.js";
import { positions } from "../creation.js";
import { DTypeError, ShapeError } from "../errors.js";
import { tidy } from "../memory.js";
import { formatShape, sameShape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { commonBackend, contiguous, empty, finishBy, hostValues, operand } from "./dispatch.js";
import { add, div, equal, mul, neg, where } from "./elementwise.js";
import { fusedKernels } from "./fused.js";
import { reductions } from "./pointwise-loss.js";
import { mean, sum } from "./reduce.js";
import { logSoftmax } from "./softmax.js";
import { clone, unsqueeze } from "./view.js";

export interface CrossEntropyArguments {
  /** Targets with this value count for nothing (default −100). */
  ignoreIndex?: number;
  /** Share of the target spread evenly over all classes (default 0). */
  labelSmoothing?: number;
  /** Mean over the counted targets (default; NaN when there is none), their sum, or each loss. */
  reduction?: "mean" | "sum" | "none";
}

/** `options` with defaults. */
export function checkOptions(
  operation: string,
  options: CrossEntropyArguments,
): Required<CrossEntropyArguments> {
  requireOptions(operation, options, ["ignoreIndex", "labelSmoothing", "reduction"]);
  const { ignoreIndex = -100, labelSmoothing = 0, reduction = "mean" } = options;
  requireOneOf(operation, "reduction", reduction, reductions);
  requireProbability(operation, "labelSmoothing", labelSmoothing);
  requireInteger(operation, "ignoreIndex", ignoreIndex);
  return { ignoreIndex, labelSmoothing, reduction };
}

export function checkTargets(
  operation: string,
  targets: Tensor,
  shape: readonly number[],
  classes: number,
  ignoreIndex: number,
): number {
  if (targets.dtype !== "int32")
    throw new DTypeError(
      `${operation}: targets must be int32, not ${targets.dtype}; cast("int32") makes them so`,
    );
  if (!sameShape(targets.shape, shape)) {
    throw new ShapeError(
      `${operation}: targets ${formatShape(targets.shape)} should be ${formatShape(shape)}`,
    );
  }
  let counted = 0;
  hostValues(operation, targets).forEach((target, i) => {
    if (target === ignoreIndex) return;
    if (target < 0 || target >= classes)
      throw new ShapeError(
        `${operation}: target ${target} at position ${i} is not within 0 to ${classes - 1}`,
      );
    counted++;
  });
  return counted;
}

/**
 * −log softmax(logits)[target], averaged over the targets that count.
 *
 * @param logits - float [..., classes]
 * @param targets - int32 [...]
 * @throws {ShapeError} naming the target that is no class
 */
export function crossEntropy(logits: Tensor, targets: Tensor, options: CrossEntropyArguments = {}): Tensor {
  commonBackend("crossEntropy", [logits, targets]);
  if (logits.rank === 0) throw new ShapeError("crossEntropy: logits must be [..., classes], not a scalar");
  const { ignoreIndex, labelSmoothing, reduction } = checkOptions("crossEntropy", options);
  const counted = checkTargets(
    "crossEntropy",
    targets,
    logits.shape.slice(0, -1),
    logits.shape[logits.rank - 1],
    ignoreIndex,
  );
  return tidy(() => {
    const losses = perTargetLosses(logits, targets, ignoreIndex, labelSmoothing);
    if (reduction === "none") return losses;
    return reduction === "sum" ? sum(losses) : div(sum(losses), counted);
  });
}

/** Loss of each target, 0 where ignored. */
function perTargetLosses(
  logits: Tensor,
  targets: Tensor,
  ignoreIndex: number,
  labelSmoothing: number,
): Tensor {
  if (labelSmoothing !== 0 || !fusedKernels([logits], "crossEntropy")) {
    return crossEntropyReference(logits, targets, ignoreIndex, labelSmoothing);
  }
  const { backend } = logits.storage;
  const rows = contiguous(logits);
  const losses = empty(backend, "float32", targets.shape);
  backend.fused.crossEntropy!(
    operand(rows),
    operand(contiguous(targets)),
    ignoreIndex,
    operand(losses),
    null,
  );
  return finishBy(crossEntropyRule, [rows, targets], { ignoreIndex }, losses);
}

export const crossEntropyRule: OwnRule<{ ignoreIndex: number }> = {
  name: "crossEntropy",
  needs: () => [0, 1],
  backward: (c, dy) => {
    const { ignoreIndex } = c.attributes;
    return fusedBackward(
      c,
      dy,
      2,
      ([logits, targets]) => crossEntropyReference(logits, targets, ignoreIndex),
      (scales) => {
        // The kernel overwrites logits by their gradient, so it gets a copy.
        const dLogits = clone(c.input(0));
        const targets = operand(dense(c.input(1)));
        const losses = operand(like(dy));
        dy.storage.backend.fused.crossEntropy!(
          operand(dLogits),
          targets,
          ignoreIndex,
          losses,
          operand(scales),
        );
        return [dLogits, undefined];
      },
    );
  },
};

/** Loss of each target in primitives. */
export function crossEntropyReference(
  logits: Tensor,
  targets: Tensor,
  ignoreIndex: number,
  labelSmoothing = 0,
): Tensor {
  return tidy(() => {
    const classes = logits.shape[logits.rank - 1];
    const logProbabilities = logSoftmax(logits, -1);
    const hit = equal(unsqueeze(targets, -1), positions(classes, logits));
    let losses = neg(sum(where(hit, logProbabilities, 0), -1));
    if (labelSmoothing !== 0) {
      losses = add(mul(losses, 1 - labelSmoothing), mul(mean(logProbabilities, -1), -labelSmoothing));
    }
    return where(equal(targets, ignoreIndex), 0, losses);
  });
}

/** What {@link weightedCrossEntropy} takes besides. */
export interface WeightedCrossEntropyArguments {
  /** Targets with this value count for nothing (default −100). */
  ignoreIndex?: number;
  /** Receives each loss, without its factor [rows]; no gradient is recorded through it. */
  losses?: Tensor;
}

export function checkRows(
  operation: string,
  like: Tensor,
  rows: number,
  extras: readonly (Tensor | undefined)[],
): void {
  for (const each of extras) {
    if (
      each &&
      (each.dtype !== like.dtype || !each.isContiguous || !sameShape(each.shape, [rows]) || each.requiresGrad)
    )
      throw new ShapeError(
        `${operation}: factors and losses should be ${like.dtype} [${rows}], contiguous, without gradient`,
      );
  }
}

/**
 * Σ factor · loss over rows, of the losses of `logits`: as {@link crossEntropy}, for rows that count differently.
 *
 * @param logits - float [rows, classes]
 * @param targets - int32 [rows]
 * @param factors - constants of the logits' dtype [rows]
 * @throws {ShapeError} naming the target that is no class; for factors or losses of another form
 */
export function weightedCrossEntropy(
  logits: Tensor,
  targets: Tensor,
  factors: Tensor,
  options: WeightedCrossEntropyArguments = {},
): Tensor {
  requireOptions("weightedCrossEntropy", options, ["ignoreIndex", "losses"]);
  const { ignoreIndex, losses } = options;
  commonBackend("weightedCrossEntropy", [logits, targets, factors, ...(losses ? [losses] : [])]);
  checkRows("weightedCrossEntropy", logits, logits.shape[0], [factors, losses]);
  return tidy(() => {
    const each = crossEntropy(logits, targets, { ignoreIndex, reduction: "none" });
    if (losses) noGrad(() => losses.copyFrom(each));
    return sum(mul(each, factors));
  });
}
