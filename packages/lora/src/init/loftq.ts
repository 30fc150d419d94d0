// LoftQ (Li et al., arXiv:2310.08659): the base is quantized and the adapter takes over what quantization loses, by turns: Q = quantize(W
// − s·B·A), then s·B·A = the best approximation of W − Q of rank r. Another package's quantizer is used through layers alone.

import { ArgumentError, Generator, noGrad, type Tensor, tensor } from "@nomoat/core";
import type { LinearBase } from "@nomoat/core/nn";
import { type Adapter, adaptersOf, requireAdapter } from "../adapter.js";
import {
  fromTensor,
  lowRankSvd,
  type Matrix,
  matrix,
  multiply,
  scaleColumns,
  svd,
  transposed,
  truncated,
} from "../linalg.js";

import { LoraBranch } from "../variants/lora.js";

export interface LoftqOptions {
  /**
   * A layer like `layer` with the dense `weight` [out, in], quantized (default `layer.withDenseWeight(weight)`, which quantizes where
   * the base is quantized already).
   */
  quantize?: (weight: Tensor, layer: LinearBase, name: string) => LinearBase;
  /** The weight [out, in] before any quantization; disposed by the caller (default: that of the layer, which is too late for one that is quantized already). */
  weight?: (name: string) => Tensor;
  /** Turns of quantizing and approximating (default 1, PEFT's). */
  iterations?: number;
  /** Steps of a randomized SVD, for large layers (default: an exact SVD). */
  svdIterations?: number;
  /** Seed of the randomized SVD (default 0). */
  seed?: number;
}

/** How far a layer's quantized weight is from the original, without the adapter and with it. */
export interface LoftqError {
  readonly name: string;
  /** ‖W − quantize(W)‖ / ‖W‖. */
  readonly before: number;
  /** ‖W − Q − s·B·A‖ / ‖W‖. */
  readonly after: number;
}

const distance = (a: Matrix, b: Matrix): number =>
  Math.sqrt(a.data.reduce((sum, value, i) => sum + (value - b.data[i]) ** 2, 0));

function difference(a: Matrix, b: Matrix): Matrix {
  return matrix(
    a.rows,
    a.columns,
    a.data.map((value, i) => value - b.data[i]),
  );
}

/** The branches that can begin so; throws for others, and while anything rests on the base as it is. */
function plainBranches(adapter: Adapter): [name: string, branch: LoraBranch, base: LinearBase][] {
  for (const other of adaptersOf(adapter.model).values()) {
    if (other.merged)
      throw new ArgumentError(`initLoftq: adapter "${other.name}" is merged; unmerge it first`);
    if (other.config.useDora || other.config.bias !== "none")
      throw new ArgumentError(`initLoftq: adapter "${other.name}" rests on the base's weights or biases`);
  }
  return Array.from(adapter.branches(), ([name, branch]) => {
    const base = adapter.layers.get(name)?.slots.original as LinearBase;
    if (branch.constructor !== LoraBranch)
      throw new ArgumentError(`initLoftq: ${name} has no plain low-rank update of a linear layer`);
    return [name, branch as LoraBranch, base];
  });
}

/**
 * Quantizes the layers of a fresh adapter and begins its A and B with what that loses, so that Q + scaling · B · A is close to the
 * original weight. The new layers take the places of the old ones, which are disposed.
 *
 * @returns what was lost in each layer
 * @throws {ArgumentError} for adapters other than plain LoRA of linear layers, a model with merged adapters, DoRA or trained biases,
 *   a rank above a side of a weight, or weights of another shape; only layers before a fault are changed
 */
export function initLoftq(adapter: Adapter, options: LoftqOptions = {}): LoftqError[] {
  requireAdapter("initLoftq", adapter);
  const { iterations = 1, svdIterations, seed = 0 } = options;
  const quantize = options.quantize ?? ((weight: Tensor, layer: LinearBase) => layer.withDenseWeight(weight));
  if (!Number.isSafeInteger(iterations) || iterations < 1)
    throw new ArgumentError(`initLoftq: iterations must be a positive integer, not ${iterations}`);
  const generator = new Generator(seed);
  return plainBranches(adapter).map(([name, branch, base]) => {
    const dense = options.weight?.(name) ?? base.denseWeight();
    const { shape, dtype, device } = dense;
    if (shape.join() !== [base.outFeatures, base.inFeatures].join())
      throw new ArgumentError(`initLoftq: the weight of ${name} is [${shape.join(", ")}]`);
    const weight = fromTensor("initLoftq", dense);
    if (!options.weight) dense.dispose();
    if (branch.r > Math.min(weight.rows, weight.columns))
      throw new ArgumentError(`initLoftq: rank ${branch.r} exceeds a side of ${name}`);
    const norm = Math.sqrt(weight.data.reduce((sum, value) => sum + value * value, 0)) || 1;
    const place = ({ rows, columns, data }: Matrix) =>
      tensor(data, { shape: [rows, columns], dtype: dtype === "float64" ? dtype : "float32", device });
    let rest = weight;
    let before = 0;
    let after = 0;
    let layer: LinearBase | null = null;
    let factors: { a: Matrix; b: Matrix } | null = null;
    for (let i = 0; i < iterations; i++) {
      layer?.dispose();
      const target = place(rest);
      layer = noGrad(() => quantize(target, base, name));
      target.dispose();
      const back = layer.denseWeight();
      const quantized = fromTensor("initLoftq", back);
      back.dispose();
      const lost = difference(weight, quantized);
      if (i === 0) before = distance(weight, quantized) / norm;
      const parts =
        svdIterations === undefined
          ? truncated(svd(lost), branch.r)
          : lowRankSvd(lost, branch.r, { iterations: svdIterations, generator });
      const roots = parts.s.map(Math.sqrt);
      factors = { a: transposed(scaleColumns(parts.v, roots)), b: scaleColumns(parts.u, roots) };
      const product = multiply(factors.b, factors.a);
      after = distance(lost, product) / norm;
      rest = difference(weight, product);
    }
    const { a, b } = factors as { a: Matrix; b: Matrix };
    noGrad(() => {
      for (const [own, values] of [
        [branch.loraA, a],
        [branch.loraB, { ...b, data: b.data.map((value) => value / branch.scaling) }],
      ] as const) {
        const source = place(values);
        own.copyFrom(source);
        source.dispose();
      }
    });
    adapter.layers.get(name)?.slots.replaceOriginal(layer as LinearBase);
    return { name, before, after };
  });
}
