// Several adapters of one frozen model, trained in one pass: each row of a batch belongs to one of them, and the base's products are
// shared. Each run keeps its own data, options, optimizer, random numbers and checkpoint, as if it were alone.

import type { Tensor } from "@nomoat/core";
import { ArgumentError, Generator, tidy } from "@nomoat/core";
import type { AdamW } from "@nomoat/core/optim";
import { type Adapter, adaptersOf, saveAdapter, withAdapterRows } from "@nomoat/lora";
import { batchTensors, countedLabels, type Row, RowOrder } from "./data/batches.js";
import type { RowsResult } from "./data/encode.js";
import { inMode, nextTurn } from "./event-loop.js";
import { loadCheckpoint, type Progress, type RunIdentity, saveCheckpoint } from "./finetune-checkpoint.js";
import {
  checkOptions,
  type FinetuneOptions,
  type FinetuneResult,
  type FinetuneSettings,
  scheduleOf,
} from "./finetune-options.js";
import {
  Clock,
  freshProgress,
  identityOf,
  makeOptimizer,
  requireGradients,
  resultOf,
  rowsOf,
  tokensOf,
  trainedParameters,
} from "./finetune-run.js";
import { updateOnce } from "./finetune-step.js";
import { ownGenerators } from "./model/generators.js";
import type { LlamaForCausalLM } from "./model/model.js";
import { OptionChecker } from "./options.js";
import { meanLoss } from "./perplexity.js";
import type { Tokenizer } from "./tokenizer.js";

type Shared = "model" | "tokenizer" | "adapter" | "gradientCheckpointing" | "signal";

/** One adapter, its data and what `finetune` takes besides. */
export interface TogetherRun extends Omit<FinetuneOptions, Shared> {
  adapter: Adapter;
  /** A folder that the adapter is saved to when its run ends. */
  saveTo?: string;
}

export interface FinetuneTogetherOptions {
  model: LlamaForCausalLM;
  tokenizer: Tokenizer;
  /** What is trained together; numbers of steps, rows and tokens may differ. */
  runs: readonly TogetherRun[];
  /** Computes each block again in the backward pass (default false). */
  gradientCheckpointing?: boolean;
  /** Ends all runs with `signal.reason` as error; where one has a `checkpoint`, its last whole step is saved. */
  signal?: AbortSignal;
}

/** One run's rows of a pass. */
interface Part {
  readonly run: Run;
  readonly rows: readonly Row[];
  /** Factor of the sum of their losses. */
  readonly share: number;
}

/** One adapter's training: what `finetune` does for it, cut open where passes are shared. */
class Run {
  readonly adapter: Adapter;
  readonly optimizer: AdamW;
  readonly parameters: ReadonlyMap<string, Tensor>;
  readonly #settings: FinetuneSettings;
  readonly #data: RowsResult;
  readonly #validation: RowsResult | null;
  readonly #saveTo: string | undefined;
  readonly #steps: number;
  readonly #schedule: (step: number) => number;
  readonly #order: RowOrder;
  readonly #identity: RunIdentity;
  #progress: Progress;
  #clock: Clock;
  /** What its dropout draws from, and where that stood before the step at hand. */
  #random: Generator;
  #randomBefore: Progress["random"];
  #saved: number;
  /** Batches of the step at hand, and its loss so far. */
  #batches: Row[][] = [];
  #done = 0;
  #loss = 0;

  constructor(
    settings: FinetuneSettings,
    adapter: Adapter,
    data: RowsResult,
    validation: RowsResult | null,
    saveTo?: string,
  ) {
    this.#settings = settings;
    this.adapter = adapter;
    this.#data = data;
    this.#validation = validation;
    this.#saveTo = saveTo;
    this.parameters = trainedParameters(settings);
    const perStep = settings.batchSize * settings.gradientAccumulationSteps;
    this.#steps = settings.steps ?? Math.ceil(data.rows.length / perStep);
    this.#schedule = scheduleOf(settings, this.#steps);
    this.#order = new RowOrder(data.rows.length, settings);
    this.#identity = identityOf(settings, data.rows);
    this.#progress = freshProgress(settings.seed);
    this.#clock = new Clock(this.#progress);
    this.#randomBefore = this.#progress.random;
    this.#random = Generator.restore(this.#randomBefore);
    this.#saved = 0;
    this.optimizer = makeOptimizer(settings, [...this.parameters.values()]);
  }

  /** Reads the checkpoint that it goes on from, if any. */
  async load(): Promise<void> {
    const { resumeFrom, model } = this.#settings;
    if (!resumeFrom) return;
    this.#progress = await loadCheckpoint(resumeFrom, this.parameters, this.optimizer, model, this.#identity);
    this.#saved = this.#progress.step;
    this.#randomBefore = this.#progress.random;
    this.#random = Generator.restore(this.#randomBefore);
  }

