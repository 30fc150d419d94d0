// Reading examples, encoding them, cutting them into rows, ordering and splitting them.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { RowOrder } from "../src/data/batches.js";
import { encodeText, makeRows } from "../src/data/encode.js";
import { type DataSource, type Example, loadData, splitData, Tokenizer } from "../src/index.js";
import { byteTokenizer, byteTokenizerFiles } from "./support.js";

const folder = mkdtempSync(join(tmpdir(), "nomoat-data-"));
afterAll(() => rmSync(folder, { recursive: true }));

function file(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

const tokenizer = byteTokenizer();
const [bos, eos] = [0, 1];
const bytes = (text: string): number[] => Array.from(new TextEncoder().encode(text), (byte) => byte + 3);
const jsonl = (...lines: unknown[]): string => lines.map((line) => JSON.stringify(line)).join("\n");

const chat = {
  messages: [
    { role: "user", content: "hi" },
    { role: "assistant", content: "ho" },
  ],
};
const pair = { prompt: "2 + 2 = ", completion: "4" };

describe("loadData", () => {
  it("reads text files and JSON Lines, from paths, Blobs, content and memory", async () => {
    const lines = `\n${jsonl({ text: "ä", source: "ignored" })}\r\n  \n${jsonl(pair, chat)}\n`;
    const expected = [{ text: "ä" }, pair, chat];
    const sources: DataSource[] = [
      file("a.jsonl", lines),
      file("a.ndjson", lines),
      file("without-extension", lines),
      new Blob([lines]),
      { content: lines },
      { content: new TextEncoder().encode(lines), name: "x.jsonl" },
      ["ä", pair, chat],
      expected,
    ];
    for (const source of sources) expect(await loadData(source)).toEqual(expected);
    const text = "{ not JSON }\nÜber";
    expect(await loadData(file("a.txt", `\ufeff${text}`))).toEqual([{ text }]);
    expect(await loadData(file("plain", "Call me"))).toEqual([{ text: "Call me" }]);
    expect(await loadData([{ ids: [1, 2], labels: [-100, 2] }])).toEqual([
      { ids: Int32Array.of(1, 2), labels: Int32Array.of(-100, 2) },
    ]);
  });

  it.each([
    ["[1]", "x.jsonl:1: expected an object"],
    ['{"a": 1}', 'x.jsonl:1: has none of "text"'],
    ['{"text": "a", "messages": []}', 'x.jsonl:1: has "text" and "messages"'],
    ['{"text": ""}', "x.jsonl:1: text: is empty"],
    ['{"text": 5}', "x.jsonl:1: text: must be a string"],
    ['{"text": "a"}\n\n{"prompt": "a"}', "x.jsonl:3: completion: is missing"],
    ['{"prompt": "a", "completion": ""}', "x.jsonl:1: completion: is empty"],
    ['{"messages": []}', "x.jsonl:1: messages: must be a list"],
    ['{"messages": [1]}', "x.jsonl:1: messages[0]: must be an object"],
    ['{"messages": [{"role": "user"}]}', "x.jsonl:1: messages[0].content: is missing"],
    ['{"messages": [{"content": "a"}]}', "x.jsonl:1: messages[0].role: is missing"],
    [
      '{"messages": [{"role": "user", "content": "a"}]}',
      'x.jsonl:1: messages: has no message of the role "assistant"',
    ],
    ['{"ids": [1, -1]}', "x.jsonl:1: ids[1]: -1 is no token id"],
    ['{"ids": [1, 2], "labels": [1]}', "x.jsonl:1: labels: has 1 entries for 2 ids"],
    ['{"text": "a"', "x.jsonl:1: "],
    ['{"text": "a", "text": "b"}', "x.jsonl:1: "],
    ["\n \n", "x.jsonl: holds no example"],
  ])("refuses %j", async (content, message) => {
    await expect(loadData({ content, name: "x.jsonl" })).rejects.toMatchObject({
      ...{ code: "FORMAT", message: expect.stringContaining(message) },
    });
  });

  it("refuses files that are no data, and what is not there", async () => {
    const latin1 = file("latin1.txt", Uint8Array.of(0x41, 0xe4, 0x42));
    await expect(loadData(latin1)).rejects.toMatchObject({
      code: "FORMAT",
      message: expect.stringMatching(/UTF-8/),
    });
    await expect(loadData(file("blank.txt", " \n"))).rejects.toThrow(/holds no text/);
    await expect(loadData(file("x.json", '[{"text": "a"}]'))).rejects.toThrow(/JSON Lines/);
    await expect(loadData(join(folder, "missing.txt"))).rejects.toMatchObject({ code: "IO" });
    await expect(loadData([])).rejects.toThrow(/no examples/);
    await expect(loadData(["a", { text: 1 } as never])).rejects.toThrow(/data\[1\]\.text/);
    await expect(loadData(5 as never)).rejects.toMatchObject({ code: "ARGUMENT" });
  });

  it("answers any bytes with examples or a FormatError", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.uint8Array({ maxLength: 60 }),
          fc.json().map((json) => new TextEncoder().encode(json)),
        ),
        fc.constantFrom("a.jsonl", "a.txt", "a"),
        async (content, name) => {
          const outcome = await loadData({ content, name }).catch((error: unknown) => error);
          expect(Array.isArray(outcome) || (outcome as { code?: string }).code === "FORMAT").toBe(true);
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe("rows", () => {
  it("masks prompts and ends texts with eos", async () => {
    const { rows, packing } = await makeRows([pair, { text: "ab" }], tokenizer, { length: 32 });
    expect(packing).toBe(false);
    const ids = [bos, ...bytes("2 + 2 = 4"), eos];
    expect([...rows[0].ids]).toEqual(ids);
    expect([...rows[0].labels]).toEqual([...ids.slice(0, -2).fill(-100), ...ids.slice(-2)]);
    expect([...rows[1].ids]).toEqual([bos, ...bytes("ab"), eos]);
    expect(rows[1].labels).toEqual(rows[1].ids);
  });

  it("counts a token that joins prompt and completion as completion", async () => {
    const files = byteTokenizerFiles();
    const model = (files.json as { model: { vocab: Record<string, number>; merges: string[][] } }).model;
    model.merges.push(["b", "c"]);
    model.vocab.bc = 259;
    const merging = Tokenizer.fromJson(files.json, files.config);
    const { rows } = await makeRows([{ prompt: "ab", completion: "cd" }], merging, { length: 32 });
    expect([...rows[0].ids]).toEqual([bos, bytes("a")[0], 259, bytes("d")[0], eos]);
    expect([...rows[0].labels]).toEqual([-100, -100, 259, bytes("d")[0], eos]);
  });

  it("packs texts into rows that share one token, so that each is predicted once", async () => {
    const texts = ["abcde", "f", "ghijklm"];
    const stream = texts.flatMap((text) => [bos, ...bytes(text), eos]);
    for (const length of [2, 3, 4, 7, 19, 30]) {
      const { rows, packing } = await makeRows(await loadData(texts), tokenizer, { length });
      expect(packing).toBe(true);
      const predicted = rows.flatMap(({ labels }) => [...labels.subarray(1)]);
      expect(predicted).toEqual(stream.slice(1));
      rows.forEach(({ ids }, i) => {
        expect([...ids]).toEqual(stream.slice(i * (length - 1), i * (length - 1) + length));
      });
    }
  });

  it("cuts what is too long, leaves out what teaches nothing, and says how many", async () => {
    const long = { prompt: "x".repeat(20), completion: "y" };
    const cut = await makeRows([pair, long, { ...pair, completion: "4".repeat(50) }], tokenizer, {
      length: 16,
    });
    expect(cut).toMatchObject({ truncated: 2, dropped: 1 });
    expect(cut.rows.map(({ ids }) => ids.length)).toEqual([11, 16]);
    await expect(makeRows([long], tokenizer, { length: 16 })).rejects.toThrow(
      /nothing is left to learn.*length/,
    );
  });

  it("encodes long texts in pieces, and to the same ids", async () => {
    const words = ["Call", "me", "Ishmael.", "  two", "x\n", "\n\n", "tab\t", "é", "\n", "\n", "end\n"];
    let text = "";
    for (let i = 0; text.length < 30_000; i++)
      text += `${words[(i * i + 3 * i) % words.length]} `.slice(i % 2);
    for (const addSpecialTokens of [true, false]) {
      const ids = await encodeText(tokenizer, text, { addSpecialTokens });
      expect(ids).toEqual(tokenizer.encode(text, { addSpecialTokens }));
    }
  });

  it("orders every epoch anew, by the seed alone", () => {
    const epoch = (order: RowOrder, n: number): number[] =>
      Array.from({ length: 10 }, (_, i) => order.at(10 * n + i));
    const order = new RowOrder(10, { seed: 1, shuffle: true });
    const [first, second] = [epoch(order, 0), epoch(order, 1)];
    expect(first).not.toEqual(second);
    expect([...first].sort((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect([...second].sort((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    // From any place, without what comes before.
    expect(epoch(new RowOrder(10, { seed: 1, shuffle: true }), 1)).toEqual(second);
    expect(epoch(new RowOrder(10, { seed: 2, shuffle: true }), 0)).not.toEqual(first);
    expect(epoch(new RowOrder(10, { seed: 1, shuffle: false }), 3)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });
});

describe("splitData", () => {
  it("cuts a single text at a line near its end", () => {
    const text = "one\ntwo\nthree\nfour\nfive";
    const { train, validation } = splitData([{ text }], { fraction: 0.3 });
    expect([train, validation]).toEqual([[{ text: "one\ntwo\nthree\n" }], [{ text: "four\nfive" }]]);
    expect(splitData([{ text: "a b c d" }], { fraction: 0.4 }).validation).toEqual([{ text: "c d" }]);
  });

  it("holds out a random share of several examples, by the seed", () => {
    const examples: Example[] = Array.from({ length: 20 }, (_, i) => ({ text: `${i}` }));
    const split = splitData(examples, { fraction: 0.25, seed: 1 });
    expect(split.validation).toHaveLength(5);
    expect(new Set([...split.train, ...split.validation])).toEqual(new Set(examples));
    expect(splitData(examples, { fraction: 0.25, seed: 1 })).toEqual(split);
    expect(splitData(examples, { fraction: 0.25, seed: 2 })).not.toEqual(split);
  });

  it("refuses what leaves a part empty", () => {
    expect(() => splitData([{ text: "word" }])).toThrow(/too short/);
    expect(() => splitData([{ text: "a" }, { text: "b" }], { fraction: 0.1 })).toThrow(/empty/);
    for (const fraction of [0, 1, -1, Number.NaN])
      expect(() => splitData([{ text: "a\nb" }], { fraction })).toThrow(/fraction/);
  });
});
