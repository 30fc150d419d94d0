// The format by itself: what is read, what is refused, what is written.

import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ArgumentError, FormatError } from "../../src/errors.js";
import {
  encodeSafetensors,
  parseSafetensors,
  type SafetensorsDType,
  safetensorsBits,
} from "../../src/io/safetensors-format.js";
import type { Source } from "../../src/io/source.js";

const reference = new Uint8Array(readFileSync(new URL("./fixtures/reference.safetensors", import.meta.url)));

/** A file of a given header text and data. */
function file(header: string | Uint8Array, dataBytes = 0, claimed?: bigint): Uint8Array {
  const json = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const bytes = new Uint8Array(8 + json.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, claimed ?? BigInt(json.length), true);
  bytes.set(json, 8);
  return bytes;
}

async function fault(bytes: Uint8Array): Promise<FormatError> {
  // The processor's time: on a busy machine more passes on the clock.
  const started = process.cpuUsage();
  const error = await parseSafetensors(bytes).catch((e) => e);
  expect(error).toBeInstanceOf(FormatError);
  expect(error.file).toBe("bytes");
  expect(error.offset).toBeTypeOf("number");
  const { user, system } = process.cpuUsage(started);
  expect((user + system) / 1000, "milliseconds").toBeLessThan(1000);
  return error;
}

const f32 = (begin: number, end: number, shape = "[1]") =>
  `{"dtype":"F32","shape":${shape},"data_offsets":[${begin},${end}]}`;

describe("files of the reference implementation", () => {
  test("are read whole", async () => {
    const { entries, metadata, readBytes } = await parseSafetensors(reference);
    expect({ ...metadata }).toEqual({ format: "pt" });
    expect(entries.size).toBe(15);
    expect(entries.get("weight")).toMatchObject({ dtype: "F32", shape: [2, 3] });
    expect(entries.get("empty")).toMatchObject({ shape: [0, 4] });
    expect(entries.get("scalar")?.shape).toEqual([]);
    expect([...(await readBytes("😀"))]).toEqual([1]);
    expect([...(await readBytes('quote " \\ \n \u0001 \u007f é'))]).toEqual([3]);
    await expect(readBytes("absent")).rejects.toThrow(FormatError);
    await expect(readBytes("__proto__")).rejects.toThrow(FormatError);
  });

  test("are written again, byte for byte, from any order", async () => {
    const { entries, metadata, readBytes } = await parseSafetensors(reference);
    const tensors = await Promise.all(
      [...entries].map(async ([name, { dtype, shape }]) => ({
        name,
        dtype,
        shape,
        bytes: await readBytes(name),
      })),
    );
    expect(encodeSafetensors(tensors.reverse(), metadata)).toEqual(reference);
  });
});

describe("round trip", () => {
  const dtypes = (Object.keys(safetensorsBits) as SafetensorsDType[]).filter((d) => safetensorsBits[d] >= 8);
  const spec = fc.record({
    name: fc.string({ unit: "grapheme", maxLength: 12 }).filter((name) => name !== "__metadata__"),
    dtype: fc.constantFrom(...dtypes),
    shape: fc.array(fc.nat(4), { maxLength: 4 }),
  });
  const tensors = fc.uniqueArray(spec, { selector: ({ name }) => name, maxLength: 6 });
  const metadata = fc.option(
    fc.dictionary(fc.string({ unit: "grapheme" }), fc.string({ unit: "grapheme" })),
    {
      nil: undefined,
    },
  );

  test("what is written is read", async () => {
    await fc.assert(
      fc.asyncProperty(tensors, metadata, fc.infiniteStream(fc.nat(255)), async (specs, strings, stream) => {
        const given = specs.map((s) => {
          const size = s.shape.reduce((a, b) => a * b, safetensorsBits[s.dtype] / 8);
          return { ...s, bytes: Uint8Array.from({ length: size }, () => stream.next().value as number) };
        });
        const bytes = encodeSafetensors(given, strings);
        const read = await parseSafetensors(bytes);
        expect({ ...read.metadata }).toEqual({ ...strings });
        expect(read.dataStart % 8).toBe(0);
        expect([...read.entries.keys()].sort()).toEqual(given.map(({ name }) => name).sort());
        for (const { name, dtype, shape, bytes: data } of given) {
          expect(read.entries.get(name)).toMatchObject({ dtype, shape });
          expect(await read.readBytes(name)).toEqual(data);
        }
      }),
    );
  });
});

