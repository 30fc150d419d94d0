// Measures entries, round by round: each round goes through all of them, so that a disturbance of the machine meets a few
// samples of every case instead of all of one.

import { isAccurate } from "./accuracy.js";
import type { Machine } from "./machine.js";
import { bestPeaks, measurePeaks, type Peaks } from "./measure/peaks.js";
import { type Call, type Effort, time, timeEntry } from "./measure/timing.js";
import type { Accuracy, Entry } from "./model.js";
import type { Result, Run, RunOptions } from "./results/schema.js";

export interface RunRequest {
  readonly entries: readonly Entry[];
  readonly effort: Effort;
  readonly options: RunOptions;
  /** A name for the machine, or "". */
  readonly label: string;
  /** The machine print; called before and after the run. */
  describe(): Machine;
  /** Called before each step, with the share of the run that is done and the seconds that are left, where known. */
  onStep?(step: Step): void;
}

export interface Step {
  /** 0 … 1. */
  readonly share: number;
  readonly secondsLeft: number | null;
  readonly what: string;
}

interface Progress {
  accuracy: Accuracy | null;
  details: Readonly<Record<string, number>>;
  failure: string | null;
  callsPerSample: number;
  rounds: number[][];
  /** All that it took so far, inputs and checks among it. */
  seconds: number;
  /** Seconds of its last round. */
  last: number;
  lastCall: Call | null;
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

/** Rounds that a case has however slow it is. */
const fewestRounds = 2;
/** A slow case goes on while it has taken less than this many times an equal share of the run. */
const patience = 4;

async function measureRound(entry: Entry, progress: Progress, effort: Effort, share: number): Promise<void> {
  const first = progress.rounds.length === 0;
  const prepared = await entry.prepare();
  try {
    if (first) {
      progress.lastCall = await time(prepared, 1);
      if (prepared.verify) {
        progress.accuracy = await prepared.verify();
        if (!isAccurate(progress.accuracy)) {
          const { maxError, scale, tolerance } = progress.accuracy;
          progress.failure = `wrong result: error ${maxError.toExponential(1)} where ${(tolerance * scale).toExponential(1)} is allowed`;
          return;
        }
      }
      if (prepared.details) progress.details = await prepared.details();
    }
    const timing = await timeEntry(prepared, effort, first, share, progress.lastCall);
    const { seconds, callsPerSample, asynchronous } = timing;
    progress.lastCall = { seconds: Math.min(...seconds), asynchronous };
    progress.callsPerSample = callsPerSample;
    progress.rounds.push(seconds);
  } finally {
    await prepared.dispose();
  }
}

/** Measures everything. A failing entry is a result too: it carries its reason. */
export async function measureRun(request: RunRequest): Promise<Run> {
  const { entries, effort, options, label, describe, onStep } = request;
  const machine = describe();
  const started = new Date();
  const fresh = (): Progress => ({
    ...{ accuracy: null, details: {}, failure: null, callsPerSample: 1, rounds: [], seconds: 0, last: 0 },
    lastCall: null,
  });
  const progress = new Map<Entry, Progress>(entries.map((entry) => [entry, fresh()]));
  const threadCounts = [...new Set(entries.map((entry) => entry.threads))].sort((a, b) => a - b);
  const peaks = new Map<number, Peaks>();
  // An equal share of the time of the run, for one entry in one round.
  const share = effort.seconds / (entries.length * effort.rounds);
  const isDone = ({ failure, rounds, seconds }: Progress): boolean =>
    failure !== null || (rounds.length >= fewestRounds && seconds > patience * share * effort.rounds);
  const tell = (round: number, at: number, what: string): void => {
    if (!onStep) return;
    const states = entries.map((entry) => progress.get(entry)!);
    const known = states.filter((one) => one.last > 0);
    const mean = known.reduce((sum, one) => sum + one.last, 0) / Math.max(1, known.length);
    const rest = effort.rounds - 1 - round;
    let left = 0;
    states.forEach((one, i) => {
      if (isDone(one)) return;
      const most = Math.max(0, fewestRounds - one.rounds.length);
      const affordable =
        one.last > 0 ? Math.floor((patience * share * effort.rounds - one.seconds) / one.last) + 1 : rest;
      const rounds = Math.min(rest, Math.max(most, affordable));
      left += (rounds + (i >= at ? 1 : 0)) * (one.last || mean);
    });
    const done = (Date.now() - started.getTime()) / 1000;
    const guess = known.length >= Math.min(3, entries.length);
    onStep({ share: guess ? done / (done + left) : 0, secondsLeft: guess ? left : null, what });
  };
  // Entries of one thread count after those of another; within, as they were given.
  const order = threadCounts.flatMap((threads) => entries.filter((entry) => entry.threads === threads));
  for (let round = 0; round < effort.rounds; round++) {
    // What takes long even so gets no more rounds than it must have.
    if (round >= fewestRounds && Date.now() - started.getTime() > 1000 * effort.seconds) break;
    let threads = 0;
    for (const [at, entry] of order.entries()) {
      if (entry.threads !== threads) {
        threads = entry.threads;
        tell(round, at, `peaks · ${threads}T`);
        const measured = await measurePeaks(threads, effort, round === 0);
        const known = peaks.get(threads);
        peaks.set(threads, known ? bestPeaks(known, measured) : measured);
      }
      const state = progress.get(entry)!;
      if (isDone(state)) continue;
      tell(round, at, titleOf(entry));
      const began = performance.now();
      try {
        await measureRound(entry, state, effort, share);
      } catch (error) {
        state.failure = reasonOf(error);
      }
      state.last = (performance.now() - began) / 1000;
      state.seconds += state.last;
      // The next entry starts from a clean heap where the process allows it (--expose-gc).
      (globalThis as { gc?: () => void }).gc?.();
    }
  }
  onStep?.({ share: 1, secondsLeft: 0, what: "done" });
  const { load } = describe();
  return {
    id: globalThis.crypto.randomUUID(),
    label,
    started: started.toISOString(),
    seconds: (Date.now() - started.getTime()) / 1000,
    options,
    machine: { ...machine, load: machine.load && load ? { ...machine.load, after: load.before } : null },
    peaks: [...peaks.values()],
    results: entries.map((entry) => resultOf(entry, progress.get(entry)!)),
  };
}

function resultOf(entry: Entry, state: Progress): Result {
  const { suite, name, parameters, implementation, backend, threads, work } = entry;
  const { accuracy, details, failure, callsPerSample, rounds } = state;
  return {
    ...{ suite, name, parameters, implementation, backend, threads, work },
    callsPerSample,
    rounds: failure === null ? rounds : [],
    accuracy,
    details,
    failure: failure ?? (rounds.length === 0 ? "not measured" : null),
  };
}
