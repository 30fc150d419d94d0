// Fine-tuning: the loop's laws. What it computes is checked against PyTorch in golden.test.ts.

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  crossEntropy,
  defaultGenerator,
  Generator,
  init,
  manualSeed,
  memoryStats,
  noGrad,
  type Tensor,
  tensor,
  tidy,
} from "@nomoat/core";
import { applyLora, freezeA, type LoraConfig } from "@nomoat/lora";
import { quantizeModel } from "@nomoat/quant";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import {
  type FinetuneOptions,
  type FinetuneResult,
  finetune,
  generate,
  type LlamaForCausalLM,
  perplexity,
  type StepInfo,
} from "../src/index.js";
import { byteTokenizer, collect, tinyModel } from "./support.js";

const tokenizer = byteTokenizer();
const data = Array.from({ length: 12 }, (_, i) => `${"Call me Ishmael. ".slice(i)}Some years ago ${i * i}.`);

const values = (tensors: Iterable<[string, Tensor]>): Map<string, number[]> =>
  new Map(Array.from(tensors, ([name, tensor]) => [name, Array.from(tensor.dataSync())]));

const adapt = (model: LlamaForCausalLM, config: Partial<LoraConfig> = {}) =>
  applyLora(model, { r: 2, loraAlpha: 4, targetModules: "all-linear", ...config }, "default", {
    generator: new Generator(9),
  });

let model: LlamaForCausalLM;

const options = (more: Partial<FinetuneOptions> = {}): FinetuneOptions => ({
  ...{ model, tokenizer, data, steps: 6, batchSize: 2, length: 24, learningRate: 0.02 },
  ...more,
});

const folder = mkdtempSync(join(tmpdir(), "nomoat-finetune-"));
afterAll(() => {
  rmSync(folder, { recursive: true });
  return init({ backend: "wasm" });
});
let runs = 0;
const fresh = (): string => join(folder, `run-${runs++}`);

