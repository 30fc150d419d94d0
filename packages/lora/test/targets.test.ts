// PEFT's rules for choosing layers.

import { init } from "@nomoat/core";
import { beforeAll, describe, expect, it } from "vitest";
import { type LoraConfig, resolveLoraConfig, resolveTargets } from "../src/index.js";
import { TinyModel } from "./model.js";

let model: TinyModel;
beforeAll(async () => {
  await init({ backend: "reference" });
  model = new TinyModel();
});

const names = (config: Partial<LoraConfig>) =>
  resolveTargets(model, resolveLoraConfig(config)).map((target) => target.name);

const everyLayer = [
  "self_attn.q_proj",
  "self_attn.k_proj",
  "self_attn.v_proj",
  "self_attn.o_proj",
  "mlp.up_proj",
  "mlp.down_proj",
];

describe("targets", () => {
  it("defaults to q and v", () => {
    expect(names({})).toEqual([
      "model.layers.0.self_attn.q_proj",
      "model.layers.0.self_attn.v_proj",
      "model.layers.1.self_attn.q_proj",
      "model.layers.1.self_attn.v_proj",
    ]);
  });

  it("takes names, ends of names, and full names", () => {
    expect(names({ targetModules: ["mlp.up_proj"] })).toHaveLength(2);
    expect(names({ targetModules: ["lm_head"] })).toEqual(["lm_head"]);
    expect(names({ targetModules: ["model.layers.1.mlp.up_proj"] })).toEqual(["model.layers.1.mlp.up_proj"]);
    expect(() => names({ targetModules: ["proj"] })).toThrow(
      /match no layer; linear layers: model\.layers\.\*\./,
    );
  });

  it("takes a pattern for the whole name", () => {
    expect(names({ targetModules: ".*\\.0\\..*(q|o)_proj" })).toEqual([
      "model.layers.0.self_attn.q_proj",
      "model.layers.0.self_attn.o_proj",
    ]);
    expect(() => names({ targetModules: "q_proj" })).toThrow(/match no layer/);
    expect(() => names({ targetModules: ".*mlp.*" })).toThrow(
      /nor convolutions: model\.layers\.0\.mlp \(Mlp\)/,
    );
  });

  it("all-linear is every linear layer but the output", () => {
    const expected = [0, 1].flatMap((i) => everyLayer.map((name) => `model.layers.${i}.${name}`));
    expect(names({ targetModules: "all-linear" })).toEqual(expected);
    expect(names({ targetModules: "ALL-LINEAR" })).toEqual(expected);
  });

  it("excludes", () => {
    expect(names({ targetModules: "all-linear", excludeModules: ["mlp.up_proj", "q_proj"] })).toHaveLength(8);
    expect(names({ targetModules: "all-linear", excludeModules: ".*mlp.*" })).toHaveLength(8);
    expect(() => names({ targetModules: ["q_proj"], excludeModules: ["q_proj"] })).toThrow(
      /2 layers, all of them excluded/,
    );
  });

  it("picks layers by index", () => {
    expect(names({ targetModules: ["q_proj"], layersToTransform: 1 })).toEqual([
      "model.layers.1.self_attn.q_proj",
    ]);
    expect(names({ targetModules: ["q_proj"], layersToTransform: [0, 7], layersPattern: "layers" })).toEqual([
      "model.layers.0.self_attn.q_proj",
    ]);
    expect(() =>
      names({ targetModules: ["q_proj"], layersToTransform: [0], layersPattern: "blocks" }),
    ).toThrow(/no layer/);
    expect(names({ targetModules: ["q_proj"], layersToTransform: [] })).toHaveLength(2);
    // As in PEFT, a full name counts whatever the index.
    expect(names({ targetModules: ["model.layers.0.self_attn.q_proj"], layersToTransform: 1 })).toHaveLength(
      1,
    );
    expect(() => names({ targetModules: "all-linear", layersToTransform: 1 })).toThrow(/cannot be used/);
    expect(() => names({ layersPattern: "layers" })).toThrow(/needs layersToTransform/);
    expect(() => names({ layersToTransform: [7], layersPattern: "blocks" })).toThrow(
      'with layersToTransform [7] and layersPattern "blocks" match no layer',
    );
  });

  it("ranks and alphas by pattern: the first that matches the end of the name", () => {
    const targets = resolveTargets(
      model,
      resolveLoraConfig({
        targetModules: "all-linear",
        r: 8,
        loraAlpha: 16,
        rankPattern: { "layers.0.self_attn.q_proj": 2, "[qk]_proj": 4, proj: 3 },
        alphaPattern: { "self_attn.*": 4 },
      }),
    );
    const by = new Map(targets.map((t) => [t.name, [t.r, t.alpha, t.scaling]]));
    expect(by.get("model.layers.0.self_attn.q_proj")).toEqual([2, 4, 2]);
    expect(by.get("model.layers.1.self_attn.q_proj")).toEqual([4, 4, 1]);
    expect(by.get("model.layers.0.mlp.up_proj")).toEqual([8, 16, 2]);
  });

  it("scales by the square root for rsLoRA", () => {
    const [target] = resolveTargets(model, resolveLoraConfig({ r: 4, loraAlpha: 6, useRslora: true }));
    expect(target.scaling).toBe(3);
  });

  it("collects faults of a configuration", () => {
    expect(() =>
      resolveLoraConfig({ r: 0, loraAlpha: Number.NaN, loraDropout: 1, lora_alpha: 3 } as never),
    ).toThrow(/lora_alpha: write loraAlpha.*r must be.*loraAlpha must be.*loraDropout must be/);
    expect(() => resolveLoraConfig({ rankPattern: { q_proj: 1.5 } })).toThrow(/rankPattern must have/);
    expect(() => resolveLoraConfig({ initLoraWeights: "eva" } as never)).toThrow(/not "eva" \(see applyEva/);
    expect(() => resolveLoraConfig({ bias: "some" } as never)).toThrow(
      /bias must be "none", "all" or "lora_only"/,
    );
  });
});
