// Standard deviation and p-norms: roots of sums, whose gradient is taken as 0 where the root of 0 has none.

import { requireFinite, requireThat, use } from "../arguments.js";
import { isFloat } from "../dtype.js";
import { tidy } from "../memory.js";
import { reducedAxes } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { abs, cast, equal, notEqual, pow, sqrt, square, where } from "./elementwise.js";
import { throughFloat32 } from "./narrow.js";
import { max, min, sum, variance } from "./reduce.js";

type Axes = number | readonly number[];

/** `root` of x where x is not 0, and 0 with a gradient of 0 where it is (as PyTorch defines it). */
function rootOrZero(x: Tensor, root: (x: Tensor) => Tensor): Tensor {
  const zero = equal(x, 0);
  return where(zero, 0, root(where(zero, 1, x)));
}

/** Standard deviation, √variance; correction 1 is PyTorch's default, 0 NumPy's. The gradient of a constant is 0. */
export function std(x: Tensor, axes?: Axes, keepDims = false, correction = 1): Tensor {
  use("std", x);
  const list = reducedAxes("std", axes, keepDims, x.rank);
  requireFinite("std", "correction", correction);
  const narrow = throughFloat32(x, (wide) => std(wide, list, keepDims, correction));
  if (narrow) return narrow;
  return tidy(() => rootOrZero(variance(x, list, keepDims, correction), sqrt));
}

/**
 * The p-norm (Σ |x|^p)^(1/p) of all elements or along axes, as torch.linalg.vector_norm. `p` may be 0 (how many are not 0), Infinity
 * (the largest magnitude) and −Infinity (the smallest).
 * @throws {ShapeError} for ±Infinity over an empty axis
 */
export function norm(x: Tensor, p = 2, axes?: Axes, keepDims = false): Tensor {
  use("norm", x);
  reducedAxes("norm", axes, keepDims, x.rank);
  requireThat(typeof p === "number" && !Number.isNaN(p), "norm", "p", "a number", p);
  if (!isFloat(x.dtype)) return tidy(() => norm(cast(x, "float32"), p, axes, keepDims));
  const narrow = throughFloat32(x, (wide) => norm(wide, p, axes, keepDims));
  if (narrow) return narrow;
  return tidy(() => {
    if (p === 0) return sum(cast(notEqual(x, 0), x.dtype), axes, keepDims);
    if (p === 2) return rootOrZero(sum(square(x), axes, keepDims), sqrt);
    const magnitude = abs(x);
    if (p === 1) return sum(magnitude, axes, keepDims);
    if (!Number.isFinite(p)) return (p > 0 ? max : min)(magnitude, axes, keepDims);
    if (p < 0) {
      // One 0 makes the norm 0, whose gradient PyTorch defines as 0.
      const zero = equal(magnitude, 0);
      const powers = where(zero, Number.POSITIVE_INFINITY, pow(where(zero, 1, magnitude), p));
      return pow(sum(powers, axes, keepDims), 1 / p);
    }
    const powers = rootOrZero(magnitude, (positive) => pow(positive, p));
    return rootOrZero(sum(powers, axes, keepDims), (total) => pow(total, 1 / p));
  });
}
