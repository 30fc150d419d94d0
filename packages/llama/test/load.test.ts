// Models from and to folders; config.json, hostile and honest.

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { init, memoryStats, resetPeakMemory, type Tensor, tensor, tidy } from "@nomoat/core";
import { loadSafetensors, serializeSafetensors } from "@nomoat/core/safetensors";
import { applyLora } from "@nomoat/lora";
import { type QuantizedLinear, quantizeModel } from "@nomoat/quant";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  formatConfig,
  type LlamaConfig,
  type LlamaForCausalLM,
  type LoadQuantization,
  loadLlama,
  parseConfig,
  saveLlama,
} from "../src/index.js";
import { byteTokenizer, byteTokenizerFiles, goldenFolder, tinyConfig, tinyModel } from "./support.js";

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
    [{ quantization_config: { quant_method: "gptq" } }, "quantization_config"],
    [{ quantization_config: { quant_method: "bitsandbytes", load_in_8bit: true } }, "quantization_config"],
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
    await saveLlama(model, path, { tokenizer: byteTokenizer() });
    const loaded = await loadLlama(path);
    expect(JSON.parse(readFileSync(join(path, "tokenizer_config.json"), "utf8"))).toEqual(files.config);
    expect(loaded.model.config).toEqual(model.config);
    const weights = model.parameters().reduce((sum, { size }) => sum + size, 0);
    expect(inspect(loaded.model)).toBe(
      `LlamaForCausalLM: ${model.config.numLayers} layers of ${model.config.hiddenSize}, ${model.config.vocabSize} tokens, ${weights} weights`,
    );
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

  it("say what is wrong with a path, an argument or an option", async () => {
    const file = join(folder, "one.txt");
    writeFileSync(file, "text");
    await expect(loadLlama(file)).rejects.toThrow(
      `${file}: is a file; expected a Hugging Face folder, or a .gguf file`,
    );
    await expect(loadLlama("meta-llama/Llama-3.2-1B")).rejects.toThrow(
      "meta-llama/Llama-3.2-1B: there is no such folder; models are not downloaded: give the folder of one that is",
    );
    await expect(loadLlama(folder, { quantise: {} } as never)).rejects.toThrow(
      'unknown option "quantise" (known: device,',
    );
    await expect(loadLlama({ path: folder } as never)).rejects.toThrow(
      "loadLlama: expected a path, or a Map of a folder's files by name, not an object with path",
    );
    await expect(saveLlama({ model: 1, tokenizer: 2 } as never, folder)).rejects.toThrow(
      "saveLlama: expected a model, as loadLlama gives, not an object with model, tokenizer",
    );
    const broken = join(folder, "broken");
    const model = tinyModel({ config: {} });
    await saveLlama(model, broken, { tokenizer: byteTokenizer() });
    writeFileSync(join(broken, "config.json"), '{"model_type": "bert"}');
    await expect(loadLlama(broken)).rejects.toThrow(
      `${join(broken, "config.json")}: model_type: "bert" is not supported`,
    );
    model.dispose();
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

describe("weights quantized as they are read", () => {
  const config: Partial<LlamaConfig> = { hiddenSize: 32, intermediateSize: 64, headDim: 8 };
  const folder = mkdtempSync(join(tmpdir(), "nomoat-quantized-"));
  afterAll(() => rmSync(folder, { recursive: true }));

  async function saved(name: string, variant: Partial<LlamaConfig> = {}): Promise<LlamaForCausalLM> {
    const model = tinyModel({ config: { ...config, ...variant } });
    await saveLlama(model, join(folder, name));
    for (const [file, content] of tokenizerFiles) writeFileSync(join(folder, name, file), content);
    return model;
  }

  /** Bytes of all tensors of a model by name, packed ones too. */
  const bytesOf = (model: LlamaForCausalLM) =>
    new Map(Array.from(model.stateDict(), ([name, value]) => [name, Array.from(value.dataSync(), Number)]));

  it.each<[string, Partial<LlamaConfig>, LoadQuantization]>([
    ["nf4", { attentionBias: true }, { format: "nf4" }],
    ["patterns", {}, { format: "int8", skip: ["q_proj"], perModule: [["down_proj", "nf4"]] }],
    ["output layer", {}, { format: "q8_0", outputLayer: true, embeddings: true, method: "nearest" }],
    ["tied", { tieWordEmbeddings: true }, { format: "q4_0", embeddings: true }],
    ["tied and float", { tieWordEmbeddings: true }, { format: "int4_g32", method: "hqq" }],
    ["bits per weight", {}, { bitsPerWeight: 6 }],
  ])("are those that quantizeModel makes: %s", async (name, variant, quantize) => {
    const before = memoryStats().tensors;
    const model = await saved(name, variant);
    const { model: loaded } = await loadLlama(join(folder, name), { quantize });
    quantizeModel(model, quantize);
    expect(bytesOf(loaded)).toEqual(bytesOf(model));
    for (const [path, module] of model.namedModules())
      expect(new Map(loaded.namedModules()).get(path)!.constructor.name, path).toBe(module.constructor.name);
    expect(loaded.config).toEqual(model.config);
    loaded.dispose();
    model.dispose();
    expect(memoryStats().tensors).toBe(before);
  });

  it("come one at a time: of the floats no more than one weight is in memory", async () => {
    await init({ backend: "wasm" });
    try {
      const wide = { ...config, hiddenSize: 128, intermediateSize: 512, headDim: 32, numLayers: 6 };
      const model = tinyModel({ config: wide, device: "wasm" });
      await saveLlama(model, join(folder, "wide"));
      model.dispose();
      for (const [file, content] of tokenizerFiles) writeFileSync(join(folder, "wide", file), content);
      const before = memoryStats().backend.used;
      resetPeakMemory();
      const { model: loaded } = await loadLlama(join(folder, "wide"), {
        quantize: { format: "q8_0", outputLayer: true, embeddings: true },
      });
      const { used, peak } = memoryStats().backend;
      const largest = 4 * 512 * 128;
      expect(peak - used).toBeLessThan(2 * largest);
      // The floats of all would be far more.
      expect(6 * 3 * largest).toBeGreaterThan(2 * (peak - before));
      loaded.dispose();
      expect(memoryStats().backend.used).toBe(before);
    } finally {
      await init({ backend: "reference" });
    }
  });

  it("leave nothing behind when one cannot be quantized, or does not suit", async () => {
    const before = memoryStats().tensors;
    const model = await saved("broken");
    model.dispose();
    const open = (quantize: LoadQuantization) => loadLlama(join(folder, "broken"), { quantize });
    await expect(open({ format: "q4_K" })).rejects.toMatchObject({ code: "ARGUMENT" });
    await expect(open({ format: "int9" as "int8" })).rejects.toThrow(/int9/);
    await expect(open({ format: "nf4", skip: [/./] })).rejects.toThrow(/no float linear layer/);
    expect(memoryStats().tensors).toBe(before);
    // One value of the last block is no number.
    const { tensors } = await loadSafetensors(join(folder, "broken"));
    const name = "model.layers.1.mlp.up_proj.weight";
    const values = Float32Array.from(tensors.get(name)!.dataSync() as Float32Array);
    values[100] = Number.NaN;
    tidy(() => tensors.get(name)!.copyFrom(tensor(values, { shape: [64, 32] })));
    writeFileSync(join(folder, "broken", "model.safetensors"), await serializeSafetensors(tensors));
    for (const each of tensors.values()) each.dispose();
    await expect(open({ format: "nf4" })).rejects.toThrow(/layers\.1\.mlp\.up_proj\.weight.*NaN/);
    expect(memoryStats().tensors).toBe(before);
  });

  it.each(["nf4", "nf4_single", "fp4"] as const)(
    "go to bitsandbytes' layout and back: %s",
    async (format) => {
      const before = memoryStats().tensors;
      const model = tinyModel({ config });
      quantizeModel(model, { format, skip: ["o_proj"] });
      const path = join(folder, format);
      await saveLlama(model, path);
      for (const [file, content] of tokenizerFiles) writeFileSync(join(path, file), content);
      const json = JSON.parse(readFileSync(join(path, "config.json"), "utf8"));
      expect(json.quantization_config).toMatchObject({
        ...{ quant_method: "bitsandbytes", load_in_4bit: true, bnb_4bit_quant_type: format.slice(0, 3) },
        bnb_4bit_use_double_quant: format !== "nf4_single",
        llm_int8_skip_modules: [
          "model.layers.0.self_attn.o_proj",
          "model.layers.1.self_attn.o_proj",
          "lm_head",
        ],
      });
      const { model: loaded } = await loadLlama(path);
      expect(bytesOf(loaded)).toEqual(bytesOf(model));
      // What is packed stays so; the rest is packed on request.
      const { model: more } = await loadLlama(path, { quantize: { format: "int8", outputLayer: true } });
      const layers = new Map(more.namedModules());
      const formatAt = (name: string) => (layers.get(name) as QuantizedLinear).quantized.format.name;
      expect(formatAt("model.layers.0.self_attn.o_proj")).toBe("int8");
      expect(formatAt("model.layers.0.self_attn.q_proj")).toBe(format);
      for (const each of [model, loaded, more]) each.dispose();
      expect(memoryStats().tensors).toBe(before);
    },
  );

  it("are refused by name when a folder has no place for them", async () => {
    const before = memoryStats().tensors;
    const path = join(folder, "refused");
    const model = tinyModel({ config });
    quantizeModel(model, { format: "int8" });
    await expect(saveLlama(model, path)).rejects.toThrow(
      /saveLlama: .*no place for model\.layers\.0\.self_attn\.q_proj \(int8\)/,
    );
    model.dispose();
    const adapted = tinyModel({ config });
    const adapter = applyLora(adapted, { targetModules: ["q_proj"] });
    await expect(saveLlama(adapted, path)).rejects.toThrow(/q_proj/);
    adapter.remove();
    adapted.dispose();
    expect(existsSync(path)).toBe(false);
    expect(memoryStats().tensors).toBe(before);
  });

  it("are checked against config.json", async () => {
    const before = memoryStats().tensors;
    const model = tinyModel({ config });
    quantizeModel(model, { format: "nf4" });
    const path = join(folder, "other-shape");
    await saveLlama(model, path);
    model.dispose();
    for (const [file, content] of tokenizerFiles) writeFileSync(join(path, file), content);
    // As many codes, of another shape: 32 by 64 instead of 64 by 32.
    const { tensors } = await loadSafetensors(join(path, "model.safetensors"));
    const [up, down] = ["up_proj", "down_proj"].map((name) => `model.layers.0.mlp.${name}.weight`);
    const swapped = new Map(
      Array.from(tensors, ([name, value]) => {
        if (name.startsWith(up)) return [down + name.slice(up.length), value];
        return [name.startsWith(down) ? up + name.slice(down.length) : name, value];
      }),
    );
    writeFileSync(join(path, "model.safetensors"), await serializeSafetensors(swapped));
    for (const value of tensors.values()) value.dispose();
    await expect(loadLlama(path)).rejects.toThrow(
      /mlp\.(?:up|down)_proj\.weight": is \[\d+, \d+\], expected/,
    );
    expect(memoryStats().tensors).toBe(before);
  });
});
