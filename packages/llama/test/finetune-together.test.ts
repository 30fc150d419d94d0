// Several adapters trained in one pass: each has the losses and values of its own run.

import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type BackendName, Generator, init, memoryStats } from "@nomoat/core";
import { type Adapter, applyLora, type LoraConfig } from "@nomoat/lora";
import { quantizeModel } from "@nomoat/quant";
import { afterAll, describe, expect, it } from "vitest";
import {
  type FinetuneResult,
  finetune,
  finetuneTogether,
  type LlamaForCausalLM,
  type TogetherRun,
} from "../src/index.js";
import { byteTokenizer, tinyModel } from "./support.js";

const tokenizer = byteTokenizer();
const text = (i: number): string => `${"It was the best of times, ".slice(i)}the age of ${i * i * 7}.`;
const notes = (k: number): string[] => Array.from({ length: 9 }, (_, i) => text(11 * k + i));

interface Training {
  lora: Partial<LoraConfig>;
  options: Omit<TogetherRun, "adapter" | "data">;
}

/** Different ranks, targets, kinds, rates, dropout, rows, lengths, steps and accumulation. */
const trainings: Training[] = [
  { lora: { r: 2, targetModules: "all-linear" }, options: { steps: 4, batchSize: 2, length: 24 } },
  {
    lora: { r: 5, loraAlpha: 16, targetModules: ["q_proj", "v_proj", "down_proj"], loraDropout: 0.3 },
    options: { steps: 3, batchSize: 1, length: 17, learningRate: 0.03, seed: 5, maxGradNorm: 0.1 },
  },
  {
    lora: { r: 1, useRslora: true, loraDropout: 0.5, targetModules: ["o_proj", "gate_proj"] },
    options: { steps: 2, batchSize: 2, gradientAccumulationSteps: 2, packing: false, schedule: "constant" },
  },
  {
    lora: { r: 3, useDora: true, loraDropout: 0.2, targetModules: ["q_proj", "up_proj"] },
    options: { steps: 3, batchSize: 1, length: 12, weightDecay: 0.1, accumulation: "means" },
  },
];

const common = { learningRate: 0.01 };

function modelOf(device: BackendName, quantized: boolean): LlamaForCausalLM {
  const model = tinyModel({ device, config: { tieWordEmbeddings: true, hiddenSize: 32, headDim: 8 } });
  if (quantized) quantizeModel(model, { format: "nf4" });
  return model;
}

const adapt = (model: LlamaForCausalLM, k: number): Adapter =>
  applyLora(model, trainings[k].lora, `a${k}`, { generator: new Generator(k + 1) });

const valuesOf = (adapter: Adapter): number[] =>
  adapter.parameters().flatMap((parameter) => Array.from(parameter.dataSync(), Number));

const folder = mkdtempSync(join(tmpdir(), "nomoat-together-"));
afterAll(() => {
  rmSync(folder, { recursive: true });
  return init({ backend: "wasm" });
});

async function alone(
  device: BackendName,
  quantized: boolean,
  gradientCheckpointing: boolean,
  k: number,
): Promise<{ result: FinetuneResult; values: number[] }> {
  const model = modelOf(device, quantized);
  const adapter = adapt(model, k);
  const options = { ...common, ...trainings[k].options, gradientCheckpointing };
  const result = await finetune({ model, tokenizer, adapter, data: notes(k), ...options });
  const values = valuesOf(adapter);
  model.dispose();
  return { result, values };
}