  /** Takes over its adapter's dropout. */
  begin(): void {
    this.#clock = new Clock(this.#progress);
    this.adapter.setDropoutGenerator(this.#random);
  }

  /** What is due between steps. @returns false when the run is over */
  async between(): Promise<boolean> {
    const progress = this.#progress;
    const { step } = progress;
    const { checkpoint, batchSize, model, evaluateEvery = this.#steps, signal } = this.#settings;
    if (this.#done > 0) return true;
    const due = (every: number): boolean => step > 0 && (step % every === 0 || step === this.#steps);
    if (this.#validation && due(evaluateEvery) && progress.evaluations.at(-1)?.step !== step) {
      const { rows } = this.#validation;
      const measure = () => meanLoss(model, rows, { batch: batchSize, signal });
      const { loss } = await withAdapterRows(model, [this.adapter.name], measure);
      progress.evaluations.push({ step, loss, perplexity: Math.exp(loss) });
      await this.#settings.onEvaluate?.({ step, loss, perplexity: Math.exp(loss) });
    }
    this.#clock.lap("other");
    if (checkpoint && due(checkpoint.every ?? 100)) await this.save();
    if (step < this.#steps) return true;
    if (this.#saveTo !== undefined) await saveAdapter(this.adapter, this.#saveTo);
    return false;
  }

  /** Writes the checkpoint of the last whole step, where one is wanted. */
  async save(): Promise<void> {
    const { checkpoint } = this.#settings;
    const progress = this.#progress;
    if (!checkpoint || this.#saved === progress.step) return;
    const state = { ...progress, random: this.#randomBefore, generators: [] };
    await saveCheckpoint(checkpoint.folder, this.parameters, this.optimizer, state, this.#identity);
    this.#saved = progress.step;
  }

  /** The next batch. */
  next(): Part {
    const { batchSize, gradientAccumulationSteps: count, accumulation } = this.#settings;
    const { rows } = this.#data;
    if (this.#done === 0) {
      const first = this.#progress.step * batchSize * count;
      this.#batches = Array.from({ length: count }, (_, i) =>
        Array.from({ length: batchSize }, (_, j) => rows[this.#order.at(first + i * batchSize + j)]),
      );
      this.#loss = 0;
    }
    const batch = this.#batches[this.#done];
    const countedIn = (some: readonly Row[]): number =>
      some.reduce((sum, row) => sum + countedLabels(row), 0);
    const counted = accumulation === "tokens" ? countedIn(this.#batches.flat()) : countedIn(batch) * count;
    return { run: this, rows: batch, share: 1 / counted };
  }

  /** Takes note of a batch's loss; after the step's last one it updates. */
  async passed(loss: number): Promise<void> {
    this.#loss += loss;
    if (++this.#done < this.#batches.length) return;
    const progress = this.#progress;
    const step = progress.step + 1;
    const factor = this.#schedule(progress.step);
    const { maxGradNorm } = this.#settings;
    const update = { step, loss: this.#loss, factor, maxGradNorm, name: this.adapter.name };
    const updated = await updateOnce(this.optimizer, update);
    this.#done = 0;
    this.#randomBefore = this.#random.state();
    progress.step = step;
    progress.losses.push(this.#loss);
    this.#clock.lap("training", tokensOf(this.#batches));
    const info = { step, steps: this.#steps, loss: this.#loss, ...updated };
    await this.#settings.onStep?.({ ...info, ...this.#clock.speed(this.#steps - step) });
  }

  result(): FinetuneResult {
    return resultOf(this.#progress, this.#settings, this.#data, [...this.parameters.values()]);
  }

  /** Frees the optimizer and gives dropout back. */
  end(): void {
    this.optimizer.zeroGrad();
    this.optimizer.dispose();
    this.adapter.setDropoutGenerator(null);
  }
}

/** Gradients of one batch of every run, in one pass; returns each one's share of the loss. */
async function pass(
  model: LlamaForCausalLM,
  parts: readonly Part[],
  gradientCheckpointing: boolean,
): Promise<number[]> {
  const rows = parts.flatMap((part) => part.rows);
  const names = parts.flatMap(({ run, rows }) => rows.map(() => run.adapter.name));
  const factors = parts.flatMap(({ share, rows }) => rows.map(() => share));
  // As long as its longest row alone would make the batch.
  const lengths = parts.flatMap(({ rows }) => {
    const longest = Math.max(...rows.map((row) => row.ids.length));
    return rows.map(() => longest);
  });
  let rowOf: readonly number[] = [];
  const losses = inMode(model, true, () =>
    tidy(() => {
      const { ids, labels } = batchTensors(rows, model);
      const forwardAndBackward = (): Tensor => {
        const result = model.lossByRow(ids, labels, factors, { gradientCheckpointing });
        rowOf = result.rows;
        if (result.rows.length > 0) result.total.backward();
        return result.losses;
      };
      return withAdapterRows(model, names, forwardAndBackward, { lengths });
    }),
  );
  const values = await losses.data();
  losses.dispose();
  const owner = parts.flatMap((part, i) => part.rows.map(() => i));
  const sums = parts.map(() => 0);
  for (const [i, row] of rowOf.entries()) sums[owner[row]] += Number(values[i]);
  return sums.map((sum, i) => (sum === 0 ? 0 : sum * parts[i].share));
}

const optionNames = ["model", "tokenizer", "runs", "gradientCheckpointing", "signal"];

/** A run's options as `finetune` checks them; a fault is told with the adapter's name. */
function settingsOf(options: FinetuneTogetherOptions, given: TogetherRun): FinetuneSettings {
  const { model, tokenizer, signal, gradientCheckpointing } = options;
  const { adapter, saveTo: _, ...own } = given;
  // Rows bring their adapter with them, whichever is enabled.
  const trainable = {
    parameters: () => adapter.parameters(),
    trainableParameters: () => adapter.trainableParameters(),
    namedParameters: () => adapter.namedParameters(),
    merged: adapter.merged,
  };
  for (const name of ["model", "tokenizer", "signal", "gradientCheckpointing"]) {
    if (name in own)
      throw new ArgumentError(`finetuneTogether: run of "${adapter.name}": ${name} is for all runs together`);
  }
  try {
    return checkOptions({ ...own, model, tokenizer, signal, gradientCheckpointing, adapter: trainable });
  } catch (error) {
    if (!(error instanceof ArgumentError)) throw error;
    throw new ArgumentError(`finetuneTogether: run of "${adapter.name}": ${error.message}`);
  }
}

/**
 * Trains several adapters of one model at once, each on its own data: every pass has a batch of each run, the frozen base is gone through
 * once for all of them, and the low-rank products of all adapters run together, whatever their ranks. Each run has the losses of its own
 * {@link finetune} with the same options, to float32 rounding; its checkpoints are those of `finetune`, which can go on from them.
 *
 * ```ts
 * const [first, second] = await finetuneTogether({
 *   model,
 *   tokenizer,
 *   runs: [
 *     { adapter: ada, data: "ada.jsonl", steps: 100, saveTo: "ada" },
 *     { adapter: bob, data: "bob.jsonl", steps: 200, learningRate: 1e-3, saveTo: "bob" },
 *   ],
 * });
 * ```
 *
 * It pays where batches are small; once one run's batch fills the machine, several take as long as one after the other. Plain adapters
 * (rank-stabilized and LoRA+ too) share their products, other kinds run adapter by adapter on their rows. Rows are padded to the longest
 * of the pass.
 *
 * @returns results in the order of `runs`
 * @throws {ArgumentError} naming the run and the option that is out of range; for an adapter that is not on the model or given twice, or
 *   has modules to save or trained biases
 * @throws {NomoatError} with code "NOT_FINITE", naming adapter and step; nothing was updated for that run in this step
 * @throws as {@link finetune}
 */
export async function finetuneTogether(options: FinetuneTogetherOptions): Promise<FinetuneResult[]> {
  const check = new OptionChecker("finetuneTogether");
  check.known(options, optionNames);
  check.subjects(options, true);
  const { model, runs: given, gradientCheckpointing = false, signal } = options;
  if (!Array.isArray(given) || given.length === 0) check.fail("runs", "a list of at least one run", given);
  const seen = new Set<Adapter>();
  for (const { adapter } of given) {
    if (adaptersOf(model).get(adapter?.name) !== adapter)
      throw new ArgumentError(`finetuneTogether: adapter "${adapter?.name}" is not on this model`);
    if (seen.has(adapter))
      throw new ArgumentError(`finetuneTogether: adapter "${adapter.name}" is given twice`);
    if (adapter.replacesParts)
      throw new ArgumentError(
        `finetuneTogether: adapter "${adapter.name}" has modules to save or trained biases, which rows cannot share`,
      );
    seen.add(adapter);
  }
  const settings = given.map((run) => settingsOf(options, run));
  signal?.throwIfAborted();
  const runs: Run[] = [];
  const trained = new Set(settings.flatMap((each) => [...trainedParameters(each).values()]));
  const data: Awaited<ReturnType<typeof rowsOf>>[] = [];
  for (const each of settings) data.push(await rowsOf(each));
  const restore = requireGradients(model, trained);
  try {
    if (ownGenerators(model).length > 0)
      throw new ArgumentError("finetuneTogether: a module of the model has a random generator of its own");
    for (const [i, { adapter, saveTo }] of given.entries())
      runs.push(new Run(settings[i], adapter, data[i].data, data[i].validation, saveTo));
    for (const run of runs) await run.load();
    for (const run of runs) run.begin();
    await trainTogether(model, runs, gradientCheckpointing, signal);
    return runs.map((run) => run.result());
  } catch (error) {
    if (signal?.aborted) for (const run of runs) await run.save();
    throw error;
  } finally {
    for (const run of runs) run.end();
    restore();
  }
}

/** The loop; runs that are over leave it. */
async function trainTogether(
  model: LlamaForCausalLM,
  runs: readonly Run[],
  gradientCheckpointing: boolean,
  signal: AbortSignal | undefined,
): Promise<void> {
  let active = [...runs];
  for (;;) {
    const going: Run[] = [];
    for (const run of active) if (await run.between()) going.push(run);
    active = going;
    if (active.length === 0) return;
    await nextTurn();
    signal?.throwIfAborted();
    const parts = active.map((run) => run.next());
    const losses = await pass(model, parts, gradientCheckpointing);
    for (const [i, { run }] of parts.entries()) await run.passed(losses[i]);
  }
}
