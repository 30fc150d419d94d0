// Operations made of others on 16-bit floats.

import { isFloat } from "../dtype.js";
import { tidy } from "../memory.js";
import type { Tensor } from "../tensor.js";
import { cast } from "./elementwise.js";

/**
 * For a float that is only stored, `fn` of `x` in float32, rounded once at the end, where its steps one by one would overflow or round
 * each; null for what the backend computes in, and for integers.
 */
export function throughFloat32(x: Tensor, fn: (wide: Tensor) => Tensor): Tensor | null {
  if (!isFloat(x.dtype) || x.storage.backend.arithmetic.has(x.dtype)) return null;
  return tidy(() => cast(fn(cast(x, "float32")), x.dtype));
}
