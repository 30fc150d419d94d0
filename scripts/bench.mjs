#!/usr/bin/env node
// `npm run bench -- ARGS`: installs and builds what is missing, then runs benchmarks/src/main.ts.

import { join } from "node:path";
import { install, main, root, run } from "./lib.mjs";

await main(async () => {
  await install();
  const { build } = await import("./build.mjs");
  await build({ dts: false, quiet: true });
  const program = join(root, "benchmarks/src/main.ts");
  const args = ["--import", "tsx", program, ...process.argv.slice(2)];
  // Ctrl+C reaches the program too, which writes what it has: its exit code is waited for.
  for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => undefined);
  const { code } = await run(process.execPath, args, { check: false });
  process.exitCode = code;
});
