// Cross entropy, on logits or fused with the linear layer that makes them.

import { defineFunction } from "../autograd/function.js";
import { arange } from "../creation.js";
import { ArgumentError, DTypeError, ShapeError } from "../errors.js";
import { tidy } from "../memory.js";
import { formatShape, sameShape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { commonBackend, contiguous, empty, finish, operand } from "./dispatch.js";
import { add, div, equal, mul, neg, where } from "./elementwise.js";
import { fusedKernels } from "./fused.js";
import { matmul } from "./matmul.js";
import { mean, sum } from "./reduce.js";
import { logSoftmax } from "./softmax.js";
import { slice, unsqueeze } from "./view.js";

export interface CrossEntropyArguments {
  /** Targets with this value count for nothing (default −100). */
  ignoreIndex?: number;
  /** Share of the target spread evenly over all classes (default 0). */
  labelSmoothing?: number;
  /** Mean over the counted targets (default; NaN when there is none), their sum, or each loss. */
  reduction?: "mean" | "sum" | "none";
}

function checkReduction(operation: string, reduction: string, known: readonly string[]): void {
  if (!known.includes(reduction))
    throw new ArgumentError(`${operation}: unknown reduction "${reduction}" (known: ${known.join(", ")})`);
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
  targets.dataSync().forEach((target, i) => {
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
  const { ignoreIndex = -100, labelSmoothing = 0, reduction = "mean" } = options;
  checkReduction("crossEntropy", reduction, ["mean", "sum", "none"]);
  if (!(labelSmoothing >= 0 && labelSmoothing <= 1))
    throw new ArgumentError(`crossEntropy: labelSmoothing must be within [0, 1], not ${labelSmoothing}`);
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
  return finish("crossEntropy", [rows, targets], { ignoreIndex }, losses);
}

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
    const hit = equal(unsqueeze(targets, -1), arange(classes, undefined, 1, { device: logits.device }));
    let losses = neg(sum(where(hit, logProbabilities, 0), -1));
    if (labelSmoothing !== 0) {
      losses = add(mul(losses, 1 - labelSmoothing), mul(mean(logProbabilities, -1), -labelSmoothing));
    }
    return where(equal(targets, ignoreIndex), 0, losses);
  });
}

/** Most logits (rows × classes) that the fused form holds at once: 4 MiB of float32. */
const logitsAtOnce = 1 << 20;

const fusedLinearCrossEntropy = defineFunction<{ ignoreIndex: number; scale: number }>({
  name: "linearCrossEntropy",
  forward(context, [x, weight, targets], { ignoreIndex, scale }) {
    const { backend } = x.storage;
    const [rows, width] = x.shape;
    const classes = weight.shape[0];
    const step = Math.max(1, Math.min(rows, Math.floor(logitsAtOnce / classes)));
    const losses = empty(backend, "float32", [rows]);
    const logits = empty(backend, "float32", [step, classes]);
    const wanted = context.wants[0] || context.wants[1];
    const scales = wanted ? empty(backend, "float32", [step]) : null;
    if (scales) backend.fill(operand(scales), scale);
    const dx = context.wants[0] ? empty(backend, "float32", [rows, width]) : null;
    const dWeight = context.wants[1] ? empty(backend, "float32", weight.shape) : null;
    if (dWeight && rows === 0) backend.fill(operand(dWeight), 0);
    for (let start = 0; start < rows; start += step) {
      const count = Math.min(step, rows - start);
      const take = (t: Tensor, from = start) => slice(t, [from, from + count]);
      const part = take(logits, 0);
      matmul(take(x), weight, { transB: true, out: part });
      backend.fused.crossEntropy!(
        operand(part),
        operand(take(targets)),
        ignoreIndex,
        operand(take(losses)),
        scales ? operand(take(scales, 0)) : null,
      );
      // The logits' place now holds their gradient.
      if (dx) matmul(part, weight, { out: take(dx) });
      if (dWeight) matmul(part, take(x), { transA: true, out: dWeight, beta: start === 0 ? 0 : 1 });
    }
    context.save(...[dx, dWeight].filter((t) => t !== null));
    return mul(sum(losses), scale);
  },
  backward(context, dy) {
    const saved = context.saved();
    const gradients = context.wanted.map((made) => (made ? saved.shift() : undefined));
    return context.wants.map((wanted, i) => (wanted ? mul(gradients[i]!, dy) : undefined));
  },
  reference([x, weight, targets], { ignoreIndex, scale }) {
    const losses = crossEntropyReference(matmul(x, weight, { transB: true }), targets, ignoreIndex);
    return mul(sum(losses), scale);
  },
});

/**
 * Cross entropy of x · weightᵀ against targets, in chunks of rows: all logits never exist at once, forward or backward.
 * The gradients of x and weight are worked out on the way and only scaled by backward, as in Liger Kernel (arXiv:2410.10989).
 *
 * @param x - [rows, width]
 * @param weight - [classes, width]
 * @param targets - int32 [rows]
 * @returns scalar: mean over the targets that count, or their sum
 */
export function linearCrossEntropy(
  x: Tensor,
  weight: Tensor,
  targets: Tensor,
  options: { ignoreIndex?: number; reduction?: "mean" | "sum" } = {},
): Tensor {
  commonBackend("linearCrossEntropy", [x, weight, targets]);
  if (x.rank !== 2 || weight.rank !== 2 || x.shape[1] !== weight.shape[1]) {
    throw new ShapeError(
      `linearCrossEntropy: x ${formatShape(x.shape)} and weight ${formatShape(weight.shape)} should be [rows, width] and [classes, width]`,
    );
  }
  const { ignoreIndex = -100, reduction = "mean" } = options;
  checkReduction("linearCrossEntropy", reduction, ["mean", "sum"]);
  const counted = checkTargets("linearCrossEntropy", targets, [x.shape[0]], weight.shape[0], ignoreIndex);
  return tidy(() => {
    if (!fusedKernels([x, weight], "crossEntropy")) {
      return crossEntropy(matmul(x, weight, { transB: true }), targets, { ignoreIndex, reduction });
    }
    const scale = reduction === "mean" ? 1 / counted : 1;
    return fusedLinearCrossEntropy([contiguous(x), contiguous(weight), contiguous(targets)], {
      ignoreIndex,
      scale,
    });
  });
}
