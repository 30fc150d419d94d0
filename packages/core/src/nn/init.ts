// Initial values of parameters, by PyTorch's names and formulas.

import { type CreationOptions, randn, uniform } from "../creation.js";
import { mul } from "../ops/elementwise.js";
import type { Generator } from "../random.js";
import type { Shape } from "../shape.js";
import type { Tensor } from "../tensor.js";

export interface InitOptions extends Pick<CreationOptions, "dtype" | "device"> {
  generator?: Generator;
}

/** Uniform in ±√(6 / ((1 + a²) · fanIn)) (He et al., arXiv:1502.01852); fanIn is the last axis. a = √5 is nn.Linear's default. */
export function kaimingUniform(shape: Shape, a = 0, options: InitOptions = {}): Tensor {
  const bound = Math.sqrt(6 / ((1 + a * a) * (shape[shape.length - 1] || 1)));
  return uniform(shape, -bound, bound, options);
}

/** Normal with mean 0 and standard deviation `std`. */
export function normal(shape: Shape, std: number, options: InitOptions = {}): Tensor {
  const values = randn(shape, options);
  const scaled = mul(values, std);
  values.dispose();
  return scaled;
}
