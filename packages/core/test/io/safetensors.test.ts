// Tensors to and from safetensors files, whole and sharded.

import { mkdtemp, open, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { afterAll, afterEach, beforeEach, describe, expect, test } from "vitest";
import { type BackendName, backendByName, shutdown, withBackend } from "../../src/backend/registry.js";
import { arange, full, ones, tensor, zeros } from "../../src/creation.js";
import type { DType } from "../../src/dtype.js";
import { ArgumentError, DisposedError, DTypeError, FormatError, NomoatError } from "../../src/errors.js";
import {
  encodeSafetensors,
  loadSafetensors,
  openSafetensors,
  parseSafetensors,
  saveSafetensors,
  saveShardedSafetensors,
  serializeSafetensors,
} from "../../src/io/safetensors.js";
import type { Tensor } from "../../src/tensor.js";

const referencePath = fileURLToPath(new URL("./fixtures/reference.safetensors", import.meta.url));
let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "nomoat-safetensors-"));
});
afterEach(() => rm(folder, { recursive: true }));
afterAll(() => shutdown());

const valuesOf = async (t: Tensor | undefined) => Array.from((await t?.data()) ?? []);

/** toEqual takes minutes over millions of elements. */
function sameBytes(a: ArrayBufferView | undefined, b: ArrayBufferView): boolean {
  return a !== undefined && Buffer.compare(bufferOf(a), bufferOf(b)) === 0;
}

function bufferOf({ buffer, byteOffset, byteLength }: ArrayBufferView): Buffer {
  return Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength);
}

function dispose(tensors: ReadonlyMap<string, Tensor>): void {
  for (const t of tensors.values()) t.dispose();
}

describe.each<BackendName>(["reference", "wasm"])("%s backend", (device) => {
  const used = () => backendByName(device).memory().used;

  test("loads a file of the reference implementation", async () => {
    const before = used();
    const { tensors, metadata } = await loadSafetensors(referencePath, {
      device,
      names: (n) => n !== "wide",
    });
    expect({ ...metadata }).toEqual({ format: "pt" });
    expect(tensors.size).toBe(14);
    expect([...tensors.values()].every((t) => t.device === device)).toBe(true);
    const of = (name: string) => valuesOf(tensors.get(name));
    expect(await of("weight")).toEqual([1, -2, 0.5, 3, 4, Math.fround(1e-3)]);
    expect(tensors.get("weight")?.shape).toEqual([2, 3]);
    expect([tensors.get("half")?.dtype, await of("half")]).toEqual(["float16", [1.5, -65504]]);
    expect([tensors.get("brain")?.dtype, await of("brain")]).toEqual(["bfloat16", [1, -2]]);
    expect([tensors.get("long")?.dtype, await of("long")]).toEqual(["int32", [-5, 2 ** 31 - 1]]);
    expect([tensors.get("mask")?.dtype, await of("mask")]).toEqual(["bool", [1, 0, 1]]);
    expect(await of("tiny")).toEqual([-128, 127]);
    expect([tensors.get("scalar")?.shape, await of("scalar")]).toEqual([[], [42]]);
    expect(tensors.get("empty")?.shape).toEqual([0, 4]);
    dispose(tensors);
    expect(used()).toBe(before);
  });

  test("float tensors are cast, others are not", async () => {
    const { tensors } = await loadSafetensors(referencePath, { device, dtype: "float32" });
    const dtypes = Object.fromEntries([...tensors].map(([name, t]) => [name, t.dtype]));
    expect(dtypes).toMatchObject({
      wide: "float32",
      half: "float32",
      brain: "float32",
      ids: "int32",
      mask: "bool",
    });
    expect(await valuesOf(tensors.get("wide"))).toEqual([Math.fround(Math.PI), Number.NEGATIVE_INFINITY]);
    dispose(tensors);
  });

  test("what is saved is loaded, and are the same bytes again", async () => {
    const before = used();
    const dtypes: DType[] = ["float32", "float16", "bfloat16", "int32", "int8", "uint8", "bool"];
    const given = Object.fromEntries(dtypes.map((dtype) => [dtype, tensor([[1, 0, 1]], { dtype, device })]));
    const path = join(folder, "a.safetensors");
    await saveSafetensors(path, given, { note: "é" });
    const { tensors, metadata } = await loadSafetensors(path, { device });
    expect({ ...metadata }).toEqual({ note: "é" });
    for (const dtype of dtypes) {
      const loaded = tensors.get(dtype);
      expect([loaded?.dtype, loaded?.shape, await valuesOf(loaded)]).toEqual([dtype, [1, 3], [1, 0, 1]]);
    }
    expect(await serializeSafetensors(tensors, metadata)).toEqual(new Uint8Array(await readFile(path)));
    dispose(tensors);
    dispose(new Map(Object.entries(given)));
    expect(used()).toBe(before);
  });

  test("views are saved in their own order", async () => {
    const x = tensor([1, 2, 3, 4, 5, 6], { shape: [2, 3], device });
    const bytes = await serializeSafetensors({ t: x.transpose(0, 1) });
    const { tensors } = await loadSafetensors(bytes, { device });
    expect(tensors.get("t")?.toArray()).toEqual([
      [1, 4],
      [2, 5],
      [3, 6],
    ]);
  });

  test("larger tensors than one piece survive", async () => {
    const size = 5_000_001;
    const values = new Int32Array(size).map((_, i) => i * 7);
    const narrow = new Int32Array(size).map((_, i) => i - 9);
    const long = new BigInt64Array(size).map((_, i) => BigInt(i - 9));
    const bytes = encodeSafetensors([
      { name: "i", dtype: "I32", shape: [size], bytes: new Uint8Array(values.buffer) },
      { name: "l", dtype: "I64", shape: [size], bytes: new Uint8Array(long.buffer) },
    ]);
    const path = join(folder, "large.safetensors");
    await writeFile(path, bytes);
    const { tensors } = await loadSafetensors(path, { device });
    expect(sameBytes(await tensors.get("i")?.data(), values)).toBe(true);
    expect(sameBytes(await tensors.get("l")?.data(), narrow)).toBe(true);
    const again = join(folder, "again.safetensors");
    await saveSafetensors(again, { i: tensors.get("i") as Tensor });
    const read = await parseSafetensors(again);
    expect(sameBytes(await read.readBytes("i"), values)).toBe(true);
    await read.close();
    dispose(tensors);
  });

  test("a failed load leaves nothing allocated", async () => {
    const bytes = encodeSafetensors([
      { name: "a", dtype: "U64", shape: [2], bytes: new Uint8Array(16) },
      { name: "b", dtype: "I64", shape: [1], bytes: new Uint8Array([0, 0, 0, 128, 0, 0, 0, 0]) },
      { name: "c", dtype: "F32", shape: [100], bytes: new Uint8Array(400) },
    ]);
    const before = used();
    const error = await loadSafetensors(bytes, { device, names: ["c", "a", "b"] }).catch((e) => e);
    expect(error).toBeInstanceOf(FormatError);
    expect(error.message).toBe('bytes: tensor "b": I64 value 2147483648 at position 0 is beyond int32');
    expect(used()).toBe(before);
  });
});