describe("headers that are refused", () => {
  test.each<[string, Uint8Array, string | undefined]>([
    ["nothing", new Uint8Array(0), "header length"],
    ["seven bytes", new Uint8Array(7), "header length"],
    ["a header length of 0", file(""), undefined],
    ["a header longer than the file", file("{}", 0, 3n), "header length"],
    ["a header of 2⁶³ bytes", file("{}", 0, 2n ** 63n), "header length"],
    ["a header of 2⁶⁴ − 1 bytes", file("{}", 0, 2n ** 64n - 1n), "header length"],
    ["a header of 2⁵³ + 1 bytes", file("{}", 0, 2n ** 53n + 1n), "header length"],
    ["text that is no JSON", file("PK\x03\x04"), undefined],
    ["space before the brace", file(" {}"), undefined],
    ["a byte order mark", file("\ufeff{}"), undefined],
    ["an array", file("[]"), undefined],
    ["an unfinished object", file('{"a":'), "a"],
    ["something after the object", file("{}x"), undefined],
    ["NUL padding", file("{}\0\0"), undefined],
    ["invalid UTF-8 in a name", file(new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x3a])), undefined],
    ["half a surrogate pair", file(`{"\\ud800":${f32(0, 4)}}`, 4), undefined],
    ["a name twice", file(`{"a":${f32(0, 4)},"a":${f32(4, 8)}}`, 8), "a"],
    ["a name twice, once escaped", file(`{"a":${f32(0, 4)},"\\u0061":${f32(4, 8)}}`, 8), "a"],
    ["a key twice in a tensor", file('{"a":{"dtype":"F32","dtype":"F32"}}'), "a.dtype"],
    ["__metadata__ twice", file('{"__metadata__":{},"__metadata__":{}}'), "__metadata__"],
    ["__metadata__ of null", file('{"__metadata__":null}'), "__metadata__"],
    ["metadata that is no string", file('{"__metadata__":{"a":1}}'), "__metadata__.a"],
    ["metadata that nests", file('{"__metadata__":{"a":{}}}'), "__metadata__.a"],
    ["metadata twice", file('{"__metadata__":{"a":"1","a":"2"}}'), "__metadata__.a"],
    ["a tensor that is a number", file('{"a":1}'), "a"],
    ["an unknown dtype", file('{"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}}', 4), "a.dtype"],
    [
      "a dtype of Object.prototype",
      file('{"a":{"dtype":"toString","shape":[],"data_offsets":[0,0]}}'),
      "a.dtype",
    ],
    ["a dtype that is no string", file('{"a":{"dtype":4,"shape":[1],"data_offsets":[0,4]}}', 4), "a.dtype"],
    ["no dtype", file('{"a":{"shape":[1],"data_offsets":[0,4]}}', 4), "a"],
    ["no shape", file('{"a":{"dtype":"F32","data_offsets":[0,4]}}', 4), "a"],
    ["no data_offsets", file('{"a":{"dtype":"F32","shape":[1]}}', 4), "a"],
    ["another key", file('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":0}}', 4), "a.x"],
    ["a negative axis", file(`{"a":${f32(0, 4, "[-1]")}}`, 4), "a.shape[0]"],
    ["an axis of -0", file(`{"a":${f32(0, 0, "[-0]")}}`), "a.shape[0]"],
    ["an axis of 1.0", file(`{"a":${f32(0, 4, "[1.0]")}}`, 4), "a.shape[0]"],
    ["an axis of 1e0", file(`{"a":${f32(0, 4, "[1e0]")}}`, 4), "a.shape[0]"],
    ["an axis of 2⁵³", file(`{"a":${f32(0, 0, "[9007199254740992,0]")}}`), "a.shape[0]"],
    ["an axis in a string", file(`{"a":${f32(0, 4, '["1"]')}}`, 4), "a.shape[0]"],
    ["an axis of true", file(`{"a":${f32(0, 4, "[true]")}}`, 4), "a.shape[0]"],
    ["a shape that is a number", file(`{"a":${f32(0, 4, "1")}}`, 4), "a.shape"],
    ["a shape that nests", file(`{"a":${f32(0, 4, "[[1]]")}}`, 4), "a.shape[0]"],
    ["65 axes", file(`{"a":${f32(0, 4, `[${"1,".repeat(64)}1]`)}}`, 4), "a.shape[64]"],
    ["a product that overflows", file(`{"a":${f32(0, 0, "[4294967296,4294967296,0]")}}`), 'tensor "a"'],
    [
      "a product that wraps to the right size",
      file(`{"a":${f32(0, 4, "[4294967297,4294967295]")}}`, 4),
      'tensor "a"',
    ],
    ["offsets that do not match the shape", file(`{"a":${f32(0, 8)}}`, 8), 'tensor "a"'],
    ["offsets in reverse", file(`{"a":${f32(4, 0)}}`, 4), 'tensor "a"'],
    ["offsets beyond the file", file(`{"a":${f32(0, 8, "[2]")}}`, 4), "a.data_offsets[1]"],
    ["a negative offset", file(`{"a":${f32(-4, 0)}}`, 4), "a.data_offsets[0]"],
    ["one offset", file('{"a":{"dtype":"F32","shape":[1],"data_offsets":[4]}}', 4), "a.data_offsets"],
    [
      "three offsets",
      file('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}}', 4),
      "a.data_offsets[2]",
    ],
    ["a hole at the start", file(`{"a":${f32(4, 8)}}`, 8), 'tensor "a"'],
    ["a hole between tensors", file(`{"a":${f32(0, 4)},"b":${f32(8, 12)}}`, 12), 'tensor "b"'],
    ["bytes after the last tensor", file(`{"a":${f32(0, 4)}}`, 5), undefined],
    ["bytes without tensors", file("{}", 1), undefined],
    ["tensors that overlap", file(`{"a":${f32(0, 8, "[2]")},"b":${f32(4, 8)}}`, 8), 'tensor "b"'],
    ["two tensors at one place", file(`{"a":${f32(0, 4)},"b":${f32(0, 4)}}`, 4), 'tensor "b"'],
    [
      "an empty tensor within another",
      file(`{"a":${f32(0, 8, "[2]")},"b":${f32(4, 4, "[0]")}}`, 8),
      'tensor "b"',
    ],
    ["half a byte", file('{"a":{"dtype":"F4","shape":[1],"data_offsets":[0,1]}}', 1), 'tensor "a"'],
    ["deep nesting", file(`{"a":${"[".repeat(100_000)}`), "a"],
    ["deep nesting in metadata", file(`{"__metadata__":{"a":${'{"a":'.repeat(100_000)}`), "__metadata__.a"],
  ])("%s", async (_, bytes, field) => {
    expect((await fault(bytes)).field).toBe(field);
  });

  test("the message says what, where and why", async () => {
    const error = await fault(file(`{"w":${f32(0, 40, "[3,4]")}}`, 40));
    expect(error.message).toBe('bytes: tensor "w": data_offsets [0, 40] do not match F32 [3, 4] (48 bytes)');
    expect(error.offset).toBe(8 + 5);
  });

  test("names cannot flood a message", async () => {
    const name = "\\u0007".repeat(100_000);
    const error = await fault(file(`{"${name}":${f32(0, 8)}}`, 8));
    expect(error.message.length).toBeLessThan(1000);
  });

  test("a long claim reads nothing", async () => {
    const reads: number[] = [];
    const source: Source = {
      name: "huge",
      size: 2 ** 40,
      async read(_, length) {
        reads.push(length);
        return new Uint8Array([0, 0, 0, 0, 64, 0, 0, 0]).subarray(0, length);
      },
      async close() {},
    };
    await expect(parseSafetensors(source)).rejects.toThrow("more than the 100000000");
    expect(reads).toEqual([8]);
  });

  test("a large hostile header is refused fast", async () => {
    const flood = `{"__metadata__":{${Array.from({ length: 100_000 }, (_, i) => `"${i}":"x"`).join()}},"a":1}`;
    expect((await fault(file(flood))).field).toBe("a");
    await fault(file(`{"a":{"shape":[${"0,".repeat(5_000_000)}`));
  });

  test("tensors and metadata are bounded in number, as read and as written", async () => {
    const names = Array.from({ length: 2 ** 17 + 1 }, (_, i) => `"${i}":`);
    const empty = `{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`;
    const flood = await fault(file(`{${names.map((name) => name + empty).join()}}`));
    expect(flood.message).toContain("JSON has more than 131072 keys here");
    await fault(file(`{"__metadata__":{${names.map((name) => `${name}"x"`).join()}}}`));
    const specs = names.map((name) => ({ name, dtype: "U8", shape: [0], bytes: new Uint8Array() }) as const);
    expect(() => encodeSafetensors(specs)).toThrow("safetensors: more than 131072 tensors in a file");
  });
});

