// A run in several processes, one after the other: how memory came to lie and what the compiler chose differ from process to
// process, so that a run of one process does not know how far its figures would be off in another.

import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bestPeaks } from "../measure/peaks.js";
import { BenchError } from "../model.js";
import { programArguments } from "../program.js";
import { readResults } from "../results/files.js";
import type { Result, Run } from "../results/schema.js";
import { notMeasured } from "../run.js";
import { keyOf } from "../titles.js";

/** Which of how many processes this one is. */
export interface Part {
  readonly index: number;
  readonly count: number;
}

/** Reads "2/3". */
export function partOf(text: string): Part {
  const [index, count] = text.split("/").map(Number);
  if (!(Number.isInteger(index) && Number.isInteger(count) && index >= 1 && index <= count && count <= 99))
    throw new BenchError(`--part: ${text} is no part such as 1/3`);
  return { index, count };
}

function mergeResults(results: readonly Result[]): Result {
  const [first] = results;
  const failed = results.find(({ failure }) => failure !== null && failure !== notMeasured);
  if (failed) return failed;
  const measured = results.filter(({ failure }) => failure === null);
  if (measured.length === 0) return first;
  const relative = ({ accuracy }: Result): number =>
    accuracy && accuracy.scale > 0 ? accuracy.maxError / accuracy.scale : 0;
  return {
    ...measured[0],
    rounds: measured.flatMap(({ rounds }) => rounds),
    launches: measured.flatMap(({ launches }) => launches),
    accuracy: [...measured].sort((a, b) => relative(b) - relative(a))[0].accuracy,
  };
}

/** One run of those that processes made of the same entries. */
export function joinRuns(runs: readonly Run[]): Run {
  const [first] = runs;
  const last = runs[runs.length - 1];
  const byKey = runs.map(({ results }) => new Map(results.map((result) => [keyOf(result), result])));
  const { load } = first.machine;
  return {
    ...first,
    seconds: runs.reduce((sum, run) => sum + run.seconds, 0),
    interrupted: runs.find(({ interrupted }) => interrupted !== null)?.interrupted ?? null,
    machine: {
      ...first.machine,
      load: load && last.machine.load ? { before: load.before, after: last.machine.load.after } : load,
    },
    peaks: first.peaks.map((one) =>
      runs
        .flatMap(({ peaks }) => peaks.filter(({ threads }) => threads === one.threads))
        .reduce((best, other) => bestPeaks(best, other)),
    ),
    results: first.results.map((result) =>
      mergeResults(byKey.map((results) => results.get(keyOf(result))).filter((one) => one !== undefined)),
    ),
  };
}

/**
 * Starts this program for one part, with the same arguments and a file of its own to write to.
 *
 * @param signal - has it write what it has and end
 * @returns null where it was ended before it had anything
 * @throws {BenchError} when it ends without results
 */
export async function runPart(
  args: readonly string[],
  { index, count }: Part,
  signal: AbortSignal,
): Promise<Run | null> {
  const folder = await mkdtemp(join(tmpdir(), "nomoat-bench-part-"));
  try {
    const out = join(folder, "part.json");
    const program = [...programArguments("main", "main"), ...args];
    program.push("--part", `${index}/${count}`, "--out", out);
    const child = spawn(process.execPath, program, { stdio: ["ignore", "ignore", "inherit"] });
    const stop = (): void => void child.kill("SIGINT");
    signal.addEventListener("abort", stop);
    const code = await new Promise<number | string>((resolve, reject) => {
      child.on("error", reject);
      child.on("close", (status, by) => resolve(status ?? by ?? "nothing"));
    });
    signal.removeEventListener("abort", stop);
    // Exit code 1 says that a case failed: the file tells which.
    const file = await readResults(out).catch(() => null);
    if (file) return file.runs[0];
    if (signal.aborted) return null;
    throw new BenchError(
      `process ${index} of ${count} ended with ${typeof code === "number" ? `exit code ${code}` : code} and no results`,
    );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * A run in `count` processes, one after the other.
 *
 * @param onPart - called after each part but the last, with what all have measured so far
 * @throws {BenchError} when a part fails, or all is over before anything was measured
 */
export async function runInParts(
  args: readonly string[],
  count: number,
  signal: AbortSignal,
  onPart: (run: Run) => Promise<void>,
): Promise<Run> {
  const runs: Run[] = [];
  for (let index = 1; index <= count && !signal.aborted; index++) {
    const run = await runPart(args, { index, count }, signal);
    if (run) runs.push(run);
    if (index < count && runs.length > 0) await onPart({ ...joinRuns(runs), interrupted: "not finished" });
  }
  if (runs.length === 0) throw new BenchError("interrupted before anything was measured");
  const joined = joinRuns(runs);
  return signal.aborted ? { ...joined, interrupted: String(signal.reason) } : joined;
}
