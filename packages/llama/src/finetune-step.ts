// The gradient of one step: the sum over its batches.

import { mul, NomoatError, type Tensor, tidy } from "@nomoat/core";
import { type AdamW, clipScale, readGradNorm } from "@nomoat/core/optim";
import { batchTensors, countedLabels, type Row } from "./data/batches.js";
import { type BorrowedGenerator, inMode, nextTurn } from "./event-loop.js";
import type { LlamaForCausalLM } from "./model/model.js";

export interface GradientOptions {
  /** "tokens": the loss is the mean over all counted tokens of the step; "means": the mean of the batches' means. */
  accumulation: "tokens" | "means";
  gradientCheckpointing: boolean;
  /** What dropout draws from. */
  random: BorrowedGenerator;
  signal?: AbortSignal;
}

/**
 * Adds the gradient of the step's loss to the parameters' `grad`, batch by batch; between batches the event loop has its turn.
 * @returns the loss, in nats
 */
export async function accumulateGradients(
  model: LlamaForCausalLM,
  batches: readonly (readonly Row[])[],
  options: GradientOptions,
): Promise<number> {
  const counts = batches.map((rows) => rows.reduce((sum, row) => sum + countedLabels(row), 0));
  const counted = counts.reduce((sum, count) => sum + count, 0);
  let loss = 0;
  for (const [i, rows] of batches.entries()) {
    await nextTurn();
    options.signal?.throwIfAborted();
    const share = 1 / (options.accumulation === "tokens" ? counted : counts[i] * batches.length);
    const sum = options.random.run(() => inMode(model, true, () => addGradient(model, rows, share, options)));
    loss += Number((await sum.data())[0]) * share;
    sum.dispose();
  }
  return loss;
}

/** Adds the gradient of `share` · Σ losses of one batch; returns Σ losses. */
function addGradient(
  model: LlamaForCausalLM,
  rows: readonly Row[],
  share: number,
  { gradientCheckpointing }: GradientOptions,
): Tensor {
  return tidy(() => {
    const { ids, labels } = batchTensors(rows, model);
    const sum = model.loss(ids, labels, { reduction: "sum", gradientCheckpointing });
    mul(sum, share).backward();
    return sum.detach();
  });
}

/** Throws unless loss and gradient of a step are finite; `adapter` is named where several are trained. */
function requireFinite(step: number, what: "loss" | "gradient", value: number, adapter?: string): void {
  if (Number.isFinite(value)) return;
  throw new NomoatError(
    `finetune: the ${what} ${adapter === undefined ? "" : `of adapter "${adapter}" `}is ${value} at step ${step}; nothing was updated in this step. A smaller learningRate or more warmupSteps may help; otherwise the model's weights are not finite`,
    "NOT_FINITE",
  );
}

/**
 * Updates the parameters once by their gradients, clipped to norm `maxGradNorm`, and zeroes these.
 *
 * @param step - the update's number, from 1
 * @param loss - of the step, which has to be finite, as the gradient has
 * @param name - of the adapter, for errors, where several are trained
 * @returns the gradient's norm before clipping, and the (first group's) learning rate
 * @throws {NomoatError} with code "NOT_FINITE"; nothing is updated then
 */
export async function updateOnce(
  optimizer: AdamW,
  { step, loss, factor, maxGradNorm, name }: UpdateArguments,
): Promise<{ gradNorm: number; learningRate: number }> {
  requireFinite(step, "loss", loss, name);
  const gradNorm = await readGradNorm(optimizer.parameters());
  requireFinite(step, "gradient", gradNorm, name);
  optimizer.learningRateFactor = factor;
  const [learningRate] = optimizer.learningRates();
  optimizer.step({ gradientScale: clipScale(gradNorm, maxGradNorm) });
  optimizer.zeroGrad();
  return { gradNorm, learningRate };
}

interface UpdateArguments {
  readonly step: number;
  readonly loss: number;
  /** Of the learning rates. */
  readonly factor: number;
  readonly maxGradNorm: number;
  readonly name?: string;
}
