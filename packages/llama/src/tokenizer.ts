// Text to token ids and back, over @huggingface/tokenizers. This file checks what comes out of a
// tokenizer.json, decides about special tokens, and streams; it splits and merges nothing itself.

import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { ArgumentError, FormatError } from "@nomoat/core";
import { describe } from "@nomoat/core/extend";
import { repeatsRepetition } from "./regex-safety.js";

export interface EncodeOptions {
  /** Adds bos and eos as the tokenizer's files say. Default true. */
  addSpecialTokens?: boolean;
}

export interface DecodeOptions {
  /** Leaves special tokens (bos, eos, chat marks) out of the text. Default true. */
  skipSpecialTokens?: boolean;
}

/** The contents of tokenizer.json and tokenizer_config.json. */
export interface TokenizerFiles {
  readonly json: string | object;
  readonly config?: object;
}

/** Turns ids into text one by one; see {@link Tokenizer.createDecodeStream}. */
export interface DecodeStream {
  /** The text that this id completes; empty while a character is incomplete. */
  push(id: number): string;
  /** The rest: U+FFFD when the last character never became complete. The stream starts anew. */
  end(): string;
}

type Json = Record<string, unknown>;

/** Gemma's, the largest in use, has 33 MB. */
const LARGEST_FILE = 64 * 2 ** 20;
/** Levels of objects and arrays in it at most; real files have about ten. */
const DEEPEST_JSON = 100;
/** Above every vocabulary in use (Gemma's has 262,144), below what an array of names would cost. */
const LARGEST_VOCAB = 2 ** 20;
const LONGEST_PATTERN = 4096;
const DEEPEST_NESTING = 32;
const REPLACEMENT = "\ufffd";

/**
 * A tokenizer of a LLaMA-family model: byte-level or SentencePiece BPE, or Unigram.
 *
 * Text that spells a special token (`"<s>"`) is read as that token, as Hugging Face does.
 */
export class Tokenizer {
  /** One more than the largest token id: the rows that an embedding needs. */
  readonly vocabSize: number;
  /** Undefined when the files name none. */
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
  readonly padTokenId: number | undefined;

  readonly #inner: HuggingFaceTokenizer;
  readonly #specialIds: ReadonlySet<number>;
  /** What the configuration puts around a text; undefined when it leaves that to the post-processor. */
  readonly #frame: { before: number[]; after: number[] } | undefined;

