// Tokenizers between GGUF's `tokenizer.ggml.*` metadata and Hugging Face's tokenizer.json: SentencePiece BPE ("llama") and
// byte-level BPE ("gpt2") with the splittings that are known here.

import { ArgumentError, FormatError } from "@nomoat/core";
import type { GgufValue } from "@nomoat/quant/gguf";
import type { Metadata } from "./gguf-config.js";
import { Tokenizer, type TokenizerFiles } from "./tokenizer.js";

/** Kinds of token, at their numbers in `tokenizer.ggml.token_type`. */
const kinds = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

const byteLevel = (use_regex: boolean) => ({
  ...{ type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex },
});
/** Llama 3's splitting, as its tokenizer.json has it. */
const llama3Pattern =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const split = { type: "Split", pattern: { Regex: llama3Pattern }, behavior: "Isolated", invert: false };
const llama3Splitting = { type: "Sequence", pretokenizers: [split, byteLevel(false)] };
const digitSplitting = {
  type: "Sequence",
  pretokenizers: [{ type: "Digits", individual_digits: true }, byteLevel(true)],
};
/** Splittings by the names of `tokenizer.ggml.pre`. */
const splittings: Readonly<Record<string, object>> = {
  "gpt-2": byteLevel(true),
  "llama-bpe": llama3Splitting,
  "llama-v3": llama3Splitting,
  llama3: llama3Splitting,
  smollm: digitSplitting,
};

/** Bounds the search for merges; real vocabularies stay below 2²³. */
const mostSplits = 2 ** 26;

/**
 * The merges of a SentencePiece vocabulary: every split of a token into two tokens, best score of the whole first, as Hugging
 * Face derives them.
 */
function mergesOf(meta: Metadata, tokens: readonly string[], scores: ArrayLike<number>): [string, string][] {
  const ids = new Map(tokens.map((token, id) => [token, id]));
  const found: { score: number; left: number; right: number }[] = [];
  let work = 0;
  for (const [id, token] of tokens.entries()) {
    work += token.length ** 2;
    if (work > mostSplits) meta.fail("tokenizer.ggml.tokens", "tokens are too long");
    for (let at = 1; at < token.length; at++) {
      const left = ids.get(token.slice(0, at));
      if (left === undefined) continue;
      const right = ids.get(token.slice(at));
      if (right !== undefined) found.push({ score: scores[id], left, right });
    }
  }
  found.sort((a, b) => b.score - a.score || a.left - b.left || a.right - b.right);
  return found.map(({ left, right }) => [tokens[left], tokens[right]]);
}

/**
 * The tokenizer in a file's metadata.
 * @throws {FormatError} for a kind that is not known here; the message asks for the option `tokenizer`
 */
export function tokenizerFromGguf(meta: Metadata): Tokenizer {
  const model = meta.text("tokenizer.ggml.model");
  if (model !== "llama" && model !== "gpt2") {
    const what =
      model === undefined ? "is missing" : `${JSON.stringify(model)} is not supported (known: llama, gpt2)`;
    meta.fail("tokenizer.ggml.model", `${what}; give loadLlama the option \`tokenizer\``);
  }
  const tokens = meta.strings("tokenizer.ggml.tokens") ?? meta.fail("tokenizer.ggml.tokens", "is missing");
  const types = meta.numbers("tokenizer.ggml.token_type");
  const kindOf = (id: number) => types?.[id] ?? kinds.normal;
  const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]));
  if (Object.keys(vocab).length !== tokens.length)
    meta.fail("tokenizer.ggml.tokens", "a token appears twice");
  const sentencePiece = model === "llama";
  const added = tokens.flatMap((content, id) => {
    const special = kindOf(id) === kinds.control || (sentencePiece && kindOf(id) === kinds.unknown);
    if (!special && kindOf(id) !== kinds.userDefined) return [];
    return [{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special }];
  });
  const parts = sentencePiece ? sentencePieceParts(meta, tokens, kindOf) : byteLevelParts(meta);
  const json = { version: "1.0", added_tokens: added, post_processor: null, ...parts };
  const named = (name: string) => {
    const key = `tokenizer.ggml.${name}_token_id`;
    const id = meta.number(key);
    if (id === undefined) return {};
    if (tokens[id] === undefined) meta.fail(key, `${id} is no token id`);
    return { [`${name === "unknown" ? "unk" : name === "padding" ? "pad" : name}_token`]: tokens[id] };
  };
  const template = meta.text("tokenizer.chat_template");
  // What llama.cpp assumes where a file is silent.
  const beginning = sentencePiece || splittings[meta.text("tokenizer.ggml.pre") ?? ""] === llama3Splitting;
  const config = {
    ...{ ...named("bos"), ...named("eos"), ...named("padding"), ...named("unknown") },
    add_bos_token:
      (meta.flag("tokenizer.ggml.add_bos_token") ?? beginning) &&
      meta.number("tokenizer.ggml.bos_token_id") !== undefined,
    add_eos_token: meta.flag("tokenizer.ggml.add_eos_token") ?? false,
    ...(template === undefined ? {} : { chat_template: template }),
  };
  const { model: rest, ...around } = json;
  return Tokenizer.fromJson({ ...around, model: { type: "BPE", vocab, ...rest } }, config, meta.file);
}

