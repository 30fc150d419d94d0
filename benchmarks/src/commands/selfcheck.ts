// `nomoat-bench selfcheck`: what the tool itself can do on this machine. Two runs of the same, each in processes of its own, which
// should not differ; cases beside themselves slowed by a tenth, which should; and what the measuring loop costs.

import { shutdown } from "@nomoat/core";
import type { Command } from "commander";
import type { RatioInterval } from "../compare/bootstrap.js";
import { compareRuns, type Verdict, verdictOf } from "../compare/compare.js";
import { pairedInterval } from "../compare/paired.js";
import { versionOf } from "../machine.js";
import { measureOverhead } from "../measure/overhead.js";
import { efforts } from "../measure/timing.js";
import { takeTurns } from "../measure/turns.js";
import { BenchError, type Entry } from "../model.js";
import { formatPercent, formatSeconds, formatTimeLeft } from "../present.js";
import { writeText } from "../results/files.js";
import { formatResults } from "../results/format.js";
import type { Run } from "../results/schema.js";
import { selectEntries, suitesByName } from "../select.js";
import { quantile, sortedCopy } from "../statistics.js";
import { suites } from "../suites/index.js";
import { keyOf } from "../titles.js";
import { interruptedCode, interruptible } from "./interrupt.js";
import { joinRuns, runPart } from "./launches.js";
import { integerList } from "./options.js";
import { defaultThreads } from "./run.js";

interface SelfCheckFlags {
  filter?: string;
  sizes?: number[];
  threads?: number[];
  out?: string;
}

/** What is promised. */
const promised = { unchanged: 0.95, found: 0.95, overhead: 0.01 };
const slowdown = 0.1;
/** Cases with shorter calls cannot be slowed by a tenth exactly. */
const shortest = 20e-6;
/** Of the suites that are taken when none are named, as many cases as five minutes are enough for. */
const usual = {
  suites: ["gemm", "elementwise", "attention", "quant"],
  filter: "/x(512|1024) N[NT]|1048576|keys|rows? (int8 )?q4_0/",
};
/** Processes of each run. */
const launches = 3;
/** Milliseconds of one turn, and seconds that all turns may take. */
const turn = 8;
const turnsSeconds = 150;

interface Checked {
  readonly key: string;
  readonly interval: RatioInterval;
  readonly verdict: Verdict;
}

/** Two runs, whose processes take turns. */
async function twoRuns(args: readonly string[], signal: AbortSignal): Promise<[Run, Run]> {
  const runs: [Run[], Run[]] = [[], []];
  for (let index = 1; index <= launches; index++) {
    for (const [which, list] of runs.entries()) {
      process.stderr.write(`${which === 0 ? "first" : "second"} run, process ${index} of ${launches}\n`);
      const run = await runPart(args, { index, count: launches }, signal);
      if (!run || signal.aborted) throw new BenchError("interrupted: nothing can be said");
      list.push(run);
    }
  }
  return [joinRuns(runs[0]), joinRuns(runs[1])];
}

async function turnsOf(
  entries: readonly Entry[],
  signal: AbortSignal,
): Promise<{ same: Checked[]; slowed: Checked[] }> {
  const effort = { ...efforts.quick, milliseconds: turn, warmup: 100 };
  const [same, slowed]: [Checked[], Checked[]] = [[], []];
  const began = performance.now();
  let told = began;
  for (const [i, entry] of entries.entries()) {
    // What earlier cases did not need, later ones may.
    const left = turnsSeconds - (performance.now() - began) / 1000;
    const deadline = performance.now() + (2000 * Math.max(0, left)) / (entries.length - i);
    const turns = await takeTurns(entry, effort, slowdown, deadline);
    const key = keyOf(entry);
    const check = (times: readonly number[]): Checked => {
      const interval = pairedInterval(turns.plain, times);
      return { key, interval, verdict: verdictOf(interval) };
    };
    same.push(check(turns.again));
    if (quantile(sortedCopy(turns.plain), 0.5) >= shortest) slowed.push(check(turns.slowed));
    if (performance.now() - told > 10_000) {
      told = performance.now();
      process.stderr.write(`${i + 1} of ${entries.length} cases, ${formatTimeLeft(left)} left\n`);
    }
    await new Promise((resolve) => setTimeout(resolve, 0));
    if (signal.aborted) throw new BenchError("interrupted: nothing can be said");
  }
  return { same, slowed };
}

