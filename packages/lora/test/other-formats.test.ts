// Adapters of mlx-lm and of kohya's sd-scripts.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { init, type Tensor, tensor } from "@nomoat/core";
import { serializeSafetensors } from "@nomoat/core/safetensors";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  applyLora,
  type LoraConfig,
  loadKohyaAdapter,
  loadMlxAdapter,
  saveMlxAdapter,
  serializeMlxAdapter,
} from "../src/index.js";
import { maxDifference, normalTensor, randomize, TinyModel, tokens } from "./model.js";

const folder = mkdtempSync(join(tmpdir(), "nomoat-mlx-"));
beforeAll(() => init({ backend: "reference" }));
afterAll(() => rmSync(folder, { recursive: true }));

const float32 = { dtype: "float32", device: "reference" } as const;
const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
const normal = (shape: number[], seed: number) => normalTensor(shape, seed, float32);

describe("mlx-lm", () => {
  it("is y + scale · x · lora_a · lora_b", async () => {
    const at = "model.layers.1.self_attn.q_proj";
    const [a, b] = [normal([6, 2], 1), normal([2, 6], 2)];
    const files = new Map([
      [
        "adapter_config.json",
        json({
          fine_tune_type: "lora",
          num_layers: 1,
          lora_parameters: { rank: 2, scale: 20, dropout: 0.1, keys: ["self_attn.q_proj"] },
        }),
      ],
      [
        "adapters.safetensors",
        await serializeSafetensors(
          new Map([
            [`${at}.lora_a`, a],
            [`${at}.lora_b`, b],
          ]),
        ),
      ],
    ]);
    const model = new TinyModel(float32).eval() as TinyModel;
    const plain = model.model.layers[1].self_attn.q_proj;
    const x = normal([3, 6], 3);
    const expected = plain.forward(x).add(x.matmul(a).matmul(b).mul(20));
    const adapter = await loadMlxAdapter(model, files, "mlx");
    const y = (model.getModule(at) as never as { forward(x: Tensor): Tensor }).forward(x);
    expect(maxDifference(y, expected)).toBeLessThan(1e-4);
    expect(adapter.config).toMatchObject({ r: 2, loraAlpha: 40, loraDropout: 0.1, targetModules: [at] });
  });

  it.each<Partial<LoraConfig>>([
    { r: 3, loraAlpha: 7, targetModules: ["q_proj", "up_proj"] },
    { useDora: true },
  ])("is written and read: %j", async (config) => {
    const model = new TinyModel(float32);
    const adapter = applyLora(model, config);
    randomize(adapter.parameters());
    await saveMlxAdapter(adapter, folder);
    const written = JSON.parse(readFileSync(join(folder, "adapter_config.json"), "utf8"));
    expect(written).toMatchObject({ fine_tune_type: config.useDora ? "dora" : "lora", num_layers: 2 });
    const other = new TinyModel(float32);
    await loadMlxAdapter(other, folder);
    expect(maxDifference(other.forward(tokens()), model.forward(tokens()))).toBeLessThan(1e-5);
  });

  it("refuses what does not fit", async () => {
    const refuse = (config: Partial<LoraConfig>, message: RegExp) =>
      expect(serializeMlxAdapter(applyLora(new TinyModel(float32), config))).rejects.toThrow(message);
    await refuse({ rankPattern: { q_proj: 2 } }, /differ/);
    await refuse({ bias: "all" }, /biases/);
    await refuse({ r: 2, initLoraWeights: "olora" }, /does not know/);
    await refuse({ targetModules: ["embed_tokens"] }, /not in a numbered layer/);
    const adapter = applyLora(new TinyModel(float32));
    const files = await serializeMlxAdapter(adapter);
    const load = (config: unknown, tensors?: Map<string, Tensor>) =>
      (async () => {
        const changed = new Map(files).set("adapter_config.json", json(config));
        if (tensors) changed.set("adapters.safetensors", await serializeSafetensors(tensors));
        return loadMlxAdapter(new TinyModel(float32), changed);
      })();
    const good = { lora_parameters: { scale: 1 } };
    await expect(load({ ...good, fine_tune_type: "full" })).rejects.toThrow(/fine_tune_type is "full"/);
    await expect(load({})).rejects.toThrow(/scale must be a positive finite number, not missing/);
    await expect(load({ lora_parameters: { scale: "1" } })).rejects.toThrow(/scale must be/);
    await expect(load({ lora_parameters: { scale: -1 } })).rejects.toThrow(
      /scale must be a positive finite number, not -1/,
    );
    const odd = new Map([
      ["a.lora_a", normal([4, 2], 1)],
      ["a.lora_b", normal([3, 4], 1)],
      ["zz", normal([2], 1)],
    ]);
    await expect(load(good, odd)).rejects.toThrow(/match no layer.*unexpected "zz"/);
    await expect(load(good, new Map([["a.lora_a", normal([4, 2], 1)]]))).rejects.toThrow(/match no layer/);
  });
});

