/**
 * How a library package is built: ESM and CommonJS, with declarations for both, one file for each
 * entry of `exports` and shared chunks between them. The entries are read from the package's own
 * `exports`, so they stand in one place.
 *
 * The CommonJS files are made from the finished ES modules, chunk by chunk. tsup's own splitting of
 * CommonJS rewrites the code with an older parser, and leaves `import.meta` in it.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { transform } from "esbuild";
import { defineConfig, type Options } from "tsup";

type Exports = Record<string, string | { "@nomoat/source": string; import: { default: string } }>;
type Plugin = NonNullable<Options["plugins"]>[number];

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

/** One ES module of dist as CommonJS, which imports the other `.cjs` files. */
async function toCommonJs(code: string): Promise<string> {
  const usesMeta = code.includes("import.meta.url");
  const { code: converted } = await transform(code.replace(/^\/\/# sourceMappingURL=.*\n?/m, ""), {
    format: "cjs",
    platform: "node",
    target: "node20",
    // A dynamic import of the package's own chunks must not load their ESM twins.
    supported: { "dynamic-import": false },
    define: usesMeta ? { "import.meta.url": "__moduleUrl" } : {},
    banner: `"use strict";${usesMeta ? '\nconst __moduleUrl = require("node:url").pathToFileURL(__filename).href;' : ""}`,
  });
  return converted.replace(/\brequire\("(\.[^"]*)\.js"\)/g, 'require("$1.cjs")');
}

const alsoCommonJs: Plugin = {
  name: "also-commonjs",
  async buildEnd({ writtenFiles }) {
    for (const { name } of writtenFiles) {
      if (!name.endsWith(".js")) continue;
      writeFileSync(name.replace(/\.js$/, ".cjs"), await toCommonJs(readFileSync(name, "utf8")));
    }
  },
};

/** tsup's configuration for the package in the current folder. */
export function library() {
  const shared: Options = {
    entry: entries(),
    target: "node20",
    platform: "node",
    outDir: "dist",
    silent: true,
    // Keep `node:` in imports: bundlers for the web recognise it.
    removeNodeProtocol: false,
  };
  const code: Options = {
    ...shared,
    format: ["esm"],
    splitting: true,
    sourcemap: true,
    clean: true,
    plugins: [alsoCommonJs],
  };
  // `Symbol.dispose`, which not every program's own `lib` has.
  const banner = '/// <reference lib="esnext.disposable" />';
  const declarations: Options = { ...shared, format: ["esm", "cjs"], dts: { only: true, banner } };
  return defineConfig(process.env.NOMOAT_BUILD_DTS === "0" ? [code] : [code, declarations]);
}
