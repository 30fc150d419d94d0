// LLaMA models from and to GGUF: logits, names, the order of query rows, tokenizers, what is refused.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FormatError, init, memoryStats, noGrad, type Tensor, tensor, tidy } from "@nomoat/core";
import { collectStatistics, QuantizedEmbedding, QuantizedLinear, quantizeModel } from "@nomoat/quant";
import { type GgufBytes, readGguf, writeGguf } from "@nomoat/quant/gguf";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type LlamaConfig, type LlamaForCausalLM, loadLlama, saveGguf, Tokenizer } from "../src/index.js";
import {
  byteTokenizer,
  byteTokenizerFiles,
  relativeError,
  sentencePieceSteps,
  tinyModel,
} from "./support.js";

const config: Partial<LlamaConfig> = { hiddenSize: 32, intermediateSize: 64, headDim: 8 };
const files = byteTokenizerFiles();
let folder: string;
let path: string;

beforeAll(async () => {
  await init({ backend: "reference" });
  folder = mkdtempSync(join(tmpdir(), "llama-gguf-"));
});
beforeEach(() => {
  path = join(folder, "model.gguf");
});
afterAll(async () => {
  rmSync(folder, { recursive: true });
  await init({ backend: "wasm" });
});

function logits(model: LlamaForCausalLM): Float32Array {
  const ids = tensor(Int32Array.of(5, 80, 200, 7, 7, 31), { shape: [1, 6], dtype: "int32" });
  const values = noGrad(() => tidy(() => model.forward(ids).dataSync() as Float32Array));
  ids.dispose();
  return values;
}

