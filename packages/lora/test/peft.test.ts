// PEFT's folders: what is written, and what is refused.

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FormatError, init, memoryStats, noGrad, type Tensor, tensor, zeros } from "@nomoat/core";
import { parseJson } from "@nomoat/core/io";
import { loadSafetensors, serializeSafetensors } from "@nomoat/core/safetensors";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import {
  applyLora,
  fromPeftJson,
  loadAdapter,
  readAdapterConfig,
  resolveLoraConfig,
  saveAdapter,
  serializeAdapter,
  toPeftJson,
} from "../src/index.js";
import { maxDifference, randomize, snapshot, TinyModel, tokens } from "./model.js";

const folder = mkdtempSync(join(tmpdir(), "nomoat-lora-"));
beforeAll(() => init({ backend: "reference" }));
afterAll(() => rmSync(folder, { recursive: true }));

const float32 = { dtype: "float32" } as const;
const bytesOf = (text: string) => new TextEncoder().encode(text);
const parse = (text: string) => parseJson(bytesOf(text));
const key = (rest: string) => `base_model.model.model.layers.${rest}`;

function trained(config = {}, model = new TinyModel(float32)) {
  const adapter = applyLora(model, config);
  randomize(adapter.parameters());
  return { model, adapter };
}

describe("saveAdapter and loadAdapter", () => {
  it("write PEFT's files and read them back, with the same outputs and the same bytes", async () => {
    const { model, adapter } = trained({ r: 3, loraAlpha: 7, targetModules: "all-linear", useRslora: true });
    const path = join(folder, "one");
    await saveAdapter(adapter, path);
    expect(readdirSync(path).sort()).toEqual(["adapter_config.json", "adapter_model.safetensors"]);
    expect(JSON.parse(readFileSync(join(path, "adapter_config.json"), "utf8"))).toMatchObject({
      peft_type: "LORA",
      task_type: "CAUSAL_LM",
      r: 3,
      lora_alpha: 7,
      // Spelled out, as PEFT does.
      target_modules: ["down_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"],
      use_rslora: true,
      inference_mode: true,
      bias: "none",
      init_lora_weights: true,
      modules_to_save: null,
    });
    const { tensors, metadata } = await loadSafetensors(join(path, "adapter_model.safetensors"));
    expect(metadata).toEqual({ format: "pt" });
    expect(tensors.get(key("0.mlp.up_proj.lora_A.weight"))?.shape).toEqual([3, 6]);
    expect(tensors.size).toBe(24);

    const other = new TinyModel(float32);
    const loaded = await loadAdapter(other, path, "again");
    expect(maxDifference(other.forward(tokens()), model.forward(tokens()))).toBe(0);
    const second = await serializeAdapter(loaded);
    for (const file of readdirSync(path))
      expect(Buffer.from(second.get(file) as Uint8Array).equals(readFileSync(join(path, file)))).toBe(true);
    expect(loaded.parameters().every((parameter) => parameter.requiresGrad)).toBe(true);
    expect(other.trainableParameters()).toHaveLength(24);
  });

  it("save → load → save gives the same bytes for any configuration", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          r: fc.integer({ min: 1, max: 9 }),
          loraAlpha: fc.double({ min: 0.1, max: 99, noNaN: true }),
          loraDropout: fc.double({ min: 0, max: 0.9, noNaN: true }),
          targetModules: fc.constantFrom("all-linear", ["v_proj", "q_proj"], ".*mlp\\.(up|down)_proj"),
          excludeModules: fc.constantFrom(null, ["layers.0.mlp.up_proj"], "nothing"),
          rankPattern: fc.constantFrom({}, { q_proj: 4, "layers.1.mlp.up_proj": 2 }),
          alphaPattern: fc.constantFrom({}, { v_proj: 0.5 }),
          initLoraWeights: fc.constantFrom<boolean | "gaussian">(true, false, "gaussian"),
          taskType: fc.constantFrom(null, "CAUSAL_LM"),
          baseModelNameOrPath: fc.option(fc.string()),
        }),
        fc.constantFrom<"float32" | "float16" | "bfloat16">("float32", "float16", "bfloat16"),
        async (config, dtype) => {
          const first = await serializeAdapter(trained(config).adapter, { dtype });
          const loaded = await loadAdapter(new TinyModel(float32), first);
          const second = await serializeAdapter(loaded, { dtype });
          expect([...second]).toEqual([...first]);
        },
      ),
      { numRuns: 20 },
    );
  });

  it("loads a second adapter beside the first, also at the same time", async () => {
    const { model, adapter } = trained();
    const files = await serializeAdapter(adapter);
    adapter.remove();
    const base = [...model.forward(tokens()).dataSync()];
    const [a, b] = await Promise.all([
      loadAdapter(model, files, "a"),
      loadAdapter(model, files, "b", { trainable: false }),
    ]);
    b.weight = -1;
    expect(maxDifference(model.forward(tokens()), tensor(base, { shape: [2, 4, 11] }))).toBeLessThan(1e-5);
    expect(a.layers.get("model.layers.0.self_attn.q_proj")).toBe(
      b.layers.get("model.layers.0.self_attn.q_proj"),
    );
    expect(b.parameters().some((parameter) => parameter.requiresGrad)).toBe(false);
    await expect(loadAdapter(model, files, "a")).rejects.toThrow(/exists already/);
  });

  it("reads what PEFT 0.19 writes", async () => {
    const json = {
      alora_invocation_tokens: null,
      alpha_pattern: {},
      arrow_config: null,
      auto_mapping: null,
      base_model_name_or_path: "meta/llama",
      bias: "none",
      corda_config: null,
      ensure_weight_tying: false,
      eva_config: null,
      exclude_modules: null,
      fan_in_fan_out: false,
      inference_mode: true,
      init_lora_weights: true,
      layer_replication: null,
      layers_pattern: null,
      layers_to_transform: null,
      loftq_config: {},
      lora_alpha: 16,
      lora_bias: false,
      lora_dropout: 0.05,
      lora_ga_config: null,
      megatron_config: null,
      megatron_core: "megatron.core",
      modules_to_save: null,
      peft_type: "LORA",
      peft_version: "0.19.0",
      qalora_group_size: 16,
      r: 4,
      rank_pattern: {},
      revision: null,
      target_modules: ["v_proj", "q_proj"],
      target_parameters: null,
      task_type: "CAUSAL_LM",
      trainable_token_indices: null,
      use_bdlora: null,
      use_dora: false,
      use_qalora: false,
      use_rslora: false,
    };
    const warn = vi.fn();
    const config = fromPeftJson(parse(JSON.stringify(json)), { onWarning: warn });
    expect(config).toMatchObject({
      r: 4,
      loraAlpha: 16,
      loraDropout: 0.05,
      targetModules: ["v_proj", "q_proj"],
    });
    expect(warn).not.toHaveBeenCalled();
    expect(toPeftJson(config)).toMatchObject({ peft_version: "0.19.0", eva_config: null });
  });

  it("keeps unknown fields and warns about them", () => {
    const warn = vi.fn();
    const config = fromPeftJson(
      parse('{"peft_type":"LORA","r":4,"use_future":true,"future":{"a":[1]},"off":false}'),
      {
        file: "f.json",
        onWarning: warn,
      },
    );
    expect(warn.mock.calls).toEqual([
      ['f.json: unknown fields are kept but have no effect: "use_future", "future"'],
    ]);
    expect(toPeftJson(config)).toMatchObject({ use_future: true, future: { a: [1] }, off: false, r: 4 });
    const spy = vi.spyOn(console, "warn").mockImplementation(() => {});
    fromPeftJson(parse('{"peft_type":"LORA","x":1}'));
    expect(spy).toHaveBeenCalledOnce();
    spy.mockRestore();
  });

  it("gives defaults as PEFT does", () => {
    expect(fromPeftJson(parse('{"peft_type":"LORA","target_modules":null,"rank_pattern":null}'))).toEqual({
      ...resolveLoraConfig(),
      unknownFields: Object.create(null),
    });
  });
});

