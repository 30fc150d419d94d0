// What adapters take is given back, however they go: no tensor and no storage stays.

import { init, memoryStats, type Tensor, tidy } from "@nomoat/core";
import { Conv2d, Module } from "@nomoat/core/nn";
import { beforeAll, describe, expect, it } from "vitest";
import {
  type Adapter,
  applyLora,
  hotSwapAdapter,
  type LoraConfig,
  loadAdapter,
  mergeAndUnload,
  serializeAdapter,
} from "../src/index.js";
import { randomize, TinyModel, tokens } from "./model.js";

beforeAll(() => init({ backend: "reference" }));

/** TinyModel with a convolution that takes its output as a picture. */
class Net extends Module {
  readonly text = new TinyModel({ depth: 1 });
  readonly conv = Conv2d.create(2, 2, 3, { padding: 1, dtype: "float64", device: "reference" });

  override forward(ids: Tensor): Tensor {
    return tidy(() => this.conv.forward(this.text.forward(ids).unsqueeze(0)));
  }
}

const all = ["q_proj", "up_proj", "embed_tokens", "conv"];
const kinds: [string, Partial<LoraConfig>][] = [
  ["LoRA", { targetModules: all }],
  ["DoRA", { targetModules: all, useDora: true }],
  ["loraBias", { targetModules: ["q_proj", "conv"], loraBias: true }],
  ["PiSSA", { r: 2, targetModules: ["q_proj", "conv"], initLoraWeights: "pissa" }],
  ["modules to save", { modulesToSave: ["lm_head"] }],
  ["tokens", { trainableTokenIndices: [0, 4] }],
  ["biases", { bias: "all" }],
  ["(IA)³", { peftType: "IA3", targetModules: ["up_proj", "down_proj"] }],
  ["LoHa", { peftType: "LOHA", targetModules: ["q_proj", "conv"] }],
  ["LoKr", { peftType: "LOKR", targetModules: ["q_proj", "conv"], r: 1 }],
  ["VeRA", { peftType: "VERA", r: 4 }],
  ["AdaLoRA", { peftType: "ADALORA", initR: 3, totalStep: 9 }],
];

const held = () => {
  const { tensors, storages, backend } = memoryStats();
  return { tensors, storages, used: backend.used };
};

function use(model: Module & { forward(ids: Tensor): Tensor }, adapter: Adapter): void {
  tidy(() => model.forward(tokens()).square().sum().backward());
  for (const parameter of adapter.parameters()) parameter.zeroGrad();
}

const pairs = kinds.flatMap(([name, config]) =>
  (["active", "disabled", "merged"] as const).map((state) => [name, state, config] as const),
);

describe.each(pairs)("%s, %s", (_, state, config) => {
  const setUp = (name = "default") => {
    const start = held();
    const model = new Net();
    const bare = held();
    const adapter = applyLora(model, config, name);
    randomize(adapter.parameters());
    use(model, adapter);
    const put = () => {
      if (state === "disabled") adapter.disable();
      if (state === "merged") adapter.merge();
    };
    put();
    return { start, bare, model, adapter };
  };

  it("goes with its model", () => {
    const { start, model, adapter } = setUp();
    model.dispose();
    expect(held()).toEqual(start);
    expect(adapter.active).toBe(false);
    // Nothing is left to do, or to go wrong.
    adapter.remove();
    expect(held()).toEqual(start);
  });

  it("goes when it is removed, under another name too", () => {
    const { start, bare, model, adapter } = setUp();
    adapter.rename("other");
    adapter.remove();
    expect(held()).toEqual(bare);
    model.dispose();
    expect(held()).toEqual(start);
  });

  it("leaves a model of the same size when it is merged for good", () => {
    const { start, bare, model } = setUp();
    mergeAndUnload(model);
    expect(held()).toEqual(bare);
    model.dispose();
    expect(held()).toEqual(start);
  });

  it("takes no more when it is loaded, and swapped for another", async () => {
    const { start, bare, model, adapter } = setUp();
    if (state === "merged") adapter.unmerge();
    const files = await serializeAdapter(adapter);
    const one = held();
    const principal = String(config.initLoraWeights) === "pissa";
    if (!principal) await hotSwapAdapter(adapter, files);
    expect(held()).toEqual(one);
    adapter.remove();
    const loaded = await loadAdapter(model, files);
    // A principal part is saved as an update of twice the rank.
    if (!principal) expect(held()).toEqual(one);
    loaded.remove();
    expect(held()).toEqual(bare);
    model.dispose();
    expect(held()).toEqual(start);
  });
});

it("goes with its model beside others", () => {
  const start = held();
  const model = new Net();
  for (const [i, [, config]] of kinds.entries()) {
    const targetModules = Array.isArray(config.targetModules)
      ? config.targetModules.filter((name) => name !== "embed_tokens")
      : ["q_proj", "v_proj"];
    const adapter = applyLora(model, { ...config, targetModules }, `a${i}`);
    use(model, adapter);
    adapter.disable();
  }
  model.dispose();
  expect(held()).toEqual(start);
});
