// `nomoat-bench export` and `nomoat-bench merge`: result files in other forms, and several as one.

import { type Command, Option } from "commander";
import { type ExportFormat, exportFormats, exportRuns } from "../results/export.js";
import { readRuns, writeText } from "../results/files.js";
import { formatResults } from "../results/format.js";

/** To a file, or to stdout. */
async function deliver(text: string, out: string | undefined): Promise<void> {
  if (out) await writeText(out, text);
  else process.stdout.write(text);
}

export function addFiles(program: Command): void {
  program
    .command("export")
    .description("results as Markdown, CSV, or SQL for SQLite")
    .argument("<files...>", "result files")
    .addOption(new Option("--format <format>", "what to make").choices(exportFormats).default("md"))
    .option("--out <file>", "where to write (default: stdout)")
    .action(async (files: string[], flags: { format: ExportFormat; out?: string }) => {
      await deliver(exportRuns(await readRuns(files), flags.format), flags.out);
    });
  program
    .command("merge")
    .description("join result files; a run that is in several counts once")
    .argument("<files...>", "result files")
    .requiredOption("--out <file>", "where to write")
    .action(async (files: string[], flags: { out: string }) => {
      await writeText(flags.out, formatResults(await readRuns(files)));
    });
}
