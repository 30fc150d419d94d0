// `nomoat-bench run`: measures suites of this library, and beside it the peers; `nomoat-bench peers` is the latter alone.

import * as os from "node:os";
import { shutdown } from "@nomoat/core";
import { type Command, Option } from "commander";
import { describeMachine, versionOf } from "../machine.js";
import { guessRun } from "../measure/outlook.js";
import type { Effort } from "../measure/timing.js";
import { BenchError, type Entry } from "../model.js";
import { isInstalled } from "../peers/install.js";
import { type PeerPlan, planPeers } from "../peers/plan.js";
import { peers, peersByName } from "../peers/registry.js";
import { formatTimeLeft } from "../present.js";
import { readResults, writeText } from "../results/files.js";
import { formatResults } from "../results/format.js";
import type { Run, RunOptions } from "../results/schema.js";
import { measureRun, notMeasured, type Step } from "../run.js";
import { filterOf, selectEntries, suitesByName } from "../select.js";
import { suites } from "../suites/index.js";
import { keyOf, titleOf } from "../titles.js";
import { interruptedCode, interruptible } from "./interrupt.js";
import { type Part, partOf, runInParts } from "./launches.js";
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
  resume?: string;
  launches?: number;
  part?: Part;
  label: string;
  list?: boolean;
}

/** One thread, and as many as there are, up to two: what every machine of today can be compared by. */
export function defaultThreads(): number[] {
  const processors = os.availableParallelism?.() ?? os.cpus().length;
  return processors > 1 ? [1, 2] : [1];
}

/** The rows of the README's tables: everybody's, and our attention. */
const anchors = {
  suites: ["attention", "peers"],
  attention: /^attention forward(?:\+backward)? 1024 keys, 12 heads/,
};

interface Selected {
  readonly suites: readonly string[];
  /** What is left out beside what --filter does. */
  keeps(entry: Entry): boolean;
}

/** The suites that names stand for; "all" is every suite of this library that has something to measure. */
function selected(names: readonly string[], backends: readonly string[]): Selected {
  // The crossover compares backends, so one alone has none.
  const all = suites.map(({ name }) => name).filter((name) => name !== "crossover" || backends.length > 1);
  const named: Readonly<Record<string, readonly string[]>> = { all, anchors: anchors.suites };
  const chosen = names.length === 0 ? ["gemm"] : names.flatMap((name) => named[name] ?? [name]);
  if (backends.some((name) => name.startsWith("gpu"))) chosen.push("crossover");
  const whole = new Set(names.flatMap((name) => (name === "all" ? all : [name])));
  return {
    suites: [...new Set(chosen)],
    keeps: (entry) =>
      !names.includes("anchors") ||
      entry.suite !== "attention" ||
      whole.has("attention") ||
      anchors.attention.test(`${entry.suite} ${entry.name}`),
  };
}

/** The interrupted run of a file, which `options` go on with. */
async function earlierRun(path: string, options: RunOptions): Promise<Run> {
  const { runs } = await readResults(path);
  const run = runs.at(-1);
  if (run?.interrupted == null) throw new BenchError(`${path}: has no run that was interrupted at its end`);
  const { runtime, cpu } = describeMachine();
  for (const [name, then, now] of [
    ["suites", run.options.suites.join(" "), options.suites.join(" ")],
    ["effort", run.options.effort, options.effort],
    ["filter", run.options.filter ?? "none", options.filter ?? "none"],
    ["runtime", run.machine.runtime, runtime],
    ["cpu", run.machine.cpu, cpu],
  ])
    if (then !== now) throw new BenchError(`${path}: was measured with ${name} "${then}", this is "${now}"`);
  return run;
}

/** What a process has that measures a part of a run's rounds. */
function effortOfPart(effort: Effort, { count }: Part): Effort {
  return { ...effort, seconds: effort.seconds / count, rounds: Math.ceil(effort.rounds / count) };
}

/** The arguments of a process that measures a part. */
function argumentsOf(names: readonly string[], flags: RunFlags): string[] {
  const { filter, label } = flags;
  const lists = { sizes: flags.sizes, threads: flags.threads, backends: flags.backends };
  const args = ["run", ...names];
  if (flags.quick || (names.length === 0 && !flags.long)) args.push("--quick");
  if (flags.long) args.push("--long");
  for (const [name, list] of Object.entries({ ...lists, formats: flags.formats, dtypes: flags.dtypes }))
    if (list) args.push(`--${name}`, list.join(","));
  if (filter) args.push("--filter", filter);
  if (label) args.push("--label", label);
  return args;
}

/** Processes that share the rounds of figures that are kept. */
const usualLaunches = 3;

function launchesOf(flags: RunFlags, withPeers: boolean): number {
  if (flags.part) return 1;
  const single = withPeers ? "peers" : flags.resume !== undefined ? "--resume" : null;
  if (single && (flags.launches ?? 1) > 1) throw new BenchError(`--launches: one process does ${single}`);
  return flags.launches ?? (single || !flags.out ? 1 : usualLaunches);
}