function sentencePieceParts(meta: Metadata, tokens: readonly string[], kindOf: (id: number) => number) {
  const scores = meta.numbers("tokenizer.ggml.scores") ?? meta.fail("tokenizer.ggml.scores", "is missing");
  if (scores.length !== tokens.length) {
    meta.fail("tokenizer.ggml.scores", `${scores.length} for ${tokens.length} tokens`);
  }
  const replace = { type: "Replace", pattern: { String: " " }, content: "▁" };
  const prefix = meta.flag("tokenizer.ggml.add_space_prefix") ?? true;
  const decoders = [
    { type: "Replace", pattern: { String: "▁" }, content: " " },
    { type: "ByteFallback" },
    { type: "Fuse" },
    ...(prefix ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : []),
  ];
  const unknown = tokens.find((_, id) => kindOf(id) === kinds.unknown);
  return {
    normalizer: prefix
      ? { type: "Sequence", normalizers: [{ type: "Prepend", prepend: "▁" }, replace] }
      : replace,
    pre_tokenizer: null,
    decoder: { type: "Sequence", decoders },
    model: {
      merges: mergesOf(meta, tokens, scores),
      byte_fallback: tokens.some((_, id) => kindOf(id) === kinds.byte),
      ...(unknown === undefined ? {} : { unk_token: unknown, fuse_unk: true }),
    },
  };
}

function byteLevelParts(meta: Metadata) {
  const pre = meta.text("tokenizer.ggml.pre") ?? "gpt-2";
  if (!Object.hasOwn(splittings, pre)) {
    const known = Object.keys(splittings).join(", ");
    meta.fail(
      "tokenizer.ggml.pre",
      `${JSON.stringify(pre)} is not supported (known: ${known}); give loadLlama the option \`tokenizer\``,
    );
  }
  return {
    normalizer: null,
    pre_tokenizer: splittings[pre],
    decoder: byteLevel(true),
    model: {
      // Byte-level tokens hold no spaces: the one there is parts them.
      merges: meta.strings("tokenizer.ggml.merges") ?? meta.fail("tokenizer.ggml.merges", "is missing"),
      ignore_merges: splittings[pre] === llama3Splitting,
    },
  };
}

interface BpeFile {
  added_tokens?: { id: number; content: string; special?: boolean }[];
  normalizer?: unknown;
  pre_tokenizer?: unknown;
  model: {
    type?: string;
    vocab: Record<string, number>;
    merges: (string | [string, string])[];
    byte_fallback?: boolean;
    unk_token?: string | null;
  };
}

/**
 * The `tokenizer.ggml.*` metadata of a BPE tokenizer, for an embedding of `vocabSize` rows.
 * @throws {ArgumentError} for a kind of tokenizer or splitting that GGUF has no known name for
 */
