// The command as it is published: ES modules, with the peers' process beside it.
import { defineConfig } from "tsup";

export default defineConfig({
  entry: { main: "src/main.ts", host: "src/peers/host.ts" },
  format: ["esm"],
  target: "node20",
  outDir: "dist",
  splitting: true,
  clean: true,
  silent: true,
  removeNodeProtocol: false,
});
