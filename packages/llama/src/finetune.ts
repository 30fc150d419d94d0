// Fine-tuning, as a plain loop: gradients of a few batches, clip, update, measure, save.

import { ArgumentError, Generator, type Tensor } from "@nomoat/core";
import { AdamW, clipScale, readGradNorm } from "@nomoat/core/optim";
import { loraPlusGroups } from "@nomoat/lora";
import { type Row, RowOrder } from "./data/batches.js";
import { makeRows, type RowsResult } from "./data/encode.js";
import { loadData } from "./data/examples.js";
import { BorrowedGenerator } from "./event-loop.js";
import {
  fingerprint,
  loadCheckpoint,
  type Progress,
  type RunIdentity,
  saveCheckpoint,
} from "./finetune-checkpoint.js";
import {
  checkOptions,
  type FinetuneOptions,
  type FinetuneResult,
  type FinetuneSettings,
  scheduleOf,
  type Trainable,
} from "./finetune-options.js";
import { accumulateGradients, requireFinite } from "./finetune-step.js";
import { ownGenerators } from "./model/generators.js";
import { meanLoss } from "./perplexity.js";

/** Steps over which the reported speed is averaged. */
const speedWindow = 20;

/** Those of an adapter's parameters that gather gradients (LoRA-FA freezes A); all, where none does. */
function wantedOf(adapter: Trainable): Tensor[] {
  const trainable = adapter.trainableParameters?.() ?? [];
  return trainable.length > 0 ? trainable : adapter.parameters();
}

