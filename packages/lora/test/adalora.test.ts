// AdaLoRA: its formula, penalty, pruning and files.

import { Generator, init, manualSeed, type Tensor } from "@nomoat/core";
import { AdamW } from "@nomoat/core/optim";
import { beforeAll, describe, expect, it } from "vitest";
import {
  applyLora,
  type LoraConfig,
  loadAdapter,
  orthogonalPenalty,
  RankAllocator,
  readAdapterConfig,
  serializeAdapter,
} from "../src/index.js";
import { maxDifference, randomize, TinyModel, tokens } from "./model.js";

beforeAll(() => init({ backend: "reference" }));

const config: Partial<LoraConfig> = {
  peftType: "ADALORA",
  targetModules: ["q_proj", "up_proj"],
  initR: 4,
  targetR: 2,
  loraAlpha: 6,
  totalStep: 10,
  tinit: 2,
  tfinal: 3,
};

function setUp(extra: Partial<LoraConfig> = {}) {
  const model = new TinyModel();
  const adapter = applyLora(model, { ...config, ...extra }, "default", { generator: new Generator(2) });
  return { model, adapter };
}

describe("AdaLoRA", () => {
  it("has PEFT's names and scaling, and is the identity when fresh", () => {
    const { model, adapter } = setUp();
    expect(maxDifference(model.forward(tokens()), new TinyModel().forward(tokens()))).toBe(0);
    const at = "base_model.model.model.layers.0.self_attn.q_proj";
    const state = adapter.stateDict();
    expect([...state.keys()].slice(0, 3)).toEqual([`${at}.lora_A`, `${at}.lora_B`, `${at}.lora_E`]);
    randomize(adapter.parameters());
    const [a, b, e] = [...state.values()] as Tensor[];
    const layer = model.getModule("model.layers.0.self_attn.q_proj") as never as {
      original: { forward(x: Tensor): Tensor };
      forward(x: Tensor): Tensor;
    };
    const x = model.model.embed_tokens.forward(tokens());
    const delta = x
      .matmul(a.mul(e), { transB: true })
      .matmul(b, { transB: true })
      .mul(6 / (4 + 1e-5));
    expect(maxDifference(layer.forward(x), layer.original.forward(x).add(delta))).toBeLessThan(1e-13);
  });

  it("penalizes sides that are not orthogonal", () => {
    const { adapter } = setUp({ targetModules: ["layers.0.self_attn.q_proj"], initR: 1 });
    const [a, b] = adapter.parameters();
    randomize([a, b]);
    const square = (tensor: Tensor) =>
      Array.from(tensor.dataSync(), Number).reduce((sum, v) => sum + v * v, 0);
    const penalty = orthogonalPenalty(adapter);
    expect(penalty.item()).toBeCloseTo((0.5 * (Math.abs(square(a) - 1) + Math.abs(square(b) - 1))) / 2, 12);
    penalty.backward();
    expect(a.grad).not.toBeNull();
    expect(() => orthogonalPenalty(applyLora(new TinyModel()))).toThrow(/LORA, not ADALORA/);
  });

  it("prunes to the budget by importance, and saves what is left", async () => {
    manualSeed(1);
    const { model, adapter } = setUp({ loraDropout: 0.1, bias: "lora_only" });
    const allocator = new RankAllocator(adapter);
    expect([0, 2, 3, 5, 7, 8].map((step) => allocator.budget(step))).toEqual([16, 16, 12, 8, 8, 8]);
    const optimizer = new AdamW(adapter.parameters(), { learningRate: 0.05 });
    const values = () =>
      [...adapter.stateDict()].flatMap(([key, tensor]) =>
        key.endsWith("lora_E") ? [...tensor.dataSync()] : [],
      );
    const left = [];
    for (let step = 0; step < 10; step++) {
      model.forward(tokens()).square().mean().add(orthogonalPenalty(adapter)).backward();
      optimizer.step();
      allocator.update(step);
      optimizer.zeroGrad();
      left.push(values().filter((value) => value !== 0).length);
    }
    expect(left).toEqual([16, 16, 16, 12, 9, 8, 8, 8, 8, 8]);
    const masks = Object.entries(adapter.config.rankMasks ?? {});
    expect(masks.map(([key]) => key)).toContain("model.layers.0.self_attn.q_proj.lora_E");
    expect(masks.flatMap(([, mask]) => mask)).toEqual(values().map((value) => value !== 0));

    model.eval();
    const out = model.forward(tokens());
    const files = await serializeAdapter(adapter, { dtype: "float64" });
    const config = await readAdapterConfig(files);
    expect(config.rankMasks).toEqual(adapter.config.rankMasks);
    const other = new TinyModel().eval() as TinyModel;
    const loaded = await loadAdapter(other, files);
    expect(maxDifference(other.forward(tokens()), out)).toBeLessThan(1e-13);
    expect([...(await serializeAdapter(loaded, { dtype: "float64" }))]).toEqual([...files]);
    loaded.merge();
    expect(maxDifference(other.forward(tokens()), out)).toBeLessThan(1e-12);
  });

  it("refuses what does not fit", () => {
    expect(() => setUp({ useRslora: true })).toThrow(/useRslora does not apply to ADALORA/);
    expect(() => setUp({ beta1: 1, rankMasks: { a: [1] } as never })).toThrow(
      /beta1 must be.*rankMasks must have/,
    );
    expect(() => setUp({ targetModules: ["embed_tokens"] })).toThrow(/ADALORA does not support/);
    expect(() => new RankAllocator(setUp({ totalStep: null }).adapter)).toThrow(/totalStep must be more/);
    const allocator = new RankAllocator(setUp().adapter);
    expect(() => allocator.update(0)).toThrow(/no gradient/);
  });
});
