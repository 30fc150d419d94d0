// The command as it is published: ES modules, with the peers' process and the pages beside it.
import { fileURLToPath } from "node:url";
import { defineConfig } from "tsup";
import { buildPages } from "./src/browser/pages.js";

export default defineConfig({
  entry: { main: "src/main.ts", host: "src/peers/host.ts" },
  format: ["esm"],
  target: "node20",
  outDir: "dist",
  splitting: true,
  clean: true,
  silent: true,
  removeNodeProtocol: false,
  // Looked for when they are needed, and done without where they are not installed.
  external: ["esbuild", "playwright-core", "vite"],
  onSuccess: () => buildPages(fileURLToPath(new URL("./dist/page", import.meta.url))),
});
