// GGUF: against a file of an independent writer, round trips, hostile headers.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ArgumentError, init, memoryStats, type Tensor, tensor, tidy } from "@nomoat/core";
import type { Source } from "@nomoat/core/io";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type GgufBytes, type GgufValue, readGguf, serializeGguf, writeGguf } from "../src/gguf/index.js";
import { QuantizedTensor, quantize } from "../src/index.js";
import { bellTensor } from "./helpers.js";

const golden = new Uint8Array(readFileSync(new URL("./fixtures/tiny.gguf", import.meta.url)));

beforeAll(() => init({ backend: "reference" }));
afterAll(() => init({ backend: "wasm" }));

async function values(name: string): Promise<number[]> {
  const gguf = await readGguf(golden);
  const loaded = (await gguf.load(name)) as Tensor;
  const list = tidy(() => Array.from(loaded.cast("float32").dataSync() as Float32Array));
  loaded.dispose();
  return list;
}

describe("a file of the independent writer", () => {
  it("gives its metadata with types", async () => {
    const { metadata, version } = await readGguf(golden);
    expect(version).toBe(3);
    expect(metadata.get("general.alignment")).toEqual({ type: "uint32", value: 64 });
    expect(metadata.get("t.u64")).toEqual({ type: "uint64", value: 2n ** 64n - 1n });
    expect(metadata.get("t.i64")).toEqual({ type: "int64", value: -(2n ** 63n) });
    expect(metadata.get("t.f64")).toEqual({ type: "float64", value: 0.1 });
    expect(metadata.get("t.i8")).toEqual({ type: "int8", value: -128 });
    expect(metadata.get("t.bool")).toEqual({ type: "bool", value: true });
    expect(metadata.get("t.words")).toEqual({ type: "array", of: "string", value: ["", "a", "▁é"] });
    expect(metadata.get("t.floats")).toEqual({
      ...{ type: "array", of: "float32", value: Float32Array.of(1.5, -2) },
    });
    expect(metadata.get("t.nested")).toMatchObject({
      ...{ of: "array", value: [{ value: Int32Array.of(1, 2) }, { value: Int32Array.of() }] },
    });
  });

  it("gives its tensors, dims reversed", async () => {
    const { tensors } = await readGguf(golden);
    expect(tensors.get("f32")).toMatchObject({ shape: [2, 3], type: "F32", bytes: 24 });
    expect(tensors.get("i32")?.shape).toEqual([2, 1, 1, 1]);
    expect(tensors.get("scalar")?.shape).toEqual([]);
    expect(await values("f32")).toEqual([0, 1, 2, 3, 4, 5]);
    expect(await values("f16")).toEqual([1, -2.5]);
    expect(await values("bf16")).toEqual([1, -2.5]);
    expect(await values("f64")).toEqual([Math.fround(0.1)]);
    expect(await values("i8")).toEqual([-1, 0, 127]);
    expect(await values("i16")).toEqual([-32768, 5]);
    expect(await values("i32")).toEqual([-7, 9]);
    expect(await values("i64")).toEqual([-3]);
    expect(await values("scalar")).toEqual([42]);
  });

  it("gives matrices of quantized types packed, or in float32 on request", async () => {
    const gguf = await readGguf(golden);
    const packed = await gguf.load("q8_0");
    if (!(packed instanceof QuantizedTensor)) throw new Error("not packed");
    expect(packed.format.name).toBe("q8_0");
    expect(packed.shape).toEqual([2, 64]);
    const dense = await gguf.load("q8_0", { dequantize: true });
    const expected = packed.dequantize();
    expect(dense.dataSync()).toEqual(expected.dataSync());
    for (const each of [packed, dense, expected]) each.dispose();
  });

  it("is written byte for byte", async () => {
    const gguf = await readGguf(golden);
    const tensors = new Map<string, GgufBytes>();
    for (const [name, { type, shape }] of gguf.tensors) {
      tensors.set(name, { type, shape, bytes: await gguf.readBytes(name) });
    }
    expect(await serializeGguf({ metadata: gguf.metadata, tensors })).toEqual(golden);
  });
});