test("float64 keeps its bits on the reference backend", async () => {
  const { tensors } = await loadSafetensors(referencePath, { device: "reference", names: ["wide"] });
  expect(await valuesOf(tensors.get("wide"))).toEqual([Math.PI, -1e300]);
  expect((await serializeSafetensors(tensors)).length).toBeGreaterThan(16);
});

test("float64 that the backend lacks is refused by name, with what to do", async () => {
  const t = tensor([1.5], { device: "reference", dtype: "float64" });
  const bytes = await serializeSafetensors({ a: t });
  t.dispose();
  await expect(loadSafetensors(bytes, { device: "wasm" })).rejects.toThrow(
    'bytes: tensor "a" is F64, which the wasm backend lacks; load it with { dtype: "float32" } or { device: "reference" }',
  );
});

test("the backend is the one active at the call", async () => {
  const { tensors } = await withBackend("reference", () => loadSafetensors(referencePath, { names: "bias" }));
  expect(tensors.get("bias")?.device).toBe("reference");
});

test("names choose", async () => {
  const load = (names: Iterable<string> | ((name: string) => boolean)) =>
    loadSafetensors(referencePath, { names, device: "reference" });
  expect([...(await load(["weight", "bias", "weight"])).tensors.keys()]).toEqual(["weight", "bias"]);
  expect([...(await load((name) => name.startsWith("b"))).tensors.keys()]).toEqual([
    "bias",
    "brain",
    "bytes",
  ]);
  const error = await load(["absent"]).catch((e) => e);
  expect(error).toBeInstanceOf(FormatError);
  expect(error.message).toContain('tensor "absent": is not in the file');
});

