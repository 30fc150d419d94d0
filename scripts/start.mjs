#!/usr/bin/env node
// `npm start`: installs and builds what is missing, then runs examples/finetune with the arguments
// given. Needs Node and npm alone.

import { spawn } from "node:child_process";
import { constants } from "node:os";
import { join } from "node:path";
import { install, main, root } from "./lib.mjs";

/** Runs the example in the caller's folder, so that relative paths mean what they say. */
function runExample(args) {
  return new Promise((resolve, reject) => {
    const program = join(root, "examples/finetune/dist/main.js");
    const child = spawn(process.execPath, ["--enable-source-maps", program, ...args], {
      cwd: process.env.INIT_CWD ?? process.cwd(),
      stdio: "inherit",
    });
    // The terminal sends these to the whole group: leave the answer to the example.
    for (const signal of ["SIGINT", "SIGHUP"]) process.on(signal, () => {});
    process.on("SIGTERM", () => child.kill("SIGTERM"));
    child.on("error", reject);
    child.on("close", (code, signal) => resolve(code ?? 128 + (constants.signals[signal] ?? 0)));
  });
}

await main(async () => {
  await install();
  const { build, buildExample } = await import("./build.mjs");
  await build({ dts: false, quiet: true });
  await buildExample("finetune", { quiet: true });
  process.exitCode = await runExample(process.argv.slice(2));
});