describe("a model", () => {
  it.each<[string, Partial<LlamaConfig>]>([
    ["plain", {}],
    [
      "tied, with biases and linear scaling",
      {
        ...{ tieWordEmbeddings: true, attentionBias: true, mlpBias: true },
        ropeScaling: { type: "linear", factor: 2 },
      },
    ],
    [
      "with Llama 3's scaling and two ends",
      {
        ...{ ropeTheta: 500000, eosTokenIds: [1, 2] },
        ropeScaling: {
          ...{ type: "llama3", factor: 32, lowFreqFactor: 1, highFreqFactor: 4 },
          originalMaxPositionEmbeddings: 8192,
        },
      },
    ],
  ])("comes back exactly in f32: %s", async (_, variant) => {
    const model = tinyModel({ config: { ...config, ...variant } });
    await saveGguf(model, byteTokenizer(), path, { type: "f32" });
    const { model: again } = await loadLlama(path);
    expect(again.config).toEqual(model.config);
    expect(logits(again)).toEqual(logits(model));
    model.dispose();
    again.dispose();
  });

  it("gives rows that a type does not suit the type that llama.cpp would", async () => {
    const model = tinyModel({ config: { ...config, hiddenSize: 256, intermediateSize: 72 } });
    await saveGguf(model, null, path, { type: "q4_K" });
    const gguf = await readGguf(path);
    const typeOf = (name: string) => gguf.tensors.get(`blk.0.${name}.weight`)?.type;
    expect([typeOf("ffn_up"), typeOf("attn_output"), typeOf("ffn_down")]).toEqual(["Q4_K", "Q5_0", "F16"]);
    await gguf.close();
    model.dispose();
  });

  it("is refused of a type that is none, with what there is", async () => {
    const model = tinyModel({ config });
    await expect(saveGguf(model, null, path, { type: "q9" } as never)).rejects.toThrow(
      'saveGguf: type must be one of f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, q2_K, q3_K, q4_K, q5_K, q6_K, not "q9"',
    );
    await expect(saveGguf(model, path as never, "text")).rejects.toThrow(
      "saveGguf: expected a tokenizer or null, not",
    );
    model.dispose();
  });

  it("stores query rows as llama.cpp does: rotary pairs side by side", async () => {
    const model = tinyModel({ config });
    await saveGguf(model, null, path, { type: "f32" });
    const gguf = await readGguf(path);
    const stored = await gguf.load("blk.1.attn_k.weight", { dequantize: true });
    const values = stored.dataSync() as Float32Array;
    const ours = model.stateDict().get("model.layers.1.self_attn.k_proj.weight") as Tensor;
    const expected = ours.dataSync() as Float32Array;
    const row = (all: Float32Array, index: number) => all.slice(index * 32, index * 32 + 32);
    // Head 1 of 8 rows: theirs 0, 1, 2 are ours 0, 4, 1.
    for (const [theirs, here] of [
      [8, 8],
      [9, 12],
      [10, 9],
      [15, 15],
    ]) {
      expect(row(values, theirs)).toEqual(row(expected, here));
    }
    stored.dispose();
    model.dispose();
    await gguf.close();
  });

  it("keeps quantized layers packed, or gives float32; both compute what quantizing here does", async () => {
    const model = tinyModel({ config });
    await saveGguf(model, files, path, { type: "q8_0", outputType: "f32" });
    const { model: packed } = await loadLlama(path);
    const { model: dense } = await loadLlama(path, { keepQuantized: false });
    const kept = [...packed.namedModules()].filter(([, module]) => module instanceof QuantizedLinear);
    expect(kept).toHaveLength(14);
    expect([...dense.namedModules()].some(([, module]) => module instanceof QuantizedLinear)).toBe(false);
    const original = logits(model);
    quantizeModel(model, { format: "q8_0" });
    expect(relativeError(logits(packed), logits(model))).toBeLessThan(1e-5);
    expect(relativeError(logits(dense), logits(model))).toBeLessThan(1e-5);
    expect(relativeError(logits(packed), original)).toBeLessThan(0.1);

    const second = join(folder, "again.gguf");
    await saveGguf(packed, files, second, { outputType: "f32" });
    const [a, b] = [await readGguf(path), await readGguf(second)];
    for (const [name, { type }] of a.tensors) {
      expect(b.tensors.get(name)?.type).toBe(type);
      expect(Buffer.compare(await a.readBytes(name), await b.readBytes(name))).toBe(0);
    }
    await Promise.all([a.close(), b.close()]);
    for (const each of [model, packed, dense]) each.dispose();
  });

  it("keeps a file of mixed K-quants packed, the table too, as q4_K_M has them; tied weights stay tied", async () => {
    const wide = { hiddenSize: 256, intermediateSize: 256, headDim: 64, tieWordEmbeddings: true };
    const model = tinyModel({ config: wide });
    quantizeModel(model, {
      format: "q4_K",
      perModule: [
        [/v_proj|down_proj/, "q6_K"],
        ["embed_tokens", "q6_K"],
      ],
      embeddings: true,
    });
    await saveGguf(model, files, path);
    const gguf = await readGguf(path);
    expect(gguf.tensors.get("blk.0.attn_q.weight")?.type).toBe("Q4_K");
    expect(gguf.tensors.get("blk.0.ffn_down.weight")?.type).toBe("Q6_K");
    expect(gguf.tensors.get("token_embd.weight")?.type).toBe("Q6_K");
    expect(gguf.tensors.has("output.weight")).toBe(false);
    await gguf.close();
    const { model: again } = await loadLlama(path);
    const table = again.getModule("model.embed_tokens") as QuantizedEmbedding;
    expect(table).toBeInstanceOf(QuantizedEmbedding);
    expect((again.lm_head as QuantizedLinear).quantized).toBe(table.quantized);
    expect(logits(again)).toEqual(logits(model));
    const { model: dense } = await loadLlama(path, { keepQuantized: false });
    expect(relativeError(logits(dense), logits(model))).toBeLessThan(1e-5);
    for (const each of [model, again, dense]) each.dispose();

    const plain = tinyModel({ config: wide });
    await saveGguf(plain, files, path, { type: "q5_K" });
    plain.dispose();
    const { model: packed } = await loadLlama(path);
    const formats = [...packed.namedModules()].flatMap(([, module]) =>
      module instanceof QuantizedLinear || module instanceof QuantizedEmbedding
        ? [module.quantized.format.name]
        : [],
    );
    expect([...new Set(formats)].sort()).toEqual(["q5_K", "q6_K"]);
    packed.dispose();
  });

  it("is not written with scales of inputs, which GGUF has no place for", async () => {
    const model = tinyModel({ config });
    const statistics = await collectStatistics(
      model,
      () => logits(model),
      (name) => name !== "lm_head",
    );
    quantizeModel(model, { format: "q4_0", method: "awq", statistics });
    await expect(saveGguf(model, files, path)).rejects.toThrow("multiplies its inputs by scales (AWQ)");
    model.dispose();
  });

  it("is refused with the reason, and nothing stays allocated", async () => {
    const model = tinyModel({ config });
    await saveGguf(model, files, path);
    model.dispose();
    const gguf = await readGguf(path);
    const tensors = new Map<string, GgufBytes>();
    for (const [name, { type, shape }] of gguf.tensors) {
      tensors.set(name, { type, shape, bytes: await gguf.readBytes(name) });
    }
    await gguf.close();
    const bytes = memoryStats().bytes;
    const refuses = async (change: (metadata: Map<string, never>) => void, message: RegExp) => {
      const metadata = new Map(gguf.metadata);
      change(metadata as Map<string, never>);
      await writeGguf(path, { metadata, tensors });
      const error = await loadLlama(path).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(FormatError);
      expect((error as FormatError).message).toMatch(message);
      expect(memoryStats().bytes).toBe(bytes);
    };
    const value = (type: string, value: unknown) => ({ type, value }) as never;
    await refuses((m) => m.set("general.architecture", value("string", "gemma")), /"gemma" is not supported/);
    await refuses((m) => m.delete("llama.block_count"), /llama.block_count.*is missing/);
    await refuses((m) => m.set("llama.block_count", value("uint32", 3)), /missing "blk.2.attn_norm.weight"/);
    await refuses(
      (m) => m.set("llama.embedding_length", value("string", "x")),
      /expected a number, not string/,
    );
    await refuses((m) => m.set("llama.attention.head_count", value("uint32", 3)), /head/);
    await refuses((m) => m.set("tokenizer.ggml.model", value("string", "t5")), /option `tokenizer`/);
    await refuses((m) => m.set("tokenizer.ggml.pre", value("string", "viking")), /option `tokenizer`/);
    tensors.set("blk.0.attn_q.extra", tensors.get("output_norm.weight") as GgufBytes);
    await refuses(() => {}, /unexpected "blk.0.attn_q.extra"/);
  });
});

