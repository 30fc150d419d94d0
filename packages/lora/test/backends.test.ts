// The same on every backend: float32 on wasm against float32 on the reference, for each variant, forward, backward and merged.

import { type BackendName, crossEntropy, Generator, init, manualSeed, tidy } from "@nomoat/core";
import { AdamW } from "@nomoat/core/optim";
import { beforeAll, describe, expect, it } from "vitest";
import { applyLora, type LoraConfig } from "../src/index.js";
import { randomize, snapshot, TinyModel, tokens } from "./model.js";

beforeAll(async () => {
  await init({ backend: "reference" });
  await init({ backend: "wasm", threads: 2 });
});

const cases: [string, Partial<LoraConfig>][] = [
  ["LoRA", { loraDropout: 0.3 }],
  ["rsLoRA", { useRslora: true, rankPattern: { q_proj: 7 } }],
  ["DoRA", { useDora: true }],
  ["PiSSA", { initLoraWeights: "pissa" }],
  ["embedding", { targetModules: ["embed_tokens", "down_proj"] }],
];

function run(device: BackendName, config: Partial<LoraConfig>) {
  const place = { dtype: "float32", device } as const;
  const model = new TinyModel({ ...place, width: 24 });
  const base = snapshot(model);
  manualSeed(8);
  const generator = new Generator(2);
  const adapter = applyLora(
    model,
    { r: 4, loraAlpha: 6, targetModules: "all-linear", ...config },
    "default",
    { generator },
  );
  randomize(adapter.parameters(), 3, 0.1);
  const optimizer = new AdamW(adapter.parameters(), { learningRate: 0.003 });
  const losses: number[] = [];
  let gradients: number[] = [];
  for (let step = 0; step < 5; step++) {
    tidy(() => {
      const loss = crossEntropy(model.forward(tokens({ ...place })), tokens({ ...place }));
      losses.push(loss.item());
      loss.backward();
    });
    if (step === 0)
      gradients = adapter.parameters().flatMap((parameter) => [...(parameter.grad?.dataSync() ?? [])]);
    optimizer.step();
    optimizer.zeroGrad();
  }
  model.eval();
  const logits = [...model.forward(tokens(place)).dataSync()];
  adapter.merge();
  const merged = [...model.forward(tokens(place)).dataSync()];
  adapter.remove();
  expect(snapshot(model)).toEqual(base);
  return { losses, gradients, logits, merged };
}

// float32 rounding through two layers, as a share of the largest value
const tolerance = 2e-5;

function close(a: number[], b: number[], factor = 1): void {
  expect(a).toHaveLength(b.length);
  const largest = Math.max(...b.map(Math.abs));
  const worst = Math.max(...a.map((value, i) => Math.abs(value - b[i])));
  expect(worst / largest).toBeLessThan(tolerance * factor);
}

describe.each(cases)("%s", (_, config) => {
  it("wasm equals the reference", () => {
    const [reference, wasm] = (["reference", "wasm"] as const).map((device) => run(device, config));
    close(wasm.gradients, reference.gradients);
    close(wasm.losses, reference.losses);
    // AdamW turns gradients of nearly zero into steps of either sign.
    close(wasm.logits, reference.logits, 50);
    close(wasm.merged, wasm.logits);
    expect(wasm.losses[4]).toBeLessThan(wasm.losses[0]);
  });
});
