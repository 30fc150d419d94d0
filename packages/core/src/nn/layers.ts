// Embedding, RMSNorm, Dropout.

import { requireNonNegative, requireOptions, requireProbability } from "../arguments.js";
import { ones } from "../creation.js";
import { ArgumentError } from "../errors.js";
import { dropout } from "../ops/dropout.js";
import { embedding } from "../ops/indexing.js";
import { rmsNorm } from "../ops/norm.js";
import type { Generator } from "../random.js";
import type { Tensor } from "../tensor.js";
import { type InitOptions, normal } from "./init.js";
import { Module, parameter, requireWeight } from "./module.js";

/** A table of vectors, weight [numEmbeddings, embeddingDim]. */
export class Embedding extends Module {
  static override get brand(): string {
    return "@nomoat/core/Embedding";
  }

  readonly weight: Tensor;

  /** Takes over `weight` as a parameter. */
  constructor(weight: Tensor) {
    super();
    requireWeight("Embedding", "numEmbeddings, embeddingDim", weight);
    if (weight.rank !== 2)
      throw new ArgumentError(
        `Embedding: weight must be [numEmbeddings, embeddingDim], not [${weight.shape.join(", ")}]`,
      );
    this.weight = parameter(weight);
  }

  /** Standard normal values times `std` (default 1, as in PyTorch). */
  static create(
    numEmbeddings: number,
    embeddingDim: number,
    options: InitOptions & { std?: number } = {},
  ): Embedding {
    requireOptions("Embedding", options);
    const { std = 1, ...init } = options;
    return new Embedding(normal([numEmbeddings, embeddingDim], std, init));
  }

  /** int32 indices [...] → [..., embeddingDim]. */
  override forward(indices: Tensor): Tensor {
    return embedding(this.weight, indices);
  }
}

/** x / √(mean x² + eps) · weight over the last axis. */
export class RMSNorm extends Module {
  static override get brand(): string {
    return "@nomoat/core/RMSNorm";
  }

  readonly weight: Tensor;
  readonly eps: number;

  /** Takes over `weight` [n] as a parameter. */
  constructor(weight: Tensor, eps = 1e-6) {
    super();
    requireWeight("RMSNorm", "features", weight);
    requireNonNegative("RMSNorm", "eps", eps);
    this.weight = parameter(weight);
    this.eps = eps;
  }

  static create(features: number, eps = 1e-6, options: InitOptions = {}): RMSNorm {
    return new RMSNorm(ones([features], options), eps);
  }

  override forward(x: Tensor): Tensor {
    return rmsNorm(x, this.weight, this.eps);
  }
}

/** In training zeroes each element with probability p and scales the others by 1/(1−p). */
export class Dropout extends Module {
  static override get brand(): string {
    return "@nomoat/core/Dropout";
  }

  readonly p: number;
  readonly generator: Generator | undefined;

  /** @throws {ArgumentError} unless 0 ≤ p ≤ 1 */
  constructor(p = 0.5, generator?: Generator) {
    super();
    requireProbability("Dropout", "p", p);
    this.p = p;
    this.generator = generator;
  }

  override forward(x: Tensor): Tensor {
    return dropout(x, this.p, { training: this.training, generator: this.generator });
  }
}
