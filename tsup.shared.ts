/**
 * How a library package is built: ESM and CommonJS, with declarations for both, one file for each
 * entry of `exports` and shared chunks between them. The entries are read from the package's own
 * `exports`, so they stand in one place.
 */
import { readFileSync } from "node:fs";
import { defineConfig, type Options } from "tsup";

type Exports = Record<string, string | { "@nomoat/source": string; import: { default: string } }>;

/** The entries by output name (`nn`), each with its source file (`src/nn/index.ts`). */
function entries(): Record<string, string> {
  const { exports } = JSON.parse(readFileSync("package.json", "utf8")) as { exports: Exports };
  const found: Record<string, string> = {};
  for (const target of Object.values(exports)) {
    if (typeof target === "string") continue;
    const name = target.import.default.replace(/^\.\/dist\/(.*)\.js$/, "$1");
    found[name] = target["@nomoat/source"].replace(/^\.\//, "");
  }
  return found;
}

/** tsup's configuration for the package in the current folder. */
export function library(options: Options = {}) {
  return defineConfig({
    entry: entries(),
    format: ["esm", "cjs"],
    target: "node20",
    platform: "node",
    outDir: "dist",
    splitting: true,
    sourcemap: true,
    clean: true,
    dts: process.env.NOMOAT_BUILD_DTS !== "0",
    silent: true,
    // Keep `node:` in imports: bundlers for the web recognise it.
    removeNodeProtocol: false,
    ...options,
  });
}