describe("tokenizers", () => {
  const words = () => {
    const tokens = [
      "<unk>",
      "<s>",
      "</s>",
      "<0x41>",
      "▁",
      ..."cehnot",
      "▁t",
      "he",
      "▁the",
      "on",
      "ce",
      "▁on",
    ];
    const added = tokens.slice(0, 3).map((content, id) => ({ id, content, special: true }));
    return {
      json: {
        added_tokens: added.map((token) => ({
          ...token,
          single_word: false,
          lstrip: false,
          rstrip: false,
          normalized: false,
        })),
        ...sentencePieceSteps,
        model: {
          ...{ type: "BPE", unk_token: "<unk>", fuse_unk: true, byte_fallback: true },
          vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
          merges: ["▁ t", "h e", "▁t he", "o n", "c e", "▁ on"],
        },
      },
      config: {
        bos_token: "<s>",
        eos_token: "</s>",
        unk_token: "<unk>",
        add_bos_token: true,
        add_eos_token: false,
      },
    };
  };
  const texts = ["the once", "on the tenth  note", "hello, wörld! A 1234\n", "", "AAA"];

  it.each([
    ["byte-level", files],
    ["SentencePiece", words()],
  ])("%s come back with the same ids and text", async (_, given) => {
    const model = tinyModel({ config });
    await saveGguf(model, given, path, { type: "f32" });
    model.dispose();
    const { model: again, tokenizer } = await loadLlama(path);
    again.dispose();
    const original = Tokenizer.fromJson(given.json, given.config);
    for (const text of texts) {
      const ids = original.encode(text);
      expect(tokenizer.encode(text)).toEqual(ids);
      expect(tokenizer.decode(ids)).toBe(original.decode(ids));
    }
    expect(tokenizer.bosTokenId).toBe(original.bosTokenId);
    expect(tokenizer.eosTokenId).toBe(original.eosTokenId);
  });

  it("may be missing when one is given", async () => {
    const model = tinyModel({ config });
    await saveGguf(model, null, path);
    model.dispose();
    await expect(loadLlama(path)).rejects.toThrow("give loadLlama the option `tokenizer`");
    const tokenizer = byteTokenizer();
    const loaded = await loadLlama(path, { tokenizer });
    expect(loaded.tokenizer).toBe(tokenizer);
    loaded.model.dispose();
  });
});