/** What is to be trained, by the names that it has in the model. */
function trainedParameters(settings: FinetuneSettings): Map<string, Tensor> {
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
function requireGradients(settings: FinetuneSettings, trained: ReadonlySet<Tensor>): () => void {
  const changed: Tensor[] = [];
  for (const tensor of settings.model.parameters()) {
    if (tensor.requiresGrad === trained.has(tensor)) continue;
    tensor.requiresGrad = trained.has(tensor);
    changed.push(tensor);
  }
  return () => {
    for (const tensor of changed) if (!tensor.disposed) tensor.requiresGrad = !tensor.requiresGrad;
  };
}

function makeOptimizer(settings: FinetuneSettings, parameters: readonly Tensor[]): AdamW {
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

async function rowsOf(settings: FinetuneSettings, which: "data" | "validation"): Promise<RowsResult> {
  const { tokenizer, length, packing, signal } = settings;
  return makeRows(await loadData(settings[which]!), tokenizer, { length, packing, signal });
}

/**
 * Trains an adapter, or a model's own parameters, to predict the next token of `data`.
 *
 * ```ts
 * const adapter = applyLora(model, { r: 8, loraAlpha: 16, targetModules: "all-linear" });
 * await finetune({ model, tokenizer, adapter, data: "notes.jsonl", steps: 200, onStep: console.log });
 * ```
 *
 * A step: the gradient of the mean loss over the tokens that count in `gradientAccumulationSteps` batches, scaled down to norm
 * `maxGradNorm`, and one update of AdamW at `learningRate` · schedule(step). Between batches the event loop has its turn. Modes
 * (training or evaluation) and `requiresGrad` of the model's parameters are put back at the end; gradients and the optimizer's state are
 * freed.
 *
 * The same data, options and seed give the same numbers, for any number of threads; a run that goes on from a checkpoint gives the same
 * numbers as one that never stopped, bit for bit.
 *
 * @throws {ArgumentError} naming the option that is unknown or out of range
 * @throws {FormatError} for data files, with `file:line: field: reason`
 * @throws {NomoatError} with code "NOT_FINITE", naming the step, when the loss or the gradient is not finite
 * @throws `signal.reason` when aborted
 */
export async function finetune(options: FinetuneOptions): Promise<FinetuneResult> {
  const settings = checkOptions(options);
  const { signal } = settings;
  const parameters = trainedParameters(settings);
  signal?.throwIfAborted();
  const data = await rowsOf(settings, "data");
  const validation = settings.validation === undefined ? null : await rowsOf(settings, "validation");

  const restore = requireGradients(settings, new Set(parameters.values()));
  const optimizer = makeOptimizer(settings, [...parameters.values()]);
  try {
    return await train(settings, parameters, optimizer, data, validation);
  } finally {
    optimizer.zeroGrad();
    optimizer.dispose();
    restore();
  }
}

/** The loop. */
async function train(
  settings: FinetuneSettings,
  parameters: ReadonlyMap<string, Tensor>,
  optimizer: AdamW,
  data: RowsResult,
  validation: RowsResult | null,
): Promise<FinetuneResult> {
  const { model, batchSize, gradientAccumulationSteps, checkpoint, signal } = settings;
  const { rows } = data;
  const rowsPerStep = batchSize * gradientAccumulationSteps;
  const steps = settings.steps ?? Math.ceil(rows.length / rowsPerStep);
  const evaluateEvery = settings.evaluateEvery ?? steps;
  const saveEvery = checkpoint?.every ?? 100;
  const schedule = scheduleOf(settings, steps);
  const order = new RowOrder(rows.length, settings);
  const identity = identityOf(settings, rows);
  const progress = settings.resumeFrom
    ? await loadCheckpoint(settings.resumeFrom, parameters, optimizer, model, identity)
    : freshProgress(settings.seed);
  const random = new BorrowedGenerator(progress.random);
  const clock = new Clock(progress);
  let saved = progress.step;
  const save = async (): Promise<void> => {
    if (!checkpoint || saved === progress.step) return;
    const places = { random: random.state, generators: ownGenerators(model).map((own) => own.state()) };
    await saveCheckpoint(checkpoint.folder, parameters, optimizer, { ...progress, ...places }, identity);
    saved = progress.step;
  };

  try {
    for (;;) {
      const { step } = progress;
      const due = (every: number): boolean => step > 0 && (step % every === 0 || step === steps);
      if (validation && due(evaluateEvery) && progress.evaluations.at(-1)?.step !== step) {
        const { loss } = await meanLoss(model, validation.rows, { batch: batchSize, signal });
        progress.evaluations.push({ step, loss, perplexity: Math.exp(loss) });
        await settings.onEvaluate?.({ step, loss, perplexity: Math.exp(loss) });
      }
      clock.lap("other");
      if (due(saveEvery)) await save();
      if (step >= steps) break;

      const batches = Array.from({ length: gradientAccumulationSteps }, (_, i) =>
        Array.from({ length: batchSize }, (_, j) => rows[order.at(step * rowsPerStep + i * batchSize + j)]),
      );
      const undo = rememberGenerators(model, random);
      try {
        const loss = await accumulateGradients(model, batches, { ...settings, random });
        requireFinite(step + 1, "loss", loss);
        const norm = await readGradNorm(optimizer.parameters());
        requireFinite(step + 1, "gradient", norm);
        optimizer.learningRateFactor = schedule(step);
        const [learningRate] = optimizer.learningRates();
        optimizer.step({ gradientScale: clipScale(norm, settings.maxGradNorm) });
        optimizer.zeroGrad();

        progress.step++;
        progress.losses.push(loss);
        clock.lap("training", tokensOf(batches));
        const info = { step: progress.step, steps, loss, gradNorm: norm, learningRate };
        await settings.onStep?.({ ...info, ...clock.speed(steps - progress.step) });
      } catch (error) {
        if (progress.step === step) undo();
        throw error;
      }
    }
  } catch (error) {
    if (signal?.aborted) await save();
    throw error;
  }
  const { losses, evaluations, tokens, seconds, trainingSeconds } = progress;
  return {
    losses,
    evaluations,
    steps: progress.step,
    tokens,
    seconds,
    tokensPerSecond: trainingSeconds > 0 ? tokens / trainingSeconds : 0,
    rows: rows.length,
    epochs: (progress.step * rowsPerStep) / rows.length,
    trainedParameters: [...parameters.values()].reduce((sum, tensor) => sum + tensor.size, 0),
    truncated: data.truncated,
  };
}

const tokensOf = (batches: readonly (readonly Row[])[]): number =>
  batches.flat().reduce((sum, row) => sum + row.ids.length, 0);

function identityOf(settings: FinetuneSettings, rows: readonly Row[]): RunIdentity {
  const { batchSize, gradientAccumulationSteps, seed, shuffle, accumulation } = settings;
  const data = `${rows.length} rows ${fingerprint(rows)}`;
  return { data, batchSize, gradientAccumulationSteps, seed: String(seed), shuffle, accumulation };
}

function freshProgress(seed: number | bigint): Progress {
  const counters = { step: 0, tokens: 0, trainingSeconds: 0, seconds: 0 };
  const random = new Generator(seed).fork("dropout").state();
  return { ...counters, losses: [], evaluations: [], random, generators: [] };
}

/** Notes where random numbers stand; the returned function puts them back there. */
function rememberGenerators(model: FinetuneSettings["model"], random: BorrowedGenerator): () => void {
  const { state } = random;
  const own = ownGenerators(model).map((generator) => [generator, generator.state()] as const);
  return () => {
    random.state = state;
    for (const [generator, place] of own) generator.setState(place);
  };
}

/** Times of a run, written into its progress. */
class Clock {
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
