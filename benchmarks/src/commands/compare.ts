// `nomoat-bench compare A B …`: what got faster, what slower, and what nobody can tell.

import Table from "cli-table3";
import { type Command, InvalidArgumentError, Option } from "commander";
import { type Comparison, compareRuns, machineDifferences, typicalSeconds } from "../compare/compare.js";
import { BenchError } from "../model.js";
import { formatSeconds } from "../present.js";
import { readRuns } from "../results/files.js";
import type { Run } from "../results/schema.js";
import { keyOf } from "../titles.js";

interface CompareFlags {
  threshold?: number;
  confidence: number;
  smallest: number;
  drift: number;
  all?: boolean;
}

/** Reads "5" or "5%" as 0.05. */
function percent(text: string): number {
  const value = Number(text.replace(/%$/, ""));
  if (!(value >= 0) || value > 1000) throw new InvalidArgumentError("Give a percentage, such as 5.");
  return value / 100;
}

function confidence(text: string): number {
  const value = percent(text);
  if (!(value > 0.5 && value < 1))
    throw new InvalidArgumentError("Give a percentage above 50 and below 100.");
  return value;
}

function tableOf(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const table = new Table({
    head: [...head],
    colAligns: head.map((_, i) => (i === 0 ? "left" : "right")),
    style: { head: [], border: [], compact: true },
  });
  for (const row of rows) table.push([...row]);
  return table.toString();
}

/** Such as "1.10 (1.08–1.12) slower". */
function describe({ interval: { ratio, low, high }, verdict }: Comparison): string {
  const range = `${ratio.toFixed(3)} (${low.toFixed(3)}–${high.toFixed(3)})`;
  return verdict === "no significant change" ? range : `${range} ${verdict}`;
}

/** The whole report of a comparison with the first run. */
function comparisonText(runs: readonly Run[], flags: CompareFlags): { text: string; regressions: string[] } {
  const names = runs.map(
    (run, i) => `${String.fromCharCode(65 + (i % 26))}${run.label ? ` ${run.label}` : ""}`,
  );
  const lines: string[] = [];
  const differences = machineDifferences(runs);
  if (differences.length === 0) lines.push("the machines do not differ");
  else {
    lines.push(
      tableOf(
        ["differs", ...names],
        differences.map(({ field, values }) => [field, ...values]),
      ),
    );
  }
  const [first, ...others] = runs;
  const comparisons = others.map((other) => compareRuns(first, other, flags));
  const rows = new Map<string, string[]>();
  const regressions: string[] = [];
  let unchanged = 0;
  let total = 0;
  comparisons.forEach(({ matched }, column) => {
    for (const one of matched) {
      total++;
      if (one.verdict === "no significant change") unchanged++;
      const key = keyOf(one.first);
      const row = rows.get(key) ?? [formatSeconds(typicalSeconds(one.first)), ...others.map(() => "–")];
      row[column + 1] = describe(one);
      rows.set(key, row);
      if (
        flags.threshold !== undefined &&
        one.verdict === "slower" &&
        one.interval.ratio > 1 + flags.threshold
      ) {
        regressions.push(`${key}: ${describe(one)}`);
      }
    }
  });
  const changed = [...rows].filter(
    ([, cells]) => flags.all || cells.some((cell) => /slower|faster/.test(cell)),
  );
  if (changed.length > 0) {
    const head = ["time by that of A", names[0], ...names.slice(1)];
    lines.push(
      tableOf(
        head,
        changed.map(([key, cells]) => [key, ...cells]),
      ),
    );
  }
  lines.push(
    total === 0
      ? "no case is in both"
      : `${unchanged} of ${total} comparisons: no significant change` +
          ` (${+(100 * flags.confidence).toFixed(2)} % intervals, changes below ${+(100 * flags.smallest).toFixed(2)} % count as none)`,
  );
  comparisons.forEach(({ unmatched }, i) => {
    for (const { title, reason } of unmatched)
      lines.push(`not compared with ${names[i + 1]}: ${title}: ${reason}`);
  });
  return { text: `${lines.join("\n")}\n`, regressions };
}

async function compare(files: string[], flags: CompareFlags): Promise<void> {
  const runs = await readRuns(files);
  if (runs.length < 2)
    throw new BenchError("compare needs two runs at least; the files hold one, or the same");
  const { text, regressions } = comparisonText(runs, flags);
  process.stdout.write(text);
  if (regressions.length === 0) return;
  process.stdout.write(
    `slower by more than ${+(100 * flags.threshold!).toFixed(2)} %:\n  ${regressions.join("\n  ")}\n`,
  );
  process.exitCode = 1;
}

/** An option in percent; help shows its default as it is given. */
function share(name: string, about: string, usual: number): Option {
  return new Option(`${name} <percent>`, about).argParser(percent).default(usual, String(100 * usual));
}

export function addCompare(program: Command): void {
  program
    .command("compare")
    .description("compare runs with the first, case by case")
    .argument("<files...>", "result files")
    .option(
      "--threshold <percent>",
      "exit code 1 when a case is significantly slower by more than this",
      percent,
    )
    .addOption(share("--confidence", "of the intervals", 0.99).argParser(confidence))
    .addOption(share("--smallest", "changes below this count as none", 0.02))
    .addOption(share("--drift", "how far equal runs are apart, as a standard deviation", 0.01))
    .option("--all", "show cases without significant change too")
    .action(compare);
}
