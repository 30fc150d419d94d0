// Fine-tuning gives the same on any number of threads, agrees with the reference backend, and holds memory flat.

import { type BackendName, Generator, init, memoryStats } from "@nomoat/core";
import { applyLora, type LoraConfig } from "@nomoat/lora";
import { afterAll, describe, expect, it } from "vitest";
import { type FinetuneOptions, finetune, type LlamaForCausalLM } from "../src/index.js";
import { byteTokenizer, tinyModel } from "./support.js";

const tokenizer = byteTokenizer();
const data = Array.from({ length: 12 }, (_, i) => `${"Call me Ishmael. ".slice(i)}Some years ago ${i * i}.`);

const adapt = (model: LlamaForCausalLM, config: Partial<LoraConfig> = {}) =>
  applyLora(model, { r: 2, loraAlpha: 4, targetModules: "all-linear", ...config }, "default", {
    generator: new Generator(9),
  });

describe("threads, backends, memory", () => {
  afterAll(() => init({ backend: "wasm" }));

  const train = async (device: BackendName, more: Partial<FinetuneOptions> = {}) => {
    const own = tinyModel({ device, config: { hiddenSize: 64, intermediateSize: 192, headDim: 16 } });
    const adapter = adapt(own, { loraDropout: 0.1 });
    const result = await finetune({
      ...{ model: own, tokenizer, data, adapter, steps: 6, batchSize: 4, length: 64, learningRate: 0.02 },
      ...more,
    });
    own.dispose();
    return result.losses;
  };

  it("gives the same loss curve with 1 and 2 threads, bit for bit", async () => {
    await init({ backend: "wasm", threads: 1 });
    const alone = await train("wasm", { steps: 12 });
    await init({ backend: "wasm", threads: 2 });
    expect(await train("wasm", { steps: 12 })).toEqual(alone);
  });

  it("agrees with the reference backend", async () => {
    await init({ backend: "wasm" });
    const fast = await train("wasm", { steps: 3, length: 24 });
    await init({ backend: "reference" });
    const slow = await train("reference", { steps: 3, length: 24 });
    fast.forEach((loss, i) => {
      expect(Math.abs(loss - slow[i]) / slow[i]).toBeLessThan(1e-4);
    });
  });

  it("holds tensors and memory flat over 2,000 steps", async () => {
    await init({ backend: "wasm", threads: 1 });
    const config = { hiddenSize: 8, intermediateSize: 8, headDim: 2, numLayers: 1, numKeyValueHeads: 4 };
    const own = tinyModel({ device: "wasm", config });
    const adapter = adapt(own);
    const seen: { tensors: number; storages: number; bytes: number; used: number; reserved: number }[] = [];
    await finetune({
      ...{ model: own, tokenizer, adapter, data, steps: 2000, batchSize: 1, length: 8, packing: true },
      onStep: ({ step }) => {
        const { tensors, storages, bytes, backend } = memoryStats();
        if (step >= 10)
          seen.push({ tensors, storages, bytes, used: backend.used, reserved: backend.reserved });
      },
    });
    expect(seen).toHaveLength(1991);
    for (const stats of seen) expect(stats).toEqual(seen[0]);
    own.dispose();
  });
});
