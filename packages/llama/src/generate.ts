// Text from a model, token by token: prefill, then one position a step over the key-value cache.

import { ArgumentError, noGrad, type Tensor, tensor, tidy } from "@nomoat/core";
import { describe } from "@nomoat/core/extend";
import { inMode, nextTurn } from "./event-loop.js";
import { KVCache } from "./model/cache.js";
import type { LlamaForCausalLM } from "./model/model.js";
import { OptionChecker } from "./options.js";
import { Sampler, type SamplingOptions, samplingOptionNames } from "./sampling.js";
import type { Tokenizer } from "./tokenizer.js";

/**
 * Why generation ended: a token that ends a text came ("eos"), a stop string did ("stop"), `maxNewTokens` were made ("length"),
 * or the model has no more positions ("context").
 */
export type FinishReason = "eos" | "stop" | "length" | "context";

export interface GenerateTokensOptions extends SamplingOptions {
  model: LlamaForCausalLM;
  /** Token ids to go on from, at least one. */
  prompt: ArrayLike<number>;
  /** Default 128. */
  maxNewTokens?: number;
  /** Ids that end the text; they are not given out. Default: those of the model's config. */
  eosTokenIds?: readonly number[];
  /** Ends the generation with `signal.reason` as error. */
  signal?: AbortSignal;
}

export interface GenerateOptions extends Omit<GenerateTokensOptions, "prompt"> {
  tokenizer: Tokenizer;
  /** Text, or token ids that are taken as they are. */
  prompt: string | ArrayLike<number>;
  /** Ends the text where one of these begins; nothing of it is given out. */
  stop?: string | readonly string[];
  /** Puts the tokenizer's special tokens (bos) before a text prompt (default true). */
  addSpecialTokens?: boolean;
}

const tokenOptionNames = ["model", "prompt", "maxNewTokens", "eosTokenIds", "signal", ...samplingOptionNames];
const textOptionNames = [...tokenOptionNames, "tokenizer", "stop", "addSpecialTokens"];

function checkPrompt(prompt: ArrayLike<number>, model: LlamaForCausalLM): number[] {
  if (typeof prompt !== "object" || prompt === null)
    throw new ArgumentError(`generate: prompt must be a text or token ids, not ${describe(prompt)}`);
  const { vocabSize, maxPositionEmbeddings } = model.config;
  const ids = Array.from(prompt);
  if (ids.length === 0)
    throw new ArgumentError("generate: prompt is empty, and the tokenizer has no bos to begin with");
  ids.forEach((id, i) => {
    if (!Number.isInteger(id) || id < 0 || id >= vocabSize)
      throw new ArgumentError(`generate: prompt[${i}] is ${id}, not a token id (0 to ${vocabSize - 1})`);
  });
  if (ids.length >= maxPositionEmbeddings) {
    throw new ArgumentError(
      `generate: prompt has ${ids.length} tokens, which leaves none of the model's ${maxPositionEmbeddings} positions; shorten it`,
    );
  }
  return ids;
}

/**
 * Generates token ids. Between steps the event loop has its turn. The model runs in evaluation mode, without gradients, and has its
 * own mode back whenever the caller's code runs; its key-value cache is freed at the end, also when the caller leaves the loop early.
 *
 * @returns an iterator over ids whose return value is the reason for the end
 * @throws {ArgumentError} naming the option that is out of range
 * @throws {NomoatError} with code "NOT_FINITE" when a logit is NaN
 * @throws `signal.reason` when aborted
 */
export async function* generateTokens(options: GenerateTokensOptions): AsyncGenerator<number, FinishReason> {
  const check = new OptionChecker("generate");
  check.known(options, tokenOptionNames);
  check.subjects(options, false);
  const { model, signal, maxNewTokens = 128 } = options;
  check.integer("maxNewTokens", maxNewTokens, 0);
  const ids = checkPrompt(options.prompt, model);
  const sampler = new Sampler(options, "generate");
  const ends = new Set(options.eosTokenIds ?? model.config.eosTokenIds);
  const room = model.config.maxPositionEmbeddings - ids.length;
  const { dtype, device } = model.model.norm.weight;
  signal?.throwIfAborted();
  if (maxNewTokens === 0) return "length";

  const capacity = ids.length + Math.min(room, maxNewTokens);
  const cache = new KVCache(model.config, capacity, 1, { dtype, device });
  /** Logits of the last of `fresh`, which follow what the cache holds. */
  const nextLogits = (fresh: readonly number[]): Tensor =>
    noGrad(() =>
      inMode(model, false, () =>
        tidy(() => {
          const input = tensor(Int32Array.from(fresh), { shape: [1, fresh.length], device });
          const hidden = model.hidden(input, { cache });
          return model.lm_head.forward(hidden.slice(null, [fresh.length - 1, fresh.length]));
        }),
      ),
    );
  try {
    let fresh = ids.slice();
    for (let made = 0; made < maxNewTokens; made++) {
      if (made === room) return "context";
      await nextTurn();
      signal?.throwIfAborted();
      const id = sampler.sample(await valuesOf(nextLogits(fresh)), ids);
      if (ends.has(id)) return "eos";
      ids.push(id);
      fresh = [id];
      yield id;
    }
    return "length";
  } finally {
    cache.dispose();
  }
}

