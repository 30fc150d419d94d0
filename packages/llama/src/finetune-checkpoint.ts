// The state of a training run in one file, so that it is whole or not there: checkpoint.safetensors with the trained parameters, the
// optimizer's moments, and as metadata the place in the data, the random generators and what was measured.

import { ArgumentError, type BackendName, FormatError, Generator, noGrad, type Tensor } from "@nomoat/core";
import { parseJson, writeFilesAtomic } from "@nomoat/core/io";
import type { Module } from "@nomoat/core/nn";
import type { AdamW } from "@nomoat/core/optim";
import { loadSafetensors, serializeSafetensors } from "@nomoat/core/safetensors";
import type { Row } from "./data/batches.js";
import type { GeneratorState } from "./event-loop.js";
import type { Evaluation } from "./finetune-options.js";
import { ownGenerators } from "./model/generators.js";

export const checkpointFile = "checkpoint.safetensors";
const format = "nomoat-training-1";

/** What must be the same for a run to go on as if it had not stopped. */
export type RunIdentity = Readonly<Record<string, string | number | boolean>>;

/** Progress of a run, besides tensors. */
export interface Progress {
  step: number;
  tokens: number;
  /** Of training, and of training and measuring. */
  trainingSeconds: number;
  seconds: number;
  losses: number[];
  evaluations: Evaluation[];
  random: GeneratorState;
  /** Of generators that modules of the model own, in the model's order. */
  generators: GeneratorState[];
}

/** 32-bit FNV-1a over all ids and labels: tells another data set, not a forged one. */
export function fingerprint(rows: readonly Row[]): string {
  let hash = 0x811c9dc5;
  for (const { ids, labels } of rows) {
    for (const list of [ids, labels]) {
      for (const value of list) hash = Math.imul(hash ^ value, 0x01000193);
      hash = Math.imul(hash ^ list.length, 0x01000193);
    }
  }
  return (hash >>> 0).toString(16).padStart(8, "0");
}

function named(parameters: ReadonlyMap<string, Tensor>, optimizer: AdamW): Map<string, Tensor> {
  const names = new Map(Array.from(parameters, ([name, tensor]) => [tensor, name]));
  const ordered = optimizer.parameters().map((tensor) => names.get(tensor)!);
  const tensors = new Map(Array.from(parameters, ([name, tensor]) => [`parameter.${name}`, tensor]));
  for (const [key, tensor] of optimizer.stateDict().tensors) {
    const dot = key.indexOf(".");
    tensors.set(`optimizer.${key.slice(dot + 1)}.${ordered[Number(key.slice(0, dot))]}`, tensor);
  }
  return tensors;
}

/** Writes the checkpoint; an older one in `folder` is replaced only when the new one is complete. */
export async function saveCheckpoint(
  folder: string,
  parameters: ReadonlyMap<string, Tensor>,
  optimizer: AdamW,
  progress: Progress,
  identity: RunIdentity,
): Promise<void> {
  const places = optimizer.parameters();
  const counts = optimizer.stateDict().updates!;
  const updates = Object.fromEntries(
    Array.from(parameters, ([name, tensor]) => [name, counts[places.indexOf(tensor)]]),
  );
  const state = JSON.stringify({ ...progress, updates, identity });
  const bytes = await serializeSafetensors(named(parameters, optimizer), { format, state });
  await writeFilesAtomic(folder, { [checkpointFile]: bytes });
}

/** Whether `value` is built as `like`: same fields, and in lists the kind of their first entry. */
function resembles(value: unknown, like: unknown): boolean {
  if (Array.isArray(like)) return Array.isArray(value) && value.every((item) => resembles(item, like[0]));
  if (typeof like !== "object" || like === null) return typeof value === typeof like;
  if (typeof value !== "object" || value === null) return false;
  return Object.entries(like).every(([key, part]) =>
    resembles((value as Record<string, unknown>)[key], part),
  );
}

const generatorLike: GeneratorState = { algorithm: "philox4x32-10", seed: "", stream: "", block: "" };
const progressLike: Progress & { identity: object } = {
  step: 0,
  tokens: 0,
  trainingSeconds: 0,
  seconds: 0,
  losses: [0],
  evaluations: [{ step: 0, loss: 0, perplexity: 0 }],
  random: generatorLike,
  generators: [generatorLike],
  identity: {},
};

/**
 * Reads a checkpoint into parameters, optimizer and generators; they change only after all of it was checked.
 *
 * @throws {FormatError} for a damaged file, or tensors that are not those of this training
 * @throws {ArgumentError} naming what differs from the run that was saved: data or options
 */
