// Gradient clipping.

import { noGrad } from "../autograd/graph.js";
import { ArgumentError } from "../errors.js";
import { tidy } from "../memory.js";
import { mul, square } from "../ops/elementwise.js";
import { sum } from "../ops/reduce.js";
import type { Tensor } from "../tensor.js";

/** √Σ g² over the gradients of all `parameters` together; those without one count as 0. */
export function gradNorm(parameters: readonly Tensor[]): number {
  return tidy(() =>
    noGrad(() => {
      let squares = 0;
      for (const { grad } of parameters) if (grad) squares += sum(square(grad)).item();
      return Math.sqrt(squares);
    }),
  );
}

/** The factor that brings a gradient of norm `norm` to at most `maxNorm`: min(1, maxNorm / (norm + 1e-6)), as in PyTorch. */
export function clipScale(norm: number, maxNorm: number): number {
  if (!(maxNorm >= 0)) throw new ArgumentError(`clipGradNorm: maxNorm must not be negative, not ${maxNorm}`);
  return Math.min(1, maxNorm / (norm + 1e-6));
}

/**
 * Scales the gradients of all `parameters` so that their common norm is at most `maxNorm`, as torch.nn.utils.clip_grad_norm_.
 * @returns the norm before
 */
export function clipGradNorm(parameters: readonly Tensor[], maxNorm: number): number {
  const norm = gradNorm(parameters);
  const scale = clipScale(norm, maxNorm);
  if (scale < 1 || Number.isNaN(scale)) {
    noGrad(() =>
      tidy(() => {
        for (const { grad } of parameters) grad?.copyFrom(mul(grad, scale));
      }),
    );
  }
  return norm;
}