export function tokenizerToGguf(files: TokenizerFiles, vocabSize: number): Map<string, GgufValue> {
  // What is no tokenizer at all is refused with its field.
  Tokenizer.fromJson(files.json, files.config);
  const file = (typeof files.json === "string" ? JSON.parse(files.json) : files.json) as BpeFile;
  const { model, added_tokens: added = [] } = file;
  if (Array.isArray(model.vocab)) throw new ArgumentError("saveGguf: Unigram tokenizers are not written");
  const text = JSON.stringify([file.normalizer, file.pre_tokenizer]);
  const sentencePiece = model.byte_fallback === true || text.includes("▁");
  const pre = Object.keys(splittings).find((name) => sameSplitting(splittings[name], file.pre_tokenizer));
  if (!sentencePiece && pre === undefined) {
    throw new ArgumentError(
      "saveGguf: GGUF has no name that is known here for this tokenizer's splitting of text",
    );
  }
  const tokens = Array.from({ length: vocabSize }, (_, id) => `[PAD${id}]`);
  const types = new Int32Array(vocabSize).fill(kinds.unused);
  const place = (id: number, token: string, kind: number) => {
    if (id >= vocabSize) {
      throw new FormatError(`token ${id} has no row among the model's ${vocabSize}`, {
        file: "tokenizer.json",
      });
    }
    tokens[id] = token;
    types[id] = kind;
  };
  for (const [token, id] of Object.entries(model.vocab)) {
    const byte = model.byte_fallback === true && /^<0x[0-9A-F]{2}>$/.test(token);
    place(id, token, byte ? kinds.byte : kinds.normal);
  }
  for (const { id, content, special } of added) {
    place(id, content, special ? kinds.control : kinds.userDefined);
  }
  const unknown = model.unk_token == null ? undefined : model.vocab[model.unk_token];
  if (unknown !== undefined && sentencePiece) types[unknown] = kinds.unknown;
  const metadata = new Map<string, GgufValue>([
    ["tokenizer.ggml.model", { type: "string", value: sentencePiece ? "llama" : "gpt2" }],
    ["tokenizer.ggml.tokens", { type: "array", of: "string", value: tokens }],
    ["tokenizer.ggml.token_type", { type: "array", of: "int32", value: types }],
  ]);
  const merges = model.merges.map((merge) => (typeof merge === "string" ? merge : merge.join(" ")));
  if (sentencePiece) {
    const scores = new Float32Array(vocabSize);
    for (const [rank, merge] of merges.entries()) {
      const id = model.vocab[merge.split(" ").join("")];
      // The first merge that makes a token is its best.
      if (scores[id] === 0) scores[id] = -1 - rank;
    }
    metadata.set("tokenizer.ggml.scores", { type: "array", of: "float32", value: scores });
    const prefix = text.includes('"Prepend"') || text.includes('"Metaspace"');
    metadata.set("tokenizer.ggml.add_space_prefix", { type: "bool", value: prefix });
  } else {
    metadata.set("tokenizer.ggml.pre", { type: "string", value: pre as string });
    metadata.set("tokenizer.ggml.merges", { type: "array", of: "string", value: merges });
  }
  const config = (files.config ?? {}) as Record<string, unknown>;
  for (const [key, name] of Object.entries({ bos: "bos", eos: "eos", pad: "padding", unk: "unknown" })) {
    const token = config[`${key}_token`] as string | { content: string } | undefined | null;
    const id = tokens.indexOf((typeof token === "object" ? token?.content : token) ?? "");
    if (id >= 0) metadata.set(`tokenizer.ggml.${name}_token_id`, { type: "uint32", value: id });
  }
  for (const key of ["add_bos_token", "add_eos_token"]) {
    if (typeof config[key] !== "boolean") continue;
    metadata.set(`tokenizer.ggml.${key}`, { type: "bool", value: config[key] });
  }
  if (typeof config.chat_template === "string") {
    metadata.set("tokenizer.chat_template", { type: "string", value: config.chat_template });
  }
  return metadata;
}

/** Equal but for what does not change the pieces. */
function sameSplitting(a: unknown, b: unknown): boolean {
  const plain = (value: unknown) =>
    JSON.stringify(value, (key, each) => {
      if (key === "trim_offsets") return undefined;
      if (typeof each !== "object" || each === null || Array.isArray(each)) return each;
      return Object.fromEntries(Object.entries(each).sort(([x], [y]) => (x < y ? -1 : 1)));
    });
  return plain(a) === plain(b);
}
