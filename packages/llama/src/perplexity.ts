// How well a model predicts a text.

import { ArgumentError, noGrad, tidy } from "@nomoat/core";
import { batchTensors, type Row } from "./data/batches.js";
import { encodeText } from "./data/encode.js";
import { inMode, nextTurn } from "./event-loop.js";
import type { LlamaForCausalLM } from "./model/model.js";
import { OptionChecker } from "./options.js";
import type { Tokenizer } from "./tokenizer.js";

export interface PerplexityOptions {
  model: LlamaForCausalLM;
  /** Needed for text, and for bits per byte. */
  tokenizer?: Tokenizer;
  /** Either a text, which is encoded with special tokens (bos) … */
  text?: string;
  /** … or token ids. */
  ids?: ArrayLike<number>;
  /** Tokens of a window (default 512, at most the model's positions). */
  length?: number;
  /** From the start of one window to the next (default length − 1: each token is seen once as context at most). */
  stride?: number;
  /** Windows at once (default 4). */
  batch?: number;
  /** Ends the work with `signal.reason` as error. */
  signal?: AbortSignal;
}

export interface PerplexityResult {
  /** exp(loss). */
  perplexity: number;
  /** Mean negative log-likelihood of a token, in nats. */
  loss: number;
  /** Negative log-likelihood in bits over UTF-8 bytes: comparable between tokenizers. Null without a tokenizer. */
  bitsPerByte: number | null;
  /** Tokens that were predicted: all but the first. */
  tokens: number;
}

const optionNames = ["model", "tokenizer", "text", "ids", "length", "stride", "batch", "signal"];

/**
 * Perplexity of a text: exp of the mean of −ln p(token | tokens before it in its window), over all tokens but the first.
 *
 * The text is one stream of tokens. Windows of `length` tokens begin every `stride` tokens; in each, those tokens are scored that no
 * window before has scored, so every token counts exactly once. With the default stride windows share one token, and a token has
 * from 1 to length − 1 tokens of context; a smaller stride gives each at least length − stride, at more work (Hugging Face's "sliding
 * window").
 *
 * Between batches the event loop has its turn. The model runs in evaluation mode, without gradients.
 *
 * @throws {ArgumentError} naming the option that is out of range; for fewer than two tokens
 */
export async function perplexity(options: PerplexityOptions): Promise<PerplexityResult> {
  const { ids, rows, batch } = await textWindows("perplexity", options);
  const { model, tokenizer, text, signal } = options;
  const { loss, tokens } = await meanLoss(model, rows, { batch, signal });
  let bitsPerByte: number | null = null;
  if (tokenizer) {
    const count = (part: string): number => new TextEncoder().encode(part).length;
    // The first token is not predicted; most often it is bos and has no text.
    const bytes = count(text ?? tokenizer.decode(ids)) - count(tokenizer.decode(ids.subarray(0, 1)));
    bitsPerByte = (loss * tokens) / Math.LN2 / bytes;
  }
  return { perplexity: Math.exp(loss), loss, bitsPerByte, tokens };
}

/** The tokens of a text in windows, checked; for other measures over the same text as well. */
export async function textWindows(
  operation: string,
  options: PerplexityOptions,
): Promise<{ ids: Int32Array; rows: Row[]; batch: number }> {
  const check = new OptionChecker(operation);
  check.known(options, optionNames);
  check.subjects(options, false);
  const { model, tokenizer, text, signal } = options;
  const positions = model.config.maxPositionEmbeddings;
  const length = check.integer("length", options.length ?? Math.min(512, positions), 2, positions);
  const stride = check.integer("stride", options.stride ?? length - 1, 1, length - 1);
  const batch = check.integer("batch", options.batch ?? 4, 1);
  if ((text === undefined) === (options.ids === undefined))
    throw new ArgumentError(`${operation}: give either text or ids`);
  if (text !== undefined && !tokenizer) throw new ArgumentError(`${operation}: text needs a tokenizer`);
  const ids =
    text === undefined ? Int32Array.from(options.ids!) : await encodeText(tokenizer!, text, { signal });
  if (ids.length < 2)
    throw new ArgumentError(`${operation}: needs at least 2 tokens, and the text has ${ids.length}`);
  return { ids, rows: windows(ids, length, stride), batch };
}

/** Windows over `ids` with labels for what no window before has scored. */
function windows(ids: Int32Array, length: number, stride: number): Row[] {
  const rows: Row[] = [];
  for (let start = 0, scored = 1; scored < ids.length; start += stride) {
    const end = Math.min(start + length, ids.length);
    const labels = ids.slice(start, end).fill(-100, 0, scored - start);
    rows.push({ ids: ids.subarray(start, end), labels });
    scored = end;
  }
  return rows;
}

/**
 * Mean loss in nats over the labels that count in all rows, in evaluation mode and without gradients.
 * @param batch - rows at once
 */
export async function meanLoss(
  model: LlamaForCausalLM,
  rows: readonly Row[],
  options: { batch: number; signal?: AbortSignal },
): Promise<{ loss: number; tokens: number }> {
  let sum = 0;
  let tokens = 0;
  for (let start = 0; start < rows.length; start += options.batch) {
    await nextTurn();
    options.signal?.throwIfAborted();
    const losses = noGrad(() =>
      inMode(model, false, () =>
        tidy(() => {
          const { ids, labels, counted } = batchTensors(rows.slice(start, start + options.batch), model);
          tokens += counted;
          return model.loss(ids, labels, { reduction: "sum" });
        }),
      ),
    );
    sum += Number((await losses.data())[0]);
    losses.dispose();
  }
  return { loss: sum / tokens, tokens };
}
