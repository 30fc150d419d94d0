// What finetune is told: options, defaults, checks.

import { ArgumentError, type Tensor } from "@nomoat/core";
import { constantSchedule, cosineSchedule, linearSchedule } from "@nomoat/core/optim";
import type { DataSource } from "./data/examples.js";
import type { LlamaForCausalLM } from "./model/model.js";
import { OptionChecker } from "./options.js";
import type { Tokenizer } from "./tokenizer.js";

/** What is trained in the place of the model's own parameters; adapters of @nomoat/lora are. */
export interface Trainable {
  parameters(): Tensor[];
  /** Those that are to be learnt (default, and when it is empty: all). */
  trainableParameters?(): Tensor[];
  /** Tensors by PEFT's keys, which tell A from B; LoRA+ needs them. */
  namedParameters?(): [name: string, parameter: Tensor][];
  /** False: without effect, so that nothing can be learnt. */
  readonly active?: boolean;
  /** True: part of the base's weights, so that nothing can be learnt. */
  readonly merged?: boolean;
}

/** One step, as it is reported. */
export interface StepInfo {
  /** Steps taken, from 1. */
  step: number;
  /** Steps in all. */
  steps: number;
  /** Mean loss in nats of the step's tokens, before the update. */
  loss: number;
  /** Norm of the gradient before clipping. */
  gradNorm: number;
  /** Of the step; with LoRA+ that of the first group, A. */
  learningRate: number;
  /** Tokens read a second, over the latest steps; padding does not count. */
  tokensPerSecond: number;
  /** Time that the remaining steps will take, in seconds. */
  secondsLeft: number;
}

export interface Evaluation {
  /** Steps taken before. */
  step: number;
  /** Mean loss in nats of the validation data's tokens that count. */
  loss: number;
  perplexity: number;
}

export interface FinetuneOptions {
  model: LlamaForCausalLM;
  tokenizer: Tokenizer;
  /** Trains this alone, the model's other parameters stay as they are. Default: every parameter of the model that requires a gradient. */
  adapter?: Trainable;
  /** What is learnt; see `loadData`. */
  data: DataSource;
  /** What is only measured. */
  validation?: DataSource;
  /** Updates in all (default: one pass over the data). */
  steps?: number;
  /** Rows at once (default 4). */
  batchSize?: number;
  /** Batches whose gradients are added up for one update (default 1). */
  gradientAccumulationSteps?: number;
  /** Tokens of a row at most (default 512, at most the model's positions). */
  length?: number;
  /**
   * true: examples are put one after another and cut into rows of `length`; false: each is a row, cut off at `length`. Default: true
   * where every token of every example is learnt.
   */
  packing?: boolean;
  /** Whether every epoch has an order of its own (default true). */
  shuffle?: boolean;
  /** Peak learning rate (default 2e-4). */
  learningRate?: number;
  /** Factor of the learning rate by step, as Hugging Face's schedules (default "cosine", down to 0). A function counts steps from 0. */
  schedule?: "cosine" | "linear" | "constant" | ((step: number) => number);
  /** Steps in which the learning rate grows from 0 (default 0). */
  warmupSteps?: number;
  /** AdamW's, default [0.9, 0.999]. */
  betas?: readonly [number, number];
  /** AdamW's, default 1e-8. */
  epsilon?: number;
  /** AdamW's, of parameters with two axes or more (default 0). */
  weightDecay?: number;
  /**
   * LoRA+ (arXiv:2402.12354), PEFT's loraplus_lr_ratio: the learning rate of an adapter's B and vectors over that of its A, at least 1
   * (default: none, one rate for all).
   */
  loraPlusLrRatio?: number;
  /** With `loraPlusLrRatio`: learning rate of adapters of embeddings (default 1e-6, PEFT's loraplus_lr_embedding). */
  loraPlusLrEmbedding?: number;
  /** Gradients are scaled down to this norm (default 1; Infinity for as they are). */
  maxGradNorm?: number;
  /**
   * How the loss of several batches is normalised: "tokens" (default), the mean over all tokens that count in the step; "means", the
   * mean of the batches' means, as older versions of Hugging Face's trainer.
   */
  accumulation?: "tokens" | "means";
  /** Computes each block again in the backward pass: less memory, about a third more time (default false). */
  gradientCheckpointing?: boolean;
  /** Order of the data and dropout (default 0). Same seed, same run. */
  seed?: number | bigint;
  /** Steps between measurements of `validation` (default: after the last step only). */
  evaluateEvery?: number;
  /** Called after each step; a promise is awaited. */
  onStep?: (info: StepInfo) => unknown;
  /** Called after each measurement; a promise is awaited. */
  onEvaluate?: (evaluation: Evaluation) => unknown;
  /** Ends the run with `signal.reason` as error after the batch at hand; where there is a `checkpoint`, the last whole step is saved. */
  signal?: AbortSignal;
  /** Saves the state of the training to `folder` every `every` steps (default 100), and at the end. */
  checkpoint?: { folder: string; every?: number };
  /** A folder that `checkpoint` wrote: the run goes on there, with the same data and options, as if it had never stopped. */
  resumeFrom?: string;
}

