// What a layer with an adapter takes: never a buffer of the weight's size.

import { init, memoryStats, ones, resetPeakMemory, type Tensor, tidy } from "@nomoat/core";
import { Linear, Module } from "@nomoat/core/nn";
import { expect, it } from "vitest";
import { applyLora, type LoraConfig } from "../src/index.js";

class One extends Module {
  layer = Linear.create(512, 512, { bias: false });
  override forward(x: Tensor): Tensor {
    return this.layer.forward(x);
  }
}

const kinds: [string, Partial<LoraConfig>][] = [
  ["LoRA", {}],
  ["DoRA", { useDora: true }],
  ["AdaLoRA", { peftType: "ADALORA", initR: 4, totalStep: 9 }],
  ["VeRA", { peftType: "VERA" }],
  ["(IA)³", { peftType: "IA3", targetModules: ["layer"] }],
  ["LoKr", { peftType: "LOKR" }],
  ["LoHa of low rank", { peftType: "LOHA", r: 2 }],
];

it.each(kinds)("%s: forward and backward make nothing of the size of the frozen weight", async (_, kind) => {
  await init({ backend: "wasm", threads: 1 });
  const size = 512;
  const model = new One();
  const adapter = applyLora(model, {
    ...{ r: 4, targetModules: "all-linear", initLoraWeights: false },
    ...kind,
  });
  const x = ones([8, size]);
  x.requiresGrad = true;
  const pass = () => {
    tidy(() => model.forward(x).sum().backward());
    for (const one of [x, ...adapter.parameters()]) one.zeroGrad();
  };
  pass();
  const { used } = memoryStats().backend;
  resetPeakMemory();
  pass();
  const above = memoryStats().backend.peak - used;
  expect(above).toBeGreaterThan(0);
  // Activations and gradients of the factors: far below the weight's 4 · 512² bytes.
  expect(above).toBeLessThan((4 * size * size) / 4);
  model.dispose();
  x.dispose();
});
