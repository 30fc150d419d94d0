// The regular-expression matcher, against JavaScript's own where the two languages agree.

import { ArgumentError } from "@nomoat/core";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Pattern } from "../src/pattern.js";

const test = (pattern: string, text: string) => new Pattern(pattern).test(text);

describe("Pattern", () => {
  it.each([
    [".*\\.(q|v)_proj", "model.layers.0.self_attn.q_proj", true],
    [".*\\.(q|v)_proj", "model.layers.0.self_attn.k_proj", false],
    ["model\\.layers\\.(1[0-9]|[0-3])\\..*_proj", "model.layers.12.mlp.up_proj", true],
    ["model\\.layers\\.(1[0-9]|[0-3])\\..*_proj", "model.layers.4.mlp.up_proj", false],
    ["^(?!.*vision).*(?:q|k)_proj$", "text.layers.0.q_proj", true],
    ["^(?!.*vision).*(?:q|k)_proj$", "vision.layers.0.q_proj", false],
    ["(?=text)text.*", "text.q", true],
    ["\\bmodel\\.layers\\.[\\d]{1,}\\.(?P<part>q|v)", "model.layers.31.v", true],
    ["a{2,3}", "aa", true],
    ["a{2,3}", "aaaa", false],
    ["a{,2}b{2}c{x}", "abbc{x}", true],
    ["[^.]+\\.[\\w-]+", "ab.c-d", true],
    ["[]a]+", "a]a", true],
    ["q_proj", "xq_proj", false],
    ["(a*)*b", "aaab", true],
    ["", "", true],
    ["\\Aq\\Z", "q", true],
    ["\\x71\\u0076", "qv", true],
  ])("%s on %s", (pattern, text, expected) => {
    expect(test(pattern, text)).toBe(expected);
  });

  it.each([
    "(",
    ")",
    "[a",
    "*a",
    "a**",
    "a++",
    "(?<=a)b",
    "(?i)a",
    "(a)\\1",
    "\\q",
    "[z-a]",
    "a{3,2}",
    "(?P<1>a)",
  ])("refuses %s", (pattern) => {
    expect(() => new Pattern(pattern)).toThrow(ArgumentError);
  });

  it("agrees with JavaScript on random patterns", () => {
    const leaf = fc.constantFrom("a", "b", ".", "[ab]", "[^a]", "\\w", "\\.");
    const { node } = fc.letrec<{ node: string }>((tie) => ({
      node: fc.oneof(
        { depthSize: "small" },
        leaf,
        fc.tuple(tie("node"), tie("node")).map(([x, y]) => `${x}${y}`),
        fc.tuple(tie("node"), tie("node")).map(([x, y]) => `(?:${x}|${y})`),
        fc.tuple(tie("node"), fc.constantFrom("*", "+", "?", "{1,2}", "*?")).map(([x, q]) => `(?:${x})${q}`),
        tie("node").map((x) => `(?!${x})`),
      ),
    }));
    fc.assert(
      fc.property(
        node,
        fc.string({ unit: fc.constantFrom("a", "b", "."), maxLength: 7 }),
        (pattern, text) => {
          expect(test(pattern, text)).toBe(new RegExp(`^(?:${pattern})$`).test(text));
        },
      ),
      { numRuns: 500 },
    );
  });

  it("stays fast where backtracking would not end", () => {
    const start = process.cpuUsage();
    expect(test("(a+)+b", "a".repeat(200))).toBe(false);
    expect(test("(a|aa)+(?!c)(a|a)*b", "a".repeat(200))).toBe(false);
    expect(() => test("(((a?){50}){50}){50}", "a")).toThrow(/states/);
    expect(() => test("(?:(?=(a?){3000}b|)a)*", "a".repeat(2000))).toThrow(/too long/);
    expect(() => test("(".repeat(5000) + ")".repeat(5000), "")).toThrow(/deeper/);
    expect(() => test("a*", "a".repeat(5000))).toThrow(/exceeds/);
    // Seconds of work, whatever else the machine does.
    expect(process.cpuUsage(start).user / 1e6).toBeLessThan(10);
  });
});
