// Cross entropy of logits; fused with the linear layer that makes them it stands in linear-cross-entropy.ts.

import {
  requireInteger,
  requireOneOf,
  requireOptions,
  requireProbability,
  requireThat,
} from "../arguments.js";
import { noGrad } from "../autograd/graph.js";
import { dense, fusedBackward, like, type OwnRule } from "../autograd/rule.js";
import { positions } from "../creation.js";
import { isFloat, requireFloat, requireIntegers } from "../dtype.js";
import { ShapeError } from "../errors.js";
import { tidy } from "../memory.js";
import { formatShape, sameShape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { commonBackend, contiguous, empty, finishBy, hostValues, operand } from "./dispatch.js";
import { add, cast, div, equal, mul, neg, where } from "./elementwise.js";
import { fusedKernels } from "./fused.js";
import { reductions } from "./pointwise-loss.js";
import { sum } from "./reduce.js";
import { logSoftmax } from "./softmax.js";
import { mean } from "./statistics.js";
import { clone, unsqueeze } from "./view.js";

export interface CrossEntropyArguments {
  /** Targets with this value count for nothing (default −100). */
  ignoreIndex?: number;
  /** Share of the target spread evenly over all classes (default 0). */
  labelSmoothing?: number;
  /** Mean over the counted targets (default; NaN when there is none), their sum, or each loss. */
  reduction?: "mean" | "sum" | "none";
}

/** `options` with defaults; `others` are those that the operation takes besides. */
export function checkOptions(
  operation: string,
  options: CrossEntropyArguments,
  others: readonly string[] = [],
): Required<CrossEntropyArguments> {
  requireOptions(operation, options, ["ignoreIndex", "labelSmoothing", "reduction", ...others]);
  const { ignoreIndex = -100, labelSmoothing = 0, reduction = "mean" } = options;
  requireOneOf(operation, "reduction", reduction, reductions);
  requireProbability(operation, "labelSmoothing", labelSmoothing);
  requireInteger(operation, "ignoreIndex", ignoreIndex);
  return { ignoreIndex, labelSmoothing, reduction };
}

/**
 * The targets that count, or the sum of their classes' `weights`.
 * @throws {DTypeError} for targets that are no integers
 * @throws {ShapeError} for targets of another shape, naming one that is no class
 */
export function checkTargets(
  operation: string,
  targets: Tensor,
  shape: readonly number[],
  classes: number,
  ignoreIndex: number,
  weights?: ArrayLike<number>,
): number {
  requireIntegers(operation, "targets", targets.dtype);
  if (!sameShape(targets.shape, shape)) {
    throw new ShapeError(
      `${operation}: targets ${formatShape(targets.shape)} should be ${formatShape(shape)}, one for each row of logits (classes are the last axis)`,
    );
  }
  const { backend } = targets.storage;
  // Read where they are if that may be: a copy of a few takes as long as a kernel.
  const there = targets.isContiguous && backend.window;
  const values = there ? there(operand(targets)) : hostValues(operation, targets);
  let counted = 0;
  for (let i = 0; i < values.length; i++) {
    const target = values[i];
    if (target === ignoreIndex) continue;
    if (target < 0 || target >= classes)
      throw new ShapeError(
        `${operation}: target ${target} at position ${i} is not within 0 to ${classes - 1}`,
      );
    counted += weights ? weights[target] : 1;
  }
  return counted;
}

/** Integer targets as kernels take them; a temporary where they are of another dtype. */
export function asInt32(targets: Tensor): Tensor {
  return targets.dtype === "int32" ? targets : cast(targets, "int32");
}

/**
 * −log softmax(logits)[target], averaged over the targets that count; for targets that are probabilities, −Σ target · log softmax(logits)
 * over the classes, averaged over the rows. As torch.nn.functional.cross_entropy, but the classes are always the last axis.
 *
 * @param logits - float [..., classes]
 * @param targets - integers [...], or floats of logits' shape: the probability of each class
 * @param options - `weight` is a factor of each class's loss [classes], a constant; "mean" then divides by the weights of the targets
 * @throws {ShapeError} naming the target that is no class
 */
export function crossEntropy(
  logits: Tensor,
  targets: Tensor,
  options: CrossEntropyArguments & { weight?: Tensor } = {},
): Tensor {
  commonBackend("crossEntropy", [logits, targets]);
  requireFloat("crossEntropy", "logits", logits.dtype);
  if (logits.rank === 0) throw new ShapeError("crossEntropy: logits must be [..., classes], not a scalar");
  const { ignoreIndex, labelSmoothing, reduction } = checkOptions("crossEntropy", options, ["weight"]);
  const { weight } = options;
  const classes = logits.shape[logits.rank - 1];
  if (weight) {
    commonBackend("crossEntropy", [logits, weight]);
    const constant = isFloat(weight.dtype) && sameShape(weight.shape, [classes]) && !weight.requiresGrad;
    if (!constant)
      throw new ShapeError(
        `crossEntropy: weight should be floats [${classes}] without gradient, not ${weight.dtype} ${formatShape(weight.shape)}`,
      );
  }
  if (isFloat(targets.dtype) && sameShape(targets.shape, logits.shape)) {
    requireThat(
      options.ignoreIndex === undefined,
      "crossEntropy",
      "ignoreIndex",
      "left out for targets that are probabilities",
      ignoreIndex,
    );
    return tidy(() => {
      const expected =
        labelSmoothing === 0 ? targets : add(mul(targets, 1 - labelSmoothing), labelSmoothing / classes);
      const losses = neg(sum(mul(weighted(logSoftmax(logits, -1), weight), expected), -1));
      return reduction === "none" ? losses : (reduction === "sum" ? sum : mean)(losses);
    });
  }
  const counted = checkTargets(
    "crossEntropy",
    targets,
    logits.shape.slice(0, -1),
    classes,
    ignoreIndex,
    weight && hostValues("crossEntropy", weight),
  );
  return tidy(() => {
    const losses = perTargetLosses(logits, asInt32(targets), ignoreIndex, labelSmoothing, weight);
    if (reduction === "none") return losses;
    if (reduction === "sum") return sum(losses);
    return counted === losses.size ? mean(losses) : div(sum(losses), counted);
  });
}

const weighted = (x: Tensor, weight: Tensor | undefined): Tensor => (weight ? mul(x, weight) : x);

/** Loss of each target, 0 where ignored. */
function perTargetLosses(
  logits: Tensor,
  targets: Tensor,
  ignoreIndex: number,
  labelSmoothing: number,
  weight: Tensor | undefined,
): Tensor {
  if (labelSmoothing !== 0 || weight || !fusedKernels([logits], "crossEntropy")) {
    return crossEntropyReference(logits, targets, ignoreIndex, labelSmoothing, weight);
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
  weight?: Tensor,
): Tensor {
  return tidy(() => {
    const classes = logits.shape[logits.rank - 1];
    const logProbabilities = weighted(logSoftmax(logits, -1), weight);
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
 * @param targets - integers [rows]
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
