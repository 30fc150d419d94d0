// Which cases of two runs are the same, and whether their times differ.

import type { Machine } from "../machine.js";
import type { Result, Run } from "../results/schema.js";
import { summarize } from "../statistics.js";
import { keyOf } from "../titles.js";
import { type RatioInterval, ratioInterval } from "./bootstrap.js";

export type Verdict = "faster" | "slower" | "no significant change";

export interface Comparison {
  readonly first: Result;
  readonly second: Result;
  /** Time of the second by that of the first. */
  readonly interval: RatioInterval;
  readonly verdict: Verdict;
}

export interface RunComparison {
  readonly matched: readonly Comparison[];
  /** Cases that cannot be compared, with the reason. */
  readonly unmatched: readonly { readonly title: string; readonly reason: string }[];
}

export interface CompareOptions {
  readonly confidence?: number;
  /** Changes below this share are none, however sure (default 0.02). */
  readonly smallest?: number;
  /** See BootstrapOptions. */
  readonly drift?: number;
}

/** Faster or slower only where the interval excludes 1 and the change is worth mentioning. */
export function verdictOf({ ratio, low, high }: RatioInterval, smallest = 0.02): Verdict {
  if (low > 1 && ratio > 1 + smallest) return "slower";
  if (high < 1 && ratio < 1 / (1 + smallest)) return "faster";
  return "no significant change";
}

/** Matches the cases of `second` with those of `first`, in the order of the first. */
export function compareRuns(first: Run, second: Run, options: CompareOptions = {}): RunComparison {
  const others = new Map(second.results.map((result) => [keyOf(result), result]));
  const matched: Comparison[] = [];
  const unmatched: { title: string; reason: string }[] = [];
  for (const result of first.results) {
    const title = keyOf(result);
    const other = others.get(title);
    others.delete(title);
    const reason = other ? mismatch(result, other) : "only in the first";
    if (reason === null) {
      const { confidence, drift } = options;
      const interval = ratioInterval(result, other!, { confidence, drift });
      const verdict = verdictOf(interval, options.smallest);
      matched.push({ first: result, second: other!, interval, verdict });
    } else unmatched.push({ title, reason });
  }
  for (const title of others.keys()) unmatched.push({ title, reason: "only in the second" });
  return { matched, unmatched };
}

/** Why two results of one name are not one case; null where they are. */
function mismatch(first: Result, second: Result): string | null {
  if (first.failure !== null) return `failed in the first: ${first.failure}`;
  if (second.failure !== null) return `failed in the second: ${second.failure}`;
  const { operations, bytes } = first.work;
  if (operations !== second.work.operations || bytes !== second.work.bytes) {
    return "the two count different work";
  }
  return null;
}

/** What differs between machines: field, and its value for each run. */
export function machineDifferences(runs: readonly Run[]): { field: string; values: string[] }[] {
  const described = runs.map(({ machine, peaks, options }) => {
    const { libraries, load, caches, ...plain } = machine satisfies Machine;
    const rows: [string, string][] = [
      ...Object.entries(plain).map(([name, value]): [string, string] => [name, String(value ?? "unknown")]),
      ["caches", caches.join(", ")],
      ...Object.entries(libraries).map(([name, version]): [string, string] => [name, version]),
      ["load before", load?.before.toFixed(1) ?? "unknown"],
      ["load after", load?.after.toFixed(1) ?? "unknown"],
      ["effort", options.effort],
      ...peaks.map(({ threads, float32 }): [string, string] => [
        `peak float32 ${threads}T`,
        `${(float32 / 1e9).toFixed(1)} GFLOP/s`,
      ]),
    ];
    return new Map(rows);
  });
  const fields = [...new Set(described.flatMap((one) => [...one.keys()]))];
  return fields
    .map((field) => ({ field, values: described.map((one) => one.get(field) ?? "–") }))
    .filter(({ values }) => values.some((value) => value !== values[0]));
}

/** Seconds of one call, for tables. */
export function typicalSeconds(result: Result): number | null {
  return summarize(result)?.typical ?? null;
}