describe("sd-scripts", () => {
  const scalar = (value: number) => tensor([value], { shape: [], ...float32 });

  it("is read by the names of a model's layers, with ranks and alphas of their own", async () => {
    const [down, up, down2, up2] = [
      normal([2, 6], 1),
      normal([6, 2], 2),
      normal([3, 6, 1, 1], 3),
      normal([12, 3, 1, 1], 4),
    ];
    const bytes = await serializeSafetensors(
      new Map([
        ["lora_unet_model_layers_0_self_attn_q_proj.lora_down.weight", down],
        ["lora_unet_model_layers_0_self_attn_q_proj.lora_up.weight", up],
        ["lora_unet_model_layers_0_self_attn_q_proj.alpha", scalar(1)],
        ["lora_unet_model_layers_1_mlp_up_proj.lora_down.weight", down2],
        ["lora_unet_model_layers_1_mlp_up_proj.lora_up.weight", up2],
        ["lora_te_text_model.lora_up.weight", up],
      ]),
    );
    const model = new TinyModel(float32);
    const adapter = await loadKohyaAdapter(model, bytes, "lora_unet");
    expect(Array.from(adapter.branches(), ([name, { r, scaling }]) => [name, r, scaling])).toEqual([
      ["model.layers.0.self_attn.q_proj", 2, 0.5],
      ["model.layers.1.mlp.up_proj", 3, 1],
    ]);
    const [a, b, c, d] = adapter.parameters();
    expect([a, b].map((value, i) => maxDifference(value, [down, up][i]))).toEqual([0, 0]);
    expect([c, d].map((value, i) => maxDifference(value, [down2, up2][i].reshape(value.shape)))).toEqual([
      0, 0,
    ]);
  });

  it("finds every fault", async () => {
    const name = "lora_te_model_layers_0_self_attn_q_proj";
    const load = async (tensors: [string, Tensor][]) =>
      loadKohyaAdapter(new TinyModel(float32), await serializeSafetensors(new Map(tensors)), "lora_te");
    await expect(
      load([
        ["lora_te_nothing.lora_up.weight", normal([2, 2], 1)],
        [`${name}.lora_up.weight`, normal([6, 2, 3, 3], 1)],
        [`${name}.lora_down.weight`, normal([2, 6], 1)],
        [`${name}.alpha`, scalar(-1)],
      ]),
    ).rejects.toThrow(
      /alpha" is -1.*nothing.* fits no linear.*lora_B.weight is \[6, 2, 3, 3\], expected \[6, 2\]/s,
    );
    await expect(load([["other", scalar(1)]])).rejects.toThrow(/no key begins with lora_te_/);
    await expect(
      load([
        [`${name}.lora_up.weight`, normal([6, 3], 1)],
        [`${name}.lora_down.weight`, normal([2, 6], 1)],
      ]),
    ).rejects.toThrow(/lora_B.weight has rank 3, but r and rank_pattern give 2/);
  });
});
