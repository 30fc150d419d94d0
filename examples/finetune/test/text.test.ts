/** Where the text comes from, and what is held out of it. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { explain } from "../src/errors.js";
import { joinLines, loadMobyDick, loadOwnText } from "../src/text.js";

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nomoat-text-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function file(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

describe("Moby-Dick", () => {
  const { train, heldOut } = loadMobyDick();
  const text = train.map((example) => ("text" in example ? example.text : "")).join();

  it("is whole, and every fifteenth chapter is held out", () => {
    const heads = (part: string) => (part.match(/^CHAPTER \d+/gm) ?? []).map((head) => Number(head.slice(8)));
    expect(heads(heldOut)).toEqual([15, 30, 45, 60, 75, 90, 105, 120, 135]);
    expect(heads(text).length).toBe(126);
    expect(text).toMatch(/^CHAPTER 1\. Loomings\.\nCall me Ishmael\. Some years ago—never mind/);
    expect(heldOut.length / (heldOut.length + text.length)).toBeGreaterThan(0.05);
  });

  it("has one paragraph a line, and plain white space", () => {
    for (const part of [text, heldOut]) {
      expect(part).not.toMatch(/[^\S\n]{2}|\r|\n{3}|^ | $/m);
      expect(part.endsWith("\n")).toBe(false);
    }
  });
});

it("joins the lines of a paragraph, not paragraphs", () => {
  expect(joinLines("one\r\n two\n\n  three\n\n\n\tfour \n")).toBe("one two\nthree\nfour");
});

describe("the user's own file", () => {
  it("loses its end to the held-out part, and nothing else", async () => {
    const lines = Array.from({ length: 150 }, (_, i) => `Line ${i}.\n`).join("");
    const { train, heldOut } = await loadOwnText(file("a.txt", lines));
    expect(train).toEqual([{ text: lines.slice(0, -heldOut.length) }]);
    expect(heldOut).toMatch(/^Line 1[34]\d\.\n(Line \d+\.\n)+$/);
  });

  it("gives prompts from the held-out part", async () => {
    const { prompts } = await loadOwnText(file("b.txt", "one two three four five\n".repeat(60)));
    expect(prompts).toEqual(["Once upon a time", "one two three four"]);
  });

  it("holds out a fifteenth of the records, one at least", async () => {
    const records = Array.from({ length: 30 }, (_, i) => ({ text: `record ${i}` }));
    const lines = records.map((record) => JSON.stringify(record)).join("\n");
    const many = await loadOwnText(file("c.jsonl", `${lines}\n`));
    expect(many.train.length).toBe(28);
    const held = many.heldOut.split("\n\n");
    expect([...many.train.map((example) => "text" in example && example.text), ...held].sort()).toEqual(
      records.map(({ text }) => text).sort(),
    );
    const few = await loadOwnText(file("d.jsonl", lines.split("\n").slice(0, 3).join("\n")));
    expect(few.train.length).toBe(2);
  });

  it("shows completions and conversations as they read", async () => {
    const record = { prompt: "2 + 2 =", completion: " 4" };
    const completions = `${JSON.stringify(record)}\n`.repeat(2);
    expect((await loadOwnText(file("e.jsonl", completions))).heldOut).toBe("2 + 2 = 4");
    const messages = ["user: Hi", "assistant: Hello"].map((line) => {
      const [role, content] = line.split(": ");
      return { role, content };
    });
    const chats = `${JSON.stringify({ messages })}\n`.repeat(2);
    expect((await loadOwnText(file("f.jsonl", chats))).heldOut).toBe("Hi\nHello");
  });

  it.each([
    ["missing.txt", null, /missing\.txt/],
    ["g.csv", "a,b", /\.txt or \.jsonl/],
    ["h.txt", " \n", /h\.txt: holds no text/],
    ["i.txt", "word", /too short/],
    ["j.txt", Uint8Array.of(0xff, 0xfe, 0x41), /not UTF-8/],
    ["k.jsonl", '{"text":"one"}\n', /at least two records/],
    ["l.jsonl", '{"text":"one"}\n{"txt":"two"}\n', /l\.jsonl:2/],
  ])("%s is refused with a reason that the user can read", async (name, content, reason) => {
    const path = content === null ? join(folder, name) : file(name, content);
    const error = await loadOwnText(path).catch((thrown: unknown) => thrown);
    expect(explain(error)).toMatch(reason);
  });
});
