#!/usr/bin/env node
/** `npm start`: fine-tunes a small LLaMA on 4-bit weights. This file turns errors and signals into exit codes. */
import { constants } from "node:os";
import { readArguments } from "./args.js";
import { explain } from "./errors.js";
import { runJob } from "./job.js";

/** Ends the job at a signal; at the second one at once. */
function abortOnSignals(): AbortController {
  const controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(name, () => {
      const code = 128 + constants.signals[name];
      if (controller.signal.aborted) process.exit(code);
      process.exitCode = code;
      controller.abort();
    });
  }
  return controller;
}

const controller = abortOnSignals();
try {
  const args = readArguments(process.argv.slice(2));
  if (args) await runJob(args, (line) => process.stdout.write(`${line}\n`), controller.signal);
} catch (error) {
  if (controller.signal.aborted) {
    process.stderr.write("finetune: stopped; nothing was written\n");
  } else {
    const line = explain(error);
    if (line === null) throw error;
    process.stderr.write(`finetune: ${line}\n`);
    process.exitCode = 1;
  }
}
