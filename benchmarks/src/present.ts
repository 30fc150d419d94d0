// Results as rows for people: rates with units, shares of the roof, errors. Tables, Markdown and reports are made of these.

import { uncertainty } from "./compare/bootstrap.js";
import type { Result, Run } from "./results/schema.js";
import { roofOf } from "./roofline.js";
import { type Summary, summarize } from "./statistics.js";

export interface Row {
  readonly result: Result;
  readonly summary: Summary | null;
  /** What is counted a second, such as "GFLOP/s". */
  readonly unit: string;
  /** The typical rate and the best one, in `unit`. */
  readonly rate: number | null;
  readonly bestRate: number | null;
  /** The fastest sample's share of the roof; null where no peak was measured. */
  readonly share: number | null;
  readonly bound: "compute" | "memory" | null;
  /** maxError / scale. */
  readonly error: number | null;
  /** Half the width of the 95 % interval of the time, as a share of it; null where one sample says nothing of that. */
  readonly uncertainty: number | null;
}

/** What one call counts, in the unit that is shown. */
function amountOf({ work }: Result): { amount: number; unit: string } {
  if (work.shown === "items" && work.items) return { amount: work.items.count, unit: `${work.items.unit}/s` };
  if (work.shown === "bytes") return { amount: work.bytes / 1e9, unit: "GB/s" };
  return { amount: work.operations / 1e9, unit: work.arithmetic === "int8" ? "GOP/s" : "GFLOP/s" };
}

/** One row a result, in the run's order. */
export function rowsOf(run: Run): Row[] {
  return run.results.map((result) => {
    const summary = summarize(result);
    const { amount, unit } = amountOf(result);
    const peaks = run.peaks.find((one) => one.threads === result.threads);
    const roof = peaks ? roofOf(result.work, peaks) : null;
    const { accuracy } = result;
    return {
      result,
      summary,
      unit,
      rate: summary && amount / summary.typical,
      bestRate: summary && amount / summary.best,
      share: roof && summary && roof.seconds / summary.best,
      bound: roof?.bound ?? null,
      error: accuracy && (accuracy.scale > 0 ? accuracy.maxError / accuracy.scale : accuracy.maxError),
      uncertainty: summary && uncertainty(result),
    };
  });
}

/** Three significant digits, without an exponent for what people read as a plain number. */
export function formatNumber(value: number | null): string {
  if (value === null || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toExponential(2);
  return size >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

export function formatPercent(value: number | null): string {
  return value === null ? "–" : `${(100 * value).toFixed(value < 0.095 ? 1 : 0)} %`;
}

/** Such as "3.21 ms". */
export function formatSeconds(value: number | null): string {
  if (value === null || !Number.isFinite(value)) return "–";
  for (const [unit, size] of [
    ["s", 1],
    ["ms", 1e-3],
    ["µs", 1e-6],
  ] as const) {
    if (value >= size) return `${(value / size).toPrecision(3)} ${unit}`;
  }
  return `${(value / 1e-9).toPrecision(3)} ns`;
}

/** Such as "4:05". */
export function formatTimeLeft(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

export function formatBytes(value: number): string {
  for (const [unit, size] of [
    ["GiB", 2 ** 30],
    ["MiB", 2 ** 20],
    ["KiB", 2 ** 10],
  ] as const) {
    if (value >= size) return `${formatNumber(value / size)} ${unit}`;
  }
  return `${value} B`;
}

/** Who computed a result. */
export function implementationOf({ implementation, backend }: Result): string {
  return implementation.name === backend ? backend : `${implementation.name} (${backend})`;
}

/** The machine in a line. */
export function machineLine({ machine }: Run): string {
  const { cpu, processors, runtime, simd, system, architecture } = machine;
  return `${cpu}, ${processors} processors · ${runtime}, ${simd} SIMD · ${system} ${architecture}`;
}

/** The measured peaks, a line for each thread count. */
export function peakLines({ peaks }: Run): string[] {
  return peaks.map(({ threads, float32, int8, bandwidth }) => {
    const streams = bandwidth.map(({ bytes, rate }) => `${formatNumber(rate / 1e9)} (${formatBytes(bytes)})`);
    return `${threads}T: ${formatNumber(float32 / 1e9)} GFLOP/s in registers, ${formatNumber(int8 / 1e9)} GOP/s of integer dot products, GB/s ${streams.join(", ")}`;
  });
}

/** The row's cells after the case's name, in the order of `rowHeads`. */
export const rowHeads = [
  "by",
  "threads",
  "time",
  "typical",
  "best",
  "unit",
  "of roof",
  "bound",
  "error",
  "±",
  "samples",
];

export function rowCells(row: Row): string[] {
  const { result, summary, rate, bestRate, unit, share, bound, error } = row;
  return [
    implementationOf(result),
    String(result.threads),
    formatSeconds(summary?.typical ?? null),
    formatNumber(rate),
    formatNumber(bestRate),
    unit,
    formatPercent(share),
    bound ?? "–",
    error === null ? "–" : error.toExponential(1),
    formatPercent(row.uncertainty),
    String(summary?.samples ?? 0),
  ];
}

/** A line for each reason why entries of an implementation failed, and for the run where it ended early. */
export function failureLines({ results, interrupted }: Run): string[] {
  const reasons = new Map<string, string[]>();
  for (const result of results) {
    const { suite, name, threads, failure } = result;
    if (failure === null) continue;
    const key = `${implementationOf(result)}: ${failure}`;
    reasons.set(key, [...(reasons.get(key) ?? []), `${suite} ${name}, ${threads}T`]);
  }
  const failed = [...reasons].map(([reason, cases]) => {
    const more = cases.length > 1 ? ` and ${cases.length - 1} more` : "";
    // What was left out on purpose says so itself.
    return `${/: left out: /.test(reason) ? "" : "failed: "}${reason} (${cases[0]}${more})`;
  });
  return [...(interrupted === null ? [] : [`the run is not whole: ${interrupted}`]), ...failed];
}

/** For each backend beside wasm: the sizes from which on it is faster, in the crossover suite. */
export function crossoverLines(run: Run): string[] {
  const rows = rowsOf(run).filter(({ result, summary }) => result.suite === "crossover" && summary);
  const times = (backend: string): Map<number, number> => {
    const best = new Map<number, number>();
    for (const { result, summary } of rows) {
      if (result.backend !== backend) continue;
      const size = Number(result.parameters.size);
      // Wasm as fast as it is with all the threads that were measured.
      best.set(size, Math.min(best.get(size) ?? Number.POSITIVE_INFINITY, summary!.typical));
    }
    return best;
  };
  const wasm = times("wasm");
  const others = [...new Set(rows.map(({ result }) => result.backend))].filter((one) => one !== "wasm");
  return others.flatMap((backend) => {
    const common = [...times(backend)].filter(([size]) => wasm.has(size)).sort(([a], [b]) => a - b);
    if (common.length === 0) return [];
    const ratios = common.map(([size, seconds]) => `${size}: ${formatNumber(wasm.get(size)! / seconds)}×`);
    const slower = common.findLastIndex(([size, seconds]) => seconds >= wasm.get(size)!);
    const verdict =
      slower === common.length - 1
        ? `does not overtake wasm up to ${common.at(-1)![0]}`
        : `is faster than wasm from ${common[slower + 1][0]} on`;
    return [`${backend} ${verdict} (speed by that of wasm, result read back: ${ratios.join(", ")})`];
  });
}
