// What a page has to download: the whole index, and a program that only multiplies matrices. What grows is to be noticed.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { expect, test } from "vitest";

const source = fileURLToPath(new URL("../src", import.meta.url));
const options = {
  ...({ bundle: true, format: "esm", target: "es2022", splitting: true, logLevel: "error" } as const),
  external: ["gpu.js", "node:*"],
};

/** kB (1000 bytes), minified and gzipped, of what is loaded at once: without parts that code asks for later. */
async function kilobytes(contents: string, resolveDir: string): Promise<number> {
  const { outputFiles, metafile } = await build({
    ...options,
    ...{ stdin: { contents, resolveDir }, minify: true, platform: "browser" },
    ...{ write: false, metafile: true, outdir: "out" },
  });
  const entry = Object.entries(metafile.outputs).find(([, { entryPoint }]) => entryPoint === "<stdin>");
  const loaded = new Set<string>();
  const load = (path: string): void => {
    if (loaded.has(path)) return;
    loaded.add(path);
    for (const { kind, path: next, external } of metafile.outputs[path].imports)
      if (kind === "import-statement" && !external) load(next);
  };
  load(entry![0]);
  const files = outputFiles.filter(({ path }) =>
    [...loaded].some((name) => path.replaceAll("\\", "/").endsWith(`/${name}`)),
  );
  expect(files.length).toBe(loaded.size);
  return files.reduce((sum, { contents: bytes }) => sum + gzipSync(bytes, { level: 9 }).length, 0) / 1000;
}

test("a page loads at most so much", async () => {
  expect(await kilobytes('export * from "./index.js"', source)).toBeLessThan(88.6);
});

// From the package as it is built, where all modules are one file: bundlers then leave out only statements without side effects.
test("a page that only multiplies matrices loads a fifth less", async () => {
  const folder = mkdtempSync(join(tmpdir(), "nomoat-size-"));
  try {
    await build({ ...options, entryPoints: [join(source, "index.ts")], platform: "node", outdir: folder });
    const product =
      'import { matmul, tensor } from "./index.js"; export default matmul(tensor([[1]]), tensor([[2]]));';
    expect(await kilobytes(product, source)).toBeLessThan(68.4);
    expect(await kilobytes(product, folder)).toBeLessThan(68.4);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
