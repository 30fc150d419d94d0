// `nomoat-bench selfcheck`: what the tool itself can do on this machine. Two runs of the same, which should not differ; a third
// of the same slowed by a tenth, which should; and what the measuring loop costs.

import { shutdown } from "@nomoat/core";
import type { Command } from "commander";
import { type Comparison, compareRuns, keyOf } from "../compare/compare.js";
import { describeMachine, versionOf } from "../machine.js";
import { measureOverhead } from "../measure/overhead.js";
import { slowed } from "../measure/slowed.js";
import type { Effort } from "../measure/timing.js";
import type { Entry } from "../model.js";
import { formatPercent, formatSeconds } from "../present.js";
import { writeText } from "../results/files.js";
import { formatResults } from "../results/format.js";
import type { Run } from "../results/schema.js";
import { measureRun } from "../run.js";
import { filterOf, selectEntries, suitesByName } from "../select.js";
import { summarize } from "../statistics.js";
import { suites } from "../suites/index.js";
import { effortOf, integerList } from "./options.js";
import { progressDisplay } from "./progress.js";
import { defaultThreads } from "./run.js";

interface SelfCheckFlags {
  quick?: boolean;
  long?: boolean;
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

async function measure(
  entries: readonly Entry[],
  effort: Effort,
  suiteNames: string[],
  what: string,
): Promise<Run> {
  const bar = progressDisplay();
  process.stderr.write(`${what}\n`);
  try {
    const options = { effort: effort.name, suites: suiteNames, filter: null };
    return await measureRun({
      entries,
      effort,
      options,
      label: what,
      describe: describeMachine,
      onStep: bar.step,
    });
  } finally {
    bar.stop();
  }
}

const share = (list: readonly Comparison[], verdict: Comparison["verdict"]): number =>
  list.filter((one) => one.verdict === verdict).length / Math.max(1, list.length);

async function selfCheck(names: string[], flags: SelfCheckFlags): Promise<void> {
  const effort = effortOf(flags, "quick");
  const chosen = names.length > 0 ? names : ["gemm", "elementwise", "attention", "quant"];
  const sweep = { effort: effort.name, sizes: flags.sizes ?? null, formats: null, dtypes: null };
  const selection = { sweep, threads: flags.threads ?? defaultThreads(), backends: ["wasm"], filter: null };
  const entries = selectEntries(suitesByName(suites, chosen), selection, versionOf("@nomoat/core")).filter(
    filterOf(flags.filter ?? null),
  );
  const overheads = await measureOverhead();
  const first = await measure(entries, effort, chosen, "first run");
  const second = await measure(entries, effort, chosen, "second run, the same");
  const third = await measure(
    entries.map((entry) => slowed(entry, slowdown)),
    effort,
    chosen,
    "third run, slowed by 10 %",
  );
  shutdown();
  if (flags.out) await writeText(flags.out, formatResults([first, second, third]));
  const same = compareRuns(first, second).matched;
  const slow = compareRuns(second, third).matched.filter(
    (one) => (summarize(one.first.rounds)?.typical ?? 0) >= shortest,
  );
  const [unchanged, found] = [share(same, "no significant change"), share(slow, "slower")];
  const worst = Math.max(...overheads.map((one) => one.overhead));
  const line = (ok: boolean, text: string): string => `${ok ? "ok  " : "FAIL"} ${text}`;
  const lines = [
    line(
      unchanged >= promised.unchanged,
      `two runs of the same: no significant change in ${formatPercent(unchanged)} of ${same.length} cases (at least ${formatPercent(promised.unchanged)})`,
    ),
    ...same
      .filter((one) => one.verdict !== "no significant change")
      .map((one) => `       ${keyOf(one.first)}: ${one.interval.ratio.toFixed(3)} ${one.verdict}`),
    line(
      found >= promised.found,
      `slowed by 10 %: found in ${formatPercent(found)} of ${slow.length} cases of 20 µs and more (at least ${formatPercent(promised.found)})`,
    ),
    ...slow
      .filter((one) => one.verdict !== "slower")
      .map(
        ({ first: one, interval: { ratio, low, high } }) =>
          `       ${keyOf(one)}: ${ratio.toFixed(3)} (${low.toFixed(3)}–${high.toFixed(3)})`,
      ),
    line(
      worst < promised.overhead,
      `the loop's own time: ${overheads.map(({ seconds, overhead }) => `${formatPercent(overhead)} of a call of ${formatSeconds(seconds)}`).join(", ")} (less than ${formatPercent(promised.overhead)})`,
    ),
  ];
  process.stdout.write(`${lines.join("\n")}\n`);
  if (lines.some((one) => one.startsWith("FAIL"))) process.exitCode = 1;
}

export function addSelfCheck(program: Command): void {
  program
    .command("selfcheck")
    .description(
      "measure the tool itself: are equal runs equal, is a kernel slowed by 10 % found, what does the loop cost",
    )
    .argument("[suites...]", "what to do it with (default: gemm elementwise attention quant)")
    .option("--quick", "few rounds (default)")
    .option("--long", "many rounds")
    .option("--filter <pattern>", "only cases whose title has this text, or matches /this/")
    .option("--sizes <list>", "sizes in place of the suite's own", integerList)
    .option("--threads <list>", "thread counts (default: 1 and 2)", integerList)
    .option("--out <file>", "write the three runs (JSON)")
    .action(selfCheck);
}
