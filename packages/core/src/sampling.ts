// Random tensors other than the uniform and normal ones: integers, coins, orders, draws by weight.

import { describe, requireInteger, requireOptions, requireProbability, use } from "./arguments.js";
import {
  type CreationOptions,
  fromValues,
  generated,
  hostArray,
  type RandomOptions,
  target,
  withOptions,
} from "./creation.js";
import { requireFloat } from "./dtype.js";
import { ArgumentError } from "./errors.js";
import { hostValues } from "./ops/dispatch.js";
import { defaultGenerator, type Generator } from "./random.js";
import { checkShape, type Shape } from "./shape.js";
import type { Tensor } from "./tensor.js";

/**
 * Uniform integers in low … high − 1, int32 unless `dtype` says otherwise. The chance of two numbers differs by less than
 * (high − low) · 2⁻⁵³.
 * @throws {ArgumentError} unless low < high are integers
 */
export function randint(low: number, high: number, shape: Shape, options: RandomOptions = {}): Tensor {
  requireOptions("randint", options);
  if (!(Number.isSafeInteger(low) && Number.isSafeInteger(high) && low < high))
    throw new ArgumentError(
      `randint: expected integers low < high, not ${describe(low)} and ${describe(high)}`,
    );
  return generated(
    "randint",
    shape,
    { ...options, dtype: options.dtype ?? "int32" },
    Float64Array,
    (values) => {
      (options.generator ?? defaultGenerator()).fillUniform(values, 0, high - low);
      for (let i = 0; i < values.length; i++) values[i] = low + Math.floor(values[i]);
    },
  );
}

/** 1 with probability `p`, else 0. @throws {ArgumentError} unless 0 ≤ p ≤ 1 */
export function bernoulli(shape: Shape, p = 0.5, options: RandomOptions = {}): Tensor {
  requireProbability("bernoulli", "p", p);
  return generated("bernoulli", shape, options, Uint8Array, (values) =>
    (options.generator ?? defaultGenerator()).fillBernoulli(values, p),
  );
}

/** 0 … n − 1 in random order, int32 unless `dtype` says otherwise. */
export function permutation(n: number, options: RandomOptions = {}): Tensor {
  requireOptions("permutation", options);
  const { backend, dtype } = target("permutation", { ...options, dtype: options.dtype ?? "int32" });
  const order = (options.generator ?? defaultGenerator()).permutation(n);
  return withOptions(fromValues(backend, dtype, [n], order), options);
}

export interface MultinomialArguments extends Pick<CreationOptions, "requiresGrad"> {
  /** Whether a class may be drawn again (default false). */
  replacement?: boolean;
  generator?: Generator;
}

/**
 * Draws classes in proportion to their weights, as torch.multinomial.
 * @param weights - float [classes] or [rows, classes], not negative; they need not add up to 1
 * @returns int32 [numSamples] or [rows, numSamples], in the order drawn
 * @throws {ArgumentError} for a weight that is negative or not finite, and for more samples than there are classes of a weight
 */
export function multinomial(weights: Tensor, numSamples: number, options: MultinomialArguments = {}): Tensor {
  const { backend } = use("multinomial", weights);
  requireOptions("multinomial", options, ["requiresGrad", "replacement", "generator"]);
  requireFloat("multinomial", "weights", weights.dtype);
  if (weights.rank !== 1 && weights.rank !== 2)
    throw new ArgumentError(
      `multinomial: weights must be [classes] or [rows, classes], not rank ${weights.rank}`,
    );
  requireInteger("multinomial", "numSamples", numSamples, 0);
  const classes = weights.shape[weights.rank - 1];
  const rows = weights.rank === 2 ? weights.shape[0] : 1;
  checkShape("multinomial", [rows, numSamples]);
  const all = Float64Array.from(hostValues("multinomial", weights));
  const generator = options.generator ?? defaultGenerator();
  const draw = options.replacement ? drawAgain : drawOnce;
  const drawn = hostArray("multinomial", rows * numSamples, Int32Array);
  for (let row = 0; row < rows; row++) {
    const line = all.subarray(row * classes, (row + 1) * classes);
    const positive = line.reduce((count, weight, i) => {
      if (!(weight >= 0 && Number.isFinite(weight)))
        throw new ArgumentError(
          `multinomial: weight ${weight} of class ${i} in row ${row} must be finite and not negative`,
        );
      return count + (weight > 0 ? 1 : 0);
    }, 0);
    const possible = options.replacement ? (positive > 0 ? Number.POSITIVE_INFINITY : 0) : positive;
    if (numSamples > possible) {
      throw new ArgumentError(
        `multinomial: cannot draw ${numSamples} samples${options.replacement ? "" : " without replacement"} from ${positive} classes of a weight above 0 in row ${row}`,
      );
    }
    drawn.set(draw(line, numSamples, generator), row * numSamples);
  }
  return fromValues(backend, "int32", weights.rank === 2 ? [rows, numSamples] : [numSamples], drawn);
}

/** Each sample is the class in whose share of the sum a uniform number falls. */
function drawAgain(weights: ArrayLike<number>, count: number, generator: Generator): number[] {
  const upTo = new Float64Array(weights.length);
  let total = 0;
  for (let i = 0; i < weights.length; i++) upTo[i] = total += weights[i];
  const uniforms = new Float64Array(count);
  generator.fillUniform(uniforms);
  return Array.from(uniforms, (u) => {
    let [low, high] = [0, weights.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (upTo[middle] > u * total) high = middle;
      else low = middle + 1;
    }
    // Rounding can lead past the last class that has a weight.
    while (weights[low] === 0) low--;
    return low;
  });
}

/** The first arrivals of exponential clocks whose rates are the weights (Efraimidis and Spirakis 2006). */
function drawOnce(weights: ArrayLike<number>, count: number, generator: Generator): number[] {
  const times = new Float64Array(weights.length);
  generator.fillUniform(times);
  for (let i = 0; i < times.length; i++) times[i] = -Math.log1p(-times[i]) / weights[i];
  return Array.from(times, (_, i) => i)
    .filter((i) => weights[i] > 0)
    .sort((i, j) => times[i] - times[j])
    .slice(0, count);
}