test("every source gives the same", async () => {
  const bytes = new Uint8Array(await readFile(referencePath));
  const handle = await open(referencePath);
  for (const source of [bytes, bytes.buffer, new Blob([bytes]), handle, pathToFileURL(referencePath)]) {
    const { tensors } = await loadSafetensors(source, { names: ["ids"], device: "reference" });
    expect(await valuesOf(tensors.get("ids"))).toEqual([-1, 2]);
  }
  await handle.close();
  // Bytes at an odd place of their buffer.
  const odd = new Uint8Array(bytes.length + 1);
  odd.set(bytes, 1);
  const { tensors } = await loadSafetensors(odd.subarray(1), { device: "reference" });
  expect(await valuesOf(tensors.get("long"))).toEqual([-5, 2 ** 31 - 1]);
});

test("dtypes without a counterpart are refused when loaded, not when listed", async () => {
  const bytes = encodeSafetensors([
    { name: "f8", dtype: "F8_E4M3", shape: [2], bytes: new Uint8Array([1, 2]) },
    { name: "u16", dtype: "U16", shape: [1], bytes: new Uint8Array([255, 255]) },
    { name: "odd", dtype: "BOOL", shape: [2], bytes: new Uint8Array([0, 7]) },
  ]);
  const file = await openSafetensors(bytes);
  expect(file.entries.get("f8")).toMatchObject({ dtype: "F8_E4M3", shape: [2] });
  expect([...(await file.readBytes("f8"))]).toEqual([1, 2]);
  const error = await file.load("f8", { device: "reference" }).catch((e) => e);
  expect(error).toBeInstanceOf(FormatError);
  expect(error.field).toBe('tensor "f8"');
  expect(await valuesOf(await file.load("u16", { device: "reference" }))).toEqual([65535]);
  expect(await valuesOf(await file.load("odd", { device: "reference" }))).toEqual([0, 1]);
  await file.close();
});

test("wrong options are named", async () => {
  await expect(loadSafetensors(referencePath, { dtype: "int8" })).rejects.toThrow(DTypeError);
  await expect(loadSafetensors(referencePath, { dtype: "f32" as DType })).rejects.toThrow(DTypeError);
  await expect(loadSafetensors(join(folder, "absent"))).rejects.toThrow(NomoatError);
  await expect(loadSafetensors(folder)).rejects.toThrow("has neither model.safetensors nor");
  await expect(loadSafetensors(new URL("https://example.org/a"))).rejects.toThrow(ArgumentError);
});

describe("saving", () => {
  test("what cannot be saved leaves the old file", async () => {
    const path = join(folder, "a.safetensors");
    const good = tensor([1, 2], { device: "reference" });
    const gone = tensor([3], { device: "reference" });
    gone.dispose();
    await saveSafetensors(path, { good });
    const before = await readFile(path);
    await expect(saveSafetensors(path, { good, gone })).rejects.toThrow(DisposedError);
    await expect(saveSafetensors(path, { __metadata__: good })).rejects.toThrow(ArgumentError);
    await expect(saveSafetensors(path, { a: 5 as never })).rejects.toThrow(ArgumentError);
    await expect(saveSafetensors(join(folder, "no", "a"), { good })).rejects.toThrow(NomoatError);
    expect(await readFile(path)).toEqual(before);
    expect(await readdir(folder)).toEqual(["a.safetensors"]);
    good.dispose();
    expect(backendByName("reference").memory().used).toBeGreaterThanOrEqual(0);
  });

  test("a tensor disposed meanwhile is written all the same", async () => {
    const before = backendByName("reference").memory().used;
    const x = tensor([1, 2, 3], { device: "reference" });
    const saving = saveSafetensors(join(folder, "a.safetensors"), { x });
    x.dispose();
    await saving;
    expect(backendByName("reference").memory().used).toBe(before);
    const { tensors } = await loadSafetensors(join(folder, "a.safetensors"), { device: "reference" });
    expect(await valuesOf(tensors.get("x"))).toEqual([1, 2, 3]);
  });

  test("gradients are not recorded", async () => {
    const x = zeros([2, 3], { device: "reference", requiresGrad: true });
    expect((await serializeSafetensors({ x: x.transpose(0, 1) })).length).toBeGreaterThan(24);
  });
});