const share = (list: readonly Checked[], verdict: Verdict): number =>
  list.filter((one) => one.verdict === verdict).length / Math.max(1, list.length);

const exceptions = (list: readonly Checked[], verdict: Verdict): string[] =>
  list
    .filter((one) => one.verdict !== verdict)
    .map(
      ({ key, interval: { ratio, low, high }, verdict: found }) =>
        `       ${key}: ${ratio.toFixed(3)} (${low.toFixed(3)}–${high.toFixed(3)}) ${found}`,
    );

async function check(names: string[], flags: SelfCheckFlags, signal: AbortSignal): Promise<void> {
  const chosen = names.length > 0 ? names : usual.suites;
  const filter = flags.filter ?? (names.length === 0 && !flags.sizes ? usual.filter : null);
  const sweep = { effort: "quick", sizes: flags.sizes ?? null, formats: null, dtypes: null } as const;
  const threads = flags.threads ?? defaultThreads();
  const selection = { sweep, threads, backends: ["wasm"], filter };
  const entries = selectEntries(suitesByName(suites, chosen), selection, versionOf("@nomoat/core"));
  if (entries.length === 0) throw new BenchError("no case is left: loosen the filter");
  const args = ["run", ...chosen, "--quick", "--threads", threads.join(",")];
  if (filter) args.push("--filter", filter);
  if (flags.sizes) args.push("--sizes", flags.sizes.join(","));
  const [first, second] = await twoRuns(args, signal);
  const runs = compareRuns(first, second).matched.map(({ first: one, interval, verdict }) => ({
    ...{ key: keyOf(one), interval, verdict },
  }));
  if (flags.out) await writeText(flags.out, formatResults([first, second]));
  const overheads = await measureOverhead();
  process.stderr.write("in turns: the same again, and slowed by 10 %\n");
  const { same, slowed } = await turnsOf(entries, signal);
  const worst = Math.max(...overheads.map((one) => one.overhead));
  const line = (ok: boolean, text: string): string => `${ok ? "ok  " : "FAIL"} ${text}`;
  const unchanged = (what: string, list: readonly Checked[]): string[] => [
    line(
      share(list, "no significant change") >= promised.unchanged,
      `${what}: no significant change in ${formatPercent(share(list, "no significant change"))} of ${list.length} cases (at least ${formatPercent(promised.unchanged)})`,
    ),
    ...exceptions(list, "no significant change"),
  ];
  const lines = [
    ...unchanged(`two runs of the same, ${launches} processes each`, runs),
    ...unchanged("the same in turns", same),
    line(
      share(slowed, "slower") >= promised.found,
      `slowed by 10 %, in turns: found in ${formatPercent(share(slowed, "slower"))} of ${slowed.length} cases of 20 µs and more (at least ${formatPercent(promised.found)})`,
    ),
    ...exceptions(slowed, "slower"),
    line(
      worst < promised.overhead,
      `the loop's own time: ${overheads.map(({ seconds, overhead }) => `${formatPercent(overhead)} of a call of ${formatSeconds(seconds)}`).join(", ")} (less than ${formatPercent(promised.overhead)})`,
    ),
  ];
  process.stdout.write(`${lines.join("\n")}\n`);
  if (lines.some((one) => one.startsWith("FAIL"))) process.exitCode = 1;
}

async function selfCheck(names: string[], flags: SelfCheckFlags): Promise<void> {
  const interrupt = interruptible();
  try {
    await check(names, flags, interrupt.signal);
  } catch (error) {
    if (!interrupt.signal.aborted) throw error;
    process.stderr.write(`nomoat-bench: ${(error as Error).message}\n`);
    process.exitCode = interruptedCode;
  } finally {
    interrupt.release();
    shutdown();
  }
}

export function addSelfCheck(program: Command): void {
  program
    .command("selfcheck")
    .description(
      "measure the tool itself: are equal runs equal, is a kernel slowed by 10 % found, what does the loop cost",
    )
    .argument("[suites...]", "what to do it with (default: some of gemm, elementwise, attention and quant)")
    .option("--filter <pattern>", "only cases whose title has this text, or matches /this/")
    .option("--sizes <list>", "sizes in place of the suite's own", integerList)
    .option("--threads <list>", "thread counts (default: 1 and 2)", integerList)
    .option("--out <file>", "write the two runs (JSON)")
    .action(selfCheck);
}
