// Measures entries, round by round: each round goes through all of them, so that a disturbance of the machine meets a few
// samples of every case instead of all of one.

import { randomUUID } from "node:crypto";
import { isAccurate } from "./accuracy.js";
import { afterRun, describeMachine } from "./machine.js";
import { bestPeaks, measurePeaks, type Peaks } from "./measure/peaks.js";
import { type Effort, timeEntry } from "./measure/timing.js";
import type { Accuracy, Entry } from "./model.js";
import type { Result, Run, RunOptions } from "./results/schema.js";

export interface RunRequest {
  readonly entries: readonly Entry[];
  readonly effort: Effort;
  readonly options: RunOptions;
  /** A name for the machine, or "". */
  readonly label: string;
  /** Called before each step; `total` steps in all. */
  onStep?(done: number, total: number, what: string): void;
}

interface Progress {
  accuracy: Accuracy | null;
  failure: string | null;
  callsPerSample: number;
  rounds: number[][];
}

/** Names an entry for people. */
export function titleOf(
  entry: Pick<Entry, "suite" | "name" | "implementation" | "backend" | "threads">,
): string {
  const { suite, name, implementation, backend, threads } = entry;
  const who = implementation.name === backend ? backend : `${implementation.name}/${backend}`;
  return `${suite} ${name} · ${who} · ${threads}T`;
}

/** The first line of an error's message. */
export function reasonOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return (message.split("\n").find((line) => line.trim()) ?? "failed without a message").trim().slice(0, 300);
}

async function measureRound(entry: Entry, progress: Progress, effort: Effort): Promise<void> {
  const first = progress.rounds.length === 0;
  const prepared = await entry.prepare();
  try {
    if (first && prepared.verify) {
      await prepared.run();
      progress.accuracy = await prepared.verify();
      if (!isAccurate(progress.accuracy)) {
        const { maxError, scale, tolerance } = progress.accuracy;
        progress.failure = `wrong result: error ${maxError.toExponential(1)} where ${(tolerance * scale).toExponential(1)} is allowed`;
        return;
      }
    }
    const { seconds, callsPerSample } = await timeEntry(prepared, effort, first);
    progress.callsPerSample = callsPerSample;
    progress.rounds.push(seconds);
  } finally {
    prepared.dispose();
  }
}

/** Measures everything. A failing entry is a result too: it carries its reason. */
export async function measureRun(request: RunRequest): Promise<Run> {
  const { entries, effort, options, label, onStep } = request;
  const machine = describeMachine();
  const started = new Date();
  const progress = new Map<Entry, Progress>(
    entries.map((entry) => [entry, { accuracy: null, failure: null, callsPerSample: 1, rounds: [] }]),
  );
  const threadCounts = [...new Set(entries.map((entry) => entry.threads))].sort((a, b) => a - b);
  const peaks = new Map<number, Peaks>();
  const total = effort.rounds * (entries.length + threadCounts.length);
  let done = 0;
  for (let round = 0; round < effort.rounds; round++) {
    for (const threads of threadCounts) {
      onStep?.(done++, total, `peaks · ${threads}T`);
      const measured = await measurePeaks(threads, effort);
      const known = peaks.get(threads);
      peaks.set(threads, known ? bestPeaks(known, measured) : measured);
      for (const entry of entries) {
        if (entry.threads !== threads) continue;
        onStep?.(done++, total, titleOf(entry));
        const state = progress.get(entry)!;
        if (state.failure !== null) continue;
        try {
          await measureRound(entry, state, effort);
        } catch (error) {
          state.failure = reasonOf(error);
        }
        // The next entry starts from a clean heap where the process allows it (--expose-gc).
        (globalThis as { gc?: () => void }).gc?.();
      }
    }
  }
  onStep?.(total, total, "done");
  return {
    id: randomUUID(),
    label,
    started: started.toISOString(),
    seconds: (Date.now() - started.getTime()) / 1000,
    options,
    machine: afterRun(machine),
    peaks: [...peaks.values()],
    results: entries.map((entry) => resultOf(entry, progress.get(entry)!)),
  };
}

function resultOf(entry: Entry, { accuracy, failure, callsPerSample, rounds }: Progress): Result {
  const { suite, name, parameters, implementation, backend, threads, work } = entry;
  return {
    ...{ suite, name, parameters, implementation, backend, threads, work },
    callsPerSample,
    rounds: failure === null ? rounds : [],
    accuracy,
    failure: failure ?? (rounds.length === 0 ? "not measured" : null),
  };
}
