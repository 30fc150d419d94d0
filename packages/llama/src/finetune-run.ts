// What a training run consists of, alone or beside others: its parameters, optimizer, rows, identity, clock and result.

import { ArgumentError, Generator, type Tensor } from "@nomoat/core";
import type { Module } from "@nomoat/core/nn";
import { AdamW } from "@nomoat/core/optim";
import { loraPlusGroups } from "@nomoat/lora";
import type { Row } from "./data/batches.js";
import { makeRows, type RowsResult } from "./data/encode.js";
import { loadData } from "./data/examples.js";
import { fingerprint, type Progress, type RunIdentity } from "./finetune-checkpoint.js";
import type { FinetuneResult, FinetuneSettings, Trainable } from "./finetune-options.js";

/** Steps over which the reported speed is averaged. */
const speedWindow = 20;

/** Those of an adapter's parameters that gather gradients (LoRA-FA freezes A); all, where none does. */
function wantedOf(adapter: Trainable): Tensor[] {
  const trainable = adapter.trainableParameters?.() ?? [];
  return trainable.length > 0 ? trainable : adapter.parameters();
}

/** What is to be trained, by the names that it has in the model. */
export function trainedParameters(settings: FinetuneSettings): Map<string, Tensor> {
  const { model, adapter } = settings;
  if (adapter?.merged) throw new ArgumentError("finetune: adapter is merged; call adapter.unmerge() first");
  if (adapter?.active === false)
    throw new ArgumentError("finetune: adapter is disabled; call adapter.enable() first");
  const wanted = adapter ? wantedOf(adapter) : model.trainableParameters();
  if (wanted.length === 0) {
    throw new ArgumentError(
      adapter
        ? "finetune: adapter has no parameters"
        : "finetune: model has no parameter that requires a gradient; give an adapter, or call model.requiresGrad(true)",
    );
  }
  const names = new Map(Array.from(model.namedParameters(), ([name, tensor]) => [tensor, name]));
  return new Map(
    wanted.map((tensor, i) => {
      if (adapter && !names.has(tensor))
        throw new ArgumentError(
          "finetune: adapter is not on this model: its parameters are not among the model's",
        );
      return [names.get(tensor) ?? String(i), tensor];
    }),
  );
}

/** Lets gradients gather in `trained` alone; returns what puts everything back. */
export function requireGradients(model: Module, trained: ReadonlySet<Tensor>): () => void {
  const changed: Tensor[] = [];
  for (const tensor of model.parameters()) {
    if (tensor.requiresGrad === trained.has(tensor)) continue;
    tensor.requiresGrad = trained.has(tensor);
    changed.push(tensor);
  }
  return () => {
    for (const tensor of changed) if (!tensor.disposed) tensor.requiresGrad = !tensor.requiresGrad;
  };
}

export function makeOptimizer(settings: FinetuneSettings, parameters: readonly Tensor[]): AdamW {
  const { learningRate, betas, epsilon, weightDecay, loraPlusLrRatio: ratio, adapter } = settings;
  if (ratio !== undefined && adapter?.namedParameters) {
    const { loraPlusLrEmbedding: embeddingLearningRate } = settings;
    const named = { namedParameters: () => adapter.namedParameters?.() ?? [] };
    const options = { learningRate, ratio, embeddingLearningRate, weightDecay };
    return new AdamW(loraPlusGroups(named, options), { learningRate, betas, epsilon });
  }
  const groups = [
    { parameters: parameters.filter((tensor) => tensor.rank >= 2), weightDecay },
    { parameters: parameters.filter((tensor) => tensor.rank < 2), weightDecay: 0 },
  ];
  return new AdamW(groups, { learningRate, betas, epsilon });
}

/** The rows to train on, and those to evaluate on, if there are any. */
export async function rowsOf(
  settings: FinetuneSettings,
): Promise<{ data: RowsResult; validation: RowsResult | null }> {
  const { tokenizer, length, packing, signal, data, validation } = settings;
  const rows = async (from: typeof data): Promise<RowsResult> =>
    makeRows(await loadData(from), tokenizer, { length, packing, signal });
  return { data: await rows(data), validation: validation === undefined ? null : await rows(validation) };
}

export const tokensOf = (batches: readonly (readonly Row[])[]): number =>
  batches.flat().reduce((sum, row) => sum + row.ids.length, 0);

export function identityOf(settings: FinetuneSettings, rows: readonly Row[]): RunIdentity {
  const { batchSize, gradientAccumulationSteps, seed, shuffle, accumulation } = settings;
  const data = `${rows.length} rows ${fingerprint(rows)}`;
  return { data, batchSize, gradientAccumulationSteps, seed: String(seed), shuffle, accumulation };
}

export function freshProgress(seed: number | bigint): Progress {
  const counters = { step: 0, tokens: 0, trainingSeconds: 0, seconds: 0 };
  const random = new Generator(seed).fork("dropout").state();
  return { ...counters, losses: [], evaluations: [], random, generators: [] };
}

/** What a run tells at its end. */
export function resultOf(
  progress: Progress,
  { batchSize, gradientAccumulationSteps }: FinetuneSettings,
  { rows, truncated }: RowsResult,
  parameters: readonly Tensor[],
): FinetuneResult {
  const { step: steps, losses, evaluations, tokens, seconds, trainingSeconds } = progress;
  return {
    losses,
    evaluations,
    steps,
    tokens,
    seconds,
    tokensPerSecond: trainingSeconds > 0 ? tokens / trainingSeconds : 0,
    rows: rows.length,
    epochs: (steps * batchSize * gradientAccumulationSteps) / rows.length,
    trainedParameters: parameters.reduce((sum, tensor) => sum + tensor.size, 0),
    truncated,
  };
}

/** Times of a run, written into its progress. */
export class Clock {
  readonly #progress: Progress;
  /** The latest steps. */
  readonly #recent: { tokens: number; seconds: number }[] = [];
  #last = performance.now();

  constructor(progress: Progress) {
    this.#progress = progress;
  }

  /** Counts the time since the last call. */
  lap(what: "training" | "other", tokens = 0): void {
    const now = performance.now();
    const seconds = (now - this.#last) / 1000;
    this.#last = now;
    this.#progress.seconds += seconds;
    if (what === "other") return;
    this.#progress.trainingSeconds += seconds;
    this.#progress.tokens += tokens;
    this.#recent.push({ tokens, seconds });
    if (this.#recent.length > speedWindow) this.#recent.shift();
  }

  speed(stepsLeft: number): { tokensPerSecond: number; secondsLeft: number } {
    const tokens = this.#recent.reduce((sum, step) => sum + step.tokens, 0);
    const seconds = this.#recent.reduce((sum, step) => sum + step.seconds, 0);
    return { tokensPerSecond: tokens / seconds, secondsLeft: (seconds / this.#recent.length) * stepsLeft };
  }
}