async function runSuites(names: string[], flags: RunFlags, peerNames: readonly string[]): Promise<void> {
  const effort = effortOf(flags, names.length > 0 ? "standard" : "quick");
  const { suites: chosen, keeps } = selected(names, flags.backends);
  const own = suitesByName(
    suites,
    chosen.filter((name) => name !== "peers"),
  );
  const sweep = {
    ...{ effort: effort.name, sizes: flags.sizes ?? null, formats: flags.formats ?? null },
    dtypes: flags.dtypes ?? null,
  };
  const filter = flags.filter ?? null;
  const options = { effort: effort.name, suites: chosen, filter };
  const launches = launchesOf(flags, chosen.includes("peers"));
  const earlier = flags.resume === undefined ? undefined : await earlierRun(flags.resume, options);
  const threads = flags.threads ?? defaultThreads();
  const version = versionOf("@nomoat/core");
  const interrupt = interruptible();
  let beside: PeerPlan | null = null;
  try {
    if (chosen.includes("peers"))
      beside = await planPeers({
        chosen: peerNames.length > 0 ? peersByName(peerNames) : [...peers],
        ...{ sweep, threads, version, install: flags.install === true, pythons: flags.python },
        start: flags.list !== true,
      });
    const compared = (beside?.entries ?? []).filter(filterOf(filter));
    const known = new Set(compared.map(keyOf));
    const selection = { sweep, threads, backends: flags.backends, filter };
    const entries: Entry[] = [
      ...selectEntries(own, selection, version).filter((entry) => keeps(entry) && !known.has(keyOf(entry))),
      ...compared,
    ];
    if (entries.length === 0) {
      throw new BenchError("no case is left: loosen --filter, --sizes, --dtypes or --formats");
    }
    if (flags.list) {
      process.stdout.write(`${entries.map(titleOf).join("\n")}\n`);
      return;
    }
    const out = flags.out ?? flags.resume;
    const keep = async (run: Run): Promise<void> => {
      if (out) await writeText(out, formatResults([run]));
    };
    const { signal } = interrupt;
    const part = flags.part ?? { index: 1, count: 1 };
    const partEffort = effortOfPart(effort, launches > 1 ? { index: 1, count: launches } : part);
    const expected = guessRun(entries, partEffort);
    if (part.index === 1)
      process.stderr.write(
        `${entries.length} cases, about ${formatTimeLeft(expected * Math.max(launches, part.count))} minutes\n`,
      );
    const request = { entries, effort: partEffort, options, label: flags.label, earlier, signal };
    const run =
      launches > 1
        ? await runInParts(argumentsOf(names, flags), launches, signal, keep)
        : await measure({ ...request, onKeep: keep }, part, expected);
    await finish(run, out, flags.part !== undefined);
  } finally {
    interrupt.release();
    await beside?.close();
  }
}

/** Measures with a progress bar. */
async function measure(
  request: Omit<Parameters<typeof measureRun>[0], "describe" | "onStep">,
  part: Part,
  expected: number,
): Promise<Run> {
  const bar = progressDisplay();
  const step = ({ share, secondsLeft, what }: Step): void =>
    bar.step({
      share: (part.index - 1 + share) / part.count,
      secondsLeft: secondsLeft + (part.count - part.index) * expected,
      what,
    });
  try {
    return await measureRun({ ...request, describe: describeMachine, onStep: step });
  } finally {
    bar.stop();
    shutdown();
  }
}

/** Prints, and writes where that was asked for. */
async function finish(run: Run, out: string | undefined, silent: boolean): Promise<void> {
  if (!silent) process.stdout.write(runText(run));
  if (out) {
    await writeText(out, formatResults([run]));
    if (!silent) process.stdout.write(`written: ${out}\n`);
  }
  // What a peer cannot do is in the list; what this library cannot do is a fault.
  const broken = run.results.some(
    ({ failure, implementation }) =>
      failure !== null && failure !== notMeasured && implementation.name === "nomoat",
  );
  if (broken) process.exitCode = 1;
  if (run.interrupted === null) return;
  process.exitCode = interruptedCode;
  if (silent) return;
  const rest = run.results.filter(({ failure }) => failure === notMeasured).length;
  const advice = out ? `; --resume ${JSON.stringify(out)} goes on` : "";
  process.stderr.write(
    `interrupted (${run.interrupted}): ${rest} of ${run.results.length} cases are not measured${advice}\n`,
  );
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
    .option("--resume <file>", "go on with the run of a file that was interrupted, with the same options")
    .option("--list", "only list the cases");
}

export function addRun(program: Command): void {
  const list = suites.map(({ name, about }) => `  ${name.padEnd(12)} ${about}`).join("\n");
  const run = program
    .command("run", { isDefault: true })
    .description("measure suites of this library; without a name: gemm, quick")
    .argument("[suites...]", 'names of suites; "all" of this library, "peers", and "anchors"');
  addOptions(run)
    .addOption(
      new Option("--backends <list>", "wasm, reference, gpu, or gpu:MODE with a mode of GPU.js")
        .argParser(nameList)
        .default(["wasm"], "wasm"),
    )
    .option("--formats <list>", "quantized formats in place of the suite's own, such as nf4,q4_0", nameList)
    .option(
      "--dtypes <list>",
      "how floats are stored (gemm: b; elementwise; load), such as float32,bfloat16",
      nameList,
    )
    .option(
      "--launches <number>",
      "processes that share the rounds (default: 3 with --out, 1 without it and with peers)",
      (text) => integerList(text)[0],
    )
    .addOption(new Option("--part <part>").argParser(partOf).hideHelp())
    .addHelpText(
      "after",
      `\nSuites:\n${list}\n  peers        others beside this library, on the same inputs\n  anchors      the rows of the README's tables: peers, and attention`,
    )
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
