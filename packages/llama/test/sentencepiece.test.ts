// Token ids of SentencePiece's two algorithms against an independent script (tools/golden/tokenizers.py), from Hugging Face's file and
// from GGUF's metadata.

import { readFileSync } from "node:fs";
import type { GgufValue } from "@nomoat/quant/gguf";
import { describe, expect, it } from "vitest";
import { Metadata } from "../src/gguf-config.js";
import { tokenizerFromGguf } from "../src/gguf-tokenizer.js";
import { Tokenizer } from "../src/tokenizer.js";
import { sentencePieceSteps } from "./support.js";

interface Case {
  text: string;
  ids: number[];
}
const golden = JSON.parse(readFileSync(new URL("./fixtures/tokenizers.json", import.meta.url), "utf8")) as {
  bpe: { tokens: string[]; scores: number[]; types: number[]; merges: [string, string][]; cases: Case[] };
  unigram: { vocab: [string, number][]; cases: Case[] };
};

const special = (id: number, content: string) => ({
  ...{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true },
});
/** All but the model, as Hugging Face converts a SentencePiece file of LLaMA's. */
const around = {
  version: "1.0",
  added_tokens: [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
  ...sentencePieceSteps,
  pre_tokenizer: null,
  post_processor: null,
};

const { bpe, unigram } = golden;
const fromJson = Tokenizer.fromJson({
  ...around,
  model: {
    ...{ type: "BPE", unk_token: "<unk>", fuse_unk: true, byte_fallback: true, merges: bpe.merges },
    vocab: Object.fromEntries(bpe.tokens.map((token, id) => [token, id])),
  },
});
const metadata = new Map<string, GgufValue>([
  ["tokenizer.ggml.model", { type: "string", value: "llama" }],
  ["tokenizer.ggml.tokens", { type: "array", of: "string", value: bpe.tokens }],
  ["tokenizer.ggml.scores", { type: "array", of: "float32", value: Float32Array.from(bpe.scores) }],
  ["tokenizer.ggml.token_type", { type: "array", of: "int32", value: Int32Array.from(bpe.types) }],
  ["tokenizer.ggml.bos_token_id", { type: "uint32", value: 1 }],
  ["tokenizer.ggml.eos_token_id", { type: "uint32", value: 2 }],
]);

describe.each([
  ["tokenizer.json", fromJson],
  ["GGUF, which has scores and no merges", tokenizerFromGguf(new Metadata(metadata, "gguf"))],
])("BPE from %s", (_, tokenizer) => {
  it.each(bpe.cases)("has the ids of $text", ({ text, ids }) => {
    expect(Array.from(tokenizer.encode(text, { addSpecialTokens: false }))).toEqual(ids);
    expect(tokenizer.decode(ids)).toBe(text);
  });
});

describe("Unigram", () => {
  const tokenizer = Tokenizer.fromJson({
    ...around,
    model: { type: "Unigram", unk_id: 0, vocab: unigram.vocab },
  });

  it.each(unigram.cases)("has the ids of $text", ({ text, ids }) => {
    expect(Array.from(tokenizer.encode(text))).toEqual(ids);
    if (!ids.includes(0)) expect(tokenizer.decode(ids)).toBe(text);
  });

  it("is not read from GGUF, which says what to do", () => {
    const t5 = new Map(metadata).set("tokenizer.ggml.model", { type: "string", value: "t5" });
    expect(() => tokenizerFromGguf(new Metadata(t5, "model.gguf"))).toThrow(
      /^model\.gguf: .*tokenizer\.ggml\.model.*"t5" is not supported \(known: llama, gpt2\); give loadLlama the option `tokenizer`/,
    );
  });
});
