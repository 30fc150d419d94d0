// Gradient clipping.

import { requireList, requireThat, use } from "../arguments.js";
import { noGrad } from "../autograd/graph.js";
import { tidy } from "../memory.js";
import { clip } from "../ops/clip.js";
import { hostValues, operand } from "../ops/dispatch.js";
import { mul, square } from "../ops/elementwise.js";
import { sum } from "../ops/reduce.js";
import { norm } from "../ops/statistics.js";
import type { Tensor } from "../tensor.js";

/** Up to so many elements a host adds up as fast as two kernels and their temporaries. */
const few = 32768;

/** Σ g² of a small contiguous gradient in memory that this thread reads; null for others. */
function squaresOnHost(gradient: Tensor): number | null {
  const { backend } = gradient.storage;
  const { dtype, size, isContiguous } = gradient;
  if (size > few || !isContiguous || !backend.window || (dtype !== "float32" && dtype !== "float64"))
    return null;
  const values = backend.window(operand(gradient)) as Float32Array | Float64Array;
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i] * values[i];
  return total;
}

/** Throws unless all are tensors. */
function requireParameters(operation: string, parameters: readonly Tensor[]): void {
  requireList(operation, "parameters", parameters);
  for (const parameter of parameters) use(operation, parameter);
}

const waitForNorm =
  "there use `clipScale(await readGradNorm(parameters), maxNorm)` as `gradientScale` of the optimizer's step";

/**
 * The norm of the gradients of all `parameters` together, √Σ g² or another p-norm; those without one count as 0.
 * @param normType - p, above 0; Infinity for the largest magnitude
 * @throws {BackendError} on a backend that is read asynchronously
 */
export const gradNorm = (parameters: readonly Tensor[], normType = 2): number =>
  normFor("gradNorm", parameters, normType);

function normFor(operation: string, parameters: readonly Tensor[], normType: number): number {
  requireParameters(operation, parameters);
  requireThat(normType > 0, operation, "normType", "above 0", normType);
  const read = (value: Tensor): number => Number(hostValues(operation, value, waitForNorm)[0]);
  return tidy(() =>
    noGrad(() => {
      const norms: number[] = [];
      for (const { grad } of parameters) {
        if (grad && grad.size > 0)
          norms.push(
            normType === 2 ? (squaresOnHost(grad) ?? read(sum(square(grad)))) : read(norm(grad, normType)),
          );
      }
      if (normType === 2) return Math.sqrt(norms.reduce((total, squares) => total + squares, 0));
      if (normType === Number.POSITIVE_INFINITY) return Math.max(0, ...norms);
      return norms.reduce((total, each) => total + each ** normType, 0) ** (1 / normType);
    }),
  );
}

/** {@link gradNorm} of order 2 on any backend, also on one that is read asynchronously. */
export async function readGradNorm(parameters: readonly Tensor[]): Promise<number> {
  requireParameters("readGradNorm", parameters);
  let total = 0;
  const sums: Tensor[] = [];
  for (const { grad } of parameters) {
    if (!grad || grad.size === 0) continue;
    const squares = squaresOnHost(grad);
    if (squares === null) sums.push(noGrad(() => tidy(() => sum(square(grad)))));
    else total += squares;
  }
  try {
    for (const [value] of await Promise.all(sums.map((each) => each.data()))) total += Number(value);
    return Math.sqrt(total);
  } finally {
    for (const each of sums) each.dispose();
  }
}

/** The factor that brings a gradient of norm `norm` to at most `maxNorm`: min(1, maxNorm / (norm + 1e-6)), as in PyTorch. */
export function clipScale(norm: number, maxNorm: number): number {
  requireThat(maxNorm >= 0, "clipGradNorm", "maxNorm", "at least 0", maxNorm);
  return Math.min(1, maxNorm / (norm + 1e-6));
}

/**
 * Scales the gradients of all `parameters` so that their common norm is at most `maxNorm`, as torch.nn.utils.clip_grad_norm_.
 * @returns the norm before
 */
export function clipGradNorm(parameters: readonly Tensor[], maxNorm: number, normType = 2): number {
  const before = normFor("clipGradNorm", parameters, normType);
  const scale = clipScale(before, maxNorm);
  if (scale < 1 || Number.isNaN(scale)) {
    noGrad(() =>
      tidy(() => {
        for (const { grad } of parameters) grad?.copyFrom(mul(grad, scale));
      }),
    );
  }
  return before;
}

/** Brings every entry of the gradients of `parameters` to within ±`maxValue`, as torch.nn.utils.clip_grad_value_. */
export function clipGradValue(parameters: readonly Tensor[], maxValue: number): void {
  requireParameters("clipGradValue", parameters);
  requireThat(maxValue >= 0, "clipGradValue", "maxValue", "at least 0", maxValue);
  noGrad(() =>
    tidy(() => {
      for (const { grad } of parameters) grad?.copyFrom(clip(grad, -maxValue, maxValue));
    }),
  );
}
