/**
 * Byte-level BPE, as GPT-2's: a trainer, a fast encoder, and the Hugging Face files. It is for making
 * a vocabulary and encoding a corpus once; programs that use the model read `tokenizer.json` with
 * `@nomoat/llama`'s `Tokenizer`, which gives the same ids.
 */

/** GPT-2's split, the one that `ByteLevel` with `use_regex` stands for in tokenizer.json. */
const WORDS = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

/** Special tokens in the order of their ids. */
const SPECIAL_TOKENS = ["<s>", "</s>", "<pad>"] as const;
export const BOS_ID = 0;
export const EOS_ID = 1;
export const PAD_ID = 2;

const FIRST_BYTE_ID = SPECIAL_TOKENS.length;
const FIRST_MERGE_ID = FIRST_BYTE_ID + 256;

/** The smallest vocabulary: special tokens and all bytes. */
export const LEAST_VOCAB_SIZE = FIRST_MERGE_ID;

/** A vocabulary: the merges in the order in which they were learnt. */
export interface BpeVocabulary {
  /** Pairs of token ids; the n-th makes the token `LEAST_VOCAB_SIZE + n`. */
  merges: readonly (readonly [number, number])[];
  vocabSize: number;
}

/** Pairs are keyed by one number, which stays exact while there are fewer than 2^26 tokens. */
const PAIR = 2 ** 26;

const utf8 = new TextEncoder();

function bytesToIds(word: string): number[] {
  return Array.from(utf8.encode(word), (byte) => FIRST_BYTE_ID + byte);
}

interface Word {
  ids: number[];
  count: number;
}

/**
 * Learns merges from `texts` until there are `vocabSize` tokens, or no pair occurs twice.
 *
 * Deterministic: of equally frequent pairs the one with the smaller ids wins. Pairs are counted over
 * unique words, and only the words that hold a merged pair are counted again.
 *
 * @throws {RangeError} when `vocabSize` has no room for the bytes, or does not fit 16 bits
 */
