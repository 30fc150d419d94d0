// `nomoat-bench run`: measures suites of this library, and beside it the peers; `nomoat-bench peers` is the latter alone.

import * as os from "node:os";
import { shutdown } from "@nomoat/core";
import { type Command, Option } from "commander";
import { keyOf } from "../compare/compare.js";
import { describeMachine, versionOf } from "../machine.js";
import { BenchError, type Entry } from "../model.js";
import { isInstalled } from "../peers/install.js";
import { planPeers } from "../peers/plan.js";
import { peers, peersByName } from "../peers/registry.js";
import { writeText } from "../results/files.js";
import { formatResults } from "../results/format.js";
import type { Run } from "../results/schema.js";
import { measureRun, titleOf } from "../run.js";
import { filterOf, selectEntries, suitesByName } from "../select.js";
import { suites } from "../suites/index.js";
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
  dtypes?: string[];
  install?: boolean;
  python: string[];
  out?: string;
  label: string;
  list?: boolean;
}

/** One thread, and as many as there are, up to two: what every machine of today can be compared by. */
export function defaultThreads(): number[] {
  const processors = os.availableParallelism?.() ?? os.cpus().length;
  return processors > 1 ? [1, 2] : [1];
}

/** Measures with a progress bar, prints, and writes where that was asked for. */
export async function measureAndShow(
  request: Omit<Parameters<typeof measureRun>[0], "describe" | "onStep">,
  out: string | undefined,
): Promise<Run> {
  const bar = progressDisplay();
  let run: Run;
  try {
    run = await measureRun({ ...request, describe: describeMachine, onStep: bar.step });
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

/** The suites that names stand for; "all" is every suite of this library that has something to measure. */
function suiteNames(names: readonly string[], backends: readonly string[]): string[] {
  // The crossover compares backends, so one alone has none.
  const all = suites.map(({ name }) => name).filter((name) => name !== "crossover" || backends.length > 1);
  const chosen = names.length === 0 ? ["gemm"] : names.flatMap((name) => (name === "all" ? all : [name]));
  if (backends.some((name) => name.startsWith("gpu"))) chosen.push("crossover");
  return [...new Set(chosen)];
}

export async function runSuites(
  names: string[],
  flags: RunFlags,
  peerNames: readonly string[],
): Promise<void> {
  const effort = effortOf(flags, names.length > 0 ? "standard" : "quick");
  const chosen = suiteNames(names, flags.backends);
  const own = suitesByName(
    suites,
    chosen.filter((name) => name !== "peers"),
  );
  const sweep = {
    ...{ effort: effort.name, sizes: flags.sizes ?? null, formats: flags.formats ?? null },
    dtypes: flags.dtypes ?? null,
  };
  const filter = flags.filter ?? null;
  const threads = flags.threads ?? defaultThreads();
  const version = versionOf("@nomoat/core");
  const beside = chosen.includes("peers")
    ? await planPeers({
        chosen: peerNames.length > 0 ? peersByName(peerNames) : [...peers],
        ...{ sweep, threads, version, install: flags.install === true, pythons: flags.python },
        start: flags.list !== true,
      })
    : null;
  try {
    const compared = (beside?.entries ?? []).filter(filterOf(filter));
    const known = new Set(compared.map(keyOf));
    const selection = { sweep, threads, backends: flags.backends, filter };
    const entries: Entry[] = [
      ...selectEntries(own, selection, version).filter((entry) => !known.has(keyOf(entry))),
      ...compared,
    ];
    if (entries.length === 0) {
      throw new BenchError("no case is left: loosen --filter, --sizes, --dtypes or --formats");
    }
    if (flags.list) {
      process.stdout.write(`${entries.map(titleOf).join("\n")}\n`);
      return;
    }
    const options = { effort: effort.name, suites: chosen, filter };
    const run = await measureAndShow({ entries, effort, options, label: flags.label }, flags.out);
    // What a peer cannot do is in the list; what this library cannot do is a fault.
    const broken = run.results.some(
      ({ failure, implementation }) => failure !== null && implementation.name === "nomoat",
    );
    if (broken) process.exitCode = 1;
  } finally {
    await beside?.close();
  }
}

/** Options that `run` and `peers` share. */
function addOptions(command: Command): Command {
  return command
    .option("--quick", "about a minute: small sizes, few rounds")
    .option("--long", "more sizes, rounds and samples")
    .option("--filter <pattern>", "only cases whose title has this text, or matches /this/")
    .option("--sizes <list>", "sizes in place of the suite's own, such as 256,512", integerList)
    .option("--threads <list>", "thread counts (default: 1 and 2)", integerList)
    .option("--install", "install peers that are missing with npm, into a cache folder of their own")
    .addOption(
      new Option("--python <list>", "commands for peers in Python; the first that has the library is used")
        .argParser(nameList)
        .default(["python3", "/usr/bin/python3"], "python3, /usr/bin/python3"),
    )
    .option("--label <name>", "a name for this machine, kept in the file", "")
    .option("--out <file>", "write the result file (JSON)")
    .option("--list", "only list the cases");
}

export function addRun(program: Command): void {
  const list = suites.map(({ name, about }) => `  ${name.padEnd(12)} ${about}`).join("\n");
  const run = program
    .command("run", { isDefault: true })
    .description("measure suites of this library; without a name: gemm, quick")
    .argument("[suites...]", 'names of suites; "all" of this library, and "peers"');
  addOptions(run)
    .addOption(
      new Option("--backends <list>", "wasm, reference, gpu, or gpu:MODE with a mode of GPU.js")
        .argParser(nameList)
        .default(["wasm"], "wasm"),
    )
    .option("--formats <list>", "quantized formats in place of the suite's own, such as nf4,q4_0", nameList)
    .option("--dtypes <list>", "dtypes in place of the suite's own, such as float32,bfloat16", nameList)
    .addHelpText("after", `\nSuites:\n${list}\n  peers        others beside this library, on the same inputs`)
    .action((names: string[], flags: RunFlags) => runSuites(names, flags, []));
  const beside = program
    .command("peers")
    .description("this library beside others, interleaved, each checked for the right answer")
    .argument("[peers...]", `of ${peers.map((peer) => peer.name).join(", ")} (default: all)`)
    .option("--installed", "only list the peers, and which are installed");
  addOptions(beside).action(
    async (names: string[], flags: Omit<RunFlags, "backends"> & { installed?: boolean }) => {
      if (!flags.installed) return runSuites(["peers"], { ...flags, backends: ["wasm"] }, names);
      for (const peer of names.length > 0 ? peersByName(names) : peers) {
        const state = isInstalled(peer) ? "ready" : "not installed";
        process.stdout.write(`${peer.name.padEnd(18)} ${state.padEnd(14)} ${peer.packages.join(", ")}\n`);
      }
    },
  );
}