describe("what the format allows", () => {
  test("no tensors, empty tensors, scalars, trailing space", async () => {
    expect((await parseSafetensors(file("{}"))).entries.size).toBe(0);
    const text = `{"a":${f32(0, 0, "[0,9007199254740991]")},"b":${f32(0, 4, "[]")},"c":${f32(4, 4, "[0]")}}   \n`;
    expect((await parseSafetensors(file(text, 4))).entries.get("a")?.shape).toEqual([0, 2 ** 53 - 1]);
  });

  test("any order of tensors, and names of Object.prototype", async () => {
    const text = `{"__proto__":${f32(4, 8)},"constructor":${f32(0, 4)},"":${f32(8, 12)}}`;
    const { entries } = await parseSafetensors(file(text, 12));
    expect([...entries.keys()]).toEqual(["__proto__", "constructor", ""]);
    const odd = await parseSafetensors(file('{"__metadata__":{"__proto__":"x"}}'));
    expect(Object.getPrototypeOf(odd.metadata)).toBeNull();
    expect(Object.entries(odd.metadata)).toEqual([["__proto__", "x"]]);
  });

  test("dtypes narrower than a byte", async () => {
    const text = '{"a":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}}';
    expect((await parseSafetensors(file(text, 3))).entries.get("a")?.dtype).toBe("F6_E2M3");
  });
});