describe("finetuneTogether", () => {
  it.each([
    ["reference", "reference", false, false, 1e-6],
    ["wasm, NF4 base", "wasm", true, false, 2e-5],
    ["wasm, checkpointing", "wasm", false, true, 2e-5],
  ] as const)(
    "gives each adapter its own run: %s",
    async (_, device, quantized, checkpointing, tolerance) => {
      await init({ backend: device, ...(device === "wasm" && { threads: 2 }) });
      const expected = [];
      for (const k of trainings.keys()) expected.push(await alone(device, quantized, checkpointing, k));
      const model = modelOf(device, quantized);
      const before = [...model.stateDict()].map(([name, one]) => [name, [...one.dataSync()]]);
      const adapters = trainings.map((_, k) => adapt(model, k));
      adapters[0].disable();
      const used = memoryStats().tensors;
      const runs = trainings.map(({ options }, k) => {
        return { ...common, ...options, adapter: adapters[k], data: notes(k) };
      });
      const results = await finetuneTogether({
        model,
        tokenizer,
        runs,
        gradientCheckpointing: checkpointing,
      });
      // The two tables of positions stay with the model.
      expect(memoryStats().tensors).toBe(used + 2);
      for (const [k, { result, values }] of expected.entries()) {
        expect(results[k].losses).toHaveLength(result.losses.length);
        expect(result.losses.length).toBe(trainings[k].options.steps);
        for (const [i, loss] of result.losses.entries())
          expect(Math.abs(results[k].losses[i] / loss - 1), `run ${k}, step ${i}`).toBeLessThan(tolerance);
        expect(results[k].tokens).toBe(result.tokens);
        const own = valuesOf(adapters[k]);
        // Adam's first updates have the sign of the gradient, so tiny differences can show as some of the rate.
        const largest = Math.max(...values.map((value, i) => Math.abs(own[i] - value)));
        expect(largest, `values of run ${k}`).toBeLessThan(device === "reference" ? 1e-5 : 2e-3);
      }
      for (const adapter of adapters) adapter.remove();
      expect([...model.stateDict()].map(([name, one]) => [name, [...one.dataSync()]])).toEqual(before);
      model.dispose();
    },
  );

  it("measures, saves, and writes checkpoints that either way of training goes on from", async () => {
    await init({ backend: "reference" });
    const options = { steps: 4, batchSize: 1, length: 20, learningRate: 0.01 };
    const whole = async (stop: boolean): Promise<number[]> => {
      const model = modelOf("reference", false);
      const adapters = [0, 1].map((k) => adapt(model, k));
      const place = (k: number): string => join(folder, `state-${k}`);
      const steps = stop ? 2 : 4;
      const runs = adapters.map((adapter, k) => ({
        ...{ ...options, adapter, data: notes(k), steps, schedule: () => 1 },
        ...(stop ? { checkpoint: { folder: place(k) } } : { validation: notes(k + 2), evaluateEvery: 2 }),
        saveTo: join(folder, `${stop ? "stopped" : "whole"}-${k}`),
      }));
      const results = await finetuneTogether({ model, tokenizer, runs });
      if (!stop) {
        expect(results[1].evaluations.map((each) => each.step)).toEqual([2, 4]);
        expect(existsSync(join(folder, "whole-1", "adapter_model.safetensors"))).toBe(true);
        return results.flatMap((result) => result.losses);
      }
      adapters[1].disable();
      const first = await finetune({
        ...{ ...options, model, tokenizer, adapter: adapters[0], data: notes(0), schedule: () => 1 },
        resumeFrom: place(0),
      });
      const resumed = { ...options, adapter: adapters[1], data: notes(1), schedule: () => 1 };
      const [second] = await finetuneTogether({
        ...{ model, tokenizer },
        runs: [{ ...resumed, resumeFrom: place(1) }],
      });
      return [...first.losses, ...second.losses];
    };
    const [unbroken, resumed] = [await whole(false), await whole(true)];
    for (const [i, loss] of unbroken.entries()) expect(resumed[i] / loss).toBeCloseTo(1, 6);
  });

  it("refuses wrong runs by name, saves what is whole when aborted, and frees everything", async () => {
    await init({ backend: "wasm", threads: 1 });
    const model = modelOf("wasm", false);
    const [a, b] = [0, 1].map((k) => adapt(model, k));
    const data = notes(0);
    const run = (more: Partial<TogetherRun>, adapter = a): TogetherRun => ({ adapter, data, ...more });
    const refuse = (runs: unknown[], message: RegExp) =>
      expect(finetuneTogether({ model, tokenizer, runs: runs as TogetherRun[] })).rejects.toThrow(message);
    await refuse([], /runs must be a list/);
    await refuse([run({}), run({})], /"a0" is given twice/);
    await refuse([run({ batchSize: 0 }, b)], /run of "a1": .*batchSize must be/);
    await refuse([run({ nonsense: 1 } as never)], /run of "a0": .*unknown option "nonsense"/);
    await refuse([run({ signal: undefined } as never)], /signal is for all runs/);
    const other = modelOf("wasm", false);
    await refuse([run({}, adapt(other, 0))], /not on this model/);
    other.dispose();
    const saved = applyLora(model, { modulesToSave: ["lm_head"], r: 1 }, "saved");
    const used = memoryStats().tensors;
    const controller = new AbortController();
    const place = join(folder, "aborted");
    const onStep = ({ step }: { step: number }): void => {
      if (step === 2) controller.abort(new Error("enough"));
    };
    const runs = [
      run({ steps: 9, batchSize: 1, onStep, checkpoint: { folder: place } }),
      run({ steps: 9 }, b),
    ];
    await refuse([run({}, saved)], /"saved" has modules to save/);
    saved.remove();
    await expect(finetuneTogether({ model, tokenizer, runs, signal: controller.signal })).rejects.toThrow(
      "enough",
    );
    expect(existsSync(join(place, "checkpoint.safetensors"))).toBe(true);
    expect(a.active && b.active).toBe(true);
    expect(memoryStats().tensors).toBeLessThanOrEqual(used);
    model.dispose();
  });
});