  private constructor(
    inner: HuggingFaceTokenizer,
    vocabSize: number,
    specialIds: Set<number>,
    /** Content of `tokenizer_config.json`, as given. */
    readonly config: Readonly<Json>,
    /** What it was made of, for being saved. */
    readonly files: TokenizerFiles,
  ) {
    this.#inner = inner;
    this.vocabSize = vocabSize;
    const named = (key: string) => {
      const token = config[key];
      const content = isObject(token) ? token.content : token;
      return typeof content === "string" ? inner.token_to_id(content) : undefined;
    };
    const templated = inner.encode("a", { add_special_tokens: true }).ids;
    const first = specialIds.has(templated[0]) ? templated[0] : undefined;
    this.bosTokenId = named("bos_token") ?? first;
    this.eosTokenId = named("eos_token");
    this.padTokenId = named("pad_token");
    for (const id of [this.bosTokenId, this.eosTokenId, this.padTokenId]) {
      if (id !== undefined) specialIds.add(id);
    }
    this.#specialIds = specialIds;

    const around = (key: "bos" | "eos", id: number | undefined, edge: number | undefined) => {
      if (!(config[`add_${key}_token`] ?? (id !== undefined && edge === id))) return [];
      if (id !== undefined) return [id];
      throw new Fault(`add_${key}_token is set, but ${key}_token is not in the vocabulary`);
    };
    if (typeof config.add_bos_token === "boolean" || typeof config.add_eos_token === "boolean") {
      this.#frame = {
        before: around("bos", this.bosTokenId, templated[0]),
        after: around("eos", this.eosTokenId, templated.at(-1)),
      };
    }
  }

  /**
   * Reads a `tokenizer.json` of Hugging Face and, if there is one, its `tokenizer_config.json`.
   *
   * The file is not trusted. Its size, ids, merges and nesting are checked before anything is built.
   * Regular expressions in it are refused when longer than 4096 characters, and when a group that is
   * repeated without end holds another repetition or an alternative (`(a+)+`, `(a|a)*`), which is what
   * makes backtracking exponential; patterns that are only polynomially slow are let through, as the
   * established ones are among them.
   *
   * `clean_up_tokenization_spaces` is ignored: it would make decoding lossy.
   *
   * @param tokenizerJson - the file's text, or what it parses to
   * @param config - content of `tokenizer_config.json`: `bos_token`, `eos_token`, `pad_token`,
   *   `add_bos_token`, `add_eos_token`; without the last two the file's post-processor decides
   * @param file - what error messages call the file
   * @throws {FormatError} when the file is malformed or of a kind that is not supported
   */
  static fromJson(tokenizerJson: string | object, config: object = {}, file = "tokenizer.json"): Tokenizer {
    try {
      const json = checkFile(typeof tokenizerJson === "string" ? parse(tokenizerJson) : tokenizerJson);
      const { vocabSize, specialIds } = checkVocabulary(json);
      const inner = new HuggingFaceTokenizer(json, config);
      return new Tokenizer(inner, vocabSize, specialIds, config as Json, { json, config });
    } catch (error) {
      // Some faults show only when the library builds its parts; its errors name neither file nor field.
      const reason = error instanceof Error ? error.message : String(error);
      const field = error instanceof Fault ? error.field : undefined;
      throw new FormatError(reason, { file, field }, { cause: error });
    }
  }

  /**
   * Token ids of `text`. A lone surrogate is encoded as U+FFFD.
   *
   * @throws {FormatError} when the vocabulary has no token for a part of the text, and none for unknown
   */
  encode(text: string, options: EncodeOptions = {}): Int32Array {
    if (typeof text !== "string") throw new ArgumentError(`encode: ${typeof text} is not a string`);
    const add = options.addSpecialTokens ?? true;
    const frame = add ? this.#frame : undefined;
    const { ids, tokens } = this.#inner.encode(text, { add_special_tokens: add && !frame });
    // The library's types do not tell that an id may be missing.
    const at = (ids as (number | undefined)[]).indexOf(undefined);
    if (at >= 0) throw new FormatError(`the vocabulary has no token for ${JSON.stringify(tokens[at])}`);
    if (!frame) return Int32Array.from(ids);
    const out = new Int32Array(frame.before.length + ids.length + frame.after.length);
    out.set(frame.before);
    out.set(ids, frame.before.length);
    out.set(frame.after, frame.before.length + ids.length);
    return out;
  }

  /**
   * Text of `ids`. Bytes that are not UTF-8 become U+FFFD; ids that the vocabulary does not use (a
   * model's embedding may have more rows) give no text.
   *
   * @throws {ArgumentError} when an id is not a non-negative integer
   */
  decode(ids: ArrayLike<number>, options: DecodeOptions = {}): string {
    const kept = Array.from(ids).filter((id) => this.#isText(id, options.skipSpecialTokens ?? true));
    return this.#decodeInner(kept);
  }

  #isText(id: number, skipSpecialTokens: boolean): boolean {
    if (!Number.isInteger(id) || id < 0) {
      throw new ArgumentError(`decode: ${describe(id)} is not a token id (0 to ${this.vocabSize - 1})`);
    }
    if (skipSpecialTokens && this.#specialIds.has(id)) return false;
    return this.#inner.id_to_token(id) !== undefined;
  }

  #decodeInner(ids: number[]): string {
    if (ids.length === 0) return "";
    return this.#inner.decode(ids, { skip_special_tokens: false, clean_up_tokenization_spaces: false });
  }

  /**
   * Starts decoding id by id. What `push` and `end` return, put together, is what {@link decode} returns
   * for all ids at once: characters appear when their last byte is there, and spaces between words,
   * which many vocabularies keep in the token of the following word, are neither lost nor doubled.
   */
  createDecodeStream(options: DecodeOptions = {}): DecodeStream {
    const skipSpecialTokens = options.skipSpecialTokens ?? true;
    // `context` was emitted; decoding it again before `pending` tells whether a space goes between.
    let context: number[] = [];
    let pending: number[] = [];
    let emitted = 0;
    const advance = (last: boolean): string => {
      const text = this.#decodeInner([...context, ...pending]);
      // An incomplete character at the end decodes to exactly one U+FFFD.
      const complete = last || !text.endsWith(REPLACEMENT);
      const piece = text.slice(emitted, complete ? undefined : -REPLACEMENT.length);
      emitted += piece.length;
      if (complete && piece !== "") {
        context = pending;
        pending = [];
        emitted = this.#decodeInner(context).length;
      }
      return piece;
    };
    return {
      push: (id) => {
        if (!this.#isText(id, skipSpecialTokens)) return "";
        pending.push(id);
        return advance(false);
      },
      end: () => {
        const piece = advance(true);
        context = [];
        pending = [];
        emitted = 0;
        return piece;
      },
    };
  }
}

