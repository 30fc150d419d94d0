// Measures entries, round by round: each round goes through all of them, so that a disturbance of the machine meets a few
// samples of every case instead of all of one.

import { isAccurate } from "./accuracy.js";
import type { Machine } from "./machine.js";
import { foresee, Outlook } from "./measure/outlook.js";
import { bestPeaks, measurePeaks, type Peaks } from "./measure/peaks.js";
import { type Call, type Effort, time, timeEntry, timeSlow } from "./measure/timing.js";
import type { Accuracy, Entry } from "./model.js";
import type { Result, Run, RunOptions } from "./results/schema.js";
import { keyOf, reasonOf, titleOf } from "./titles.js";

export interface RunRequest {
  readonly entries: readonly Entry[];
  readonly effort: Effort;
  readonly options: RunOptions;
  /** A name for the machine, or "". */
  readonly label: string;
  /** The machine print; called before and after the run. */
  describe(): Machine;
  /** Called before each step, with the share of the run that is done and the seconds that are left. */
  onStep?(step: Step): void;
  /** Ends the run early; its reason stands in the result. */
  readonly signal?: AbortSignal;
  /** What was measured is kept now and then; the run is marked as interrupted in it. */
  onKeep?(run: Run): void | Promise<void>;
  /** An interrupted run of the same, which goes on. */
  readonly earlier?: Run;
}

export interface Step {
  /** 0 … 1. */
  readonly share: number;
  readonly secondsLeft: number;
  readonly what: string;
}

/** What is known of an entry so far. */
interface Progress {
  accuracy: Accuracy | null;
  details: Readonly<Record<string, number>>;
  failure: string | null;
  callsPerSample: number;
  rounds: number[][];
  /** Rounds that other processes measured before this one, by process. */
  readonly before: readonly number[];
  /** Whether it ran in this process. */
  begun: boolean;
  /** So slow that one round must do. */
  slow: boolean;
  /** All that it took so far, inputs and checks among it. */
  seconds: number;
  /** Seconds of its last round. */
  last: number;
  lastCall: Call | null;
}

/** Rounds that a case has, unless one call takes very long. */
const fewestRounds = 2;
/** A slow case goes on while it has taken less than this many times an equal share of the run. */
const patience = 4;
/** Share of a run that looking for peaks again may take. */
const mostPeaks = 0.3;
/** Seconds between two times that what was measured is kept. */
const keepSeconds = 20;
/** In place of a result of what an interrupted run did not come to. */
export const notMeasured = "not measured before the run was interrupted";

/** Lets signals, timers and messages in, which awaiting what is there already does not. */
const breathe = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0));

class Runner {
  readonly #request: RunRequest;
  readonly #started: Date;
  readonly #machine: Machine;
  readonly #progress: Map<Entry, Progress>;
  readonly #order: readonly Entry[];
  readonly #peaks = new Map<number, Peaks>();
  readonly #outlook: Outlook;
  /** An equal share of the time of the run, for one entry in one round. */
  readonly #share: number;
  #kept = Date.now();
  #peakSeconds = 0;

  constructor(request: RunRequest) {
    const { entries, effort, describe, earlier } = request;
    this.#request = request;
    this.#machine = describe();
    this.#started = new Date();
    const known = new Map((earlier?.results ?? []).map((result) => [keyOf(result), result]));
    this.#progress = new Map(entries.map((entry) => [entry, begin(known.get(keyOf(entry)), effort)]));
    for (const one of earlier?.peaks ?? []) this.#peaks.set(one.threads, one);
    // Entries of one thread count after those of another; within, as they were given.
    const threadCounts = [...new Set(entries.map((entry) => entry.threads))].sort((a, b) => a - b);
    this.#order = threadCounts.flatMap((threads) => entries.filter((entry) => entry.threads === threads));
    this.#share = effort.seconds / (entries.length * effort.rounds);
    this.#outlook = new Outlook(this.#order, effort);
  }

