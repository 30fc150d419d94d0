// Texts and examples to token ids and labels.

import { ArgumentError, FormatError, NomoatError } from "@nomoat/core";
import { nextTurn } from "../event-loop.js";
import type { Tokenizer } from "../tokenizer.js";
import { commonPrefix, type Row } from "./batches.js";
import { encodeChat } from "./chat.js";
import { type CompletionExample, type Example, placeOf } from "./examples.js";

/** Characters that are encoded at once: the time of BPE grows faster than the text. */
const pieceLength = 4096;

/**
 * Cuts between a line and the next where neither begins or ends with more white space: no tokenizer in use joins tokens there.
 */
function pieces(text: string): string[] {
  const found: string[] = [];
  const cut = /\S\n(?=\S)/g;
  let start = 0;
  while (text.length - start > pieceLength) {
    cut.lastIndex = start + pieceLength;
    const match = cut.exec(text);
    if (!match) break;
    found.push(text.slice(start, match.index + 2));
    start = match.index + 2;
  }
  found.push(text.slice(start));
  return found;
}

/**
 * Token ids of a text of any length, as `tokenizer.encode` gives them, in pieces between which the event loop has its turn.
 */
export async function encodeText(
  tokenizer: Tokenizer,
  text: string,
  options: { addSpecialTokens?: boolean; signal?: AbortSignal } = {},
): Promise<Int32Array> {
  const { addSpecialTokens = true, signal } = options;
  const parts = pieces(text);
  const newline = tokenizer.encode("\n", { addSpecialTokens: false });
  if (parts.length === 1 || newline.length === 0) return tokenizer.encode(text, { addSpecialTokens });
  // Many vocabularies put a space before what they take for the beginning of a text; here it goes to a newline that is dropped.
  const encoded: Int32Array[] = [];
  for (const [i, part] of parts.entries()) {
    const ids = tokenizer.encode(i === 0 ? part : `\n${part}`, { addSpecialTokens: false });
    if (i > 0 && newline.some((id, at) => ids[at] !== id))
      return tokenizer.encode(text, { addSpecialTokens });
    encoded.push(i === 0 ? ids : ids.subarray(newline.length));
    await nextTurn();
    signal?.throwIfAborted();
  }
  const { before, after } = addSpecialTokens ? specialTokens(tokenizer) : { before: [], after: [] };
  const all = new Int32Array(
    before.length + after.length + encoded.reduce((sum, ids) => sum + ids.length, 0),
  );
  let end = 0;
  for (const ids of [before, ...encoded, after]) {
    all.set(ids, end);
    end += ids.length;
  }
  return all;
}

/** What a tokenizer puts around a text. */
function specialTokens(tokenizer: Tokenizer): { before: ArrayLike<number>; after: ArrayLike<number> } {
  const plain = tokenizer.encode("a", { addSpecialTokens: false });
  const framed = tokenizer.encode("a");
  const before = framed.length - plain.length === 0 ? 0 : framed.indexOf(plain[0]);
  return { before: framed.subarray(0, before), after: framed.subarray(before + plain.length) };
}

/** `ids` with the tokenizer's eos at the end, which tells a model to stop; once, and where there is one. */
export function withEos(ids: Int32Array, tokenizer: Tokenizer): Int32Array {
  const { eosTokenId } = tokenizer;
  return eosTokenId === undefined || ids.at(-1) === eosTokenId ? ids : appended(ids, eosTokenId);
}

function appended(ids: Int32Array, id: number): Int32Array {
  const longer = new Int32Array(ids.length + 1);
  longer.set(ids);
  longer[ids.length] = id;
  return longer;
}

/** Prompt and completion as one text; a token that holds parts of both counts as completion. */
function encodeCompletion(example: CompletionExample, tokenizer: Tokenizer): Row {
  const ids = withEos(tokenizer.encode(example.prompt + example.completion), tokenizer);
  const prompt = tokenizer.encode(example.prompt);
  const labels = ids.slice().fill(-100, 0, commonPrefix(prompt, ids));
  return { ids, labels };
}

/** An example as token ids, and labels with −100 where nothing is learnt. */
async function encodeExample(example: Example, tokenizer: Tokenizer, signal?: AbortSignal): Promise<Row> {
  if ("text" in example) {
    const ids = withEos(await encodeText(tokenizer, example.text, { signal }), tokenizer);
    return { ids, labels: ids };
  }
  if ("completion" in example) return encodeCompletion(example, tokenizer);
  if ("messages" in example) return encodeChat(example, tokenizer);
  const ids = Int32Array.from(example.ids);
  return { ids, labels: example.labels ? Int32Array.from(example.labels) : ids };
}

export interface RowsOptions {
  /** Tokens of a row at most. */
  length: number;
  /**
   * true: examples are put one after another and cut into rows of `length`, neighbours sharing one token, so that every token is
   * predicted once. false: each example is a row, cut off after `length` tokens. Default: true where every token of every example
   * is learnt.
   */
  packing?: boolean;
  signal?: AbortSignal;
}

export interface RowsResult {
  rows: Row[];
  packing: boolean;
  /** Examples that were longer than a row, and lost their end. */
  truncated: number;
  /** Rows without anything to learn, left out. */
  dropped: number;
}

/**
 * Rows to train on. Texts and completions end in the tokenizer's eos. Between examples the event loop has its turn now and then.
 * @throws {ArgumentError} when nothing is left to learn
 */
export async function makeRows(
  examples: readonly Example[],
  tokenizer: Tokenizer,
  options: RowsOptions,
): Promise<RowsResult> {
  const { length, signal } = options;
  const encoded: Row[] = [];
  for (const [i, example] of examples.entries()) {
    try {
      encoded.push(await encodeExample(example, tokenizer, signal));
    } catch (error) {
      if (!(error instanceof NomoatError)) throw error;
      throw new FormatError(error.message, { file: placeOf(example, i) }, { cause: error });
    }
    if (i % 64 === 63) {
      await nextTurn();
      signal?.throwIfAborted();
    }
  }
  const packing = options.packing ?? encoded.every(({ ids, labels }) => ids === labels);
  let truncated = 0;
  let all: Row[];
  if (packing) all = pack(encoded, length);
  else {
    all = encoded.map((row) => {
      if (row.ids.length <= length) return row;
      truncated++;
      return { ids: row.ids.subarray(0, length), labels: row.labels.subarray(0, length) };
    });
  }
  const rows = all.filter(({ labels }) => labels.subarray(1).some((label) => label !== -100));
  if (rows.length === 0) {
    throw new ArgumentError(
      `data: nothing is left to learn: no row of ${length} tokens has one that counts; is length long enough?`,
    );
  }
  return { rows, packing, truncated, dropped: all.length - rows.length };
}

/** One stream, cut into rows that share one token. */
function pack(encoded: readonly Row[], length: number): Row[] {
  const total = encoded.reduce((sum, { ids }) => sum + ids.length, 0);
  const ids = new Int32Array(total);
  const labels = new Int32Array(total);
  let end = 0;
  for (const row of encoded) {
    ids.set(row.ids, end);
    labels.set(row.labels, end);
    end += row.ids.length;
  }
  const rows: Row[] = [];
  for (let start = 0; start + 1 < total; start += length - 1) {
    const stop = Math.min(start + length, total);
    rows.push({ ids: ids.subarray(start, stop), labels: labels.subarray(start, stop) });
  }
  return rows;
}