/** The values of a tensor that is disposed. */
async function valuesOf(tensor: Tensor): Promise<ArrayLike<number>> {
  try {
    return await tensor.data();
  } finally {
    tensor.dispose();
  }
}

/** Gives out text as far as it cannot be the beginning of a stop string. */
class StopFilter {
  readonly #stops: readonly string[];
  #held = "";

  constructor(stops: readonly string[]) {
    this.#stops = stops;
  }

  /** Takes the next piece; `stopped` when a stop string is complete: `text` is what stands before it. */
  push(piece: string): { text: string; stopped: boolean } {
    const text = this.#held + piece;
    const found = this.#stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
    if (found.length > 0) {
      this.#held = "";
      return { text: text.slice(0, Math.min(...found)), stopped: true };
    }
    const held = Math.max(0, ...this.#stops.map((stop) => overlap(text, stop)));
    this.#held = text.slice(text.length - held);
    return { text: text.slice(0, text.length - held), stopped: false };
  }

  /** What was held back, when nothing follows. */
  end(): string {
    const rest = this.#held;
    this.#held = "";
    return rest;
  }
}

/** Length of the longest end of `text` that `stop` begins with. */
function overlap(text: string, stop: string): number {
  for (let n = Math.min(text.length, stop.length - 1); n > 0; n--)
    if (text.endsWith(stop.slice(0, n))) return n;
  return 0;
}

function stopStrings(stop: GenerateOptions["stop"], check: OptionChecker): readonly string[] {
  const stops = stop === undefined ? [] : typeof stop === "string" ? [stop] : stop;
  if (!Array.isArray(stops) || stops.some((text) => typeof text !== "string" || text === ""))
    check.fail("stop", "a string or a list of strings, none of them empty", JSON.stringify(stop));
  return stops;
}

/** Ids of a prompt; an eos that the tokenizer puts after texts would end it before it begins, and is left out. */
function encodePrompt(prompt: string, tokenizer: Tokenizer, addSpecialTokens: boolean): ArrayLike<number> {
  const ids = tokenizer.encode(prompt, { addSpecialTokens });
  const plain = addSpecialTokens ? tokenizer.encode(prompt, { addSpecialTokens: false }) : ids;
  const ended = ids.length > 0 && ids.at(-1) === tokenizer.eosTokenId && plain.at(-1) !== ids.at(-1);
  return ended ? ids.subarray(0, -1) : ids;
}

/**
 * Generates text that continues `prompt`, in pieces as they become complete: characters are never cut.
 *
 * ```ts
 * for await (const piece of generate({ model, tokenizer, prompt: "Call me" })) process.stdout.write(piece);
 * ```
 *
 * The generated text alone is given out, not the prompt. See {@link generateTokens} for modes, memory and errors.
 *
 * @returns an iterator over pieces of text whose return value is the reason for the end
 */
export async function* generate(options: GenerateOptions): AsyncGenerator<string, FinishReason> {
  const check = new OptionChecker("generate");
  check.known(options, textOptionNames);
  check.subjects(options, true);
  const { tokenizer, prompt, stop, addSpecialTokens = true, ...rest } = options;
  check.boolean("addSpecialTokens", addSpecialTokens);
  const filter = new StopFilter(stopStrings(stop, check));
  const ids =
    typeof prompt === "string"
      ? encodePrompt(prompt, tokenizer, addSpecialTokens)
      : checkPrompt(prompt, options.model);
  const { eosTokenId } = tokenizer;
  const eosTokenIds = options.eosTokenIds ?? [
    ...options.model.config.eosTokenIds,
    ...(eosTokenId === undefined ? [] : [eosTokenId]),
  ];

  // What precedes decides whether the first word begins with a space.
  const decoder = tokenizer.createDecodeStream();
  for (const id of Array.from(ids)) decoder.push(id);
  const tokens = generateTokens({ ...rest, prompt: ids, eosTokenIds });
  try {
    for (;;) {
      const next = await tokens.next();
      const { text, stopped } = filter.push(next.done ? decoder.end() : decoder.push(next.value));
      const piece = next.done && !stopped ? text + filter.end() : text;
      if (piece !== "") yield piece;
      if (stopped) return "stop";
      if (next.done) return next.value;
    }
  } finally {
    await tokens.return("stop");
  }
}
