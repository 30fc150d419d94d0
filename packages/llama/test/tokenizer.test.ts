import { ArgumentError, FormatError } from "@nomoat/core";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Tokenizer } from "../src/tokenizer.js";
import { sentencePieceSteps } from "./support.js";

/** GPT-2's bytes as printable characters. */
function byteCharacters(): string[] {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    return String.fromCharCode(printable ? byte : next++);
  });
}

function special(id: number, content: string) {
  return { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
}

function template(bos: string) {
  return {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: bos, type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
    pair: [],
    special_tokens: { [bos]: { id: bos, ids: [0], tokens: [bos] } },
  };
}

const CONFIG = { bos_token: "<s>", eos_token: "</s>", add_bos_token: true, add_eos_token: false };

/** As GPT-2, Llama 3 and the project's own model: all bytes, and a few merges. */
function byteLevel() {
  const merges = [
    ["Ġ", "t"],
    ["h", "e"],
    ["Ġt", "he"],
    ["l", "l"],
  ];
  const tokens = ["<s>", "</s>", ...byteCharacters(), ...merges.map((pair) => pair.join(""))];
  const part = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    version: "1.0",
    added_tokens: [special(0, "<s>"), special(1, "</s>")],
    normalizer: null,
    pre_tokenizer: part as object | null,
    post_processor: template("<s>") as object | null,
    decoder: part,
    model: {
      type: "BPE",
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])) as Record<string, unknown>,
      merges: merges as unknown[],
    },
  };
}

