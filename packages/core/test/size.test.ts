// What a page has to download: the whole index, and a program that only multiplies matrices. What grows is to be noticed.

import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { expect, test } from "vitest";

/** kB (1000 bytes), minified and gzipped, of what is loaded at once: without parts that code asks for later. */
async function kilobytes(contents: string): Promise<number> {
  const { outputFiles, metafile } = await build({
    stdin: { contents, resolveDir: fileURLToPath(new URL("../src", import.meta.url)) },
    ...{ bundle: true, minify: true, format: "esm", platform: "browser", target: "es2022", splitting: true },
    ...{ write: false, metafile: true, outdir: "out", external: ["gpu.js", "node:*"], logLevel: "error" },
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
  expect(await kilobytes('export * from "./index.js"')).toBeLessThan(79.5);
  const product =
    'import { matmul, tensor } from "./index.js"; export default matmul(tensor([[1]]), tensor([[2]]));';
  expect(await kilobytes(product)).toBeLessThan(61.5);
});
