// GGUF files that are not what they say: each ends in a FormatError with file, offset and field, after few bytes read and
// little memory taken, however large the numbers in it are.

import { readFileSync } from "node:fs";
import { FormatError, init } from "@nomoat/core";
import type { Source } from "@nomoat/core/io";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readGguf } from "../src/gguf/index.js";

const golden = new Uint8Array(readFileSync(new URL("./fixtures/tiny.gguf", import.meta.url)));

beforeAll(() => init({ backend: "reference" }));
afterAll(() => init({ backend: "wasm" }));

/** Memory beyond the file that a refusal may take; error, stack and what the runtime does meanwhile included. */
const mostMemory = 4 * 2 ** 20;

/** JavaScript's heap and what buffers hold outside it. Garbage counts: it was taken. */
function memoryInUse(): number {
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

/** What reading takes, and what comes of it. */
async function attempt(source: Uint8Array | Source): Promise<{ outcome: unknown; memory: number }> {
  const before = memoryInUse();
  const outcome = await readGguf(source).catch((thrown: unknown) => thrown);
  return { outcome, memory: memoryInUse() - before };
}

/** A file of `size` bytes that begins with `start`, with zeros behind it; counts what is read. */
function vastFile(start: Uint8Array, size: number): Source & { bytesRead: number } {
  return {
    ...{ name: "vast", size, bytesRead: 0 },
    async read(offset, length) {
      this.bytesRead += length;
      const out = new Uint8Array(length);
      out.set(start.subarray(offset, offset + length));
      return out;
    },
    async close() {},
  };
}

/** A file's bytes, piece by piece: numbers of 4 bytes, bigints of 8, text with its length. */
function file(...pieces: (number | bigint | string | Uint8Array)[]): Uint8Array {
  const bytes = pieces.flatMap((piece): number[] => {
    if (piece instanceof Uint8Array) return [...piece];
    if (typeof piece === "number") return [...new Uint8Array(Uint32Array.of(piece).buffer)];
    if (typeof piece === "bigint") return [...new Uint8Array(BigUint64Array.of(piece).buffer)];
    const text = new TextEncoder().encode(piece);
    return [...new Uint8Array(BigUint64Array.of(BigInt(text.length)).buffer), ...text];
  });
  return Uint8Array.from(bytes);
}
const magic = new TextEncoder().encode("GGUF");
const header = (tensors: bigint, values: bigint, ...rest: Parameters<typeof file>) =>
  file(magic, 3, tensors, values, ...rest, new Uint8Array(256));

describe("hostile headers", () => {
  const info = (name: string, dims: bigint[], type: number, offset: bigint) =>
    file(name, dims.length, ...dims, type, offset);
  const nested = (depth: number) => Array.from({ length: depth }, () => [9, 1n] as const).flat();
  const cases: [string, Uint8Array, RegExp][] = [
    ["nothing", new Uint8Array(), /magic/],
    ["another format", file("hello"), /does not begin with "GGUF"/],
    ["version 1", file(magic, 1, 0, 0), /version 1 is not read/],
    ["version 4", file(magic, 4, 0n, 0n), /version 4 is not read/],
    ["big-endian", file(magic, 3 << 24, 0n, 0n), /big-endian/],
    ["countless tensors", header(2n ** 64n - 1n, 0n), /tensor_count/],
    ["countless values", header(0n, 2n ** 63n), /metadata_kv_count/],
    ["a giant key", header(0n, 1n, 2n ** 40n), /metadata key 0/],
    ["a giant string", header(0n, 1n, "k", 8, 2n ** 62n), /metadata "k"/],
    ["a giant array", header(0n, 1n, "k", 9, 6, 2n ** 62n), /metadata "k"/],
    ["an array of giants", header(0n, 1n, "k", 9, 8, 3n, 2n ** 62n), /metadata "k"/],
    ["an unknown value type", header(0n, 1n, "k", 13), /unknown metadata type 13/],
    ["an unknown element type", header(0n, 1n, "k", 9, 99, 1n), /unknown metadata type 99/],
    ["deep arrays", header(0n, 1n, "k", 9, ...nested(16), 0, 1n), /nested more than 4 deep/],
    ["a bool of 2", header(0n, 1n, "k", 7, 2), /a bool is 0 or 1/],
    ["a duplicate key", header(0n, 2n, "k", 4, 1, "k", 4, 1), /metadata "k": appears twice/],
    ["text that is no UTF-8", header(0n, 1n, 1n, Uint8Array.of(0xff), 4, 1), /not valid UTF-8/],
    ["alignment 0", header(0n, 1n, "general.alignment", 4, 0), /power of two/],
    ["alignment 24", header(0n, 1n, "general.alignment", 4, 24), /power of two/],
    ["a textual alignment", header(0n, 1n, "general.alignment", 8, "32"), /must be uint32/],
    ["five dims", header(1n, 0n, info("w", [1n, 1n, 1n, 1n, 1n], 0, 0n)), /5 dimensions/],
    ["countless dims", header(1n, 0n, "w", 2 ** 32 - 1), /4294967295 dimensions/],
    [
      "dims that overflow",
      header(1n, 0n, info("w", [2n ** 33n, 2n ** 33n], 0, 0n)),
      /tensor "w".*bytes left/,
    ],
    ["dims that wrap to 0", header(1n, 0n, info("w", [2n ** 32n, 2n ** 32n], 0, 0n)), /bytes left/],
    ["a giant beside a zero", header(1n, 0n, info("w", [2n ** 63n, 0n], 0, 0n)), /bytes left/],
    ["an unknown type", header(1n, 0n, info("w", [1n], 77, 0n)), /unknown type 77/],
    ["a removed type", header(1n, 0n, info("w", [1n], 4, 0n)), /unknown type 4/],
    ["a type not read", header(1n, 0n, info("w", [256n], 20, 0n)), /IQ4_NL is not read/],
    ["part of a block", header(1n, 0n, info("w", [31n], 8, 0n)), /multiple of 32/],
    ["a crooked offset", header(1n, 0n, info("w", [1n], 0, 4n)), /no multiple of the alignment/],
    ["an offset past the end", header(1n, 0n, info("w", [1n], 0, 2n ** 63n)), /do not fit/],
    ["data past the end", header(1n, 0n, info("w", [64n], 0, 64n)), /do not fit/],
    ["one name twice", header(2n, 0n, info("w", [1n], 0, 0n), info("w", [1n], 0, 32n)), /"w": appears twice/],
    ["an overlap", header(2n, 0n, info("a", [9n], 0, 0n), info("b", [1n], 0, 32n)), /"b": overlaps "a"/],
  ];

  it.each(cases)("%s", async (_, bytes, message) => {
    const { outcome: error, memory } = await attempt(bytes);
    expect(memory).toBeLessThan(mostMemory);
    expect(error).toBeInstanceOf(FormatError);
    expect((error as FormatError).message).toMatch(message);
    expect((error as FormatError).file).toBe("gguf");
    expect((error as FormatError).offset).toEqual(expect.any(Number));
    expect((error as FormatError).field).toEqual(expect.any(String));
  });

  it("names a tensor that is not there, and an integer beyond int32", async () => {
    const bytes = header(1n, 0n, info("w", [1n], 27, 0n)).fill(0x7f, -256);
    const gguf = await readGguf(bytes);
    await expect(gguf.load("v")).rejects.toThrow('tensor "v": there is no such tensor among the 1');
    await expect(gguf.load("w")).rejects.toThrow("beyond int32");
  });

  // A file that is large itself, so that no number in its header is larger than what is left of it.
  const vast: [string, Uint8Array, RegExp][] = [
    ["tensors", header(65537n, 0n), /tensor_count: 65537 is more than the 65536 that are allowed/],
    ["values", header(0n, 65537n), /metadata_kv_count: 65537 is more than/],
    ["a key", header(0n, 1n, 2n ** 30n), /metadata key 0: 1073741824 is more than/],
    ["a text", header(0n, 1n, "k", 8, 2n ** 30n), /header exceeds 50331648 bytes/],
    ["numbers", header(0n, 1n, "k", 9, 10, 2n ** 30n), /header exceeds 50331648 bytes/],
    ["texts", header(0n, 1n, "k", 9, 8, 2n ** 30n), /metadata "k": 1073741824 is more than/],
    ["bools", header(0n, 1n, "k", 9, 7, 2n ** 30n), /metadata "k": 1073741824 is more than/],
    ["arrays of arrays", header(0n, 1n, "k", 9, 9, 2n ** 30n), /metadata "k": 1073741824 is more than/],
    ["a name", header(1n, 0n, 2n ** 30n), /tensor name 0: 1073741824 is more than/],
  ];

  it.each(vast)("more %s than there may be, in a file of a terabyte", async (_, start, message) => {
    const source = vastFile(start, 2 ** 40);
    const { outcome, memory } = await attempt(source);
    expect(outcome).toBeInstanceOf(FormatError);
    expect((outcome as FormatError).message).toMatch(message);
    // The first piece of the file is all that it takes to see.
    expect(source.bytesRead).toBe(2 ** 16);
    expect(memory).toBeLessThan(mostMemory);
  });

  it("as many names as fit, all of them wrong: what is read is bounded", async () => {
    // Zeros: keys without text, refused at the first.
    const empty = vastFile(header(65536n, 65536n), 2 ** 40);
    expect((await attempt(empty)).outcome).toBeInstanceOf(FormatError);
    expect(empty.bytesRead).toBe(2 ** 16);
    // A text of 40 MiB is within a header's bounds, and what comes after it is wrong.
    const long = vastFile(header(0n, 2n, "k", 8, BigInt(40 * 2 ** 20)), 2 ** 40);
    const { outcome, memory } = await attempt(long);
    expect((outcome as FormatError).message).toMatch(/metadata key 1: is empty/);
    expect(long.bytesRead).toBeLessThan(2 * 48 * 2 ** 20);
    expect(memory).toBeLessThan(3 * 48 * 2 ** 20);
  });

  it("any mutation ends in a FormatError or a valid file, and takes little", async () => {
    const mutation = fc.record({ at: fc.nat(golden.length - 1), byte: fc.nat(255) });
    const mutations = fc.array(mutation, { minLength: 1, maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(mutations, fc.nat(golden.length), async (changes, end) => {
        const bytes = golden.slice(0, end % 3 === 0 ? end : undefined);
        for (const { at, byte } of changes) if (at < bytes.length) bytes[at] = byte;
        const source = vastFile(bytes, bytes.length);
        const { outcome, memory } = await attempt(source);
        expect(memory).toBeLessThan(mostMemory);
        expect(source.bytesRead).toBeLessThanOrEqual(bytes.length);
        if (outcome instanceof Error) {
          expect(outcome).toBeInstanceOf(FormatError);
          return;
        }
        const gguf = outcome as Awaited<ReturnType<typeof readGguf>>;
        for (const name of gguf.tensors.keys()) {
          await gguf.load(name).then(
            (loaded) => loaded.dispose(),
            (error) => expect(error).toBeInstanceOf(FormatError),
          );
        }
      }),
      { numRuns: 1000 },
    );
  });

  it("every bit of the header, flipped, ends in a FormatError or a valid file", async () => {
    const { tensors } = await readGguf(golden);
    const end = Math.min(...Array.from(tensors.values(), ({ offset }) => offset));
    for (let bit = 0; bit < 8 * end; bit++) {
      const bytes = golden.slice();
      bytes[bit >> 3] ^= 1 << (bit & 7);
      const outcome = await readGguf(bytes).catch((thrown: unknown) => thrown);
      if (outcome instanceof Error && !(outcome instanceof FormatError)) throw outcome;
    }
  });
});