export function trainBpe(texts: Iterable<string>, vocabSize = 2048): BpeVocabulary {
  if (!Number.isInteger(vocabSize) || vocabSize < LEAST_VOCAB_SIZE || vocabSize > 65536) {
    throw new RangeError(`trainBpe: vocabSize ${vocabSize} is not within ${LEAST_VOCAB_SIZE} and 65536`);
  }
  const counts = new Map<string, number>();
  for (const text of texts) {
    for (const word of text.match(WORDS) ?? []) counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  const words = Array.from(counts, ([word, count]): Word => ({ ids: bytesToIds(word), count }));

  const pairCounts = new Map<number, number>();
  const pairWords = new Map<number, Set<Word>>();
  const countPairs = (word: Word, sign: 1 | -1) => {
    for (let i = 0; i + 1 < word.ids.length; i++) {
      const pair = word.ids[i] * PAIR + word.ids[i + 1];
      pairCounts.set(pair, (pairCounts.get(pair) ?? 0) + sign * word.count);
      if (sign < 0) continue;
      const holders = pairWords.get(pair);
      if (holders) holders.add(word);
      else pairWords.set(pair, new Set([word]));
    }
  };
  for (const word of words) countPairs(word, 1);

  const merges: [number, number][] = [];
  while (FIRST_MERGE_ID + merges.length < vocabSize) {
    let best = -1;
    let bestCount = 1;
    for (const [pair, count] of pairCounts) {
      if (count > bestCount || (count === bestCount && best >= 0 && pair < best)) {
        best = pair;
        bestCount = count;
      }
    }
    if (best < 0) break;
    const left = Math.floor(best / PAIR);
    const right = best % PAIR;
    const merged = FIRST_MERGE_ID + merges.length;
    merges.push([left, right]);
    // Words that lost the pair since they were noted are still in the set; merging them is a no-op.
    for (const word of pairWords.get(best) ?? []) {
      countPairs(word, -1);
      word.ids = mergePair(word.ids, left, right, merged);
      countPairs(word, 1);
    }
    pairCounts.delete(best);
    pairWords.delete(best);
  }
  return { merges, vocabSize: FIRST_MERGE_ID + merges.length };
}

function mergePair(ids: readonly number[], left: number, right: number, merged: number): number[] {
  const out: number[] = [];
  for (let i = 0; i < ids.length; i++) {
    if (ids[i] === left && ids[i + 1] === right) {
      out.push(merged);
      i++;
    } else out.push(ids[i]);
  }
  return out;
}

/**
 * Encodes text with a vocabulary, remembering every word it has seen. Special tokens are never made
 * from text: `"<s>"` in a corpus is four characters, not a bos.
 */
export class BpeEncoder {
  readonly #ranks = new Map<number, number>();
  readonly #cache = new Map<string, readonly number[]>();

  constructor(vocabulary: BpeVocabulary) {
    vocabulary.merges.forEach(([left, right], rank) => {
      this.#ranks.set(left * PAIR + right, rank);
    });
  }

  /** Token ids of `text`, without bos or eos. */
  encode(text: string): number[] {
    const out: number[] = [];
    for (const word of text.match(WORDS) ?? []) {
      let ids = this.#cache.get(word);
      if (!ids) {
        ids = this.#encodeWord(word);
        this.#cache.set(word, ids);
      }
      for (const id of ids) out.push(id);
    }
    return out;
  }

  #encodeWord(word: string): readonly number[] {
    let ids = bytesToIds(word);
    for (;;) {
      let bestRank = Number.POSITIVE_INFINITY;
      let at = -1;
      for (let i = 0; i + 1 < ids.length; i++) {
        const rank = this.#ranks.get(ids[i] * PAIR + ids[i + 1]);
        if (rank !== undefined && rank < bestRank) {
          bestRank = rank;
          at = i;
        }
      }
      if (at < 0) return ids;
      ids = mergePair(ids, ids[at], ids[at + 1], FIRST_MERGE_ID + bestRank);
    }
  }
}

/** GPT-2's bytes as printable characters: Latin-1 letters stand for themselves, the rest from U+0100 on. */
function byteCharacters(): string[] {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    return String.fromCharCode(printable ? byte : next++);
  });
}

/** The spelling of every token in tokenizer.json, by id. */
export function tokenStrings(vocabulary: BpeVocabulary): string[] {
  const tokens: string[] = [...SPECIAL_TOKENS, ...byteCharacters()];
  for (const [left, right] of vocabulary.merges) tokens.push(tokens[left] + tokens[right]);
  return tokens;
}

/** The content of a Hugging Face `tokenizer.json`: byte-level BPE, with a bos before each text. */
export function tokenizerJson(vocabulary: BpeVocabulary): object {
  const tokens = tokenStrings(vocabulary);
  const bos = SPECIAL_TOKENS[BOS_ID];
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: SPECIAL_TOKENS.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: bos, type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
      pair: [
        { SpecialToken: { id: bos, type_id: 0 } },
        { Sequence: { id: "A", type_id: 0 } },
        { SpecialToken: { id: bos, type_id: 1 } },
        { Sequence: { id: "B", type_id: 1 } },
      ],
      special_tokens: { [bos]: { id: bos, ids: [BOS_ID], tokens: [bos] } },
    },
    decoder: byteLevel,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: vocabulary.merges.map(([left, right]) => `${tokens[left]} ${tokens[right]}`),
    },
  };
}

/** The content of a Hugging Face `tokenizer_config.json`. */
export function tokenizerConfig(maxLength: number): object {
  return {
    tokenizer_class: "PreTrainedTokenizerFast",
    bos_token: SPECIAL_TOKENS[BOS_ID],
    eos_token: SPECIAL_TOKENS[EOS_ID],
    pad_token: SPECIAL_TOKENS[PAD_ID],
    add_bos_token: true,
    add_eos_token: false,
    clean_up_tokenization_spaces: false,
    model_max_length: maxLength,
  };
}