export async function loadCheckpoint(
  folder: string,
  parameters: ReadonlyMap<string, Tensor>,
  optimizer: AdamW,
  model: Module,
  identity: RunIdentity,
): Promise<Progress> {
  const file = `${folder.replace(/[/\\]+$/, "")}/${checkpointFile}`;
  const device = optimizer.parameters()[0].device as BackendName;
  const { tensors, metadata } = await loadSafetensors(file, { device });
  try {
    if (metadata.format !== format)
      throw new FormatError(`expected ${JSON.stringify(format)}`, { file, field: "__metadata__.format" });
    const state = parseJson(new TextEncoder().encode(metadata.state ?? ""), { file, maxValues: 1e8 });
    if (!resembles(state, progressLike))
      throw new FormatError("is not the state of a training", { file, field: "__metadata__.state" });
    const {
      identity: saved,
      updates,
      ...progress
    } = state as unknown as Progress & { identity: RunIdentity; updates?: unknown };
    const differing = Object.keys(identity).filter((key) => saved[key] !== identity[key]);
    if (differing.length > 0) {
      const list = differing.map((key) => `${key} was ${saved[key]}, is ${identity[key]}`);
      throw new ArgumentError(`finetune: resumeFrom: ${file} is of another run: ${list.join("; ")}`);
    }
    const generators = ownGenerators(model);
    if (generators.length !== progress.generators.length)
      throw new ArgumentError(`finetune: resumeFrom: ${file} is of a model with other random generators`);
    const counts = updateCounts(updates, progress.step, parameters, file);
    checkTensors(tensors, parameters, counts, file);
    const restored = progress.generators.map((place) => Generator.restore(place).state());
    Generator.restore(progress.random);

    const places = optimizer.parameters();
    const moments = new Map<string, Tensor>();
    for (const [key, tensor] of tensors) {
      const match = /^optimizer\.(\w+)\.(.*)$/.exec(key);
      const parameter = match && parameters.get(match[2]);
      if (parameter) moments.set(`${places.indexOf(parameter)}.${match[1]}`, tensor);
    }
    const order = new Map(Array.from(parameters, ([name, tensor]) => [tensor, counts.get(name)!]));
    const ordered = places.map((tensor) => order.get(tensor)!);
    optimizer.loadStateDict({ step: progress.step, updates: ordered, tensors: moments });
    noGrad(() => {
      for (const [name, parameter] of parameters) parameter.copyFrom(tensors.get(`parameter.${name}`)!);
    });
    generators.forEach((generator, i) => {
      generator.setState(restored[i]);
    });
    return progress;
  } finally {
    for (const tensor of tensors.values()) tensor.dispose();
  }
}

/** How often each parameter was updated: what the file says of it, or (files of earlier versions say nothing) in every step. */
function updateCounts(
  saved: unknown,
  step: number,
  parameters: ReadonlyMap<string, Tensor>,
  file: string,
): Map<string, number> {
  const counts =
    typeof saved === "object" && saved !== null ? new Map<string, unknown>(Object.entries(saved)) : null;
  return new Map(
    Array.from(parameters.keys(), (name) => {
      const count = counts ? counts.get(name) : step;
      if (!Number.isSafeInteger(count) || (count as number) < 0 || (count as number) > step)
        throw new FormatError(`${String(count)} updates of "${name}" in ${step} steps`, {
          file,
          field: "__metadata__.state.updates",
        });
      return [name, count as number];
    }),
  );
}

function checkTensors(
  tensors: ReadonlyMap<string, Tensor>,
  parameters: ReadonlyMap<string, Tensor>,
  counts: ReadonlyMap<string, number>,
  file: string,
): void {
  const faults: string[] = [];
  const expected = new Set<string>();
  for (const [name, parameter] of parameters) {
    // A parameter that never had a gradient has no moments.
    const moments = counts.get(name) === 0 ? [] : [`optimizer.m.${name}`, `optimizer.v.${name}`];
    for (const key of [`parameter.${name}`, ...moments]) {
      expected.add(key);
      const tensor = tensors.get(key);
      if (!tensor) faults.push(`missing "${key}"`);
      else if (tensor.shape.join() !== parameter.shape.join() || tensor.dtype !== parameter.dtype) {
        const [is, wanted] = [tensor, parameter].map((t) => `${t.dtype} [${t.shape.join(", ")}]`);
        faults.push(`"${key}" is ${is}, expected ${wanted}`);
      }
    }
  }
  for (const key of tensors.keys()) if (!expected.has(key)) faults.push(`unexpected "${key}"`);
  if (faults.length > 10) faults.splice(10, faults.length, `and ${faults.length - 10} more`);
  if (faults.length > 0)
    throw new FormatError(`tensors do not fit what is trained: ${faults.join("; ")}`, { file });
}
