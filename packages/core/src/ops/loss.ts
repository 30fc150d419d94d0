// Cross entropy, on logits or fused with the linear layer that makes them.

import { requireInteger, requireOneOf, requireOptions, requireProbability } from "../arguments.js";
import { defineFunction } from "../autograd/function.js";
import { noGrad } from "../autograd/graph.js";
import { dense, fusedBackward, like, type OwnRule } from "../autograd/rule.js";
import { fullLike, positions } from "../creation.js";
import { DTypeError, ShapeError } from "../errors.js";
import { tidy } from "../memory.js";
import { formatShape, sameShape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { commonBackend, contiguous, empty, finishBy, hostValues, operand } from "./dispatch.js";
import { add, div, equal, mul, neg, sub, where } from "./elementwise.js";
import { fusedKernels } from "./fused.js";
import { gather } from "./indexing.js";
import { matmul } from "./matmul.js";
import { reductions } from "./pointwise-loss.js";
import { mean, sum } from "./reduce.js";
import { logSoftmax } from "./softmax.js";
import { clone, slice, unsqueeze } from "./view.js";

export interface CrossEntropyArguments {
  /** Targets with this value count for nothing (default −100). */
  ignoreIndex?: number;
  /** Share of the target spread evenly over all classes (default 0). */
  labelSmoothing?: number;
  /** Mean over the counted targets (default; NaN when there is none), their sum, or each loss. */
  reduction?: "mean" | "sum" | "none";
}

/** `options` with defaults. */
function checkOptions(operation: string, options: CrossEntropyArguments): Required<CrossEntropyArguments> {
  requireOptions(operation, options);
  const { ignoreIndex = -100, labelSmoothing = 0, reduction = "mean" } = options;
  requireOneOf(operation, "reduction", reduction, reductions);
  requireProbability(operation, "labelSmoothing", labelSmoothing);
  requireInteger(operation, "ignoreIndex", ignoreIndex);
  return { ignoreIndex, labelSmoothing, reduction };
}

function checkTargets(
  operation: string,
  targets: Tensor,
  shape: readonly number[],
  classes: number,
  ignoreIndex: number,
): number {
  if (targets.dtype !== "int32")
    throw new DTypeError(`${operation}: targets must be int32, not ${targets.dtype}`);
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

/**
 * Logits (rows × classes) that the fused form holds at once: 4 MiB of float32, but at least the rows that a matrix product takes
 * through the weight together; with fewer, packing the weight costs more than multiplying.
 */
const logitsAtOnce = 1 << 20;
const leastRowsAtOnce = 96;

/** Rows of logits that {@link linearCrossEntropy} holds at once. */
export function rowsAtOnce(rows: number, classes: number): number {
  return Math.min(rows, Math.max(leastRowsAtOnce, Math.floor(logitsAtOnce / classes)));
}

interface Chunks {
  /** float32 [rows], written. */
  losses: Tensor;
  /** float32 [rows] (or expanded to it): factor of each row's gradient; null for no gradients. */
  scales: Tensor | null;
  /** Written, where wanted. */
  dx: Tensor | null;
  dWeight: Tensor | null;
}

/** Losses of x · weightᵀ against targets, and gradients, from the logits of a few rows at a time. */
function crossEntropyInChunks(
  [x, weight, targets]: readonly Tensor[],
  ignoreIndex: number,
  { losses, scales, dx, dWeight }: Chunks,
): void {
  const { backend } = x.storage;
  const [rows] = x.shape;
  const classes = weight.shape[0];
  const step = Math.max(1, rowsAtOnce(rows, classes));
  const logits = empty(backend, "float32", [step, classes]);
  if (dWeight && rows === 0) backend.fill(operand(dWeight), 0);
  for (let start = 0; start < rows; start += step) {
    const count = Math.min(step, rows - start);
    const take = (t: Tensor) => slice(t, [start, start + count]);
    const part = slice(logits, [0, count]);
    matmul(take(x), weight, { transB: true, out: part });
    backend.fused.crossEntropy!(
      operand(part),
      operand(take(targets)),
      ignoreIndex,
      operand(take(losses)),
      scales ? operand(contiguous(take(scales))) : null,
    );
    // The logits' place now holds their gradient.
    if (dx) matmul(part, weight, { out: take(dx) });
    if (dWeight) matmul(part, take(x), { transA: true, out: dWeight, beta: start === 0 ? 0 : 1 });
  }
}

/** Places for gradients of x and weight, where wanted. */
function gradientPlaces(
  wants: readonly boolean[],
  [x, weight]: readonly Tensor[],
): { dx: Tensor | null; dWeight: Tensor | null } {
  const place = (t: Tensor) => empty(t.storage.backend, "float32", t.shape);
  return { dx: wants[0] ? place(x) : null, dWeight: wants[1] ? place(weight) : null };
}

interface SumAttributes {
  readonly ignoreIndex: number;
  readonly scale: number;
  /** Receives each loss [rows]. */
  readonly losses: Tensor | null;
}

/**
 * The sum of losses times `scale`, and where there is a fourth input [rows] times that; gradients of x and weight are worked out on the
 * way.
 */
const fusedLinearCrossEntropy = /* @__PURE__ */ defineFunction<SumAttributes>({
  name: "linearCrossEntropy",
  forward(context, inputs, { ignoreIndex, scale, losses: given }) {
    const { backend } = inputs[0].storage;
    const factors = inputs.at(3);
    const losses = given ?? empty(backend, "float32", [inputs[0].shape[0]]);
    const { dx, dWeight } = gradientPlaces(context.wants, inputs);
    const scales = dx || dWeight ? (factors ? mul(factors, scale) : fullLike(losses, scale)) : null;
    crossEntropyInChunks(inputs, ignoreIndex, { losses, scales, dx, dWeight });
    if (given) given.storage.version++;
    context.save(...[dx, dWeight].filter((t) => t !== null));
    return mul(sum(factors ? mul(losses, factors) : losses), scale);
  },
  backward(context, dy) {
    const saved = context.saved();
    const gradients = context.wanted.map((made) => (made ? saved.shift() : undefined));
    return context.wants.map((wanted, i) => (wanted ? mul(gradients[i]!, dy) : undefined));
  },
  reference([x, weight, targets, factors], { ignoreIndex, scale }) {
    const losses = crossEntropyReference(matmul(x, weight, { transB: true }), targets, ignoreIndex);
    return mul(sum(factors ? mul(losses, factors) : losses), scale);
  },
});

/** The loss of each row. Its gradient depends on what becomes of them, so backward makes the logits again. */
const fusedLinearCrossEntropyEach = /* @__PURE__ */ defineFunction<{ ignoreIndex: number }>({
  name: "linearCrossEntropy",
  forward(context, inputs, { ignoreIndex }) {
    const losses = empty(inputs[0].storage.backend, "float32", [inputs[0].shape[0]]);
    crossEntropyInChunks(inputs, ignoreIndex, { losses, scales: null, dx: null, dWeight: null });
    context.save(...inputs);
    return losses;
  },
  backward(context, dy, { ignoreIndex }) {
    const inputs = context.saved();
    const { dx, dWeight } = gradientPlaces(context.wants, inputs);
    const losses = empty(dy.storage.backend, "float32", dy.shape);
    crossEntropyInChunks(inputs, ignoreIndex, { losses, scales: dy, dx, dWeight });
    return [dx ?? undefined, dWeight ?? undefined, undefined];
  },
  reference([x, weight, targets], { ignoreIndex }) {
    return crossEntropyReference(matmul(x, weight, { transB: true }), targets, ignoreIndex);
  },
});

/**
 * What smoothing by a share of 1 adds to each loss: logit of the target − mean of the logits, 0 where ignored. Both are products of x
 * with a vector, the target's row of weight and the mean of its rows, so that no logits are needed.
 */
function smoothingTerm(x: Tensor, weight: Tensor, targets: Tensor, ignoreIndex: number): Tensor {
  const ignored = equal(targets, ignoreIndex);
  const rows = gather(weight, where(ignored, 0, targets));
  return where(ignored, 0, sum(mul(x, sub(rows, mean(weight, 0, true))), -1));
}

/**
 * Cross entropy of x · weightᵀ against targets, in chunks of rows: all logits never exist at once, forward or backward.
 * For a mean or a sum the gradients of x and weight are worked out on the way and only scaled by backward, as in Liger Kernel
 * (arXiv:2410.10989); for each loss alone, backward makes the logits again. Equal to {@link crossEntropy} of `linear(x, weight)`.
 *
 * @param x - [rows, width]
 * @param weight - [classes, width]
 * @param targets - int32 [rows]
 * @returns a scalar, or with reduction "none" the loss of each row [rows], 0 where ignored
 * @throws {ShapeError} naming the target that is no class
 */
export function linearCrossEntropy(
  x: Tensor,
  weight: Tensor,
  targets: Tensor,
  options: CrossEntropyArguments = {},
): Tensor {
  commonBackend("linearCrossEntropy", [x, weight, targets]);
  if (x.rank !== 2 || weight.rank !== 2 || x.shape[1] !== weight.shape[1]) {
    throw new ShapeError(
      `linearCrossEntropy: x ${formatShape(x.shape)} and weight ${formatShape(weight.shape)} should be [rows, width] and [classes, width]`,
    );
  }
  const { ignoreIndex, labelSmoothing, reduction } = checkOptions("linearCrossEntropy", options);
  const counted = checkTargets("linearCrossEntropy", targets, [x.shape[0]], weight.shape[0], ignoreIndex);
  return tidy(() => {
    if (!fusedKernels([x, weight], "crossEntropy"))
      return crossEntropy(matmul(x, weight, { transB: true }), targets, options);
    const inputs = [contiguous(x), contiguous(weight), contiguous(targets)];
    const smoothed = (losses: Tensor, reduce: (term: Tensor) => Tensor) =>
      labelSmoothing === 0
        ? losses
        : add(losses, mul(reduce(smoothingTerm(x, weight, targets, ignoreIndex)), labelSmoothing));
    if (reduction === "none")
      return smoothed(fusedLinearCrossEntropyEach(inputs, { ignoreIndex }), (term) => term);
    const scale = reduction === "mean" ? 1 / counted : 1;
    return smoothed(fusedLinearCrossEntropy(inputs, { ignoreIndex, scale, losses: null }), (term) =>
      mul(sum(term), scale),
    );
  });
}

/** What {@link weightedLinearCrossEntropy} takes besides. */
export interface WeightedCrossEntropyArguments {
  /** Targets with this value count for nothing (default −100). */
  ignoreIndex?: number;
  /** Receives each loss, without its factor [rows]; no gradient is recorded through it. */
  losses?: Tensor;
}

function checkRows(
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
  requireOptions("weightedCrossEntropy", options);
  const { ignoreIndex, losses } = options;
  commonBackend("weightedCrossEntropy", [logits, targets, factors, ...(losses ? [losses] : [])]);
  checkRows("weightedCrossEntropy", logits, logits.shape[0], [factors, losses]);
  return tidy(() => {
    const each = crossEntropy(logits, targets, { ignoreIndex, reduction: "none" });
    if (losses) noGrad(() => losses.copyFrom(each));
    return sum(mul(each, factors));
  });
}

/**
 * {@link weightedCrossEntropy} of x · weightᵀ, in chunks of rows and with the gradients worked out on the way, as
 * {@link linearCrossEntropy}: the losses of several trainings in one pass.
 *
 * @param x - [rows, width]
 * @param weight - [classes, width]
 */
export function weightedLinearCrossEntropy(
  x: Tensor,
  weight: Tensor,
  targets: Tensor,
  factors: Tensor,
  options: WeightedCrossEntropyArguments = {},
): Tensor {
  const operation = "weightedLinearCrossEntropy";
  requireOptions("weightedLinearCrossEntropy", options);
  const { ignoreIndex = -100, losses = null } = options;
  commonBackend(operation, [x, weight, targets, factors, ...(losses ? [losses] : [])]);
  if (x.rank !== 2 || weight.rank !== 2 || x.shape[1] !== weight.shape[1]) {
    throw new ShapeError(
      `${operation}: x ${formatShape(x.shape)} and weight ${formatShape(weight.shape)} should be [rows, width] and [classes, width]`,
    );
  }
  checkRows(operation, x, x.shape[0], [factors, losses ?? undefined]);
  checkTargets(operation, targets, [x.shape[0]], weight.shape[0], ignoreIndex);
  return tidy(() => {
    if (!fusedKernels([x, weight], "crossEntropy"))
      return weightedCrossEntropy(matmul(x, weight, { transB: true }), targets, factors, options);
    const inputs = [contiguous(x), contiguous(weight), contiguous(targets), factors];
    return fusedLinearCrossEntropy(inputs, { ignoreIndex, scale: 1, losses });
  });
}
