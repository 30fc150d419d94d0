// Adapters from and to llama.cpp's GGUF files.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FormatError, init, memoryStats, NomoatError, noGrad, type Tensor, tensor, tidy } from "@nomoat/core";
import { loadSafetensors } from "@nomoat/core/safetensors";
import { type Adapter, applyLora, type LoraConfig } from "@nomoat/lora";
import { type GgufValue, readGguf, serializeGguf } from "@nomoat/quant/gguf";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LlamaForCausalLM, loadLoraGguf, parseConfig, saveLoraGguf } from "../src/index.js";
import { goldenFolder, relativeError, tinyModel } from "./support.js";

let folder: string;
let path: string;
beforeAll(async () => {
  await init({ backend: "reference" });
  folder = mkdtempSync(join(tmpdir(), "llama-gguf-lora-"));
  path = join(folder, "adapter.gguf");
});
afterAll(async () => {
  rmSync(folder, { recursive: true });
  await init({ backend: "wasm" });
});

function logits(model: LlamaForCausalLM, ids = [[5, 80, 200, 7, 7, 31]]): number[] {
  return noGrad(() => tidy(() => [...model.forward(tensor(ids, { dtype: "int32" })).dataSync()].map(Number)));
}

function randomize(adapter: Adapter): Adapter {
  adapter.parameters().forEach((parameter, p) => {
    const values = Array.from({ length: parameter.size }, (_, i) => Math.sin(1 + p + 3 * i) / 4);
    noGrad(() =>
      tidy(() => parameter.copyFrom(tensor(values, { shape: parameter.shape, dtype: parameter.dtype }))),
    );
  });
  return adapter;
}

