// The command line: `nomoat-bench COMMAND`, inside the repository `npm run bench -- COMMAND`.

import { Command, CommanderError } from "commander";
import { addBrowser } from "./commands/browser.js";
import { addCompare } from "./commands/compare.js";
import { addFiles } from "./commands/files.js";
import { addLayouts } from "./commands/layouts.js";
import { addMemory } from "./commands/memory.js";
import { addReport } from "./commands/report.js";
import { addRun } from "./commands/run.js";
import { addSelfCheck } from "./commands/selfcheck.js";
import { ownVersion } from "./machine.js";
import { BenchError } from "./model.js";
import { reasonOf } from "./titles.js";

/** Runs a command line. Whatever goes wrong is one line on stderr and exit code 1. */
export async function main(args: readonly string[]): Promise<void> {
  const program = new Command("nomoat-bench")
    .description(
      "Measures what this machine's JavaScript can do, and compares it honestly. Nothing is ever sent anywhere.",
    )
    .version(ownVersion())
    .exitOverride()
    .configureOutput({ outputError: () => undefined })
    .showSuggestionAfterError(false);
  addRun(program);
  addCompare(program);
  addBrowser(program);
  addSelfCheck(program);
  addMemory(program);
  addFiles(program);
  addLayouts(program);
  addReport(program);
  for (const command of program.commands)
    command.exitOverride().configureOutput({ outputError: () => undefined });
  try {
    await program.parseAsync([...args], { from: "user" });
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return;
    const known = error instanceof BenchError || error instanceof CommanderError;
    const text = reasonOf(error).replace(/^error: /, "");
    process.stderr.write(`nomoat-bench: ${known ? text : `${(error as Error).name}: ${text}`}\n`);
    process.exitCode = 1;
  }
}