/** What is wrong with a file, until {@link Tokenizer.fromJson} adds which file. */
class Fault extends Error {
  constructor(
    message: string,
    readonly field?: string,
  ) {
    super(message);
  }
}

function parse(text: string): unknown {
  if (text.length > LARGEST_FILE) throw new Fault(`is larger than ${LARGEST_FILE} characters`);
  if (nestsDeeper(text, DEEPEST_JSON)) throw new Fault(`is nested more than ${DEEPEST_JSON} levels deep`);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Fault(`is not JSON: ${(error as Error).message}`);
  }
}

/** True when objects and arrays stand in each other more than `limit` deep, which `JSON.parse` takes seconds to refuse. */
function nestsDeeper(text: string, limit: number): boolean {
  const [quote, backslash] = [34, 92];
  // A bracket and a brace differ in bit 5 alone.
  const [open, close] = [91, 93];
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === quote) {
      for (i++; i < text.length && text.charCodeAt(i) !== quote; i++)
        if (text.charCodeAt(i) === backslash) i++;
    } else if ((code & ~32) === open && ++depth > limit) return true;
    else if ((code & ~32) === close) depth--;
  }
  return false;
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Checks the parts around the vocabulary, and returns a copy that has all that the library reads. */
function checkFile(json: unknown): Json & { model: Json; added_tokens: Json[] } {
  if (!isObject(json)) throw new Fault("is not a JSON object");
  const { model } = json;
  if (!isObject(model)) throw new Fault("is missing or not an object", "model");
  const parts: Json = {};
  for (const part of ["normalizer", "pre_tokenizer", "post_processor", "decoder"]) {
    const value = json[part] ?? null;
    if (value !== null && !isObject(value)) throw new Fault("is not an object", part);
    checkPatterns(value, part, 0);
    parts[part] = value;
  }
  const added = json.added_tokens ?? [];
  if (!Array.isArray(added)) throw new Fault("is not a list", "added_tokens");
  return { ...json, ...parts, model, added_tokens: added };
}

/** Walks a pipeline part: nothing too deep, and every regular expression bounded. */
function checkPatterns(value: unknown, field: string, depth: number): void {
  if (depth > DEEPEST_NESTING) throw new Fault("is nested too deeply", field);
  if (typeof value !== "object" || value === null) return;
  const { type } = value as Json;
  if ((type === "Replace" || type === "Split") && !("pattern" in value))
    throw new Fault("has no pattern", field);
  for (const [key, child] of Object.entries(value)) {
    if (key !== "pattern") checkPatterns(child, field, depth + 1);
    else if (isObject(child) && typeof child.Regex === "string") checkRegex(child.Regex, field);
    else if (!isObject(child) || typeof child.String !== "string") {
      throw new Fault("pattern has neither Regex nor String", field);
    }
  }
}

