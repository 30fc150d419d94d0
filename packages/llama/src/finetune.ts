// Fine-tuning, as a plain loop: gradients of a few batches, clip, update, measure, save.

import type { Tensor } from "@nomoat/core";
import type { AdamW } from "@nomoat/core/optim";
import { RowOrder } from "./data/batches.js";
import type { RowsResult } from "./data/encode.js";
import { BorrowedGenerator } from "./event-loop.js";
import { loadCheckpoint, saveCheckpoint } from "./finetune-checkpoint.js";
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
import { accumulateGradients, updateOnce } from "./finetune-step.js";
import { ownGenerators } from "./model/generators.js";
import { meanLoss } from "./perplexity.js";

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
  const { data, validation } = await rowsOf(settings);

  const restore = requireGradients(settings.model, new Set(parameters.values()));
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
        const { maxGradNorm } = settings;
        const update = { step: step + 1, loss, factor: schedule(step), maxGradNorm };
        const updated = await updateOnce(optimizer, update);

        progress.step++;
        progress.losses.push(loss);
        clock.lap("training", tokensOf(batches));
        const info = { step: progress.step, steps, loss, ...updated };
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
  return resultOf(progress, settings, data, [...parameters.values()]);
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