/** As Llama 2: words begin with U+2581, and characters outside the vocabulary fall back to bytes. */
function sentencePiece() {
  const bytes = Array.from(
    { length: 256 },
    (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`,
  );
  const characters = ["▁", ..."Oacehilmnoprtuwy."];
  const merges = ["▁ t", "h e", "▁t he", "o n", "c e"];
  const tokens = ["<unk>", "<s>", "</s>", ...bytes, ...characters, ...merges.map((m) => m.replace(" ", ""))];
  return {
    version: "1.0",
    added_tokens: [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
    ...sentencePieceSteps,
    pre_tokenizer: null,
    post_processor: template("<s>"),
    model: {
      type: "BPE",
      unk_token: "<unk>",
      fuse_unk: true,
      byte_fallback: true,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges,
    },
  };
}

const kinds = [
  { name: "byte-level", json: byteLevel() },
  { name: "SentencePiece", json: sentencePiece() },
].map(({ name, json }) => ({ name, json, tokenizer: Tokenizer.fromJson(json, CONFIG) }));

/** Any text but the spelling of a special token, which is read as the token. */
const plainText = fc
  .string({ unit: "binary" })
  // U+FEFF: the library's byte fallback takes it for a byte order mark.
  .filter((text) => !/<\/?s>|<unk>|\ufeff|▁/.test(text));

function stream(tokenizer: Tokenizer, ids: ArrayLike<number>, skipSpecialTokens?: boolean): string[] {
  const decoder = tokenizer.createDecodeStream({ skipSpecialTokens });
  return [...Array.from(ids, (id) => decoder.push(id)), decoder.end()];
}

describe.each(kinds)("$name tokenizer", ({ json, tokenizer }) => {
  it("gives back any text that it encoded", () => {
    fc.assert(
      fc.property(plainText, (text) => {
        expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
      }),
      { numRuns: 300 },
    );
  });

  it("streams what decode gives at once, for texts and for any ids", () => {
    const ids = fc.array(fc.integer({ min: 0, max: tokenizer.vocabSize + 2 }), { maxLength: 40 });
    const encoded = fc.array(plainText, { maxLength: 4 }).map((texts) => {
      return texts.flatMap((text) => Array.from(tokenizer.encode(text)));
    });
    fc.assert(
      fc.property(fc.oneof(ids, encoded), fc.boolean(), (some, skipSpecialTokens) => {
        const pieces = stream(tokenizer, some, skipSpecialTokens);
        expect(pieces.join("")).toBe(tokenizer.decode(some, { skipSpecialTokens }));
      }),
      { numRuns: 1000 },
    );
  });

  it("streams no half character, and no replacement for one", () => {
    const text = "naïve 🙂 日本";
    const pieces = stream(tokenizer, tokenizer.encode(text));
    expect(pieces.join("")).toBe(text);
    for (const piece of pieces) expect(piece).not.toMatch(/\ufffd|[\ud800-\udbff]$|^[\udc00-\udfff]/);
    expect(pieces).toContain("🙂");
  });

  it("adds bos when the configuration says so, and only then", () => {
    const bos = tokenizer.bosTokenId as number;
    expect(Array.from(tokenizer.encode("the"))[0]).toBe(bos);
    expect(tokenizer.encode("the", { addSpecialTokens: false })).not.toContain(bos);
    const without = Tokenizer.fromJson(json, { ...CONFIG, add_bos_token: false });
    expect(without.encode("the")).toEqual(tokenizer.encode("the", { addSpecialTokens: false }));
    const withEos = Tokenizer.fromJson(json, { ...CONFIG, add_eos_token: true });
    expect(Array.from(withEos.encode("the")).at(-1)).toBe(withEos.eosTokenId);
    // Silent configuration: the post-processor decides.
    expect(Tokenizer.fromJson(json).encode("the")).toEqual(tokenizer.encode("the"));
  });

  it("leaves special tokens out of the text unless asked", () => {
    const ids = [...tokenizer.encode("the"), tokenizer.eosTokenId as number];
    expect(tokenizer.decode(ids)).toBe("the");
    expect(tokenizer.decode(ids, { skipSpecialTokens: false })).toMatch(/^<s> ?the<\/s>$/);
  });

  it("knows its ids", () => {
    expect(tokenizer.vocabSize).toBe(Object.keys(json.model.vocab).length);
    expect(tokenizer.padTokenId).toBeUndefined();
    expect(Tokenizer.fromJson(json).bosTokenId).toBe(tokenizer.bosTokenId);
    const padded = Tokenizer.fromJson(json, { ...CONFIG, pad_token: { content: "</s>" } });
    expect(padded.padTokenId).toBe(tokenizer.eosTokenId);
  });

  it("takes the file as text", () => {
    const fromText = Tokenizer.fromJson(JSON.stringify(json), CONFIG);
    expect(fromText.encode("the tale")).toEqual(tokenizer.encode("the tale"));
  });

  it("decodes nothing to nothing, and refuses what is not an id", () => {
    expect(tokenizer.encode("", { addSpecialTokens: false })).toHaveLength(0);
    expect(tokenizer.decode([])).toBe("");
    expect(tokenizer.decode([tokenizer.vocabSize + 100])).toBe("");
    expect(() => tokenizer.decode([-1])).toThrow(ArgumentError);
    expect(() => tokenizer.createDecodeStream().push(1.5)).toThrow(ArgumentError);
  });
});

describe("streaming", () => {
  const [{ tokenizer: bytes }, { tokenizer: pieces }] = kinds;

  it("keeps the spaces of words that begin a token", () => {
    const text = "Once upon a time the hero";
    for (const tokenizer of [bytes, pieces]) {
      expect(stream(tokenizer, tokenizer.encode(text)).join("")).toBe(text);
    }
    const the = pieces.encode("the", { addSpecialTokens: false })[0];
    expect(stream(pieces, [the, the, 2, the])).toEqual(["the", " the", "", " the", ""]);
  });

  it("ends an incomplete character as decode does, and can start anew", () => {
    const ids = bytes.encode("🙂", { addSpecialTokens: false }).slice(0, 2);
    const decoder = bytes.createDecodeStream();
    expect([decoder.push(ids[0]), decoder.push(ids[1]), decoder.end()]).toEqual(["", "", "\ufffd"]);
    expect(decoder.push(bytes.encode("e", { addSpecialTokens: false })[0])).toBe("e");
  });
});

describe("clean_up_tokenization_spaces", () => {
  it("does not touch the text", () => {
    const { json } = kinds[0];
    const tokenizer = Tokenizer.fromJson(json, { ...CONFIG, clean_up_tokenization_spaces: true });
    expect(tokenizer.decode(tokenizer.encode("so . it do n't"))).toBe("so . it do n't");
  });
});

describe("files that are not what they should be", () => {
  const split = (Regex: string) => ({
    type: "Split",
    pattern: { Regex },
    behavior: "Isolated",
    invert: false,
  });
  const withPattern = (pattern: string) => {
    const part = { type: "ByteLevel", add_prefix_space: false, use_regex: false };
    return { ...byteLevel(), pre_tokenizer: { type: "Sequence", pretokenizers: [split(pattern), part] } };
  };
  const nested = () => {
    let part: object = { type: "ByteLevel" };
    for (let i = 0; i < 5000; i++) part = { type: "Sequence", pretokenizers: [part] };
    return part;
  };
  const model = (changes: object) => ({ ...byteLevel(), model: { ...byteLevel().model, ...changes } });

  it.each<[string, string | object, RegExp]>([
    ["no JSON", "{", /not JSON/],
    ["brackets without end", "[".repeat(5e6), /nested more than 100 levels deep/],
    ["braces without end", '{"a\\"":'.repeat(1e5), /nested more than 100 levels deep/],
    ["a list", "[]", /not a JSON object/],
    ["null", "null", /not a JSON object/],
    ["no model", { ...byteLevel(), model: undefined }, /model: is missing/],
    ["an unknown model", model({ type: "WordLevel" }), /model\.type: "WordLevel" is not supported/],
    ["a vocabulary that is a list", model({ vocab: [] }), /model\.vocab/],
    ["an empty vocabulary", { added_tokens: [], model: { type: "BPE", vocab: {}, merges: [] } }, /is empty/],
    ["a huge id", model({ vocab: { a: 2 ** 31 }, merges: [] }), /model\.vocab: 2147483648 is not a token id/],
    ["a negative id", model({ vocab: { a: -1 }, merges: [] }), /model\.vocab: -1 is not/],
    ["a text for an id", model({ vocab: { a: "1" }, merges: [] }), /model\.vocab: "1" is not/],
    ["a long text for an id", model({ vocab: { a: "x".repeat(1e6) }, merges: [] }), /^.{40,150}$/],
    [
      "an id twice",
      model({ vocab: { a: 2, b: 2 }, merges: [] }),
      /model\.vocab: id 2 stands for "a" and "b"/,
    ],
    ["no merges", model({ merges: undefined }), /model\.merges: is not a list/],
    ["half a merge", model({ merges: [["a"]] }), /model\.merges: entry 0 is not a pair/],
    ["a merge into nothing", model({ merges: ["a b"] }), /model\.merges: entry 0 needs "ab"/],
    ["merges of two spellings", model({ merges: [["h", "e"], "l l"] }), /model\.merges: entry 1/],
    ["an added token without text", { ...byteLevel(), added_tokens: [{ id: 3 }] }, /added_tokens/],
    ["an unknown part", { ...byteLevel(), pre_tokenizer: { type: "Mystery" } }, /Mystery/],
    ["a part that is a list", { ...byteLevel(), decoder: [] }, /decoder: is not an object/],
    ["parts without end", { ...byteLevel(), pre_tokenizer: nested() }, /pre_tokenizer: is nested too deeply/],
    ["no pattern", { ...byteLevel(), decoder: { type: "Replace" } }, /decoder: has no pattern/],
    [
      "an empty pattern",
      { ...byteLevel(), pre_tokenizer: { type: "Split", pattern: {} } },
      /neither Regex nor String/,
    ],
    ["a broken regular expression", withPattern("(a"), /regular expression/i],
    ["a long regular expression", withPattern("a".repeat(5000)), /longer than 4096/],
    ["a nested quantifier", withPattern("(a+)+b"), /exponential/],
    ["a deeper nested quantifier", withPattern("((?:x|a{2,})y?){3,}b"), /exponential/],
    ["a repeated alternative", withPattern("(?:a|a)*b"), /exponential/],
    ["stacked quantifiers", withPattern("\\p{N}{1,3}+!"), /exponential/],
    ["many repeats of an option", withPattern("(?:a?){1000}a"), /exponential/],
    ["an unclosed class before one", withPattern("[[](a+)+b"), /exponential/],
  ])("refuses %s with an error that names file and field", (_, json, message) => {
    const read = () => Tokenizer.fromJson(json, CONFIG, "folder/tokenizer.json");
    expect(read).toThrow(FormatError);
    expect(read).toThrow(message);
    expect(read).toThrow(/^folder\/tokenizer\.json: /);
  });

  it("does not take brackets in strings for nesting", () => {
    const json = JSON.stringify({ ...byteLevel(), comment: `${"[{".repeat(200)}\\"\\` });
    expect(Tokenizer.fromJson(json, CONFIG).vocabSize).toBeGreaterThan(0);
  });

  it("refuses a bos that is asked for and is not there", () => {
    const read = () => Tokenizer.fromJson(byteLevel(), { bos_token: "<bos>", add_eos_token: true });
    expect(read).toThrow(/add_eos_token is set, but eos_token is not in the vocabulary/);
  });

  it.each([
    // GPT-2; Llama 3; GPT-4o; Qwen 2.
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    "\\p{N}{1,3}(?=(?:\\p{N}{3})*(?:\\P{N}|$))|[\\s\\S]",
  ])("takes the established pattern %#", (pattern) => {
    const tokenizer = Tokenizer.fromJson(withPattern(pattern), CONFIG);
    expect(tokenizer.decode(tokenizer.encode("They'll have 12345 of\n\n them!"))).toBe(
      "They'll have 12345 of\n\n them!",
    );
  });

  it("survives any small change of a file with a tokenizer or a FormatError", () => {
    const text = JSON.stringify(sentencePiece());
    fc.assert(
      fc.property(fc.nat(text.length - 1), fc.string({ maxLength: 3 }), fc.nat(8), (at, insert, cut) => {
        try {
          Tokenizer.fromJson(text.slice(0, at) + insert + text.slice(at + cut), CONFIG).decode([5, 6, 7]);
        } catch (error) {
          expect(error).toBeInstanceOf(FormatError);
        }
      }),
      { numRuns: 300 },
    );
  });
});
