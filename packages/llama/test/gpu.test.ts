// Fine-tuning on the gpu backend: the same losses as on the wasm backend, and nothing left on the device.

import { type BackendName, Generator, init, shutdown } from "@nomoat/core";
import { gpuBackend } from "@nomoat/core/gpu";
import { applyLora } from "@nomoat/lora";
import { afterAll, describe, expect, it } from "vitest";
import { finetune, perplexity } from "../src/index.js";
import { byteTokenizer, tinyModel } from "./support.js";

const tokenizer = byteTokenizer();
const data = Array.from({ length: 6 }, (_, i) => `${"Call me Ishmael. ".slice(i)}Some years ago ${i * i}.`);

async function train(device: BackendName) {
  const model = tinyModel({ device });
  const adapter = applyLora(model, { r: 2, loraAlpha: 4, targetModules: "all-linear" }, "default", {
    generator: new Generator(9),
  });
  const before = await perplexity({ model, tokenizer, text: data[0] });
  const { losses } = await finetune({
    ...{ model, tokenizer, adapter, data, steps: 4, batchSize: 1, length: 32, learningRate: 0.02 },
    gradientCheckpointing: true,
  });
  model.dispose();
  return { losses, before: before.loss };
}

describe.each(["webasm", "cpu"] as const)("finetune on the gpu backend, %s", (mode) => {
  afterAll(shutdown);

  it("gives the wasm backend's losses", async () => {
    await init({ backend: "wasm", threads: 1 });
    const expected = await train("wasm");
    await init({ backend: "gpu", mode });
    const actual = await train("gpu");
    expect(Math.abs(actual.before - expected.before)).toBeLessThan(1e-3);
    expect(actual.losses).toHaveLength(4);
    actual.losses.forEach((loss, i) => {
      expect(Math.abs(loss - expected.losses[i])).toBeLessThan(1e-3);
    });
    expect(gpuBackend().memory().used).toBe(0);
  });
});
