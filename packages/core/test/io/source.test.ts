import { mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ArgumentError, FormatError, NomoatError } from "../../src/errors.js";
import { Reader, readPrefix } from "../../src/io/reader.js";
import { openSource, type Source, type SourceLike } from "../../src/io/source.js";

const content = Uint8Array.from({ length: 1000 }, (_, i) => i % 251);
let folder: string;
let path: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "nomoat-source-"));
  path = join(folder, "content.bin");
  await writeFile(path, content);
});
afterAll(() => rm(folder, { recursive: true }));

describe("openSource", () => {
  const kinds: [string, () => SourceLike | Promise<SourceLike>][] = [
    ["path", () => path],
    ["file: URL", () => pathToFileURL(path)],
    ["Uint8Array", () => content],
    ["ArrayBuffer", () => content.slice().buffer],
    ["Blob", () => new Blob([content])],
    ["File", () => new File([content], "content.bin")],
    ["picked file", () => ({ getFile: async () => new File([content], "content.bin") })],
    ["Source", () => openSource(content)],
  ];

  test.each(kinds)("reads parts of a %s", async (_, make) => {
    const source = await openSource(await make());
    expect(source.size).toBe(1000);
    expect([...(await source.read(10, 5))]).toEqual([10, 11, 12, 13, 14]);
    expect((await source.read(1000, 0)).length).toBe(0);
    await expect(source.read(998, 3)).rejects.toThrow(FormatError);
    await expect(source.read(2000, 0)).rejects.toThrow(FormatError);
    await expect(source.read(-1, 1)).rejects.toThrow(ArgumentError);
    await source.close();
  });

  test("an open file stays open", async () => {
    const handle = await open(path);
    const source = await openSource(handle);
    expect([...(await source.read(999, 1))]).toEqual([content[999]]);
    await source.close();
    expect((await handle.stat()).size).toBe(1000);
    await handle.close();
  });

  test("what cannot be opened is named", async () => {
    for (const wrong of [join(folder, "absent"), folder, "/dev/zero"]) {
      const error = await openSource(wrong).catch((e) => e);
      expect(error).toBeInstanceOf(NomoatError);
      expect([error.code, error.message.startsWith(wrong)]).toEqual(["IO", true]);
    }
    await expect(openSource(new Float32Array(2) as never)).rejects.toThrow(ArgumentError);
    await expect(openSource(null as never)).rejects.toThrow(ArgumentError);
    await expect(openSource(5 as never)).rejects.toThrow(ArgumentError);
  });

  test("a file that shrinks is a FormatError", async () => {
    const short = join(folder, "short.bin");
    await writeFile(short, content);
    const source = await openSource(short);
    await writeFile(short, content.subarray(0, 10));
    await expect(source.read(5, 10)).rejects.toThrow("became shorter");
    await source.close();
  });
});

describe("Reader", () => {
  test("reads little-endian fields in turn", () => {
    const bytes = new Uint8Array(40);
    const view = new DataView(bytes.buffer);
    view.setUint8(0, 200);
    view.setInt8(1, -3);
    view.setUint16(2, 60000, true);
    view.setUint32(4, 4e9, true);
    view.setBigUint64(8, 2n ** 63n, true);
    view.setFloat32(16, 1.5, true);
    view.setFloat64(20, Math.PI, true);
    view.setInt16(28, -2, true);
    bytes.set(new TextEncoder().encode("hé"), 30);
    const reader = new Reader(bytes, "a.bin");
    expect([reader.u8("a"), reader.i8("b"), reader.u16("c"), reader.u32("d"), reader.u64("e")]).toEqual([
      200,
      -3,
      60000,
      4e9,
      2n ** 63n,
    ]);
    expect([reader.f32("f"), reader.f64("g"), reader.i16("h"), reader.text(3, "i")]).toEqual([
      1.5,
      Math.PI,
      -2,
      "hé",
    ]);
    reader.align(4, "padding");
    expect([reader.position, reader.left]).toEqual([36, 4]);
  });

  test("never reads past the end, whatever is claimed", () => {
    for (const n of [9, 2 ** 53, -1, Number.NaN, 2n ** 64n - 1n, -1n]) {
      const reader = new Reader(new Uint8Array(8), "a.bin");
      const take = () => reader.take(n, "name");
      expect(take).toThrow(FormatError);
      expect(take).toThrow("a.bin: name");
      expect(reader.position).toBe(0);
    }
  });

  test("counts are checked before anybody allocates", () => {
    const reader = (value: bigint) => {
      const bytes = new Uint8Array(24);
      new DataView(bytes.buffer).setBigUint64(0, value, true);
      return new Reader(bytes, "a.bin");
    };
    expect(reader(4n).count("tensors", 4)).toBe(4);
    for (const value of [5n, 2n ** 53n, 2n ** 62n, 2n ** 64n - 1n]) {
      expect(() => reader(value).count("tensors", 4)).toThrow(FormatError);
    }
    expect(() => reader(3n).count("tensors", 0, 2)).toThrow("more than the 2");
  });

  test("invalid UTF-8 is a FormatError", () => {
    expect(() => new Reader(new Uint8Array([0xff]), "a").text(1, "key")).toThrow(FormatError);
  });
});

describe("readPrefix", () => {
  function counting(bytes: Uint8Array): Source & { most: number } {
    return {
      name: "big.bin",
      size: bytes.length,
      most: 0,
      async read(offset, length) {
        this.most = Math.max(this.most, offset + length);
        return bytes.subarray(offset, offset + length);
      },
      async close() {},
    };
  }

  test("reads only as far as is parsed", async () => {
    const source = counting(new Uint8Array(2 ** 22).fill(7));
    const last = await readPrefix(source, (reader) => {
      let byte = 0;
      for (let i = 0; i < 300_000; i++) byte = reader.u8("byte");
      return byte;
    });
    expect(last).toBe(7);
    expect(source.most).toBeLessThanOrEqual(2 ** 20);
  });

  test("a claim beyond the file or the bound is refused without reading for it", async () => {
    const source = counting(new Uint8Array(2 ** 22));
    await expect(readPrefix(source, (r) => r.take(2 ** 40, "name"))).rejects.toThrow(FormatError);
    await expect(readPrefix(source, (r) => r.take(2 ** 21, "name"), { most: 2 ** 20 })).rejects.toThrow(
      "the header exceeds",
    );
    expect(source.most).toBeLessThanOrEqual(2 ** 16);
  });
});