describe("finetune", () => {
  beforeAll(() => init({ backend: "wasm", threads: 1 }));
  beforeEach(() => {
    model = tinyModel({ device: "wasm" });
  });
  afterEach(() => model.dispose());

  it("learns, with an adapter, and leaves the base as it was, byte for byte", async () => {
    const base = values(model.stateDict());
    const before = await perplexity({ model, tokenizer, text: data[0] });
    const adapter = adapt(model);
    const { losses } = await finetune(options({ adapter, steps: 25 }));
    const after = await perplexity({ model, tokenizer, text: data[0] });
    expect(losses.at(-1)).toBeLessThan(0.7 * losses[0]);
    expect(after.loss).toBeLessThan(0.7 * before.loss);
    adapter.remove();
    expect(values(model.stateDict())).toEqual(base);
  });

  it("trains the model's own parameters without an adapter, those alone that require a gradient", async () => {
    const before = values(model.stateDict());
    model.requiresGrad(false);
    model.model.norm.weight.requiresGrad = true;
    const result = await finetune(options());
    expect(result.trainedParameters).toBe(16);
    for (const [name, after] of values(model.stateDict())) {
      if (name === "model.norm.weight") expect(after).not.toEqual(before.get(name));
      else expect(after).toEqual(before.get(name));
    }
    expect(model.trainableParameters()).toEqual([model.model.norm.weight]);
    model.requiresGrad(false);
    await expect(finetune(options())).rejects.toThrow(/no parameter that requires a gradient/);
  });

  it("reports every step and counts what it did", async () => {
    const infos: StepInfo[] = [];
    const measured: unknown[] = [];
    const result = await finetune(
      options({
        ...{ gradientAccumulationSteps: 2, warmupSteps: 2, validation: [data[3]], evaluateEvery: 4 },
        onStep: async (info) => {
          await null;
          infos.push(info);
        },
        onEvaluate: (evaluation) => measured.push(evaluation),
      }),
    );
    expect(infos.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6]);
    expect(infos.map(({ loss }) => loss)).toEqual(result.losses);
    // Hugging Face's cosine schedule with 2 steps of warm-up: 0, ½, 1, then half a cosine over the remaining 4.
    const factors = [0, 0.5, 1, (1 + Math.SQRT1_2) / 2, 0.5, (1 - Math.SQRT1_2) / 2];
    infos.forEach(({ learningRate }, i) => {
      expect(learningRate).toBeCloseTo(0.02 * factors[i], 12);
    });
    for (const info of infos) {
      expect(info.steps).toBe(6);
      expect(info.gradNorm).toBeGreaterThan(0);
      expect(info.tokensPerSecond).toBeGreaterThan(0);
      expect(info.secondsLeft).toBeGreaterThanOrEqual(0);
    }
    expect(infos.at(-1)!.secondsLeft).toBe(0);
    expect(result.evaluations).toEqual(measured);
    expect(result.evaluations.map(({ step }) => step)).toEqual([4, 6]);
    const { loss, perplexity: measuredPerplexity } = result.evaluations[1];
    expect(measuredPerplexity).toBe(Math.exp(loss));
    // Rows of 24 tokens but for the last of an epoch.
    expect(result.tokens).toBeGreaterThan(6 * 4 * 20);
    expect(result).toMatchObject({ steps: 6, truncated: 0 });
    expect(result.epochs).toBeCloseTo(24 / result.rows, 9);
    expect(result.trainedParameters).toBe(model.parameters().reduce((sum, { size }) => sum + size, 0));
  });

  it("trains adapters on quantized weights, which stay as they are", async () => {
    const large = tinyModel({
      device: "wasm",
      config: { hiddenSize: 64, intermediateSize: 64, headDim: 16 },
    });
    quantizeModel(large, { format: "nf4" });
    const base = values(large.stateDict());
    const adapter = adapt(large);
    const { losses } = await finetune(options({ model: large, adapter, steps: 25, learningRate: 5e-3 }));
    expect(losses.at(-1)).toBeLessThan(0.8 * losses[0]);
    const { values: pieces } = await collect(
      generate({ model: large, tokenizer, prompt: "Call", maxNewTokens: 5, eosTokenIds: [] }),
    );
    expect(pieces.join("")).not.toBe("");
    adapter.remove();
    expect(values(large.stateDict())).toEqual(base);
    large.dispose();
  });

  it("takes one pass over the data when no steps are given", async () => {
    const { steps, rows, epochs } = await finetune(options({ steps: undefined }));
    expect(steps).toBe(Math.ceil(rows / 2));
    expect(epochs).toBeGreaterThanOrEqual(1);
  });

  it("gives the same numbers for the same seed, whatever else draws random numbers, and others for another", async () => {
    const run = async (own: boolean, more: Partial<FinetuneOptions>): Promise<number[]> => {
      const other = tinyModel({ device: "wasm" });
      const adapter = adapt(other, { loraDropout: 0.5 });
      if (!own) for (const [, branch] of adapter.branches()) Object.assign(branch, { generator: undefined });
      const { losses } = await finetune(options({ model: other, adapter, ...more }));
      other.dispose();
      return losses;
    };
    for (const own of [true, false]) {
      const first = await run(own, { seed: 1 });
      expect(await run(own, { seed: 1, onStep: () => defaultGenerator().uniform() })).toEqual(first);
      expect(await run(own, { seed: 2 })).not.toEqual(first);
      expect(await run(own, { seed: 1, gradientCheckpointing: true })).toEqual(first);
    }
    manualSeed(3);
    await run(false, {});
    expect(defaultGenerator().uniform()).toBe(new Generator(3).uniform());
  });

  it.each([
    ["dropout from the run's own generator", undefined],
    ["dropout from a generator of the adapter's", 9],
  ])("goes on from a checkpoint as if it had never stopped: %s", async (_, seed) => {
    const run = async (more: Partial<FinetuneOptions>): Promise<[FinetuneResult, Map<string, number[]>]> => {
      const own = tinyModel({ device: "wasm" });
      const generator = seed === undefined ? undefined : new Generator(seed);
      const adapter = applyLora(own, { r: 2, loraDropout: 0.3, initLoraWeights: true }, "default", {
        generator,
      });
      // Initial values must be the same although the default generator is at another place.
      noGrad(() => {
        for (const [i, tensor] of adapter.parameters().entries())
          tensor.copyFrom(Float32Array.from({ length: tensor.size }, (_, j) => Math.sin(i + j) / 10));
      });
      const run = { model: own, adapter, steps: 7, gradientAccumulationSteps: 2, seed: 5, warmupSteps: 1 };
      const measure = { validation: [data[0]], evaluateEvery: 2 };
      try {
        const result = await finetune(options({ ...run, ...measure, weightDecay: 0.1, ...more }));
        return [result, values(adapter.stateDict())];
      } finally {
        own.dispose();
      }
    };
    const [whole, weights] = await run({});

    // Stopped between the two batches of step 6, with steps 1 to 5 saved on the way out.
    const path = fresh();
    const controller = new AbortController();
    let steps = 0;
    const stopped = run({
      ...{ checkpoint: { folder: path, every: 3 }, signal: controller.signal },
      onStep: ({ step }) => {
        if (step === 5) setImmediate(() => setImmediate(() => controller.abort(new Error("stop"))));
        steps = step;
      },
    });
    await expect(stopped).rejects.toThrow("stop");
    expect(steps).toBe(5);
    expect(readdirSync(path)).toEqual(["checkpoint.safetensors"]);

    const [resumed, resumedWeights] = await run({ resumeFrom: path });
    expect(resumed.losses).toEqual(whole.losses);
    expect(resumed.evaluations).toEqual(whole.evaluations);
    expect(resumed.tokens).toBe(whole.tokens);
    expect(resumedWeights).toEqual(weights);

    // Stopped after 3 of 7 steps, where a checkpoint was due.
    const second = fresh();
    const early = new AbortController();
    const onStep = ({ step }: StepInfo) => step === 3 && early.abort();
    await expect(
      run({ checkpoint: { folder: second, every: 3 }, signal: early.signal, onStep }),
    ).rejects.toThrow();
    expect((await run({ resumeFrom: second }))[1]).toEqual(weights);
  });

  it("refuses checkpoints of other runs, and damaged ones, and changes nothing then", async () => {
    const path = fresh();
    const adapter = adapt(model);
    await finetune(options({ adapter, checkpoint: { folder: path }, steps: 2 }));
    const before = values(adapter.stateDict());
    const again = (more: Partial<FinetuneOptions>) =>
      finetune(options({ adapter, resumeFrom: path, ...more }));
    await expect(again({ seed: 3 })).rejects.toThrow(/seed was 0, is 3/);
    await expect(again({ batchSize: 3 })).rejects.toThrow(/batchSize was 2, is 3/);
    await expect(again({ data: data.slice(1) })).rejects.toThrow(/data was/);
    const small = tinyModel({ device: "wasm" });
    const other = adapt(small, { r: 1 });
    await expect(again({ model: small, adapter: other })).rejects.toMatchObject({
      ...{ code: "FORMAT", message: expect.stringContaining("expected float32 [1, 16]") },
    });
    small.dispose();
    await expect(again({ resumeFrom: fresh() })).rejects.toMatchObject({ code: "IO" });

    const file = join(path, "checkpoint.safetensors");
    const bytes = readFileSync(file);
    for (const damage of [
      bytes.subarray(0, 100),
      bytes.subarray(0, -8),
      Buffer.from(bytes.toString("latin1").replace("nomoat-training-1", "nomoat-training-9"), "latin1"),
      Buffer.from(bytes.toString("latin1").replace('\\"losses\\":[', '\\"losses\\":{'), "latin1"),
      Buffer.from(bytes.toString("latin1").replace('\\"tokens\\":', '\\"tokenS\\":'), "latin1"),
      Buffer.from(bytes.toString("latin1").replace(/(\\"updates\\":\{\\")./, "$1?"), "latin1"),
    ]) {
      writeFileSync(file, damage);
      await expect(again({})).rejects.toMatchObject({ code: "FORMAT" });
    }
    expect(values(adapter.stateDict())).toEqual(before);
  });

  it("names the step when the loss is not finite, and updates nothing", async () => {
    const adapter = adapt(model);
    const before = values(adapter.stateDict());
    const { weight } = model.model.norm;
    noGrad(() => weight.copyFrom(new Float32Array(16).fill(Number.NaN)));
    await expect(finetune(options({ adapter }))).rejects.toMatchObject({
      ...{ code: "NOT_FINITE", message: expect.stringMatching(/loss is NaN at step 1/) },
    });
    expect(values(adapter.stateDict())).toEqual(before);
  });

  it.each([
    [{ steps: 0 }, "steps"],
    [{ steps: 1.5 }, "steps"],
    [{ batchSize: 0 }, "batchSize"],
    [{ length: 1 }, "length"],
    [{ length: 65 }, "length"],
    [{ learningRate: -1 }, "learningRate"],
    [{ learningRate: Number.NaN }, "learningRate"],
    [{ schedule: "exponential" }, "schedule"],
    [{ warmupSteps: -1 }, "warmupSteps"],
    [{ weightDecay: Number.POSITIVE_INFINITY }, "weightDecay"],
    [{ betas: [0.9, 1] }, "betas"],
    [{ betas: 0.9 }, "betas"],
    [{ maxGradNorm: 0 }, "maxGradNorm"],
    [{ gradientAccumulationSteps: 0 }, "gradientAccumulationSteps"],
    [{ gradientCheckpointing: "yes" }, "gradientCheckpointing"],
    [{ accumulation: "sum" }, "accumulation"],
    [{ evaluateEvery: 0 }, "evaluateEvery"],
    [{ seed: -1 }, "seed"],
    [{ checkpoint: { folder: "" } }, "checkpoint.folder"],
    [{ checkpoint: { folder: "x", every: 0 } }, "checkpoint.every"],
    [{ data: undefined }, "data"],
    [{ packing: 1 }, "packing"],
    [{ learning_rate: 1 }, "learning_rate"],
  ])("refuses %j by name", async (more, name) => {
    const attempt = finetune(options(more as never));
    await expect(attempt).rejects.toMatchObject({ code: "ARGUMENT", message: expect.stringContaining(name) });
  });

  it("trains those parameters of an adapter that gather gradients: LoRA-FA leaves A", async () => {
    const adapter = freezeA(adapt(model));
    const before = values(adapter.stateDict());
    const { trainedParameters } = await finetune(options({ adapter, steps: 2 }));
    const after = values(adapter.stateDict());
    for (const [key, numbers] of after) {
      if (key.includes("lora_A")) expect(numbers).toEqual(before.get(key));
      else expect(numbers).not.toEqual(before.get(key));
    }
    expect(trainedParameters).toBe(adapter.trainableParameters().reduce((sum, { size }) => sum + size, 0));
    expect(trainedParameters).toBeLessThan(adapter.parameterCount);
  });

  it("trains rows of tokens, in the tied output layer too, and its loss is that of the logits", async () => {
    model.dispose();
    model = tinyModel({ device: "wasm", config: { tieWordEmbeddings: true } });
    const adapter = adapt(model, { trainableTokenIndices: [35, 100, 101] });
    const { losses } = await finetune(options({ adapter, loraPlusLrRatio: 2, steps: 20 }));
    expect(losses.at(-1)).toBeLessThan(losses[0]);
    tidy(() => {
      const ids = tensor([[0, 35, 100, 7, 101, 101]], { dtype: "int32" });
      const [next] = [ids.slice(0, [1, null])];
      const logits = model.forward(ids).slice(0, [0, -1]);
      const gap = model.loss(ids).item() - crossEntropy(logits, next).item();
      expect(Math.abs(gap)).toBeLessThan(1e-5);
    });
  });

  it("checks LoRA+'s options, and goes on with them from a checkpoint", async () => {
    const adapter = adapt(model);
    await expect(finetune(options({ adapter, loraPlusLrRatio: 0.5 }))).rejects.toThrow(
      /loraPlusLrRatio.*at least 1/,
    );
    await expect(finetune(options({ adapter, loraPlusLrEmbedding: 1 }))).rejects.toThrow(
      /loraPlusLrEmbedding needs loraPlusLrRatio/,
    );
    await expect(finetune(options({ loraPlusLrRatio: 4 }))).rejects.toThrow(/needs an adapter/);
    const plus = { loraPlusLrRatio: 4, schedule: "constant" as const };
    const whole = await finetune(options({ adapter, ...plus }));
    const weights = values(adapter.stateDict());
    const checkpoint = { folder: fresh() };
    model.dispose();
    model = tinyModel({ device: "wasm" });
    const first = adapt(model);
    await finetune(options({ adapter: first, ...plus, steps: 3, checkpoint }));
    model.dispose();
    model = tinyModel({ device: "wasm" });
    const second = adapt(model);
    const resumed = await finetune(options({ adapter: second, ...plus, resumeFrom: checkpoint.folder }));
    expect(resumed.losses).toEqual(whole.losses);
    expect(values(second.stateDict())).toEqual(weights);
  });

  it("refuses an adapter that is merged, disabled, or of another model", async () => {
    const adapter = adapt(model).merge();
    await expect(finetune(options({ adapter }))).rejects.toThrow(/adapter is merged/);
    adapter.unmerge().disable();
    await expect(finetune(options({ adapter }))).rejects.toThrow(/adapter is disabled/);
    const other = tinyModel({ device: "wasm" });
    await expect(finetune(options({ adapter: adapt(other) }))).rejects.toThrow(/not on this model/);
    other.dispose();
  });

  it("leaves modes, gradients and memory as they were, also after an error", async () => {
    model.eval();
    model.model.embed_tokens.weight.requiresGrad = false;
    // The first pass makes the model's rotary tables, which stay.
    await perplexity({ model, tokenizer, text: data[0], length: 24 });
    const before = memoryStats();
    const stats = { tensors: before.tensors, storages: before.storages, bytes: before.bytes };
    const trainable = model.trainableParameters().length;
    await finetune(options({ validation: [data[0]] }));
    const failing = () => {
      throw new Error("in onStep");
    };
    await expect(finetune(options({ onStep: failing }))).rejects.toThrow("in onStep");
    await expect(finetune(options({ signal: AbortSignal.abort() }))).rejects.toMatchObject({
      name: "AbortError",
    });
    expect(memoryStats()).toMatchObject(stats);
    expect(model.trainableParameters()).toHaveLength(trainable);
    expect([...model.namedModules()].some(([, module]) => module.training)).toBe(false);
  });

  it("gives the event loop its turn between steps", async () => {
    let turns = 0;
    const timer = setInterval(() => turns++, 0);
    await finetune(options({ steps: 10 }));
    clearInterval(timer);
    expect(turns).toBeGreaterThan(5);
  });
});