describe("shards", () => {
  const shard = (name: string, value: number, metadata?: Record<string, string>) =>
    encodeSafetensors([{ name, dtype: "U8", shape: [1], bytes: new Uint8Array([value]) }], metadata);
  const index = (map: Record<string, unknown>, rest = {}) => JSON.stringify({ ...rest, weight_map: map });
  const indexName = "model.safetensors.index.json";

  async function write(files: Record<string, string | Uint8Array>): Promise<void> {
    for (const [name, content] of Object.entries(files)) await writeFile(join(folder, name), content);
  }

  const good = {
    "model-00001-of-00002.safetensors": shard("a", 1, { format: "pt", x: "1" }),
    "model-00002-of-00002.safetensors": shard("b", 2, { format: "other", y: "2" }),
    [indexName]: index(
      { b: "model-00002-of-00002.safetensors", a: "model-00001-of-00002.safetensors" },
      { metadata: { total_size: 2 } },
    ),
  };

  test("a folder, its index, and a map of files", async () => {
    await write(good);
    const map = new Map(
      Object.entries(good).map(([name, content]) => [name, new Blob([content as Uint8Array<ArrayBuffer>])]),
    );
    for (const source of [folder, join(folder, indexName), map]) {
      const { tensors, metadata } = await loadSafetensors(source, { device: "reference" });
      expect([...tensors.keys()]).toEqual(["b", "a"]);
      expect(await valuesOf(tensors.get("a"))).toEqual([1]);
      expect({ ...metadata }).toEqual({ format: "other", x: "1", y: "2" });
    }
    await write({ "model.safetensors": shard("whole", 3) });
    expect([...(await openSafetensors(folder)).entries.keys()]).toEqual(["whole"]);
  });

  test.each<[string, string, string]>([
    ["leads out of the folder", index({ a: "../model-00001-of-00002.safetensors" }), "plain name"],
    ["is absolute", index({ a: "/etc/passwd" }), "plain name"],
    ["is on another drive", index({ a: "C:x.safetensors" }), "plain name"],
    ["is no string", index({ a: 1 }), "expected string"],
    ["lacks the tensor", index({ z: "model-00001-of-00002.safetensors" }), "is not in the file"],
    ["has no weight_map", "{}", "weight_map is missing"],
    ["is no object", "[]", "expected object"],
    ["names a tensor twice", '{"weight_map":{"a":"x","a":"y"}}', "twice"],
  ])("an index that %s is refused", async (_, content, message) => {
    await write({ ...good, [indexName]: content });
    const error = await loadSafetensors(folder, { device: "reference" }).catch((e) => e);
    expect(error).toBeInstanceOf(FormatError);
    expect(error.message).toContain(message);
    expect(error.file.startsWith(folder)).toBe(true);
  });

  test("are written as they are read, by Hugging Face's names", async () => {
    const tensors = new Map([
      ["a", ones([10])],
      ["b", full([3], 2)],
      ["c", arange(100)],
      ["d", zeros([0])],
      ["e", full([8], 3)],
    ]);
    const path = join(folder, "sharded");
    const names = await saveShardedSafetensors(path, tensors, {
      maxShardBytes: 60,
      metadata: { format: "pt" },
    });
    const shardNames = [1, 2, 3].map((i) => `model-0000${i}-of-00003.safetensors`);
    expect(names).toEqual([...shardNames, "model.safetensors.index.json"]);
    expect((await readdir(path)).sort()).toEqual([...names].sort());
    const index = JSON.parse(await readFile(join(path, names[3]), "utf8"));
    expect(index.metadata.total_size).toBe(4 * (10 + 3 + 100 + 8));
    const shardOf = (name: string) => shardNames.indexOf(index.weight_map[name]);
    expect(["a", "b", "c", "d", "e"].map(shardOf)).toEqual([0, 0, 1, 1, 2]);
    const loaded = await loadSafetensors(path);
    expect(loaded.metadata).toEqual({ format: "pt" });
    for (const [name, tensor] of tensors)
      expect(loaded.tensors.get(name)!.toArray()).toEqual(tensor.toArray());

    const whole = join(folder, "whole");
    expect(await saveShardedSafetensors(whole, tensors)).toEqual(["model.safetensors"]);
    await expect(saveShardedSafetensors(whole, tensors, { maxShardBytes: 60 })).rejects.toThrow(
      /holds model\.safetensors, which readers would take instead of 3 shards/,
    );
    expect(await readdir(whole)).toEqual(["model.safetensors"]);
    await expect(saveShardedSafetensors(whole, tensors, { maxShardBytes: 0 })).rejects.toThrow(
      "maxShardBytes must be above 0, not 0",
    );
    for (const tensor of [...tensors.values(), ...loaded.tensors.values()]) tensor.dispose();
  });

  test("a missing shard is named", async () => {
    await write({ [indexName]: index({ a: "absent.safetensors" }) });
    await expect(loadSafetensors(folder)).rejects.toThrow("absent.safetensors");
  });
});
