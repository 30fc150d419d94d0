// Generation: equal to running the whole sequence anew, its options, its ends, its memory.

import { type BackendName, init, memoryStats, noGrad, tensor, tidy } from "@nomoat/core";
import { applyLora } from "@nomoat/lora";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type GenerateOptions,
  generate,
  generateTokens,
  KVCache,
  type LlamaForCausalLM,
} from "../src/index.js";
import { byteTokenizer, collect, tinyModel, wordTokenizer } from "./support.js";

const tokenizer = byteTokenizer();

function logitsOf(model: LlamaForCausalLM, ids: readonly number[]): number[][] {
  return tidy(() =>
    noGrad(() => {
      const input = tensor(Int32Array.from(ids), {
        shape: [1, ids.length],
        device: model.lm_head.denseWeight().device,
      });
      return (model.forward(input).toArray() as number[][][])[0];
    }),
  );
}

const argmax = (values: readonly number[]): number => values.indexOf(Math.max(...values));

/** Greedy ids without a cache. */
function uncached(model: LlamaForCausalLM, prompt: readonly number[], count: number): number[] {
  const ids = [...prompt];
  while (ids.length < prompt.length + count) ids.push(argmax(logitsOf(model, ids).at(-1)!));
  return ids.slice(prompt.length);
}

const backends: { device: BackendName; tolerance: number }[] = [
  { device: "reference", tolerance: 1e-5 },
  { device: "wasm", tolerance: 1e-4 },
];

describe.each(backends)("the key-value cache on $device", ({ device, tolerance }) => {
  beforeAll(() => init({ backend: device }));

  it("gives the logits of the whole sequence, fed in any parts", () => {
    const model = tinyModel({ device, config: { numKeyValueHeads: 1 } });
    const ids = [5, 80, 200, 9, 7, 7, 100, 42, 13];
    const whole = logitsOf(model, ids);
    for (const parts of [[9], [1, 8], [8, 1], [3, 3, 3], [1, 1, 1, 1, 1, 1, 1, 1, 1]]) {
      const cache = new KVCache(model.config, 12, 1, { device });
      const rows: number[][] = [];
      for (const part of parts) {
        const chunk = ids.slice(rows.length, rows.length + part);
        tidy(() =>
          noGrad(() => {
            const input = tensor(Int32Array.from(chunk), { shape: [1, part], device });
            rows.push(...(model.forward(input, { cache }).toArray() as number[][][])[0]);
          }),
        );
      }
      rows.forEach((row, t) => {
        row.forEach((value, i) => {
          expect(Math.abs(value - whole[t][i])).toBeLessThan(tolerance);
        });
      });
      cache.dispose();
    }
    model.dispose();
  });

  it("generates what the most likely token without a cache is", async () => {
    const model = tinyModel({ device, seed: 3 });
    const prompt = [0, 70, 75, 80];
    const options = { model, prompt, maxNewTokens: 30, eosTokenIds: [] };
    const { values, result } = await collect(generateTokens(options));
    expect(values).toEqual(uncached(model, prompt, 30));
    expect(new Set(values).size).toBeGreaterThan(3);
    expect(result).toBe("length");
    model.dispose();
  });
});