export interface FinetuneResult {
  /** Loss of each step, from the first, also those before a resumption. */
  losses: number[];
  evaluations: Evaluation[];
  /** Steps taken. */
  steps: number;
  /** Tokens read; padding does not count. */
  tokens: number;
  /** Time of all steps and measurements, before a resumption too. */
  seconds: number;
  /** Tokens read a second of training. */
  tokensPerSecond: number;
  /** Rows of an epoch. */
  rows: number;
  /** Passes over the data, a part of one counting as that part. */
  epochs: number;
  /** Number of trained values. */
  trainedParameters: number;
  /** Examples that lost their end, being longer than a row. */
  truncated: number;
}

type Defaulted =
  | "batchSize"
  | "gradientAccumulationSteps"
  | "shuffle"
  | "learningRate"
  | "schedule"
  | "warmupSteps"
  | "betas"
  | "epsilon"
  | "weightDecay"
  | "maxGradNorm"
  | "accumulation"
  | "gradientCheckpointing"
  | "seed";

/** Options with their defaults, checked. */
export type FinetuneSettings = FinetuneOptions & Required<Pick<FinetuneOptions, Defaulted | "length">>;

const defaults: Required<Pick<FinetuneOptions, Defaulted>> = {
  batchSize: 4,
  gradientAccumulationSteps: 1,
  shuffle: true,
  learningRate: 2e-4,
  schedule: "cosine",
  warmupSteps: 0,
  betas: [0.9, 0.999],
  epsilon: 1e-8,
  weightDecay: 0,
  maxGradNorm: 1,
  accumulation: "tokens",
  gradientCheckpointing: false,
  seed: 0,
};

const otherOptions = ["model", "tokenizer", "adapter", "data", "validation", "steps", "length", "packing"];
const moreOptions = [
  "loraPlusLrRatio",
  "loraPlusLrEmbedding",
  "evaluateEvery",
  "onStep",
  "onEvaluate",
  "signal",
  "checkpoint",
  "resumeFrom",
];
const optionNames = [...otherOptions, ...Object.keys(defaults), ...moreOptions];

const finiteFrom0 = (value: number): boolean => value >= 0 && value < Number.POSITIVE_INFINITY;

/** @throws {ArgumentError} naming the option that is unknown or out of range */
export function checkOptions(options: FinetuneOptions): FinetuneSettings {
  const check = new OptionChecker("finetune");
  check.known(options, optionNames);
  check.subjects(options, true);
  for (const name of ["onStep", "onEvaluate"] as const) check.function(name, options[name]);
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const settings = { ...defaults, ...(given as unknown as FinetuneOptions) };
  const positions = settings.model.config.maxPositionEmbeddings;
  const length = settings.length ?? Math.min(512, positions);
  check.integer("length", length, 2, positions);
  for (const name of ["steps", "batchSize", "gradientAccumulationSteps", "evaluateEvery"] as const) {
    if (settings[name] !== undefined) check.integer(name, settings[name], 1);
  }
  check.integer("warmupSteps", settings.warmupSteps, 0);
  for (const name of ["learningRate", "epsilon", "weightDecay"] as const)
    check.number(name, settings[name], "a finite number of at least 0", finiteFrom0);
  check.number(
    "maxGradNorm",
    settings.maxGradNorm,
    "a number above 0 (Infinity for none)",
    (value) => value > 0,
  );
  const { loraPlusLrRatio: ratio, loraPlusLrEmbedding: embeddingRate, adapter } = settings;
  if (ratio !== undefined) {
    check.number(
      "loraPlusLrRatio",
      ratio,
      "a finite number of at least 1",
      (value) => value >= 1 && finiteFrom0(value),
    );
    if (!adapter?.namedParameters)
      throw new ArgumentError("finetune: loraPlusLrRatio needs an adapter of @nomoat/lora");
  }
  if (embeddingRate !== undefined) {
    check.number("loraPlusLrEmbedding", embeddingRate, "a finite number of at least 0", finiteFrom0);
    if (ratio === undefined) throw new ArgumentError("finetune: loraPlusLrEmbedding needs loraPlusLrRatio");
  }
  if (!Array.isArray(settings.betas) || settings.betas.length !== 2)
    check.fail("betas", "two numbers from 0 to below 1", settings.betas);
  for (const beta of settings.betas)
    check.number("betas", beta, "two numbers from 0 to below 1", (value) => value >= 0 && value < 1);
  for (const name of ["shuffle", "gradientCheckpointing"] as const) check.boolean(name, settings[name]);
  if (settings.packing !== undefined) check.boolean("packing", settings.packing);
  if (settings.accumulation !== "tokens" && settings.accumulation !== "means")
    check.fail("accumulation", '"tokens" or "means"', settings.accumulation);
  const { schedule } = settings;
  if (typeof schedule !== "function" && !["cosine", "linear", "constant"].includes(schedule))
    check.fail("schedule", '"cosine", "linear", "constant" or a function', schedule);
  if (settings.checkpoint) {
    const { folder, every } = settings.checkpoint;
    if (typeof folder !== "string" || folder === "") check.fail("checkpoint.folder", "a path", folder);
    if (every !== undefined) check.integer("checkpoint.every", every, 1);
  }
  if (settings.data === undefined)
    throw new ArgumentError("finetune: data is missing: give a path, a Blob or a list of examples");
  return { ...settings, length };
}

/** The learning rate's factor by step, counted from 0. */
export function scheduleOf(settings: FinetuneSettings, totalSteps: number): (step: number) => number {
  const { schedule, warmupSteps } = settings;
  if (typeof schedule === "function") return schedule;
  if (schedule === "constant") return constantSchedule({ warmupSteps });
  return (schedule === "linear" ? linearSchedule : cosineSchedule)({ warmupSteps, totalSteps });
}
