// `nomoat-bench run`: measures suites of this library.

import * as os from "node:os";
import { shutdown } from "@nomoat/core";
import { type Command, Option } from "commander";
import type { Entry } from "../model.js";
import { BenchError } from "../model.js";
import { formatResults, writeText } from "../results/files.js";
import type { Run } from "../results/schema.js";
import { measureRun, titleOf } from "../run.js";
import { suites, suitesByName } from "../suites/index.js";
import { backendNames, nomoatEntry } from "../suites/suite.js";
import { effortOf, integerList, nameList } from "./options.js";
import { runText } from "./print.js";
import { progressDisplay } from "./progress.js";

export interface RunFlags {
  quick?: boolean;
  long?: boolean;
  filter?: string;
  sizes?: number[];
  threads?: number[];
  backends: string[];
  formats?: string[];
  out?: string;
  label: string;
  list?: boolean;
}

/** One thread, and as many as there are, up to two: what every machine of today can be compared by. */
export function defaultThreads(): number[] {
  const processors = os.availableParallelism?.() ?? os.cpus().length;
  return processors > 1 ? [1, 2] : [1];
}

/** What stands in a case's title; text without case, or /a regular expression/. */
export function filterOf(text: string | undefined): (entry: Entry) => boolean {
  if (!text) return () => true;
  const expression = /^\/(.+)\/$/.exec(text);
  if (!expression) return (entry) => titleOf(entry).toLowerCase().includes(text.toLowerCase());
  let pattern: RegExp;
  try {
    pattern = new RegExp(expression[1], "i");
  } catch (error) {
    throw new BenchError(`--filter: ${(error as Error).message}`);
  }
  return (entry) => pattern.test(titleOf(entry));
}

/** The entries that names and flags select. */
export function selectEntries(
  names: readonly string[],
  flags: RunFlags,
  effort: Run["options"]["effort"],
): Entry[] {
  const sweep = { effort, sizes: flags.sizes ?? null, formats: flags.formats ?? null };
  for (const backend of flags.backends) {
    if (!(backendNames as readonly string[]).includes(backend)) {
      throw new BenchError(`unknown backend "${backend}" (known: ${backendNames.join(", ")})`);
    }
  }
  const cases = suitesByName(names).flatMap((suite) => suite.cases(sweep));
  const threads = flags.threads ?? defaultThreads();
  const entries = cases.flatMap((one) =>
    flags.backends.flatMap((backend) =>
      // The reference backend has one thread.
      (backend === "wasm" ? threads : [1]).map((count) => nomoatEntry(one, backend, count)),
    ),
  );
  const selected = entries.filter(filterOf(flags.filter));
  if (selected.length === 0) throw new BenchError("no case is left: loosen --filter, --sizes or --formats");
  return selected;
}

/** Measures with a progress bar, prints, and writes where that was asked for. */
export async function measureAndShow(
  request: Parameters<typeof measureRun>[0],
  out: string | undefined,
): Promise<Run> {
  const bar = progressDisplay();
  let run: Run;
  try {
    run = await measureRun({ ...request, onStep: bar.step });
  } finally {
    bar.stop();
    shutdown();
  }
  process.stdout.write(runText(run));
  if (out) {
    await writeText(out, formatResults([run]));
    process.stdout.write(`written: ${out}\n`);
  }
  return run;
}

async function runSuites(names: string[], flags: RunFlags): Promise<void> {
  const given = names.length > 0;
  const effort = effortOf(flags, given ? "standard" : "quick");
  const chosen = given ? (names.includes("all") ? suites.map((suite) => suite.name) : names) : ["gemm"];
  const entries = selectEntries(chosen, flags, effort.name);
  if (flags.list) {
    process.stdout.write(`${entries.map(titleOf).join("\n")}\n`);
    return;
  }
  const options = { effort: effort.name, suites: chosen, filter: flags.filter ?? null };
  const run = await measureAndShow({ entries, effort, options, label: flags.label }, flags.out);
  if (run.results.some((result) => result.failure !== null)) process.exitCode = 1;
}

export function addRun(program: Command): void {
  const list = suites.map(({ name, about }) => `  ${name.padEnd(12)} ${about}`).join("\n");
  program
    .command("run", { isDefault: true })
    .description("measure suites of this library; without a name: gemm, quick")
    .argument("[suites...]", 'names of suites, or "all"')
    .option("--quick", "about a minute for a suite")
    .option("--long", "more rounds, sizes and samples")
    .option("--filter <pattern>", "only cases whose title has this text, or matches /this/")
    .option("--sizes <list>", "sizes in place of the suite's own, such as 256,512", integerList)
    .option("--threads <list>", "thread counts (default: 1 and 2)", integerList)
    .addOption(
      new Option("--backends <list>", "wasm, reference").argParser(nameList).default(["wasm"], "wasm"),
    )
    .option("--formats <list>", "formats in place of the suite's own, such as nf4,q4_0", nameList)
    .option("--label <name>", "a name for this machine, kept in the file", "")
    .option("--out <file>", "write the result file (JSON)")
    .option("--list", "only list the cases")
    .addHelpText("after", `\nSuites:\n${list}`)
    .action(runSuites);
}
