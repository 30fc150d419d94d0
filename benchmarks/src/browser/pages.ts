// The pages: built once and for all in the published package, built from their sources in the repository.

import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { libraryVersions, packageFile } from "../machine.js";
import { BenchError } from "../model.js";

const here = fileURLToPath(import.meta.url);

/**
 * Builds the pages with Vite.
 *
 * @param out - the folder to fill
 */
export async function buildPages(out: string): Promise<void> {
  const vite = await import("vite").catch(() => {
    throw new BenchError("the page is not built, and Vite is not installed to do it");
  });
  const { defaultClientConditions } = vite;
  const root = join(packageFile("package.json"), "..", "src/page");
  await vite.build({
    root,
    configFile: false,
    base: "./",
    logLevel: "error",
    define: { __VERSIONS__: JSON.stringify(libraryVersions()) },
    resolve: { conditions: ["@nomoat/source", ...defaultClientConditions] },
    worker: { format: "es" },
    build: {
      ...{ outDir: out, emptyOutDir: true, target: "es2022", chunkSizeWarningLimit: 4096 },
      rollupOptions: { input: [join(root, "index.html"), join(root, "peers.html")] },
    },
  });
}

let made: Promise<string> | null = null;

/** The folder of the pages, made if need be, once in a process. */
export function pagesFolder(): Promise<string> {
  made ??= (async () => {
    const built = join(dirname(here), "page");
    if (!here.endsWith(".ts") && existsSync(built)) return built;
    const out = join(packageFile("package.json"), "..", "node_modules/.cache/pages");
    await buildPages(out);
    return out;
  })();
  return made;
}