describe("mutations", () => {
  test("any changed byte, cut or insertion ends in success or a FormatError", async () => {
    const position = fc.nat(reference.length - 1);
    // Most of the file is header, and most faults sit there.
    const edit = fc.tuple(fc.constantFrom("set", "cut", "insert", "swap"), position, fc.nat(255), position);
    await fc.assert(
      fc.asyncProperty(fc.array(edit, { minLength: 1, maxLength: 3 }), async (edits) => {
        let bytes = [...reference];
        for (const [kind, at, value, other] of edits) {
          if (kind === "set") bytes[at] = value;
          else if (kind === "cut") bytes = bytes.slice(0, at);
          else if (kind === "insert") bytes.splice(at, 0, value);
          else [bytes[at], bytes[other]] = [bytes[other] ?? 0, bytes[at] ?? 0];
        }
        const opened = await parseSafetensors(Uint8Array.from(bytes)).catch((e) => e);
        if (opened instanceof FormatError) return;
        expect(opened).not.toBeInstanceOf(Error);
        for (const name of opened.entries.keys()) await opened.readBytes(name);
      }),
      { numRuns: 2000 },
    );
  });

  test("every single bit flip of the header", async () => {
    const end = 8 + Number(new DataView(reference.buffer).getBigUint64(0, true));
    for (let bit = 0; bit < 8 * end; bit++) {
      const bytes = reference.slice();
      bytes[bit >> 3] ^= 1 << (bit & 7);
      const opened = await parseSafetensors(bytes).catch((e) => e);
      if (opened instanceof Error && !(opened instanceof FormatError)) throw opened;
    }
  });
});

describe("encodeSafetensors refuses", () => {
  const tensor = { name: "a", dtype: "F32" as const, shape: [1], bytes: new Uint8Array(4) };
  test.each<[string, () => unknown]>([
    ["a reserved name", () => encodeSafetensors([{ ...tensor, name: "__metadata__" }])],
    ["half a surrogate pair", () => encodeSafetensors([{ ...tensor, name: "\ud800" }])],
    ["two of a name", () => encodeSafetensors([tensor, tensor])],
    ["bytes that do not fit", () => encodeSafetensors([{ ...tensor, shape: [2] }])],
    ["a negative axis", () => encodeSafetensors([{ ...tensor, shape: [-1, -1] }])],
    ["a fractional axis", () => encodeSafetensors([{ ...tensor, shape: [0.5, 2] }])],
    ["an unknown dtype", () => encodeSafetensors([{ ...tensor, dtype: "toString" as "F32" }])],
    ["metadata that is no string", () => encodeSafetensors([tensor], { a: 1 as unknown as string })],
    ["metadata that is not Unicode", () => encodeSafetensors([tensor], { a: "\udc00" })],
  ])("%s", (_, run) => {
    expect(run).toThrow(ArgumentError);
  });
});
