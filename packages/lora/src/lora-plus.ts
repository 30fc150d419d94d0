// LoRA+ (Hayou, Ghosh and Yu, arXiv:2402.12354): B learns faster than A. Parameter groups for any optimizer, as PEFT's
// create_loraplus_optimizer.

import { ArgumentError, type Tensor } from "@nomoat/core";
import { requireOptions } from "@nomoat/core/extend";
import type { Adapter } from "./adapter.js";

export interface LoraPlusOptions {
  /** Learning rate of A. */
  learningRate: number;
  /** Learning rate of B over that of A, at least 1 (default 16, the paper's). */
  ratio?: number;
  /** Learning rate of embeddings' matrices (default 1e-6, PEFT's). */
  embeddingLearningRate?: number;
  /** Weight decay of matrices; vectors have none (default 0, PEFT's). */
  weightDecay?: number;
}

/** Parameters that share a learning rate; what an optimizer of core takes. */
export interface LoraPlusGroup {
  parameters: Tensor[];
  learningRate: number;
  weightDecay: number;
}

/**
 * The adapter's trainable parameters in groups with learning rates of their own: A, embeddings, B, vectors; empty ones left out.
 * Schedules (`optimizer.learningRateFactor`) keep the ratio.
 * @throws {ArgumentError} for rates or a ratio out of range
 */
export function loraPlusGroups(
  adapter: Pick<Adapter, "namedParameters">,
  options: LoraPlusOptions,
): LoraPlusGroup[] {
  requireOptions("loraPlusGroups", options);
  const { learningRate, ratio = 16, embeddingLearningRate = 1e-6, weightDecay = 0 } = options;
  for (const [name, value] of Object.entries({ learningRate, embeddingLearningRate, weightDecay })) {
    if (!(Number.isFinite(value) && value >= 0))
      throw new ArgumentError(`loraPlusGroups: ${name} must be finite and not negative, not ${value}`);
  }
  if (!(Number.isFinite(ratio) && ratio >= 1))
    throw new ArgumentError(`loraPlusGroups: ratio must be at least 1, not ${ratio}`);
  const a: Tensor[] = [];
  const embeddings: Tensor[] = [];
  const b: Tensor[] = [];
  const vectors: Tensor[] = [];
  for (const [key, tensor] of adapter.namedParameters()) {
    if (!tensor.requiresGrad) continue;
    if (key.includes(".lora_embedding_")) embeddings.push(tensor);
    else if (tensor.rank === 1) vectors.push(tensor);
    else if (key.includes(".lora_B")) b.push(tensor);
    else a.push(tensor);
  }
  return [
    { parameters: a, learningRate, weightDecay },
    { parameters: embeddings, learningRate: embeddingLearningRate, weightDecay },
    { parameters: b, learningRate: learningRate * ratio, weightDecay },
    { parameters: vectors, learningRate: learningRate * ratio, weightDecay: 0 },
  ].filter((group) => group.parameters.length > 0);
}
