// Perplexity against its definition, computed from logits by hand.

import { init, noGrad, tensor, tidy } from "@nomoat/core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type LlamaForCausalLM, perplexity } from "../src/index.js";
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
