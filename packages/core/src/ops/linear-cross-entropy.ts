// Cross entropy fused with the linear layer that makes the logits: they never exist at once.

import { requireOptions } from "../arguments.js";
import { defineFunction } from "../autograd/function.js";
import { fullLike } from "../creation.js";
import { ShapeError } from "../errors.js";
import { tidy } from "../memory.js";
import { formatShape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import {
  asInt32,
  type CrossEntropyArguments,
  checkOptions,
  checkRows,
  checkTargets,
  crossEntropy,
  crossEntropyReference,
  type WeightedCrossEntropyArguments,
  weightedCrossEntropy,
} from "./cross-entropy.js";
import { commonBackend, contiguous, empty, operand } from "./dispatch.js";
import { add, equal, mul, sub, where } from "./elementwise.js";
import { fusedKernels } from "./fused.js";
import { gather } from "./indexing.js";
import { matmul } from "./matmul.js";
import { sum } from "./reduce.js";
import { mean } from "./statistics.js";
import { slice } from "./view.js";

function checkFactors(operation: string, x: Tensor, weight: Tensor): void {
  if (x.rank !== 2 || weight.rank !== 2 || x.shape[1] !== weight.shape[1]) {
    throw new ShapeError(
      `${operation}: x ${formatShape(x.shape)} and weight ${formatShape(weight.shape)} should be [rows, width] and [classes, width]`,
    );
  }
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
 * @param targets - integers [rows]
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
  checkFactors("linearCrossEntropy", x, weight);
  const { ignoreIndex, labelSmoothing, reduction } = checkOptions("linearCrossEntropy", options);
  const counted = checkTargets("linearCrossEntropy", targets, [x.shape[0]], weight.shape[0], ignoreIndex);
  return tidy(() => {
    if (!fusedKernels([x, weight], "crossEntropy"))
      return crossEntropy(matmul(x, weight, { transB: true }), targets, options);
    const inputs = [contiguous(x), contiguous(weight), contiguous(asInt32(targets))];
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
  requireOptions(operation, options, ["ignoreIndex", "losses"]);
  const { ignoreIndex = -100, losses = null } = options;
  commonBackend(operation, [x, weight, targets, factors, ...(losses ? [losses] : [])]);
  checkFactors(operation, x, weight);
  checkRows(operation, x, x.shape[0], [factors, losses ?? undefined]);
  checkTargets(operation, targets, [x.shape[0]], weight.shape[0], ignoreIndex);
  return tidy(() => {
    if (!fusedKernels([x, weight], "crossEntropy"))
      return weightedCrossEntropy(matmul(x, weight, { transB: true }), targets, factors, options);
    const inputs = [contiguous(x), contiguous(weight), contiguous(asInt32(targets)), factors];
    return fusedLinearCrossEntropy(inputs, { ignoreIndex, scale: 1, losses });
  });
}