function checkRegex(pattern: string, field: string): void {
  if (pattern.length > LONGEST_PATTERN) {
    throw new Fault(`regular expression is longer than ${LONGEST_PATTERN} characters`, field);
  }
  if (repeatsRepetition(pattern)) {
    throw new Fault(`regular expression may take exponential time: ${pattern.slice(0, 80)}`, field);
  }
}

/** A value of the file for a message: short, however large it is. */
function show(value: unknown): string {
  return typeof value === "string" ? JSON.stringify(value.slice(0, 60)) : String(value).slice(0, 60);
}

function checkId(id: unknown, field: string): number {
  if (typeof id !== "number" || !Number.isInteger(id) || id < 0 || id >= LARGEST_VOCAB) {
    throw new Fault(`${show(id)} is not a token id below ${LARGEST_VOCAB}`, field);
  }
  return id;
}

function checkVocabulary(json: { model: Json; added_tokens: Json[] }) {
  const { model } = json;
  const ids = new Map<number, string>();
  const add = (token: unknown, id: unknown, field: string) => {
    if (typeof token !== "string" || token === "") throw new Fault("holds a token without text", field);
    const known = ids.get(checkId(id, field));
    if (known !== undefined && known !== token) {
      throw new Fault(`id ${id} stands for ${show(known)} and ${show(token)}`, field);
    }
    ids.set(id as number, token);
  };

  const { vocab, merges } = model;
  const type = model.type ?? (isObject(vocab) && merges ? "BPE" : undefined);
  if (type === "BPE") {
    if (!isObject(vocab)) throw new Fault("is not an object", "model.vocab");
    for (const [token, id] of Object.entries(vocab)) add(token, id, "model.vocab");
    if (ids.size !== Object.keys(vocab).length) throw new Fault("repeats an id", "model.vocab");
    checkMerges(merges, vocab, typeof model.continuing_subword_prefix === "string");
  } else if (type === "Unigram") {
    if (!Array.isArray(vocab)) throw new Fault("is not a list", "model.vocab");
    if (model.unk_id != null && checkId(model.unk_id, "model.unk_id") >= vocab.length) {
      throw new Fault("is outside the vocabulary", "model.unk_id");
    }
    vocab.forEach((entry, id) => {
      const [token, score] = Array.isArray(entry) ? entry : [];
      if (typeof score !== "number") throw new Fault(`entry ${id} has no score`, "model.vocab");
      add(token, id, "model.vocab");
    });
  } else {
    throw new Fault(`${show(type)} is not supported, only BPE and Unigram are`, "model.type");
  }

  const specialIds = new Set<number>();
  for (const token of json.added_tokens) {
    if (!isObject(token)) throw new Fault("holds what is not an object", "added_tokens");
    add(token.content, token.id, "added_tokens");
    if (token.special === true) specialIds.add(token.id as number);
  }
  let vocabSize = 0;
  for (const id of ids.keys()) vocabSize = Math.max(vocabSize, id + 1);
  if (vocabSize === 0) throw new Fault("is empty", "model.vocab");
  return { vocabSize, specialIds };
}

function checkMerges(merges: unknown, vocab: Json, prefixed: boolean): void {
  const field = "model.merges";
  if (!Array.isArray(merges)) throw new Fault("is not a list", field);
  for (const [rank, merge] of merges.entries()) {
    const pair = typeof merge === "string" ? merge.split(" ") : merge;
    const [left, right] = Array.isArray(pair) && pair.length === 2 ? pair : [];
    if (typeof left !== "string" || typeof right !== "string" || typeof merge !== typeof merges[0]) {
      throw new Fault(`entry ${rank} is not a pair of tokens`, field);
    }
    for (const token of prefixed ? [left, right] : [left, right, left + right]) {
      if (!Object.hasOwn(vocab, token)) {
        throw new Fault(`entry ${rank} needs ${show(token)}, which is not in the vocabulary`, field);
      }
    }
  }
}