describe("files", () => {
  it("come back as they were written, atomically, and only what is asked for is read", async () => {
    const folder = mkdtempSync(join(tmpdir(), "gguf-"));
    const path = join(folder, "model.gguf");
    const dense = bellTensor([3, 32], 1);
    const packed = quantize(dense, { format: "q4_1" });
    const large = tensor(new Float32Array(100_000));
    const tensors = new Map<string, Tensor | QuantizedTensor>(Object.entries({ large, dense, packed }));
    try {
      writeFileSync(path, "before");
      const nf4 = quantize(dense, { format: "nf4" });
      await expect(writeGguf(path, { tensors: new Map([["w", nf4]]) })).rejects.toThrow("GGUF has no nf4");
      nf4.dispose();
      expect(readFileSync(path, "utf8")).toBe("before");
      await writeGguf(path, { tensors, version: 2 });
      const bytes = new Uint8Array(readFileSync(path));
      expect(Buffer.compare(bytes, await serializeGguf({ tensors, version: 2 }))).toBe(0);

      const before = memoryStats().bytes;
      const gguf = await readGguf(path);
      const again = await gguf.load("packed");
      if (!(again instanceof QuantizedTensor)) throw new Error("not packed");
      expect(again.parts.get("data")?.dataSync()).toEqual(packed.parts.get("data")?.dataSync());
      again.dispose();
      expect(memoryStats().bytes).toBe(before);
      await gguf.close();

      let read = 0;
      const source: Source = {
        name: "counted",
        size: bytes.length,
        read: async (offset, length) => {
          read += length;
          return bytes.subarray(offset, offset + length);
        },
        close: async () => {},
      };
      (await (await readGguf(source)).load("dense")).dispose();
      expect(read).toBeLessThan(2 ** 16 + 1000);
    } finally {
      for (const each of tensors.values()) each.dispose();
      rmSync(folder, { recursive: true });
    }
  });

  it("take any metadata", async () => {
    const integer = fc.integer({ min: -128, max: 127 });
    const scalar: fc.Arbitrary<GgufValue> = fc.oneof(
      fc.record({ type: fc.constant("string" as const), value: fc.string({ unit: "grapheme" }) }),
      fc.record({ type: fc.constant("bool" as const), value: fc.boolean() }),
      fc.record({ type: fc.constantFrom("int8" as const, "int16", "int32"), value: integer }),
      fc.record({ type: fc.constant("float64" as const), value: fc.double() }),
      fc.record({
        type: fc.constant("int64" as const),
        value: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
      }),
      fc.record({
        ...{ type: fc.constant("array" as const), of: fc.constant("string" as const) },
        value: fc.array(fc.string({ unit: "grapheme" })),
      }),
    );
    const key = fc.string({ minLength: 1 }).filter((name) => name !== "general.alignment");
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(key, scalar)), async (pairs) => {
        const metadata = new Map(pairs);
        expect((await readGguf(await serializeGguf({ metadata }))).metadata).toEqual(metadata);
      }),
      { numRuns: 100 },
    );
  });

  it.each<[GgufValue, RegExp]>([
    [{ type: "uint8", value: 256 }, /256 is no uint8/],
    [{ type: "int32", value: 0.5 }, /0.5 is no int32/],
    [{ type: "int64", value: 5 as never }, /expected int64|is no int64/],
    [{ type: "string", value: 5 as never }, /number is no string/],
    [{ type: "word" as "string", value: "" }, /expected \{ type, value \}/],
    [{ type: "array", of: "int8", value: [128] }, /128 is no int8/],
  ])("refuse %j", async (value, message) => {
    const written = serializeGguf({ metadata: { key: value } });
    await expect(written).rejects.toThrow(ArgumentError);
    await expect(serializeGguf({ metadata: { key: value } })).rejects.toThrow(message);
  });

  it("refuse names, alignments and bytes that the format cannot hold", async () => {
    const bytes: GgufBytes = { type: "F32", shape: [1], bytes: new Uint8Array(4) };
    const write = (name: string, given: GgufBytes, alignment = 32) =>
      serializeGguf({
        tensors: new Map([[name, given]]),
        metadata: { "general.alignment": { type: "uint32", value: alignment } },
      });
    await expect(write("x".repeat(64), bytes)).rejects.toThrow("1 to 63 bytes");
    await expect(write("x", bytes, 12)).rejects.toThrow("power of two");
    await expect(write("x", { ...bytes, shape: [2] })).rejects.toThrow("4 bytes are not F32 [2]");
    await expect(write("x", { ...bytes, shape: [1, 1, 1, 1, 1] })).rejects.toThrow("rank 5");
    await expect(write("x", { ...bytes, type: "Q4_0", shape: [16] })).rejects.toThrow("not Q4_0");
  });
});

describe("a model in several files", () => {
  let folder: string;
  const path = (part: number, of = 2) =>
    join(folder, `m-${String(part).padStart(5, "0")}-of-${String(of).padStart(5, "0")}.gguf`);
  const write = async (part: number, name: string, changes: Record<string, GgufValue> = {}) => {
    const metadata: Record<string, GgufValue> = {
      "split.no": { type: "uint16", value: part - 1 },
      "split.count": { type: "uint16", value: 2 },
      "split.tensors.count": { type: "int32", value: 2 },
      ...changes,
    };
    const bytes = new Uint8Array(Float32Array.of(part, 10 * part).buffer);
    const tensors = new Map<string, GgufBytes>([[name, { type: "F32", shape: [2], bytes }]]);
    await writeGguf(path(part), { metadata, tensors });
  };
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "gguf-split-"));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  it("is read as one, tensors from the file that holds them", async () => {
    await write(1, "a");
    await write(2, "b");
    const gguf = await readGguf(path(1));
    expect([...gguf.tensors.keys()]).toEqual(["a", "b"]);
    const [a, b] = [await gguf.load("a"), await gguf.load("b")];
    expect(Array.from((a as Tensor).dataSync())).toEqual([1, 10]);
    expect(Array.from((b as Tensor).dataSync())).toEqual([2, 20]);
    a.dispose();
    b.dispose();
    await expect(gguf.load("c")).rejects.toThrow("no such tensor among the 2");
    await gguf.close();
  });

  it("is refused where parts are missing or do not belong together", async () => {
    await write(1, "a");
    await write(2, "b");
    await expect(readGguf(path(2))).rejects.toThrow("is part 2 of 2: open the first");
    await expect(readGguf(new Uint8Array(readFileSync(path(1))))).rejects.toThrow("is the first of 2 parts");
    await write(2, "a");
    await expect(readGguf(path(1))).rejects.toThrow(/00002-of-00002.*tensor "a": is in an earlier part/);
    await write(2, "b", { "split.no": { type: "uint16", value: 0 } });
    await expect(readGguf(path(1))).rejects.toThrow('metadata "split.no": must be 1 here, not 0');
    await write(2, "b");
    await write(1, "a", { "split.tensors.count": { type: "int32", value: 3 } });
    await expect(readGguf(path(1))).rejects.toThrow("the parts hold 2 tensors, not 3");
    await write(1, "a", { "split.count": { type: "string", value: "2" } });
    await expect(readGguf(path(1))).rejects.toThrow("must be a whole number");
    await write(1, "a");
    rmSync(path(2));
    await expect(readGguf(path(1))).rejects.toMatchObject({ code: "IO" });
  });
});
