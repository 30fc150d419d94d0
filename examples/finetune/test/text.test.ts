/** Where the text comes from, and what is held out of it. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
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
  const text = loadMobyDick();

  it("is whole, and every fifteenth chapter is held out", () => {
    const heads = (part: string) => (part.match(/^CHAPTER \d+/gm) ?? []).map((head) => Number(head.slice(8)));
    expect(heads(text.heldOut)).toEqual([15, 30, 45, 60, 75, 90, 105, 120, 135]);
    expect(heads(text.train).length).toBe(126);
    expect(text.train).toMatch(/^CHAPTER 1\. Loomings\.\nCall me Ishmael\. Some years ago—never mind/);
    expect(text.heldOut.length / (text.heldOut.length + text.train.length)).toBeGreaterThan(0.05);
  });

  it("has one paragraph a line, and plain white space", () => {
    for (const part of [text.train, text.heldOut]) {
      expect(part).not.toMatch(/[^\S\n]{2}|\r|\n{3}|^ | $/m);
      expect(part.endsWith("\n")).toBe(false);
    }
  });
});

it("joins the lines of a paragraph, not paragraphs", () => {
  expect(joinLines("one\r\n two\n\n  three\n\n\n\tfour \n")).toBe("one two\nthree\nfour");
});

describe("the user's own file", () => {
  it("is cut at a paragraph near its end, without losing a letter but the break", () => {
    const paragraphs = Array.from({ length: 100 }, (_, i) => `Paragraph ${i}.\nIts second line.`);
    const { train, heldOut } = loadOwnText(file("a.txt", paragraphs.join("\n\n")));
    expect(`${train}\n\n${heldOut}`).toBe(paragraphs.join("\n\n"));
    expect(heldOut.match(/Paragraph/g)?.length).toBeGreaterThanOrEqual(6);
    expect(heldOut).toMatch(/^Paragraph 9\d/);
  });

  it("is cut somewhere when it has neither lines nor words", () => {
    const { train, heldOut } = loadOwnText(file("b.txt", "x".repeat(1500)));
    expect(train.length + heldOut.length).toBe(1500);
    expect(heldOut.length).toBe(100);
  });

  it("holds out every fifteenth record, or the last of a few", () => {
    const lines = Array.from({ length: 30 }, (_, i) => JSON.stringify({ text: `record ${i}` }));
    const many = loadOwnText(file("c.jsonl", `${lines.join("\n")}\n`));
    expect(many.kind).toBe("jsonl");
    expect(many.heldOut.split("\n")).toEqual([lines[14], lines[29]]);
    expect(many.train.split("\n").length).toBe(28);
    const few = loadOwnText(file("d.jsonl", lines.slice(0, 3).join("\n")));
    expect(few.heldOut).toBe(lines[2]);
  });

  it.each([
    ["missing.txt", null, /there is no such file/],
    ["e.csv", "a,b", /\.txt or \.jsonl/],
    ["f.txt", " \n", /there is no text in it/],
    ["g.txt", Uint8Array.of(0xff, 0xfe, 0x41), /not UTF-8/],
    ["h.jsonl", '{"text":"one"}\n', /at least two records/],
  ])("%s is refused with a reason", (name, content, reason) => {
    const path = content === null ? join(folder, name) : file(name, content);
    expect(() => loadOwnText(path)).toThrow(reason);
  });
});