describe("an adapter of llama.cpp", () => {
  it("gives the logits of its rules in PyTorch: one alpha, ranks by layer, rotated rows, embeddings", async () => {
    const golden = JSON.parse(readFileSync(join(goldenFolder, "adapter.json"), "utf8"));
    const { tensors } = await loadSafetensors(join(goldenFolder, golden.base), { dtype: "float64" });
    const config = parseConfig(new TextEncoder().encode(JSON.stringify(golden.config)));
    const model = LlamaForCausalLM.fromTensors(config, tensors);
    const before = logits(model, golden.input_ids);
    const adapter = await loadLoraGguf(model, join(goldenFolder, "adapter.gguf"));
    expect(adapter.config).toMatchObject({ r: 2, loraAlpha: 5, alphaPattern: {} });
    expect(adapter.layers.size).toBe(16);
    const [vocabulary, length] = [config.vocabSize, golden.input_ids[0].length];
    const last = (all: number[]) => all.filter((_, i) => Math.floor(i / vocabulary) % length >= length - 2);
    expect(relativeError(last(logits(model, golden.input_ids)), golden.logits)).toBeLessThan(1e-7);
    expect(relativeError(last(before), golden.logits)).toBeGreaterThan(0.01);
    await saveLoraGguf(adapter, path);
    const [theirs, ours] = [await readGguf(join(goldenFolder, "adapter.gguf")), await readGguf(path)];
    expect(new Set(ours.tensors.keys())).toEqual(new Set(theirs.tensors.keys()));
    for (const [name, { type, shape }] of theirs.tensors) {
      expect(ours.tensors.get(name)).toMatchObject({ type, shape });
      expect(Buffer.compare(await ours.readBytes(name), await theirs.readBytes(name))).toBe(0);
    }
    for (const [key, value] of theirs.metadata) expect(ours.metadata.get(key)).toEqual(value);
    await Promise.all([theirs.close(), ours.close()]);
    model.dispose();
  });

  it.each<[string, Partial<LoraConfig>]>([
    ["alphas and ranks by layer", { rankPattern: { q_proj: 3 }, alphaPattern: { v_proj: 9 } }],
    ["rank-stabilized", { useRslora: true, rankPattern: { up_proj: 5 } }],
    ["an embedding and an output layer", { targetModules: ["embed_tokens", "lm_head", "k_proj"] }],
    ["one that began with principal parts", { initLoraWeights: "olora" }],
  ])("is written and read: %s", async (_, config) => {
    const model = tinyModel();
    const adapter = applyLora(model, { r: 2, loraAlpha: 7, targetModules: "all-linear", ...config });
    randomize(adapter);
    await saveLoraGguf(adapter, path);
    const other = tinyModel();
    await loadLoraGguf(other, path);
    expect(relativeError(logits(other), logits(model))).toBeLessThan(1e-5);
    await saveLoraGguf(adapter, path, { type: "f16", name: "half" });
    const file = await readGguf(path);
    expect(file.metadata.get("general.name")).toEqual({ type: "string", value: "half" });
    expect([...file.tensors.values()].every(({ type }) => type === "F16")).toBe(true);
    await file.close();
    model.dispose();
    other.dispose();
  });

  it("is refused where the format does not hold it", async () => {
    const refuse = async (config: Partial<LoraConfig>, message: RegExp, tied = false) => {
      const model = tinyModel({ config: { tieWordEmbeddings: tied } });
      await expect(saveLoraGguf(applyLora(model, config), path)).rejects.toThrow(message);
      model.dispose();
    };
    await refuse({ useDora: true }, /no DoRA/);
    await refuse({ loraBias: true }, /no loraBias/);
    await refuse({ peftType: "LOHA" }, /kind LOHA/);
    await refuse({ modulesToSave: ["norm"] }, /no place/);
    await refuse({ trainableTokenIndices: [1] }, /no place/);
    await refuse({ targetModules: ["lm_head"] }, /tied/, true);
    const model = tinyModel();
    const adapter = randomize(applyLora(model, {}));
    const [a] = adapter.parameters();
    noGrad(() => a.copyFrom(tidy(() => a.detach().mul(1e6))));
    await expect(saveLoraGguf(adapter, path, { type: "f16" })).rejects.toThrow(/not finite as f16/);
    await expect(saveLoraGguf(adapter, path, { type: "q8_0" as never })).rejects.toThrow(/type must be/);
    model.dispose();
  });

  it("lists all that is wrong with a file", async () => {
    const text = (value: string): GgufValue => ({ type: "string", value });
    const good = {
      "general.architecture": text("llama"),
      "general.type": text("adapter"),
      "adapter.type": text("lora"),
    };
    const matrix = (rows: number, columns: number) =>
      tensor(new Float32Array(rows * columns), { shape: [rows, columns] });
    const q = "blk.0.attn_q.weight";
    const load = async (tensors: Record<string, Tensor>, metadata: Record<string, GgufValue> = {}) => {
      const bytes = await serializeGguf({
        metadata: { ...good, ...metadata },
        tensors: new Map(Object.entries(tensors)),
      });
      const model = tinyModel();
      try {
        return await loadLoraGguf(model, bytes);
      } finally {
        model.dispose();
      }
    };
    const pair = { [`${q}.lora_a`]: matrix(2, 16), [`${q}.lora_b`]: matrix(16, 2) };
    const refuse = async (
      tensors: Record<string, Tensor>,
      message: RegExp,
      metadata = {},
      more = message,
    ) => {
      const error = await load(tensors, metadata).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(FormatError);
      expect((error as Error).message).toMatch(message);
      expect((error as Error).message).toMatch(more);
    };
    expect((await load(pair)).config.loraAlpha).toBe(2);
    await refuse(
      {
        "blk.0.attn_q.weight": matrix(1, 1),
        "blk.1.attn_v.weight.lora_a": matrix(2, 16),
        [`${q}.lora_a`]: matrix(2, 16),
        [`${q}.lora_b`]: matrix(16, 3),
        "blk.0.attn_k.weight.lora_a": matrix(2, 16),
        "blk.0.attn_k.weight.lora_b": matrix(7, 2),
      },
      /unexpected "blk.0.attn_q.weight".*7 rows, which are no heads of 4.*q_proj.lora_A.weight has rank 2, but r and rank_pattern give 3.*k_proj.lora_B.weight is \[7, 2\].*missing .*v_proj.lora_B/,
      {
        "adapter.type": text("control_vector"),
        "adapter.lora.alpha": { type: "float32", value: Number.NaN },
      },
      /adapter.type.*expected "lora".*alpha.*not NaN/,
    );
    await refuse({}, /no adapter's tensors/);
    await refuse(
      { "blk.7.attn_v.weight.lora_a": matrix(1, 16), "blk.7.attn_v.weight.lora_b": matrix(8, 1) },
      /match/,
    );
    await refuse({ ...pair, [`${q}.lora_a`]: matrix(2, 15) }, /is \[2, 15\], expected \[2, 16\]/);
    await refuse(pair, /general.type.*expected "adapter", not "model"/, { "general.type": text("model") });
    await refuse(pair, /adapter.type/, { "adapter.type": text("control_vector") });
    await refuse(pair, /architecture/, { "general.architecture": text("gemma") });
    await refuse(pair, /alpha.*not NaN/, { "adapter.lora.alpha": { type: "float32", value: Number.NaN } });
    await refuse(pair, /activated LoRA/, { "adapter.alora.invocation_tokens": text("x") });
  });

  it("is loaded or refused by an error of ours, whatever its bytes, and leaves the model as it was", async () => {
    const model = tinyModel();
    await saveLoraGguf(
      randomize(applyLora(model, { r: 2, targetModules: ["q_proj", "embed_tokens"] })),
      path,
    );
    model.dispose();
    const good = readFileSync(path);
    const other = tinyModel();
    const state = () => [...other.stateDict()].map(([name, value]) => [name, [...value.dataSync()]]);
    const before = state();
    const { tensors } = memoryStats();
    let refused = 0;
    const patch = fc.tuple(fc.nat(), fc.uint8Array({ minLength: 1, maxLength: 9 }));
    await fc.assert(
      fc.asyncProperty(fc.array(patch, { maxLength: 3 }), fc.option(fc.nat()), async (patches, end) => {
        const bytes = Uint8Array.from(end === null ? good : good.subarray(0, end % good.length));
        for (const [at, values] of patches) {
          // Mostly what stands before the values.
          const start = at % Math.max(1, Math.min(bytes.length, 900));
          bytes.set(values.subarray(0, Math.max(0, bytes.length - start)), start);
        }
        const result = await loadLoraGguf(other, bytes).catch((thrown: unknown) => thrown);
        if (result instanceof Error) {
          refused++;
          expect(result).toBeInstanceOf(NomoatError);
        } else (result as Adapter).remove();
        // Less is possible: tensors of other tests are collected at any time.
        expect(memoryStats().tensors).toBeLessThanOrEqual(tensors);
      }),
      { numRuns: 150 },
    );
    expect(refused).toBeGreaterThan(50);
    expect(state()).toEqual(before);
    other.dispose();
  });
});
