// Perplexity against its definition, computed from logits by hand.

import { init, memoryStats, noGrad, tensor, tidy } from "@nomoat/core";
import { PredictionComparison, quantizationReport, quantizeModel } from "@nomoat/quant";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { comparePredictions, type LlamaForCausalLM, perplexity } from "../src/index.js";
import { byteTokenizer, tinyModel } from "./support.js";

const tokenizer = byteTokenizer();
const text = "Call me Ishmael. Some years ago – never mind how long precisely.";

/** −ln p of the token at `place` given those from `start` on. */
function loss(model: LlamaForCausalLM, ids: Int32Array, start: number, place: number): number {
  return tidy(() =>
    noGrad(() => {
      const context = ids.slice(start, place);
      const logits = model.forward(tensor(context, { shape: [1, context.length], device: "reference" }));
      const last = (logits.toArray() as number[][][])[0].at(-1)!;
      const top = Math.max(...last);
      return Math.log(last.reduce((sum, value) => sum + Math.exp(value - top), 0)) + top - last[ids[place]];
    }),
  );
}

describe("perplexity", () => {
  let model: LlamaForCausalLM;
  beforeAll(async () => {
    await init({ backend: "reference" });
    model = tinyModel();
  });
  afterAll(() => {
    model.dispose();
    return init({ backend: "wasm" });
  });

  it.each([
    [64, undefined],
    [10, undefined],
    [10, 4],
    [10, 1],
    [2, undefined],
  ])("scores every token but the first once, in windows of %s every %s", async (length, stride) => {
    const ids = tokenizer.encode(text);
    const step = stride ?? length - 1;
    let sum = 0;
    let scored = 1;
    for (let start = 0; scored < ids.length; start += step) {
      for (; scored < Math.min(start + length, ids.length); scored++) sum += loss(model, ids, start, scored);
    }
    const result = await perplexity({ model, tokenizer, text, length, stride, batch: 3 });
    expect(result.tokens).toBe(ids.length - 1);
    expect(result.loss).toBeCloseTo(sum / (ids.length - 1), 5);
    expect(result.perplexity).toBeCloseTo(Math.exp(result.loss), 9);
    expect(result.bitsPerByte).toBeCloseTo(sum / Math.LN2 / new TextEncoder().encode(text).length, 5);
    const again = await perplexity({ model, ids, length, stride });
    expect(again.loss).toBeCloseTo(result.loss, 6);
    expect(again.bitsPerByte).toBeNull();
  });

  it("is the vocabulary's size for a model that knows nothing", async () => {
    const flat = tinyModel();
    noGrad(() => flat.model.norm.weight.copyFrom(new Float32Array(16)));
    expect((await perplexity({ model: flat, tokenizer, text })).perplexity).toBeCloseTo(259, 3);
    flat.dispose();
  });

  it.each([
    [{ text: undefined }, "text or ids"],
    [{ ids: [1, 2] }, "text or ids"],
    [{ tokenizer: undefined }, "tokenizer"],
    [{ length: 1 }, "length"],
    [{ length: 65 }, "length"],
    [{ length: 8, stride: 8 }, "stride"],
    [{ batch: 0 }, "batch"],
    [{ text: "" }, "at least 2 tokens"],
    [{ windows: 3 }, "windows"],
  ])("refuses %j by name", async (more, message) => {
    const attempt = perplexity({ model, tokenizer, text, ...more } as never);
    await expect(attempt).rejects.toMatchObject({
      code: "ARGUMENT",
      message: expect.stringContaining(message),
    });
  });

  it("ends with the signal's reason", async () => {
    const attempt = perplexity({ model, tokenizer, text, signal: AbortSignal.abort() });
    await expect(attempt).rejects.toMatchObject({ name: "AbortError" });
  });
});

describe("comparePredictions", () => {
  const config = { hiddenSize: 32, intermediateSize: 64, headDim: 8 };
  beforeAll(() => init({ backend: "reference" }));
  afterAll(() => init({ backend: "wasm" }));

  it("has the perplexities of both models, and no divergence between equals", async () => {
    const [model, reference] = [tinyModel({ config }), tinyModel({ config })];
    const options = { model, reference, tokenizer, text, length: 20, batch: 2 };
    // The first pass makes the rotary tables, which stay.
    const same = await comparePredictions(options);
    const before = memoryStats().tensors;
    await comparePredictions(options);
    expect(same.divergence).toBe(0);
    expect(same.agreement).toBe(1);
    expect(memoryStats().tensors).toBe(before);
    quantizeModel(model, { format: "int4_g32", outputLayer: true });
    const comparison = new PredictionComparison();
    const found = await comparePredictions({ ...options, comparison });
    expect(comparison.losses).toHaveLength(found.tokens);
    const [ours, theirs] = [model, reference].map((each) =>
      perplexity({ model: each, tokenizer, text, length: 20 }),
    );
    expect(found.tokens).toBe((await ours).tokens);
    expect(found.perplexity).toBeCloseTo((await ours).perplexity, 3);
    expect(found.referencePerplexity).toBeCloseTo((await theirs).perplexity, 3);
    expect(found.divergence).toBeGreaterThan(0);
    // A coarser model is further away.
    const finer = tinyModel({ config });
    quantizeModel(finer, { format: "int8", outputLayer: true });
    const near = await comparePredictions({ ...options, model: finer });
    expect(near.divergence).toBeLessThan(found.divergence / 4);
    expect(String(quantizationReport(model, { predictions: found }))).toContain("KL divergence");
    for (const each of [model, reference, finer]) each.dispose();
  });

  it("refuses a missing reference, another vocabulary, and unknown options", async () => {
    const model = tinyModel({ config });
    const other = tinyModel({ config: { ...config, vocabSize: 300 } });
    await expect(comparePredictions({ model, tokenizer, text } as never)).rejects.toThrow(
      "comparePredictions: reference: expected a model, as loadLlama gives, not undefined",
    );
    await expect(comparePredictions({ model, reference: other, tokenizer, text })).rejects.toThrow(
      "the model has 259 tokens, the reference 300",
    );
    const odd = { model, reference: model, tokenizer, text, windows: 3 };
    await expect(comparePredictions(odd as never)).rejects.toThrow("windows");
    model.dispose();
    other.dispose();
  });
});
