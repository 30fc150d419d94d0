// Models from and to folders; config.json, hostile and honest.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { init, memoryStats, type Tensor, tensor } from "@nomoat/core";
import { serializeSafetensors } from "@nomoat/core/safetensors";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { formatConfig, type LlamaConfig, loadLlama, parseConfig, saveLlama } from "../src/index.js";
import { byteTokenizerFiles, goldenFolder, tinyConfig, tinyModel } from "./support.js";

const encode = (json: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(json));
const files = byteTokenizerFiles();
const tokenizerFiles = [
  ["tokenizer.json", encode(files.json)],
  ["tokenizer_config.json", encode(files.config)],
] as const;
const honest = JSON.parse(formatConfig(tinyConfig)) as Record<string, unknown>;

beforeAll(() => init({ backend: "reference" }));
afterAll(() => init({ backend: "wasm" }));

describe("config.json", () => {
  const llama3: LlamaConfig["ropeScaling"] = {
    type: "llama3",
    factor: 8,
    lowFreqFactor: 1,
    highFreqFactor: 4,
    originalMaxPositionEmbeddings: 32,
  };
  const variants: Partial<LlamaConfig>[] = [
    {},
    { ropeScaling: llama3, eosTokenIds: [1, 2], bosTokenId: null },
    { ropeScaling: { type: "linear", factor: 2 }, eosTokenIds: [], attentionBias: true, mlpBias: true },
    { headDim: 8, numKeyValueHeads: 4, tieWordEmbeddings: true, ropeTheta: 5e5 },
  ];

  it.each(variants)("comes back as it was written: %j", (variant) => {
    const config = { ...tinyConfig, ...variant };
    expect(parseConfig(new TextEncoder().encode(formatConfig(config)))).toEqual(config);
  });

  it("fills in what old files leave out, and takes Transformers 5's rope_parameters", () => {
    const { num_key_value_heads, head_dim, rope_theta, max_position_embeddings, rms_norm_eps, ...rest } =
      honest;
    expect(parseConfig(encode(rest))).toMatchObject({
      ...{ numKeyValueHeads: 4, headDim: 4, ropeTheta: 10000, maxPositionEmbeddings: 2048, rmsNormEps: 1e-6 },
    });
    const parameters = { rope_type: "default", rope_theta: 500000 };
    expect(parseConfig(encode({ ...rest, rope_parameters: parameters }))).toMatchObject({
      ...{ ropeTheta: 500000, ropeScaling: null },
    });
  });

  it.each([
    [{ model_type: "gpt2" }, "model_type"],
    [{ hidden_act: "gelu" }, "hidden_act"],
    [{ sliding_window: 128 }, "sliding_window"],
    [{ quantization_config: {} }, "quantization_config"],
    [{ hidden_size: -1 }, "hidden_size"],
    [{ hidden_size: 1e300 }, "hidden_size"],
    [{ hidden_size: "16" }, "hidden_size"],
    [{ hidden_size: null }, "hidden_size"],
    [{ vocab_size: 0 }, "vocab_size"],
    [{ vocab_size: 2 ** 40 }, "vocab_size"],
    [{ num_hidden_layers: 1e9 }, "num_hidden_layers"],
    [{ num_hidden_layers: 0 }, "num_hidden_layers"],
    [{ num_key_value_heads: 3 }, "num_key_value_heads"],
    [{ num_attention_heads: 5, num_key_value_heads: 5, head_dim: null }, "num_attention_heads"],
    [{ head_dim: 3 }, "head_dim"],
    [{ rms_norm_eps: 0 }, "rms_norm_eps"],
    [{ rope_theta: -1 }, "rope_theta"],
    [{ rope_scaling: { type: "yarn", factor: 2 } }, "rope_scaling"],
    [{ rope_scaling: { type: "linear" } }, "factor"],
    [{ rope_scaling: 5 }, "rope_scaling"],
    [{ tie_word_embeddings: "yes" }, "tie_word_embeddings"],
    [{ eos_token_id: 259 }, "eos_token_id"],
    [{ eos_token_id: [1, -1] }, "eos_token_id"],
    [{ bos_token_id: 1.5 }, "bos_token_id"],
  ])("refuses %j by field", (change, field) => {
    const attempt = () => parseConfig(encode({ ...honest, ...change }));
    expect(attempt).toThrow(
      expect.objectContaining({ code: "FORMAT", message: expect.stringContaining(field) }),
    );
  });

  it.each(["", "[]", "null", '{"hidden_size": 16,}', "{".repeat(1000), '{"vocab_size": 1, "vocab_size": 2}'])(
    "refuses %j",
    (text) => {
      const attempt = () => parseConfig(new TextEncoder().encode(text));
      expect(attempt).toThrow(expect.objectContaining({ code: "FORMAT" }));
    },
  );

  it("answers any change of a field with a config or a FormatError", () => {
    fc.assert(
      fc.property(fc.constantFrom(...Object.keys(honest)), fc.jsonValue(), (field, value) => {
        try {
          parseConfig(encode({ ...honest, [field]: value }));
        } catch (error) {
          expect(error).toMatchObject({ code: "FORMAT" });
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("folders", () => {
  const folder = mkdtempSync(join(tmpdir(), "nomoat-load-"));
  afterAll(() => rmSync(folder, { recursive: true }));

  it.each([true, false])("come back as they were saved (tied: %s)", async (tieWordEmbeddings) => {
    const before = memoryStats().tensors;
    const config = { tieWordEmbeddings, attentionBias: true };
    const model = tinyModel({ config });
    const path = join(folder, `model-${tieWordEmbeddings}`);
    await saveLlama(model, path);
    for (const [name, content] of tokenizerFiles) writeFileSync(join(path, name), content);
    const loaded = await loadLlama(path);
    expect(loaded.model.config).toEqual(model.config);
    expect(loaded.tokenizer.encode("a")).toEqual(Int32Array.of(0, 100));
    const state = loaded.model.stateDict();
    for (const [name, value] of model.stateDict())
      expect(state.get(name)!.dataSync(), name).toEqual(value.dataSync());
    // And from memory, as a web page has it.
    const names = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    const inMemory = new Map(names.map((name) => [name, new Uint8Array(readFileSync(join(path, name)))]));
    const second = await loadLlama(inMemory);
    expect(second.model.stateDict().size).toBe(state.size);
    for (const part of [model, loaded.model, second.model]) part.dispose();
    expect(memoryStats().tensors).toBe(before);
  });

  it("say what is missing", async () => {
    const before = memoryStats().tensors;
    await expect(loadLlama(join(folder, "nowhere"))).rejects.toMatchObject({ code: "IO" });
    await expect(loadLlama(folder)).rejects.toThrow(/there is no config.json/);
    const config = ["config.json", encode(honest)] as const;
    await expect(loadLlama(new Map([config]))).rejects.toThrow(/there is no tokenizer.json/);
    await expect(loadLlama(new Map([config, ...tokenizerFiles]))).rejects.toThrow(/model.safetensors/);
    const small = ["config.json", encode({ ...honest, vocab_size: 100, eos_token_id: 1 })] as const;
    await expect(loadLlama(new Map([small, ...tokenizerFiles]))).rejects.toThrow(
      /names 259 tokens, the model embeds 100/,
    );
    expect(memoryStats().tensors).toBe(before);
  });

  it("list every tensor that is missing, misshapen or unexpected, and keep nothing", async () => {
    const before = memoryStats().tensors;
    const model = tinyModel();
    const tensors = new Map<string, Tensor>(model.stateDict());
    const extra = tensor([1, 2]);
    tensors.delete("model.layers.1.mlp.up_proj.weight");
    tensors.set("model.norm.weight", extra);
    tensors.set("model.layers.2.bias", extra);
    tensors.set("model.layers.0.self_attn.rotary_emb.inv_freq", extra);
    const bytes = await serializeSafetensors(tensors);
    const source = new Map([
      ["config.json", encode(honest)],
      ["model.safetensors", bytes],
      ...tokenizerFiles,
    ]);
    const error = await loadLlama(source).catch((caught: unknown) => caught as Error);
    expect(error).toMatchObject({ code: "FORMAT" });
    const { message } = error as Error;
    expect(message).toContain('missing "model.layers.1.mlp.up_proj.weight" [24, 16]');
    expect(message).toContain('"model.norm.weight" is [2], expected [16]');
    expect(message).toContain('unexpected "model.layers.2.bias"');
    expect(message).not.toContain("inv_freq");
    extra.dispose();
    model.dispose();
    expect(memoryStats().tensors).toBe(before);
  });

  it("are refused when their weights are damaged", async () => {
    const bytes = new Uint8Array(readFileSync(join(goldenFolder, "base-tied.safetensors")));
    for (const part of [
      bytes.subarray(0, 4),
      bytes.subarray(0, 1000),
      bytes.subarray(0, -1),
      new Uint8Array(100),
    ]) {
      const source = new Map([
        ["config.json", encode(honest)],
        ["model.safetensors", part],
        ...tokenizerFiles,
      ]);
      await expect(loadLlama(source)).rejects.toMatchObject({ code: "FORMAT" });
    }
  });
});
