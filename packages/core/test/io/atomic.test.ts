import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ArgumentError, NomoatError } from "../../src/errors.js";
import { isPlainName, writeFileAtomic, writeFilesAtomic } from "../../src/io/atomic.js";

const encode = (text: string) => new TextEncoder().encode(text);
let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "nomoat-atomic-"));
});
afterEach(() => rm(folder, { recursive: true }));

test("writes bytes, pieces and streams", async () => {
  const path = join(folder, "a.txt");
  await writeFileAtomic(path, encode("one"));
  expect(await readFile(path, "utf8")).toBe("one");
  await writeFileAtomic(path, [encode("t"), new Uint8Array(0), encode("wo")]);
  expect(await readFile(path, "utf8")).toBe("two");
  async function* stream() {
    yield encode("thr");
    // The old file is readable, whole, all the while.
    expect(await readFile(path, "utf8")).toBe("two");
    yield encode("ee");
  }
  await writeFileAtomic(path, stream());
  expect(await readFile(path, "utf8")).toBe("three");
  expect(await readdir(folder)).toEqual(["a.txt"]);
});

test("a fault of the contents leaves the old file and no temporary one", async () => {
  const path = join(folder, "a.txt");
  await writeFile(path, "good");
  const fault = new Error("no more");
  async function* broken() {
    yield encode("ba");
    throw fault;
  }
  await expect(writeFileAtomic(path, broken())).rejects.toBe(fault);
  expect(await readFile(path, "utf8")).toBe("good");
  expect(await readdir(folder)).toEqual(["a.txt"]);
});

test("a fault of the file system is a NomoatError and leaves nothing", async () => {
  const error = await writeFileAtomic(join(folder, "absent", "a.txt"), encode("x")).catch((e) => e);
  expect([error instanceof NomoatError, error.code]).toEqual([true, "IO"]);
  // A folder stands where the file should: the rename fails after all was written.
  await mkdir(join(folder, "a.txt"));
  await writeFile(join(folder, "a.txt", "inner"), "good");
  await expect(writeFileAtomic(join(folder, "a.txt"), encode("x"))).rejects.toThrow(NomoatError);
  expect(await readdir(folder)).toEqual(["a.txt"]);
});

test("contents that are not bytes are refused", async () => {
  const path = join(folder, "a.txt");
  await writeFile(path, "good");
  for (const wrong of [[encode("x"), null], ["text"], "text", 5]) {
    await expect(writeFileAtomic(path, wrong as never)).rejects.toThrow(ArgumentError);
  }
  expect(await readFile(path, "utf8")).toBe("good");
  expect(await readdir(folder)).toEqual(["a.txt"]);
});

test("a link stays a link, a mode stays a mode", async () => {
  const path = join(folder, "real.txt");
  await writeFile(path, "old");
  await chmod(path, 0o640);
  await symlink("real.txt", join(folder, "link.txt"));
  await writeFileAtomic(join(folder, "link.txt"), encode("new"));
  expect((await lstat(join(folder, "link.txt"))).isSymbolicLink()).toBe(true);
  expect(await readFile(path, "utf8")).toBe("new");
  expect((await stat(path)).mode & 0o777).toBe(0o640);
});

test("simultaneous writes do not mix", async () => {
  const path = join(folder, "a.txt");
  const texts = Array.from({ length: 20 }, (_, i) => String.fromCharCode(97 + i).repeat(1000));
  await Promise.all(texts.map((text) => writeFileAtomic(path, encode(text))));
  expect(texts).toContain(await readFile(path, "utf8"));
  expect(await readdir(folder)).toEqual(["a.txt"]);
});

test("a set of files appears together", async () => {
  const target = join(folder, "new", "adapter");
  await writeFilesAtomic(target, { "config.json": encode("{}"), "model.bin": [encode("a"), encode("b")] });
  expect((await readdir(target)).sort()).toEqual(["config.json", "model.bin"]);
  await writeFilesAtomic(target, new Map([["config.json", encode("[]")]]));
  expect(await readFile(join(target, "config.json"), "utf8")).toBe("[]");
});

test("a set of files survives a fault in its midst", async () => {
  await writeFile(join(folder, "a"), "old a");
  async function* broken() {
    yield encode("x");
    throw new Error("no more");
  }
  await expect(writeFilesAtomic(folder, { a: encode("new a"), b: broken() })).rejects.toThrow("no more");
  expect(await readFile(join(folder, "a"), "utf8")).toBe("old a");
  expect(await readdir(folder)).toEqual(["a"]);

  // The last rename fails: those before are undone, for files that stood there and for new ones.
  await mkdir(join(folder, "c"));
  await writeFile(join(folder, "c", "inner"), "good");
  const files = { a: encode("new a"), b: encode("new b"), c: encode("new c") };
  await expect(writeFilesAtomic(folder, files)).rejects.toThrow(NomoatError);
  expect(await readFile(join(folder, "a"), "utf8")).toBe("old a");
  expect((await readdir(folder)).sort()).toEqual(["a", "c"]);
});

test("names that lead out of the folder are refused", async () => {
  const wrong = ["", ".", "..", "../x", "a/b", "a\\b", "C:x", "/etc/x", "a\0b", "a\nb", "x".repeat(256)];
  for (const name of wrong) {
    expect(isPlainName(name)).toBe(false);
    await expect(writeFilesAtomic(folder, { [name]: encode("x") })).rejects.toThrow(ArgumentError);
  }
  expect(await readdir(folder)).toEqual([]);
  expect(["model-00001-of-00002.safetensors", "a b", "..a", "é"].every(isPlainName)).toBe(true);
});
