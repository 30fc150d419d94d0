// Dropout (Srivastava et al. 2014), scaled so that expectations stay.

import { requireOptions, requireProbability, use } from "../arguments.js";
import { fromValues } from "../creation.js";
import { requireFloat } from "../dtype.js";
import { tidy } from "../memory.js";
import { defaultGenerator, type Generator } from "../random.js";
import type { Tensor } from "../tensor.js";
import { alias, mul } from "./elementwise.js";

export interface DropoutArguments {
  /** False leaves x as it is (default true). */
  training?: boolean;
  /** Default: the generator that `manualSeed` seeds. */
  generator?: Generator;
}

/** Each element 0 with probability `p`, else scaled by 1/(1−p). @throws {ArgumentError} unless 0 ≤ p ≤ 1 */
export function dropout(x: Tensor, p = 0.5, options: DropoutArguments = {}): Tensor {
  use("dropout", x);
  requireFloat("dropout", "x", x.dtype);
  requireOptions("dropout", options, ["training", "generator"]);
  requireProbability("dropout", "p", p);
  if (p === 0 || !(options.training ?? true)) return alias(x);
  return tidy(() => mul(x, dropoutMask(x, p, options.generator ?? defaultGenerator())));
}

/** 0 with probability p, else 1/(1−p), in the shape, dtype and backend of `x`. */
export function dropoutMask(x: Tensor, p: number, generator: Generator): Tensor {
  use("dropoutMask", x);
  const mask = new Float32Array(x.size);
  generator.fillBernoulli(mask, 1 - p);
  const scale = p < 1 ? 1 / (1 - p) : 0;
  for (let i = 0; i < mask.length; i++) mask[i] *= scale;
  return fromValues(x.storage.backend, x.dtype, x.shape, mask);
}