describe("generate", () => {
  let model: LlamaForCausalLM;
  beforeAll(async () => {
    await init({ backend: "reference" });
    model = tinyModel({ seed: 3 });
  });
  afterAll(() => {
    model.dispose();
    return init({ backend: "wasm" });
  });

  const options = (more: Partial<GenerateOptions> = {}): GenerateOptions => ({
    ...{ model, tokenizer, prompt: "Call me", maxNewTokens: 12, eosTokenIds: [] },
    ...more,
  });
  const text = async (more: Partial<GenerateOptions> = {}): Promise<string> =>
    (await collect(generate(options(more)))).values.join("");

  it("gives the text of the tokens, prompt left out", async () => {
    const prompt = tokenizer.encode("Call me");
    const { values } = await collect(generateTokens({ model, prompt, maxNewTokens: 12, eosTokenIds: [] }));
    expect(await text()).toBe(tokenizer.decode(values));
    expect(await text({ prompt })).toBe(tokenizer.decode(values));
  });

  it("is the same for the same seed, and another for another", async () => {
    const sampled = (seed: number) => text({ temperature: 1.5, seed, maxNewTokens: 24 });
    expect(await sampled(1)).toBe(await sampled(1));
    expect(await sampled(1)).not.toBe(await sampled(2));
    expect(await text({ temperature: 1, topK: 1, seed: 5 })).toBe(await text());
    expect(await text({ temperature: 1e-9, seed: 5 })).toBe(await text());
  });

  it("penalises repetition", async () => {
    const { values } = await collect(
      generateTokens({ model, prompt: [0], maxNewTokens: 40, eosTokenIds: [], repetitionPenalty: 1e9 }),
    );
    expect(new Set(values).size).toBe(40);
  });

  it("ends at a stop string and gives out nothing of it", async () => {
    const whole = await text({ maxNewTokens: 24 });
    const characters = [...whole];
    for (const [from, to] of [
      [0, 1],
      [3, 5],
      [7, 11],
    ]) {
      const stop = characters.slice(from, to).join("");
      const { values, result } = await collect(generate(options({ maxNewTokens: 24, stop })));
      expect(values.join("")).toBe(whole.slice(0, whole.indexOf(stop)));
      expect(result).toBe("stop");
    }
    const never = await collect(generate(options({ maxNewTokens: 24, stop: ["\u0001\u0002", `${whole}x`] })));
    expect(never).toMatchObject({ result: "length" });
    expect(never.values.join("")).toBe(whole);
  });

  it("ends at a token that ends texts, without giving it out", async () => {
    const prompt = [0, 70, 75, 80];
    const free = uncached(model, prompt, 8);
    const eos = free[5];
    const { values, result } = await collect(
      generateTokens({ model, prompt, maxNewTokens: 8, eosTokenIds: [eos, 2] }),
    );
    expect(values).toEqual(free.slice(0, free.indexOf(eos)));
    expect(result).toBe("eos");
  });

  it("ends where the model's positions end", async () => {
    const prompt = Array.from({ length: 60 }, (_, i) => 3 + i);
    const { values, result } = await collect(generateTokens({ model, prompt, eosTokenIds: [] }));
    expect(values).toHaveLength(4);
    expect(result).toBe("context");
    const full = Array.from({ length: 64 }, (_, i) => 3 + i);
    await expect(generateTokens({ model, prompt: full }).next()).rejects.toThrow(
      /prompt has 64 tokens.*64 positions/,
    );
  });

  it.each([
    [{ temperature: -1 }, "temperature"],
    [{ temperature: Number.NaN }, "temperature"],
    [{ topK: 0 }, "topK"],
    [{ topK: 1.5 }, "topK"],
    [{ topP: 0 }, "topP"],
    [{ topP: 1.1 }, "topP"],
    [{ minP: 2 }, "minP"],
    [{ repetitionPenalty: 0 }, "repetitionPenalty"],
    [{ maxNewTokens: -1 }, "maxNewTokens"],
    [{ seed: -1 }, "seed"],
    [{ stop: "" }, "stop"],
    [{ stop: ["a", 1] }, "stop"],
    [{ prompt: [] }, "prompt"],
    [{ prompt: [259] }, "prompt\\[0\\]"],
    [{ prompt: [0, 1.5] }, "prompt|1.5"],
    [{ addSpecialTokens: 1 }, "addSpecialTokens"],
    [{ top_p: 0.5 }, "top_p"],
  ])("refuses %j by name", async (more, name) => {
    const attempt = generate(options(more as never)).next();
    await expect(attempt).rejects.toMatchObject({ code: "ARGUMENT", message: expect.stringMatching(name) });
  });

  it("says when logits are not finite", async () => {
    const broken = tinyModel({ seed: 4 });
    const { weight } = broken.model.norm;
    noGrad(() => weight.copyFrom(new Float32Array(weight.size).fill(Number.NaN)));
    await expect(generate(options({ model: broken })).next()).rejects.toMatchObject({
      ...{ code: "NOT_FINITE", message: expect.stringContaining("NaN") },
    });
    broken.dispose();
  });

  it("ends with the signal's reason, before and between steps", async () => {
    const reason = new Error("enough");
    await expect(generate(options({ signal: AbortSignal.abort(reason) })).next()).rejects.toBe(reason);
    const before = memoryStats().tensors;
    const controller = new AbortController();
    const tokens = generateTokens({ model, prompt: [0], eosTokenIds: [], signal: controller.signal });
    await tokens.next();
    controller.abort();
    await expect(tokens.next()).rejects.toMatchObject({ name: "AbortError" });
    expect(memoryStats().tensors).toBe(before);
  });

  it("frees everything at the end, and when the reader leaves early", async () => {
    const before = memoryStats();
    for await (const _ of generate(options())) break;
    await text();
    await text({ temperature: 1, seed: 1 });
    expect(memoryStats()).toMatchObject({
      tensors: before.tensors,
      storages: before.storages,
      bytes: before.bytes,
    });
  });

  it("runs in evaluation mode and gives the model its modes back", async () => {
    const adapter = applyLora(model, { loraDropout: 0.9, initLoraWeights: false });
    model.train();
    const training = await text({ maxNewTokens: 6 });
    expect([...model.namedModules()].every(([, module]) => module.training)).toBe(true);
    model.eval();
    model.model.training = true;
    expect(await text({ maxNewTokens: 6 })).toBe(training);
    expect([...model.namedModules()].filter(([, module]) => module.training)).toHaveLength(1);
    adapter.remove();
  });

  it("gives the event loop its turn between tokens", async () => {
    let turns = 0;
    const timer = setInterval(() => turns++, 0);
    await text({ maxNewTokens: 50 });
    clearInterval(timer);
    expect(turns).toBeGreaterThan(5);
  });

  it("keeps the space between prompt and text where vocabularies put it in front of words", async () => {
    const words = wordTokenizer();
    const small = tinyModel({ config: { vocabSize: words.vocabSize }, seed: 8 });
    for (const prompt of ["once", "the on", "t"]) {
      const ids = [...words.encode(prompt)];
      const whole = words.decode([...ids, ...uncached(small, ids, 12)]);
      const { values } = await collect(generate(options({ model: small, tokenizer: words, prompt })));
      expect(values.join("")).toBe(whole.slice(prompt.length));
      expect(whole.slice(prompt.length)).toMatch(/ \w/);
    }
    small.dispose();
  });
});
