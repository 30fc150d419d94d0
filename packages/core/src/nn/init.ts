// Initial values of parameters, by PyTorch's names and formulas. Weights are [outFeatures, inFeatures] or, of convolutions,
// [outChannels, inChannels, kernel…].

import { requireFinite, requireNonNegative, requireOptions } from "../arguments.js";
import { noGrad } from "../autograd/graph.js";
import { type CreationOptions, fromValues, full, randn, target, uniform } from "../creation.js";
import { ArgumentError, ShapeError } from "../errors.js";
import { tidy } from "../memory.js";
import { mul_ } from "../ops/in-place.js";
import { defaultGenerator, type Generator } from "../random.js";
import { checkShape, formatShape, type Shape, sizeOf } from "../shape.js";
import type { Tensor } from "../tensor.js";

export interface InitOptions extends Pick<CreationOptions, "dtype" | "device"> {
  generator?: Generator;
}

/** Inputs that one output sees. */
export function fanIn(shape: Shape): number {
  checkShape("fanIn", shape);
  return (shape.length < 2 ? shape[0] : sizeOf(shape.slice(1))) || 1;
}

/** Outputs that one input reaches. */
export function fanOut(shape: Shape): number {
  checkShape("fanOut", shape);
  return (shape.length < 2 ? shape[0] : shape[0] * sizeOf(shape.slice(2))) || 1;
}

/** Uniform in ±√(6 / ((1 + a²) · fanIn)) (He et al., arXiv:1502.01852). a = √5 is nn.Linear's default. */
export function kaimingUniform(shape: Shape, a = 0, options: InitOptions = {}): Tensor {
  requireFinite("kaimingUniform", "a", a);
  const bound = Math.sqrt(6 / ((1 + a * a) * fanIn(shape)));
  return uniform(shape, -bound, bound, options);
}

/** Normal with standard deviation √(2 / ((1 + a²) · fanIn)) (He et al., arXiv:1502.01852). */
export function kaimingNormal(shape: Shape, a = 0, options: InitOptions = {}): Tensor {
  requireFinite("kaimingNormal", "a", a);
  return normal(shape, Math.sqrt(2 / ((1 + a * a) * fanIn(shape))), options);
}

/** Uniform in ±gain · √(6 / (fanIn + fanOut)) (Glorot and Bengio 2010). */
export function xavierUniform(shape: Shape, gain = 1, options: InitOptions = {}): Tensor {
  requireFinite("xavierUniform", "gain", gain);
  const bound = gain * Math.sqrt(6 / (fanIn(shape) + fanOut(shape)));
  return uniform(shape, -bound, bound, options);
}

/** Normal with standard deviation gain · √(2 / (fanIn + fanOut)) (Glorot and Bengio 2010). */
export function xavierNormal(shape: Shape, gain = 1, options: InitOptions = {}): Tensor {
  requireFinite("xavierNormal", "gain", gain);
  return normal(shape, gain * Math.sqrt(2 / (fanIn(shape) + fanOut(shape))), options);
}

/** Normal with mean 0 and standard deviation `std`. */
export function normal(shape: Shape, std: number, options: InitOptions = {}): Tensor {
  requireNonNegative("normal", "std", std);
  const values = randn(shape, options);
  const { dtype, device } = values;
  // In place: a copy of the largest weight would be a hole in the memory later.
  noGrad(() => tidy(() => mul_(values, full([], std, { dtype, device }))));
  return values;
}

/**
 * Normal numbers with mean 0, those outside [low, high] drawn again. The standard deviation `std` is that before.
 * @throws {ArgumentError} when the interval misses [−4 std, 4 std] or is narrower than std / 100
 */
export function truncNormal(
  shape: Shape,
  std = 1,
  options: InitOptions & { low?: number; high?: number } = {},
): Tensor {
  requireOptions("truncNormal", options);
  const { low = -2, high = 2, generator = defaultGenerator(), ...creation } = options;
  for (const [name, value] of Object.entries({ std, low, high })) requireFinite("truncNormal", name, value);
  if (!(std > 0 && high - low >= std / 100 && low <= 4 * std && high >= -4 * std))
    throw new ArgumentError(
      `truncNormal: [${low}, ${high}] holds too little of a normal distribution of std ${std}`,
    );
  const { backend, dtype } = target("truncNormal", creation);
  checkShape("truncNormal", shape);
  const values = new Float64Array(sizeOf(shape));
  const draws = new Float64Array(Math.min(values.length, 4096));
  for (let filled = 0; filled < values.length; ) {
    generator.fillNormal(draws, 0, std);
    for (const draw of draws) {
      if (draw < low || draw > high || filled === values.length) continue;
      values[filled++] = draw;
    }
  }
  return fromValues(backend, dtype, [...shape], values);
}

/**
 * Orthonormal rows or columns, whichever are fewer, times `gain`, of the weight seen as [shape[0], rest] (Saxe et al.,
 * arXiv:1312.6120); uniformly distributed.
 */
export function orthogonal(shape: Shape, gain = 1, options: InitOptions = {}): Tensor {
  checkShape("orthogonal", shape);
  requireFinite("orthogonal", "gain", gain);
  requireOptions("orthogonal", options);
  if (shape.length < 2)
    throw new ShapeError(`orthogonal: expected at least two axes, not ${formatShape(shape)}`);
  const { generator = defaultGenerator(), ...creation } = options;
  const { backend, dtype } = target("orthogonal", creation);
  const [rows, columns] = [shape[0], sizeOf(shape.slice(1))];
  const [count, length] = [Math.min(rows, columns), Math.max(rows, columns)];
  const vectors = Array.from({ length: count }, () => new Float64Array(length));
  vectors.forEach((vector, i) => {
    generator.fillNormal(vector);
    // Gram and Schmidt, twice: once leaves an error that grows with the condition number.
    for (let pass = 0; pass < 2; pass++) {
      for (const other of vectors.slice(0, i)) {
        let product = 0;
        for (let k = 0; k < length; k++) product += vector[k] * other[k];
        for (let k = 0; k < length; k++) vector[k] -= product * other[k];
      }
      let square = 0;
      for (const value of vector) square += value * value;
      const inverse = 1 / Math.sqrt(square);
      for (let k = 0; k < length; k++) vector[k] *= inverse;
    }
  });
  const values = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++)
    for (let j = 0; j < columns; j++)
      values[i * columns + j] = gain * (rows <= columns ? vectors[i][j] : vectors[j][i]);
  return fromValues(backend, dtype, [...shape], values);
}