  async run(): Promise<Run> {
    const { effort, onStep, signal } = this.#request;
    for (let round = 0; round < effort.rounds && !signal?.aborted; round++) {
      let threads = 0;
      for (const [at, entry] of this.#order.entries()) {
        const state = this.#progress.get(entry)!;
        // What takes long even so gets no more rounds than it must have.
        const late = round >= fewestRounds && this.#elapsed() > effort.seconds;
        if (late || signal?.aborted) break;
        if (state.rounds.length > round || this.#isDone(state)) continue;
        if (entry.threads !== threads) {
          threads = entry.threads;
          this.#tell(round, at, `peaks · ${threads}T`);
          await this.#measurePeaks(threads, round);
        }
        this.#tell(round, at, titleOf(entry));
        await breathe();
        if (!signal?.aborted) await this.#measure(entry, state);
        if (Date.now() - this.#kept > 1000 * keepSeconds) await this.#keep();
      }
    }
    onStep?.({ share: 1, secondsLeft: 0, what: "done" });
    return this.#result(signal?.aborted ? String(signal.reason) : null);
  }

  async #measurePeaks(threads: number, round: number): Promise<void> {
    const { effort } = this.#request;
    // The first rounds say what the machine can do; where there are many, some look again, if that is not most of the run.
    if (round >= fewestRounds && round % 4 !== 3) return;
    if (round > 0 && this.#peakSeconds > mostPeaks * this.#elapsed()) return;
    const began = performance.now();
    const measured = await measurePeaks(threads, effort, round === 0);
    this.#peakSeconds += (performance.now() - began) / 1000;
    const known = this.#peaks.get(threads);
    this.#peaks.set(threads, known ? bestPeaks(known, measured) : measured);
  }

  async #measure(entry: Entry, state: Progress): Promise<void> {
    const { effort, signal } = this.#request;
    const first = !state.begun;
    state.begun = true;
    // Whoever asks for this library's own figures gets them.
    const reason = first && entry.rate !== undefined ? foresee(entry, this.#known(), effort) : null;
    if (reason) {
      state.failure = reason;
      return;
    }
    const began = performance.now();
    let stop: (() => void) | undefined;
    const stopped = new Promise<"stopped">((resolve) => {
      stop = () => resolve("stopped");
      signal?.addEventListener("abort", stop);
    });
    try {
      await Promise.race([measureRound(entry, state, effort, first, this.#share), stopped]);
    } catch (error) {
      // Peers are told to end by whoever interrupts this: no fault of theirs.
      if (!signal?.aborted) state.failure = reasonOf(error);
    } finally {
      if (stop) signal?.removeEventListener("abort", stop);
    }
    state.last = (performance.now() - began) / 1000;
    state.seconds += state.last;
    if (first) this.#outlook.learn(entry, state.last);
    // The next entry starts from a clean heap where the process allows it (--expose-gc).
    (globalThis as { gc?: () => void }).gc?.();
  }

  *#known(): Generator<readonly [Entry, number]> {
    for (const [entry, { lastCall, failure }] of this.#progress) {
      if (lastCall && failure === null) yield [entry, lastCall.seconds];
    }
  }

  #isDone({ failure, rounds, seconds, slow }: Progress): boolean {
    const enough = patience * this.#share * this.#request.effort.rounds;
    return failure !== null || slow || (rounds.length >= fewestRounds && seconds > enough);
  }

  #elapsed(): number {
    return (Date.now() - this.#started.getTime()) / 1000;
  }

  /** Seconds that are left when entry `at` of a round comes next. */
  #left(round: number, at: number): number {
    const { effort } = this.#request;
    const elapsed = this.#elapsed();
    let [first, must, might] = [0, 0, 0];
    this.#order.forEach((entry, i) => {
      const state = this.#progress.get(entry)!;
      if (this.#isDone(state)) return;
      if (!state.begun) {
        const { now, later } = this.#outlook.of(entry);
        first += now;
        if (later > 0) must += later * (fewestRounds - 1);
        might += later * (effort.rounds - fewestRounds);
        return;
      }
      const had = i < at ? round + 1 : round;
      const affordable = Math.ceil(
        (patience * this.#share * effort.rounds - state.seconds) / Math.max(state.last, 1e-6),
      );
      // The first round has warming up and checks in it.
      const each =
        state.rounds.length <= 1 ? Math.min(state.last, this.#outlook.of(entry).later) : state.last;
      must += Math.max(0, fewestRounds - had) * each;
      might += Math.max(0, Math.min(effort.rounds - Math.max(had, fewestRounds), affordable)) * each;
    });
    return first + must + Math.min(might, Math.max(0, effort.seconds - elapsed - first - must));
  }

  #tell(round: number, at: number, what: string): void {
    const { onStep } = this.#request;
    if (!onStep) return;
    const [done, left] = [this.#elapsed(), this.#left(round, at)];
    onStep({ share: done / (done + left || 1), secondsLeft: left, what });
  }

  async #keep(): Promise<void> {
    this.#kept = Date.now();
    await this.#request.onKeep?.(this.#result("not finished"));
  }

  #result(interrupted: string | null): Run {
    const { options, label, describe, earlier, entries } = this.#request;
    const { load } = describe();
    const machine = this.#machine;
    const before = earlier?.machine.load?.before ?? machine.load?.before ?? 0;
    return {
      id: earlier?.id ?? (this.#id ??= globalThis.crypto.randomUUID()),
      label,
      started: earlier?.started ?? this.#started.toISOString(),
      seconds: (earlier?.seconds ?? 0) + this.#elapsed(),
      interrupted,
      options,
      machine: { ...machine, load: machine.load && load ? { before, after: load.before } : null },
      peaks: [...this.#peaks.values()],
      results: entries.map((entry) => resultOf(entry, this.#progress.get(entry)!)),
    };
  }

  #id: string | undefined;
}

/** One round of an entry. */
async function measureRound(
  entry: Entry,
  state: Progress,
  effort: Effort,
  first: boolean,
  share: number,
): Promise<void> {
  const prepared = await entry.prepare();
  try {
    if (first) {
      state.lastCall = await time(prepared, 1);
      if (prepared.verify) {
        state.accuracy = await prepared.verify();
        if (!isAccurate(state.accuracy)) {
          const { maxError, scale, tolerance } = state.accuracy;
          state.failure = `wrong result: error ${maxError.toExponential(1)} where ${(tolerance * scale).toExponential(1)} is allowed`;
          return;
        }
      }
      if (prepared.details) state.details = await prepared.details();
      // What others are compared with is measured more often.
      const slowSeconds = effort.slowSeconds * (entry.rate === undefined ? 2 : 1);
      const slow = await timeSlow(prepared, { ...effort, slowSeconds }, state.lastCall);
      if (slow) {
        state.lastCall = { ...state.lastCall, seconds: Math.min(...slow) };
        state.slow = true;
        state.rounds.push(slow);
        return;
      }
    }
    const timing = await timeEntry(prepared, effort, first, share);
    const { seconds, callsPerSample, asynchronous } = timing;
    state.lastCall = { seconds: Math.min(...seconds), asynchronous };
    state.callsPerSample = callsPerSample;
    state.rounds.push(seconds);
  } finally {
    await prepared.dispose();
  }
}

/** Where an entry starts: from nothing, or from what an earlier process measured. */
function begin(earlier: Result | undefined, { slowCall }: Effort): Progress {
  const rounds = (earlier?.rounds ?? []).map((round) => [...round]);
  const failure = earlier?.failure === notMeasured ? null : (earlier?.failure ?? null);
  return {
    accuracy: earlier?.accuracy ?? null,
    details: earlier?.details ?? {},
    failure,
    callsPerSample: earlier?.callsPerSample ?? 1,
    rounds,
    before: earlier?.launches ?? [],
    begun: false,
    slow: rounds.length === 1 && Math.min(...rounds[0]) > slowCall,
    ...{ seconds: 0, last: 0, lastCall: null },
  };
}

function resultOf(entry: Entry, state: Progress): Result {
  const { suite, name, parameters, implementation, backend, threads, work } = entry;
  const { accuracy, details, callsPerSample, before } = state;
  const failure = state.failure ?? (state.rounds.length === 0 ? notMeasured : null);
  const rounds = failure === null ? state.rounds : [];
  const own = rounds.length - before.reduce((sum, count) => sum + count, 0);
  return {
    ...{ suite, name, parameters, implementation, backend, threads, work },
    callsPerSample,
    rounds,
    launches: rounds.length === 0 ? [] : [...before, ...(own > 0 ? [own] : [])],
    accuracy,
    details,
    failure,
  };
}

/** Measures everything. A failing entry is a result too: it carries its reason. */
export function measureRun(request: RunRequest): Promise<Run> {
  return new Runner(request).run();
}
