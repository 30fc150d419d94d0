/** The main job, step by step: load, quantize, adapt, train, compare, write, and prove that what was written is good. */
import { statSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { bytesPerElement, Generator, init } from "@nomoat/core";
import { gpuBackend } from "@nomoat/core/gpu";
import {
  type FinetuneResult,
  finetune,
  generate,
  type LlamaForCausalLM,
  loadLlama,
  type PerplexityResult,
  perplexity,
  type Tokenizer,
} from "@nomoat/llama";
import { applyLora, loadAdapter, saveAdapter } from "@nomoat/lora";
import { quantizeModelAsync } from "@nomoat/quant";
import { type Arguments, DEFAULTS } from "./args.js";
import { type Curve, drawCurve } from "./curve.js";
import { UserError } from "./errors.js";
import { checkOutput, stageOutput } from "./output.js";
import { startProgress } from "./progress.js";
import {
  type Figures,
  formatBytes,
  formatCount,
  formatFigures,
  formatSamples,
  type Sample,
} from "./report.js";
import { loadMobyDick, loadOwnText } from "./text.js";

const SAMPLE_TOKENS = 48;
const TEMPERATURE = 0.8;
const TOP_P = 0.95;

interface Loaded {
  model: LlamaForCausalLM;
  tokenizer: Tokenizer;
}

type Measure = (model: LlamaForCausalLM) => Promise<PerplexityResult>;

/** Bytes of all weights, tied ones once. */
function bytesOf(model: LlamaForCausalLM): number {
  let bytes = 0;
  for (const tensor of new Set(model.stateDict().values()))
    bytes += tensor.size * bytesPerElement(tensor.dtype);
  return bytes;
}

/** Continues every prompt, greedily and with a seed; the texts stand in `before`. */
async function continueAll(
  base: Loaded,
  prompts: readonly string[],
  seed: number,
  signal: AbortSignal,
): Promise<Omit<Sample, "after">[]> {
  const samples: Omit<Sample, "after">[] = [];
  for (const prompt of prompts) {
    for (const temperature of [0, TEMPERATURE]) {
      let text = prompt;
      const options = { prompt, temperature, topP: TOP_P, seed, maxNewTokens: SAMPLE_TOKENS, signal };
      for await (const piece of generate({ ...base, ...options })) text += piece;
      const how = temperature === 0 ? "greedy" : `temperature ${temperature}, seed ${seed}`;
      samples.push({ prompt, how, before: text });
    }
  }
  return samples;
}

/**
 * Loads the base and the adapter anew from their files, and compares what they predict with what was measured.
 *
 * @throws {Error} when it differs: then the files do not hold what was trained
 */
async function verify(args: Arguments, folder: string, measure: Measure, expected: number): Promise<void> {
  const { model } = await loadLlama(args.model);
  try {
    if (args.format !== "none") await quantizeModelAsync(model, { format: args.format });
    await loadAdapter(model, folder, "default", { trainable: false });
    const { perplexity: found } = await measure(model);
    if (!(Math.abs(found / expected - 1) <= 1e-6)) {
      throw new Error(`the saved adapter gives perplexity ${found}, the trained one gave ${expected}`);
    }
  } finally {
    model.dispose();
  }
}

/**
 * Runs the job and writes the output folder, or nothing.
 *
 * @param say - told what happens, line by line
 * @param signal - ends the job; nothing is written then
 * @throws {UserError} or a NomoatError for what the user can mend
 */
export async function runJob(
  args: Arguments,
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<void> {
  checkOutput(args.out);
  const text = args.data === undefined ? loadMobyDick() : await loadOwnText(args.data);
  const { backend, mode, threads } = args;
  await init({ backend, mode, threads });
  if (backend === "gpu") say(`Backend: gpu.js, mode ${gpuBackend().mode}`);

  const base = await loadLlama(args.model);
  const { model, tokenizer } = base;
  const positions = model.config.maxPositionEmbeddings;
  const length = args.length ?? Math.min(DEFAULTS.length, positions);
  if (length > positions)
    throw new UserError(`--length ${length}: the model reads at most ${positions} tokens`);
  const heldOut = tokenizer.encode(text.heldOut).subarray(0, args.heldOutTokens);
  if (heldOut.length < 2) throw new UserError(`${text.name}: there is too little text to hold a part out`);
  const measure: Measure = (of) => perplexity({ model: of, ids: heldOut, length, batch: args.batch, signal });
  const prompts = args.prompts ?? text.prompts;

  const parameters = model.parameters().reduce((sum, tensor) => sum + tensor.size, 0);
  say(`Base model: ${formatCount(parameters)} parameters. Text: ${text.name}, a part of it held out.`);
  const dense = await measure(model);
  const modelBytes: Figures["modelBytes"] = { float32: bytesOf(model), quantized: null };
  say(`Held-out perplexity in float32: ${dense.perplexity.toFixed(2)}, ${formatBytes(modelBytes.float32)}`);

  let linearBytes: Figures["linearBytes"] = null;
  let start = dense;
  if (args.format !== "none") {
    const { total } = await quantizeModelAsync(model, { format: args.format });
    linearBytes = { float32: 4 * total.parameters, quantized: total.bytes };
    modelBytes.quantized = bytesOf(model);
    start = await measure(model);
    say(`The same in ${args.format}: ${start.perplexity.toFixed(2)}, ${formatBytes(modelBytes.quantized)}`);
  }
  const before = await continueAll(base, prompts, args.seed, signal);

  const config = {
    r: args.rank,
    loraAlpha: args.alpha,
    targetModules: "all-linear",
    baseModelNameOrPath: basename(resolve(args.model)),
  };
  const adapter = applyLora(model, config, "default", { generator: new Generator(args.seed) });
  say(`Fine-tuning for ${args.steps} steps of ${args.batch} × ${length} tokens, rank ${args.rank}`);
  const progress = startProgress(args.steps);
  let result: FinetuneResult;
  try {
    result = await finetune({
      ...{ model, tokenizer, adapter, length, signal },
      data: text.train,
      steps: args.steps,
      batchSize: args.batch,
      learningRate: args.learningRate,
      warmupSteps: Math.floor(args.steps / 20),
      seed: args.seed,
      onStep: (info) => progress.update(info),
    });
  } finally {
    progress.stop();
  }
  const adapted = await measure(model);
  const peakMemoryBytes = process.resourceUsage().maxRSS * 1024;
  const after = await continueAll(base, prompts, args.seed, signal);
  const samples = before.map((sample, i): Sample => ({ ...sample, after: after[i].before }));

  const staging = await stageOutput(args.out);
  try {
    const folder = join(staging.folder, "adapter");
    await saveAdapter(adapter, folder);
    const figures: Figures = {
      perplexity: {
        float32: dense.perplexity,
        quantized: args.format === "none" ? null : start.perplexity,
        adapted: adapted.perplexity,
      },
      ...{ modelBytes, linearBytes, peakMemoryBytes },
      heldOutTokens: adapted.tokens,
      adapterBytes: statSync(join(folder, "adapter_model.safetensors")).size,
      adapterParameters: result.trainedParameters,
      tokensPerSecond: result.tokensPerSecond,
      trainingSeconds: result.seconds,
      steps: result.steps,
    };
    const curve: Curve = {
      title: `Fine-tuning on ${text.name}`,
      training: result.losses.map((loss, i) => ({ step: i + 1, loss })),
      heldOut: [
        { step: 0, loss: start.loss },
        { step: result.steps, loss: adapted.loss },
      ],
    };
    const report = { settings: { ...args, length, prompts }, figures, samples, losses: result.losses };
    await writeFile(join(staging.folder, "loss.svg"), drawCurve(curve));
    await writeFile(join(staging.folder, "report.json"), `${JSON.stringify(report, null, 2)}\n`);

    say(formatFigures(figures, args.format));
    say(formatSamples(samples, process.stdout.columns ?? 100));

    adapter.remove();
    model.dispose();
    await verify(args, folder, measure, adapted.perplexity);
    say("The saved adapter, loaded onto a fresh base, gives the same held-out perplexity.");
    signal.throwIfAborted();
    await staging.publish();
  } finally {
    await staging.discard();
  }
  say(`Wrote ${args.out}: adapter/, loss.svg, report.json`);
}
