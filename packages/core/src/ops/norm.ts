// Normalisations over the last axis.

import { requireFloat } from "../dtype.js";
import { ShapeError } from "../errors.js";
import { tidy } from "../memory.js";
import { formatShape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { commonBackend, contiguous, empty, finish, operand } from "./dispatch.js";
import { add, mul, rsqrt, square } from "./elementwise.js";
import { fusedKernels } from "./fused.js";
import { mean } from "./reduce.js";

/**
 * x / √(mean x² + eps) · weight over the last axis (Zhang and Sennrich, arXiv:1910.07467).
 * @param weight - [n], n the length of x's last axis
 */
export function rmsNorm(x: Tensor, weight: Tensor, eps = 1e-6): Tensor {
  const backend = commonBackend("rmsNorm", [x, weight]);
  requireFloat("rmsNorm", "x", x.dtype);
  if (weight.rank !== 1 || x.rank === 0 || weight.shape[0] !== x.shape[x.rank - 1]) {
    throw new ShapeError(
      `rmsNorm: weight ${formatShape(weight.shape)} does not fit the last axis of x ${formatShape(x.shape)}`,
    );
  }
  if (!fusedKernels([x, weight], "rmsNorm", "rmsNormBackward")) return rmsNormReference(x, weight, eps);
  return tidy(() => {
    const rows = contiguous(x);
    const scale = contiguous(weight);
    const out = empty(backend, x.dtype, x.shape);
    const inverse = empty(backend, x.dtype, x.shape.slice(0, -1));
    backend.fused.rmsNorm!(operand(rows), operand(scale), eps, operand(out), operand(inverse));
    return finish("rmsNorm", [rows, scale], { eps }, out, [inverse]);
  });
}

/** rmsNorm in primitives. */
export function rmsNormReference(x: Tensor, weight: Tensor, eps: number): Tensor {
  return tidy(() => mul(mul(x, rsqrt(add(mean(square(x), -1, true), eps))), weight));
}
