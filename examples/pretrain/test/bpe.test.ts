import { Tokenizer } from "@huggingface/tokenizers";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  BOS_ID,
  BpeEncoder,
  LEAST_VOCAB_SIZE,
  tokenizerConfig,
  tokenizerJson,
  tokenStrings,
  trainBpe,
} from "../src/bpe.js";
import { dropTables, loadCorpus, normalizeText, splitDocuments } from "../src/corpus.js";

const corpus = loadCorpus();
/** A sample of every source: training on all of it takes seconds that the tests need not spend. */
const sample = corpus.trainDocuments.filter((_, index) => index % 20 === 0).map((document) => document.text);
const vocabulary = trainBpe(sample, 1024);
const encoder = new BpeEncoder(vocabulary);
const huggingFace = new Tokenizer(tokenizerJson(vocabulary), tokenizerConfig(256));
const encodeBoth = (text: string) => ({
  ours: encoder.encode(text),
  theirs: huggingFace.encode(text, { add_special_tokens: false }).ids,
});
const decode = (ids: number[]) => (ids.length === 0 ? "" : huggingFace.decode(ids));

/** Hugging Face reads the spelling of a special token as the token; the encoder reads text. */
const plainText = fc.string({ unit: "binary" }).filter((text) => !/<\/?s>|<pad>/.test(text));

describe("trainBpe", () => {
  it("merges the most frequent pair first, the smaller ids among equals", () => {
    const { merges } = trainBpe(["abab abab xy xy"], LEAST_VOCAB_SIZE + 3);
    const id = (character: string) => LEAST_VOCAB_SIZE - 256 + character.charCodeAt(0);
    expect(merges).toEqual([
      [id("a"), id("b")],
      [id(" "), id("x")],
      [LEAST_VOCAB_SIZE, LEAST_VOCAB_SIZE],
    ]);
  });

  it("counts overlapping pairs of one character as it merges them", () => {
    const tiny = trainBpe(["aaaaa aaaaa"], LEAST_VOCAB_SIZE + 3);
    const ids = new BpeEncoder(tiny).encode("aaaaa");
    expect(ids.length).toBeLessThanOrEqual(3);
    expect(new Set(tokenStrings(tiny)).size).toBe(tiny.vocabSize);
  });

  it("equals a trainer that counts everything again for each merge", () => {
    const text = sample[0].slice(0, 3000);
    const words =
      text.match(/'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu) ?? [];
    const slow = words.map((word) =>
      Array.from(new TextEncoder().encode(word), (byte) => LEAST_VOCAB_SIZE - 256 + byte),
    );
    for (const [rank, pair] of trainBpe([text], LEAST_VOCAB_SIZE + 60).merges.entries()) {
      const counts = new Map<string, number>();
      for (const ids of slow) {
        for (let i = 0; i + 1 < ids.length; i++) {
          const key = `${ids[i]} ${ids[i + 1]}`;
          counts.set(key, (counts.get(key) ?? 0) + 1);
        }
      }
      const most = Math.max(...counts.values());
      expect(counts.get(pair.join(" "))).toBe(most);
      for (const ids of slow) {
        for (let i = 0; i + 1 < ids.length; i++) {
          if (ids[i] === pair[0] && ids[i + 1] === pair[1]) ids.splice(i, 2, LEAST_VOCAB_SIZE + rank);
        }
      }
    }
  });

  it("is deterministic, does not split text differently by piece, and stops when nothing repeats", () => {
    expect(trainBpe(sample, 400)).toEqual(trainBpe(sample, 400));
    expect(trainBpe(["ab"], 2048)).toEqual({ merges: [], vocabSize: LEAST_VOCAB_SIZE });
  });

  it.each([LEAST_VOCAB_SIZE - 1, 65537, 300.5, Number.NaN])("refuses a vocabulary of %d", (size) => {
    expect(() => trainBpe([], size)).toThrow(RangeError);
  });
});

describe("the encoder and the files", () => {
  it("have distinct tokens, specials first", () => {
    const tokens = tokenStrings(vocabulary);
    expect(tokens.slice(0, 3)).toEqual(["<s>", "</s>", "<pad>"]);
    expect(new Set(tokens).size).toBe(1024);
  });

  it("give the same ids as @huggingface/tokenizers on the corpus, and its text back", () => {
    for (const document of corpus.heldOutDocuments) {
      const { ours, theirs } = encodeBoth(document.text);
      expect(ours).toEqual(theirs);
      expect(decode(ours)).toBe(document.text);
    }
  });

  it("give the same ids and round-trip for any text", () => {
    fc.assert(
      fc.property(plainText, (text) => {
        const { ours, theirs } = encodeBoth(text);
        expect(ours).toEqual(theirs);
        expect(decode(ours)).toBe(text);
      }),
      { numRuns: 500 },
    );
  });

  it("put bos before a text, and only there", () => {
    expect(huggingFace.encode("We the people").ids).toEqual([BOS_ID, ...encoder.encode("We the people")]);
    expect(encoder.encode("<s>")).not.toContain(BOS_ID);
  });
});

describe("the corpus", () => {
  it("holds out about one per cent of each source, by document", () => {
    const ids = new Set(corpus.trainDocuments.map((document) => document.id));
    for (const document of corpus.heldOutDocuments) expect(ids).not.toContain(document.id);
    const bytes = Buffer.byteLength(corpus.heldOut);
    expect(bytes).toBeGreaterThan(100_000);
    expect(bytes).toBeLessThan(200_000);
    for (const source of corpus.sources) {
      expect(source.heldOutBytes / source.bytes).toBeGreaterThan(0.009);
      expect(source.heldOutBytes / source.bytes).toBeLessThan(0.02);
      expect(source.heldOutDocuments).toBeGreaterThan(4);
    }
  });

  it("has no Moby-Dick in it", () => {
    expect(corpus.train + corpus.heldOut).not.toMatch(
      /Ishmael,? some years|Moby|Queequeg|Ahab,? the captain/i,
    );
  });

  it("is clean", () => {
    for (const { text } of [...corpus.trainDocuments, ...corpus.heldOutDocuments]) {
      expect(text).toBe(normalizeText(text));
      expect(text).not.toMatch(/\[laughter|\[applause|project gutenberg|[\ufffd<>]\w*>/i);
      expect(text.length).toBeGreaterThan(0);
    }
  });

  it("splits the same whatever the order of the documents", () => {
    const documents = [...corpus.trainDocuments, ...corpus.heldOutDocuments];
    const there = splitDocuments(documents).heldOut.map((document) => document.id);
    const back = splitDocuments([...documents].reverse()).heldOut.map((document) => document.id);
    expect(back.reverse()).toEqual(there);
  });
});

describe("cleaning", () => {
  it("makes white space plain and keeps punctuation", () => {
    expect(normalizeText("\ufeff a\u00a0 b\t—\r\n\r\n\r\n\r\n“c”\u0002 \n d ")).toBe("a b —\n\n“c”\nd");
  });

  it("drops rows of figures and keeps sentences with a year", () => {
    const kept =
      "The receipts into the Treasury from all sources during the fiscal year 1862 were $51,935,720.76.";
    expect(dropTables(`${kept} 1790 - 3,929,827 - 4,500,000 - 12.5. It is so.`)).toBe(`${kept} It is so.`);
  });
});