describe("hostile folders", () => {
  it.each([
    ["[]", /expected an object/],
    ["{}", /peft_type is missing/],
    ['{"peft_type":"BOFT"}', /peft_type is "BOFT", expected one of LORA/],
    [
      '{"peft_type":"LORA","r":0,"lora_alpha":"x","lora_dropout":2}',
      /r must be.*lora_alpha must be.*lora_dropout must be/,
    ],
    ['{"peft_type":"LORA","r":1e9}', /r must be an integer/],
    ['{"peft_type":"LORA","lora_alpha":-1}', /lora_alpha must be/],
    ['{"peft_type":"LORA","lora_alpha":1e999}', /./],
    ['{"peft_type":"LORA","lora_alpha":NaN}', /./],
    ['{"peft_type":"LORA","__proto__":{"r":1}}', /"__proto__" is refused/],
    ['{"peft_type":"LORA","rank_pattern":{"__proto__":1}}', /rank_pattern must not have the key "__proto__"/],
    ['{"peft_type":"LORA","rank_pattern":{"q":"4"}}', /rank_pattern must have/],
    ['{"peft_type":"LORA","r":4,"r":5}', /twice/],
    [
      '{"peft_type":"LORA","use_qalora":true,"layer_replication":[[0,1]]}',
      /use_qalora is not supported.*layer_replication is not supported/,
    ],
    ['{"peft_type":"LORA","bias":"some"}', /bias must be "none", "all" or "lora_only"/],
    ['{"peft_type":"LORA","lora_bias":true,"use_dora":true}', /lora_bias cannot be used with use_dora/],
    ['{"peft_type":"VERA","bias":"all"}', /bias must be "none" for VERA/],
    ['{"peft_type":"LORA","init_lora_weights":"zzz"}', /init_lora_weights must be/],
    ['{"peft_type":"LORA","target_modules":[1]}', /target_modules must be/],
    ['{"peft_type":"LORA","target_modules":"(a"}', /pattern/],
    ['{"peft_type":"LORA","target_modules":"(.*.*.*.*)*x"}', /match no layer/],
    [
      '{"peft_type":"LORA","target_modules":"q_proj","layers_to_transform":[0]}',
      /layers_to_transform cannot be used when target_modules/,
    ],
    ['{"peft_type":"LORA","target_modules":["nothing"]}', /match no layer/],
  ])("refuses %s", async (json, message) => {
    const model = new TinyModel(float32);
    const before = [...model.stateDict().keys()];
    const files = await serializeAdapter(trained().adapter);
    files.set("adapter_config.json", bytesOf(json));
    const error = await loadAdapter(model, files).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(FormatError);
    expect((error as Error).message).toMatch(message);
    expect((error as Error).message).toContain("adapter_config.json");
    expect([...model.stateDict().keys()]).toEqual(before);
    expect(model.trainableParameters()).toHaveLength(before.length);
  });

  it("finds all faults of the tensors, touches nothing and keeps nothing", async () => {
    const model = new TinyModel(float32);
    const before = snapshot(model);
    const { adapter } = trained({ r: 3, rankPattern: { "layers.1.self_attn.v_proj": 2 } });
    const files = await serializeAdapter(adapter);
    const { tensors } = await loadSafetensors(files.get("adapter_model.safetensors") as Uint8Array);
    const set = (rest: string, value: Tensor) => tensors.set(key(rest), value);
    tensors.delete(key("0.self_attn.q_proj.lora_A.weight"));
    set("0.self_attn.q_proj.lora_B.weight", zeros([6, 4]));
    set("0.self_attn.v_proj.lora_A.weight", zeros([6, 3]));
    set("0.self_attn.v_proj.lora_B.weight", zeros([6, 3], { dtype: "int32" }));
    set("1.self_attn.v_proj.lora_A.weight", tensor(Array(12).fill(Number.NaN), { shape: [2, 6] }));
    set("1.self_attn.k_proj.lora_A.weight", zeros([3, 6]));
    tensors.set("__proto__", zeros([1]));
    files.set("adapter_model.safetensors", await serializeSafetensors(tensors));
    const stats = memoryStats();
    const error = (await loadAdapter(model, files).catch((e: unknown) => e)) as Error;
    expect(error).toBeInstanceOf(FormatError);
    for (const part of [
      /missing base_model.*0\.self_attn\.q_proj\.lora_A\.weight \[3, 6\]/,
      /0\.self_attn\.q_proj\.lora_B\.weight has rank 4, but r and rank_pattern give 3/,
      /0\.self_attn\.v_proj\.lora_A\.weight is \[6, 3\], expected \[3, 6\]/,
      /0\.self_attn\.v_proj\.lora_B\.weight is I32, expected a float/,
      /1\.self_attn\.v_proj\.lora_A\.weight has values that are not finite/,
      /unexpected "base_model.*1\.self_attn\.k_proj\.lora_A\.weight"/,
      /unexpected "__proto__"/,
    ])
      expect(error.message).toMatch(part);
    expect(memoryStats().tensors).toBe(stats.tensors);
    expect(snapshot(model)).toEqual(before);
  });

  it("refuses pickles with advice, and says what is missing", async () => {
    const { adapter } = trained();
    const files = await serializeAdapter(adapter);
    const pickle = new Map([...files].map(([name, bytes]) => [name.replace("safetensors", "bin"), bytes]));
    await expect(loadAdapter(new TinyModel(float32), pickle)).rejects.toThrow(
      /adapter_model\.bin: is a pickle.*safe_serialization/,
    );
    const path = join(folder, "pickle");
    await saveAdapter(adapter, path);
    rmSync(join(path, "adapter_model.safetensors"));
    await expect(loadAdapter(new TinyModel(float32), path)).rejects.toThrow(
      /has no readable adapter_model\.safetensors/,
    );
    writeFileSync(join(path, "adapter_model.bin"), "x");
    await expect(loadAdapter(new TinyModel(float32), `${path}/`)).rejects.toThrow(/pickle/);
    await expect(readAdapterConfig(join(folder, "nowhere"))).rejects.toThrow(
      /has no readable adapter_config\.json/,
    );
  });

  it("does not save what could not be loaded; a good folder survives", async () => {
    const { adapter } = trained();
    const path = join(folder, "survives");
    await saveAdapter(adapter, path);
    const before = readFileSync(join(path, "adapter_model.safetensors"));
    noGrad(() => adapter.parameters()[0].copyFrom(new Float32Array(48).fill(1e30)));
    await expect(saveAdapter(adapter, path, { dtype: "float16" })).rejects.toThrow(
      /not finite in base_model.*lora_A/,
    );
    expect(readFileSync(join(path, "adapter_model.safetensors")).equals(before)).toBe(true);
    expect(readdirSync(path)).toHaveLength(2);
  });
});
