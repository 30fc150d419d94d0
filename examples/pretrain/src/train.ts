/**
 * Trains the embedded base model from nothing, with this library alone.
 *
 *     tsx src/train.ts --steps 9000 --decay-steps 1800
 *
 * `tsx src/publish.ts` then writes the last checkpoint as a Hugging Face folder, with a card.
 *
 * The run can be stopped at any time and goes on from its last checkpoint when started again. The learning rate warms up,
 * stays, and falls linearly over the last `--decay-steps`, so a run can also be prolonged: what comes before the decay does not
 * depend on `--steps`. Batches depend on the seed and the step's number alone, so a resumed run equals an unbroken one.
 */
import { appendFileSync, existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Generator, init, noGrad, type Tensor, tensor, tidy } from "@nomoat/core";
import { AdamW, clipScale, gradNorm } from "@nomoat/core/optim";
import { loadSafetensors, saveSafetensors } from "@nomoat/core/safetensors";
import { LlamaForCausalLM } from "@nomoat/llama";
import { CACHE_FOLDER, RUN_FOLDER } from "./cache.js";
import { config } from "./model-config.js";

const { values: flags } = parseArgs({
  options: {
    steps: { type: "string", default: "9000" },
    "decay-steps": { type: "string", default: "1800" },
    "warmup-steps": { type: "string", default: "100" },
    "learning-rate": { type: "string", default: "3e-3" },
    batch: { type: "string", default: "8" },
    length: { type: "string", default: "256" },
    seed: { type: "string", default: "20260101" },
    threads: { type: "string" },
    "save-every": { type: "string", default: "200" },
    "eval-every": { type: "string", default: "200" },
  },
});

const [steps, decaySteps, warmupSteps, batch, length, seed, saveEvery, evalEvery] = [
  flags.steps,
  flags["decay-steps"],
  flags["warmup-steps"],
  flags.batch,
  flags.length,
  flags.seed,
  flags["save-every"],
  flags["eval-every"],
].map(Number);
const peakRate = Number(flags["learning-rate"]);
const threads = flags.threads === undefined ? undefined : Number(flags.threads);

const logFile = join(RUN_FOLDER, "log.jsonl");
mkdirSync(RUN_FOLDER, { recursive: true });

function tokens(file: string): Uint16Array {
  const bytes = readFileSync(join(CACHE_FOLDER, file));
  return new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
}

const train = tokens("train.u16");
const heldOut = tokens("held-out.u16");

/** Token windows [count, length + 1] beginning at `starts`. */
function windows(source: Uint16Array, starts: readonly number[]): Tensor {
  const ids = new Int32Array(starts.length * (length + 1));
  starts.forEach((start, i) => {
    ids.set(source.subarray(start, start + length + 1), i * (length + 1));
  });
  return tensor(ids, { shape: [starts.length, length + 1] });
}

/** Factor of the peak learning rate at a step, counted from 0. */
function rateFactor(step: number): number {
  return Math.min(1, (step + 1) / warmupSteps, (steps - step) / decaySteps);
}

await init({ threads });
const model = LlamaForCausalLM.create(config, { generator: new Generator(seed) });
const named = [...model.namedParameters()];
const parameters = named.map(([, parameter]) => parameter);
// Norm weights are not decayed.
const optimizer = new AdamW(
  [
    { parameters: parameters.filter((p) => p.rank > 1) },
    { parameters: parameters.filter((p) => p.rank === 1), weightDecay: 0 },
  ],
  { learningRate: peakRate, betas: [0.9, 0.95], weightDecay: 0.1 },
);

/** Mean loss in nats over all whole windows of the held-out text. */
function heldOutLoss(): number {
  let sum = 0;
  let count = 0;
  const starts = Array.from({ length: Math.floor((heldOut.length - 1) / length) }, (_, i) => i * length);
  for (let i = 0; i < starts.length; i += batch) {
    const group = starts.slice(i, i + batch);
    sum += tidy(() =>
      noGrad(() => model.loss(windows(heldOut, group), undefined, { reduction: "sum" }).item()),
    );
    count += group.length * length;
  }
  return sum / count;
}

const checkpointFile = join(RUN_FOLDER, "checkpoint.safetensors");

async function save(step: number, seconds: number): Promise<void> {
  const state = optimizer.stateDict();
  const tensors = new Map(named.map(([name, parameter]) => [`parameter.${name}`, parameter]));
  for (const [name, value] of state.tensors) tensors.set(`optimizer.${name}`, value);
  const given = process.argv.slice(2).join(" ");
  await saveSafetensors(checkpointFile, tensors, {
    step: String(step),
    seconds: String(seconds),
    tokensPerStep: String(batch * length),
    command: `tsx src/train.ts ${given}${given.includes("--seed") ? "" : ` --seed ${seed}`}`,
    node: process.version,
  });
}

async function resume(): Promise<{ step: number; seconds: number }> {
  if (!existsSync(checkpointFile)) return { step: 0, seconds: 0 };
  const { tensors, metadata } = await loadSafetensors(checkpointFile);
  const part = (prefix: string): Map<string, Tensor> =>
    new Map(
      [...tensors]
        .filter(([name]) => name.startsWith(prefix))
        .map(([name, value]) => [name.slice(prefix.length), value]),
    );
  const weights = part("parameter.");
  if (config.tieWordEmbeddings) weights.set("lm_head.weight", weights.get("model.embed_tokens.weight")!);
  model.loadStateDict(weights);
  optimizer.loadStateDict({ step: Number(metadata.step), tensors: part("optimizer.") });
  for (const value of tensors.values()) value.dispose();
  return { step: Number(metadata.step), seconds: Number(metadata.seconds) };
}

function log(entry: Record<string, number | string>): void {
  appendFileSync(logFile, `${JSON.stringify(entry)}\n`);
  console.log(
    Object.entries(entry)
      .map(([name, value]) => `${name} ${typeof value === "number" ? Number(value.toPrecision(5)) : value}`)
      .join("  "),
  );
}

const start = await resume();
if (start.step === 0) rmSync(logFile, { force: true });
const count = parameters.reduce((sum, parameter) => sum + parameter.size, 0);
log({
  event: start.step === 0 ? "start" : "resume",
  step: start.step,
  parameters: count,
  node: process.version,
  arguments: process.argv.slice(2).join(" "),
});

let began = performance.now();
let { seconds } = start;
let recent = 0;
let recentSteps = 0;
for (let step = start.step; step < steps; step++) {
  const random = new Generator(seed).fork(step);
  const starts = Array.from({ length: batch }, () => random.integer(train.length - length));
  const loss = tidy(() => {
    const value = model.loss(windows(train, starts));
    value.backward();
    return value.item();
  });
  const norm = gradNorm(parameters);
  optimizer.learningRateFactor = rateFactor(step);
  optimizer.step({ gradientScale: clipScale(norm, 1) });
  optimizer.zeroGrad();
  recent += loss;
  recentSteps++;
  const done = step + 1;
  if (done % evalEvery === 0 || done === steps) {
    const now = performance.now();
    const elapsed = (now - began) / 1000;
    seconds += elapsed;
    log({
      step: done,
      loss: recent / recentSteps,
      heldOutLoss: heldOutLoss(),
      rate: optimizer.learningRates()[0],
      norm,
      tokens: done * batch * length,
      tokensPerSecond: (recentSteps * batch * length) / elapsed,
      seconds,
    });
    recent = recentSteps = 0;
    began = performance.now();
  }
  if (done % saveEvery === 0 || done === steps) await save(done, seconds);
}
