import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FormatError } from "../../src/errors.js";
import { integerAt, type JsonObject, JsonScanner, parseJson } from "../../src/io/json.js";

const encode = (text: string) => new TextEncoder().encode(text);
const parse = (text: string) => parseJson(encode(text), { file: "a.json" });

/** The FormatError that `run` ends in. */
function fault(run: () => unknown): FormatError {
  try {
    run();
  } catch (error) {
    expect(error).toBeInstanceOf(FormatError);
    return error as FormatError;
  }
  expect.fail("was accepted");
}

describe("parseJson", () => {
  test("agrees with JSON.parse on what JSON.stringify writes", () => {
    fc.assert(
      fc.property(
        fc.jsonValue({ noUnicodeString: false, maxDepth: 5 } as object),
        fc.nat(3),
        (value, indent) => {
          const text = JSON.stringify(value, null, indent);
          if (/\\ud[89a-f]/i.test(text)) return;
          expect(JSON.parse(JSON.stringify(parse(text)))).toEqual(JSON.parse(text));
        },
      ),
    );
  });

  test("accepts nothing that JSON.parse refuses", () => {
    const piece = fc.constantFrom(
      ...'{}[]:,"\\/+-.eE0123aftn \n\t',
      '"a"',
      "true",
      "false",
      "null",
      "1e5",
      "\\u00e9",
      "\\ud800",
      "é",
      "\u0000",
      "\ufeff",
      "NaN",
      "//",
      "'",
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
        const text = pieces.join("");
        let value: unknown;
        try {
          value = parse(text);
        } catch (error) {
          expect(error).toBeInstanceOf(FormatError);
          return;
        }
        expect(JSON.parse(JSON.stringify(value))).toEqual(JSON.parse(JSON.stringify(JSON.parse(text))));
      }),
      { numRuns: 3000 },
    );
  });

  test.each([
    ["", 0, undefined],
    ["nul", 3, undefined],
    ["1 2", 2, undefined],
    ["[1,]", 3, "[1]"],
    ['{"a":1,}', 7, undefined],
    ['{"a":1,"b":{"c":[0,01]}}', 19, "b.c[1]"],
    ['{"a":1,"a":2}', 7, "a"],
    ['{"a":1,"\\u0061":2}', 7, "a"],
    ['{"x y":tru}', 10, '["x y"]'],
    ["[1e999]", 1, "[0]"],
    ["[.5]", 1, "[0]"],
    ["[5.]", 3, "[0]"],
    ["[-]", 2, "[0]"],
    ["[+1]", 1, "[0]"],
    ["[NaN]", 1, "[0]"],
    ['"\\ud800"', 0, undefined],
    ['"\\udc00\\ud800"', 0, undefined],
    ['"\\x41"', 2, undefined],
    ['"\\u00g0"', 1, undefined],
    ['"\\u00', 1, undefined],
    ['"\t"', 1, undefined],
    ['"abc', 4, undefined],
    ["\ufeff{}", 0, undefined],
    ["{'a':1}", 1, undefined],
    ["[1 /* one */]", 3, undefined],
  ])("refuses %j at byte %i", (text, offset, field) => {
    const error = fault(() => parse(text));
    expect([error.file, error.offset, error.field]).toEqual(["a.json", offset, field]);
  });

  test("refuses invalid UTF-8, in strings and outside", () => {
    for (const bytes of [[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xc3]]) {
      expect(fault(() => parseJson(new Uint8Array([0x22, ...bytes, 0x22]))).offset).toBe(1);
      fault(() => parseJson(new Uint8Array([0x5b, ...bytes, 0x5d])));
    }
  });

  test("surrogate pairs by escapes are one character", () => {
    expect(parse('"\\ud83d\\ude00 \\b\\f\\n\\r\\t\\/\\\\\\""')).toBe('😀 \b\f\n\r\t/\\"');
  });

  test("__proto__ and constructor are keys like any other", () => {
    const value = parse('{"__proto__":{"polluted":1},"constructor":2}') as JsonObject;
    expect(Object.getPrototypeOf(value)).toBeNull();
    expect(Object.keys(value)).toEqual(["__proto__", "constructor"]);
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
    expect(integerAt(value, "constructor")).toBe(2);
    expect(integerAt(value, "toString")).toBeUndefined();
  });

  test("integers are told by their spelling", () => {
    const value = parse('{"a":4,"b":4e0,"c":4.0,"d":-4,"e":9007199254740993,"f":[4,4.0],"g":"4","h":4.5}');
    const object = value as JsonObject;
    expect(object.b).toBe(4);
    expect("abcdefgh".split("").map((key) => integerAt(object, key))).toEqual([
      4,
      undefined,
      undefined,
      -4,
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
    expect([0, 1, 2].map((i) => integerAt(object.f as number[], i))).toEqual([4, undefined, undefined]);
  });

  test("bounds: depth, bytes, values", () => {
    const nested = (depth: number) => `${"[".repeat(depth)}${"]".repeat(depth)}`;
    expect(parse(nested(64))).toBeInstanceOf(Array);
    expect(fault(() => parse(nested(65))).message).toContain("deeper than 64");
    fault(() => parse("[".repeat(1_000_000)));
    fault(() => parse('{"a":'.repeat(1_000_000)));
    expect(fault(() => parseJson(encode("[1,2,3]"), { maxBytes: 6 })).message).toContain("7 bytes");
    expect(fault(() => parseJson(encode("[1,2,3]"), { maxValues: 3 })).message).toContain("3 values");
    expect(parseJson(encode("[1,2,3]"), { maxValues: 4 })).toEqual([1, 2, 3]);
    expect(Number.isFinite(parse(`1${"0".repeat(300)}`))).toBe(true);
    fault(() => parse("9".repeat(1_000_000)));
  });

  test("shared memory is read too", () => {
    const bytes = encode('"é"');
    const shared = new Uint8Array(new SharedArrayBuffer(bytes.length));
    shared.set(bytes);
    expect(parseJson(shared)).toBe("é");
  });
});

describe("JsonScanner", () => {
  test("size takes integers ≥ 0 up to a bound", () => {
    const size = (text: string, most?: number) => new JsonScanner(encode(text)).size(most);
    expect(size("0")).toBe(0);
    expect(size("9007199254740991")).toBe(2 ** 53 - 1);
    for (const text of [
      "-0",
      "-1",
      "1.0",
      "1e2",
      "9007199254740992",
      "9007199254740993",
      "9".repeat(400),
      '"1"',
    ]) {
      fault(() => size(text));
    }
    expect(size("8", 8)).toBe(8);
    fault(() => size("9", 8));
  });

  test("skip reads any value, and checks it", () => {
    const scanner = new JsonScanner(encode('{"a":[1,{"b":null}],"c":true,"d":"x"} '));
    scanner.skip();
    scanner.end();
    fault(() => new JsonScanner(encode('{"a":1,"a":1}')).skip());
  });

  test("kinds that do not fit are named", () => {
    expect(fault(() => new JsonScanner(encode(" [1]")).object(() => {})).message).toBe(
      "expected object, found array",
    );
  });
});
