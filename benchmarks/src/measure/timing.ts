// Timing of one entry by tinybench: warmed up until it gets no faster, calls shorter than the clock can tell batched.

import { Bench } from "tinybench";
import { BenchError, type Prepared } from "../model.js";

/** How much is measured. */
export interface Effort {
  readonly name: "quick" | "standard" | "long";
  /** Times that the whole selection is gone through; a case's samples spread over the run that way. */
  readonly rounds: number;
  /** What a run aims at, however much was selected: cases get shorter turns the more there are. */
  readonly seconds: number;
  /** Most milliseconds of samples of a case in a round, unless few samples take longer. */
  readonly milliseconds: number;
  /** Least samples of a case in a round, where they fit into a few times its turn. */
  readonly samples: number;
  /** Most milliseconds of warming up in the first round. */
  readonly warmup: number;
  /** A case whose call takes longer, in seconds, is measured in one round alone. */
  readonly slowCall: number;
  /** Seconds that the samples of such a case take together, one at least. */
  readonly slowSeconds: number;
  /** The longest call, in seconds, that is asked of anybody: a case that is foreseen to take longer is left out, with the reason. */
  readonly mostCall: number;
}

export const efforts: Readonly<Record<Effort["name"], Effort>> = {
  quick: {
    ...{ name: "quick", seconds: 50, rounds: 6, milliseconds: 40, samples: 3, warmup: 200 },
    ...{ slowCall: 0.25, slowSeconds: 0.5, mostCall: 2 },
  },
  standard: {
    ...{ name: "standard", seconds: 480, rounds: 9, milliseconds: 100, samples: 4, warmup: 800 },
    ...{ slowCall: 0.5, slowSeconds: 4, mostCall: 6.5 },
  },
  long: {
    ...{ name: "long", seconds: 2700, rounds: 18, milliseconds: 400, samples: 8, warmup: 3000 },
    ...{ slowCall: 2, slowSeconds: 20, mostCall: 60 },
  },
};

/** The shortest turn of a case in a round, in milliseconds. */
const shortestTurn = 6;
/** Part of a case's share of the run that its samples may take: inputs and warming up take the rest. */
const samplingShare = 0.4;
/** Turns that `samples` samples may take. */
const stretch = 3;

/** A sample takes this long at least, so that reading the clock is far below 1 % of it. */
const leastSampleMilliseconds = 0.1;
/** And so many steps of the clock, which browsers make coarse: 5 µs in an isolated page, 100 µs in another. */
const leastClockSteps = 200;

/** The smallest step of the clock that was seen in a few tries, in milliseconds. */
function clockStep(): number {
  let smallest = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 20; i++) {
    const began = performance.now();
    let now = began;
    while (now === began) now = performance.now();
    smallest = Math.min(smallest, now - began);
  }
  return smallest;
}

let leastSample = 0;

function leastSampleSeconds(): number {
  leastSample ||= Math.max(leastSampleMilliseconds, leastClockSteps * clockStep()) / 1000;
  return leastSample;
}

/** Length of the batches of the warm-up. */
const batchSeconds = 0.01;

/** Most samples that are kept of one round; a file stays readable that way. */
const mostSamples = 200;

/** Part of a case's share of the run that warming up may take, most of which end far sooner. */
const warmupShare = 1 / 3;

/** Most milliseconds of warming up, by the seconds that a case may take in a round. */
export function warmupOf({ warmup, rounds }: Effort, share: number): number {
  return Math.min(warmup, Math.max(50, 1000 * share * rounds * warmupShare));
}

export interface Timing {
  /** Seconds of one call, a sample each. */
  readonly seconds: number[];
  readonly callsPerSample: number;
  readonly asynchronous: boolean;
}

/** Seconds of a call, and whether it gives a promise. */
export interface Call {
  readonly seconds: number;
  readonly asynchronous: boolean;
}

/** The mean of `calls` calls. */
export async function time(prepared: Prepared, calls: number): Promise<Call> {
  if (prepared.time) return { seconds: (await prepared.time(calls)) / calls, asynchronous: true };
  let asynchronous = false;
  const started = performance.now();
  for (let i = 0; i < calls; i++) {
    const result = prepared.run();
    if (result instanceof Promise) {
      asynchronous = true;
      await result;
    }
  }
  return { seconds: (performance.now() - started) / 1000 / calls, asynchronous };
}

/**
 * Calls until three batches in a row bring no batch that is 2 % faster than the best before, or time is up.
 *
 * @returns seconds of one call, at best
 */
async function warmUp(prepared: Prepared, milliseconds: number): Promise<Call> {
  const deadline = performance.now() + milliseconds;
  const best = { ...(await time(prepared, 1)) };
  let idle = 0;
  while (idle < 3 && performance.now() < deadline) {
    const calls = Math.round(batchSeconds / Math.max(best.seconds, 1e-9));
    const { seconds } = await time(prepared, Math.min(Math.max(1, calls), 10_000));
    idle = seconds < 0.98 * best.seconds ? 0 : idle + 1;
    best.seconds = Math.min(best.seconds, seconds);
  }
  return best;
}

/**
 * Samples of an entry whose calls are slow, null for others. Its first call is its warm-up; where that took longer than all samples
 * may, it is the only one.
 */
export async function timeSlow(prepared: Prepared, effort: Effort, first: Call): Promise<number[] | null> {
  const { slowCall, slowSeconds, samples: most } = effort;
  if (first.seconds <= slowCall) return null;
  if (first.seconds > slowSeconds) return [first.seconds];
  // Much of a first call may have been compilation.
  const { seconds } = await time(prepared, 1);
  if (seconds <= slowCall) return null;
  const samples = [seconds];
  const count = Math.min(most, Math.floor(slowSeconds / seconds));
  while (samples.length < count) samples.push((await time(prepared, 1)).seconds);
  return samples;
}

/**
 * Measures one round of an entry.
 *
 * @param share - seconds that it may take in this round with all that belongs to it
 */
export async function timeEntry(
  prepared: Prepared,
  effort: Effort,
  first: boolean,
  share = Number.POSITIVE_INFINITY,
): Promise<Timing> {
  const turn = Math.min(effort.milliseconds, Math.max(shortestTurn, 1000 * share * samplingShare));
  // Tier-up has happened by the second round; only the inputs are new then.
  const warmup = first ? warmupOf(effort, share) : turn / 4;
  const { seconds, asynchronous } = await warmUp(prepared, warmup);
  const callsPerSample = Math.max(1, Math.ceil(leastSampleSeconds() / Math.max(seconds, 1e-9)));
  const bench = new Bench({
    time: turn,
    iterations: Math.max(1, Math.min(effort.samples, Math.floor((stretch * turn) / 1000 / seconds))),
    warmup: false,
    retainSamples: true,
    throws: true,
  });
  const { time: remote } = prepared;
  if (remote) {
    const calls = async (): Promise<{ overriddenDuration: number }> => ({
      overriddenDuration: 1000 * (await remote(callsPerSample)),
    });
    bench.add("calls", calls, { async: true });
    await bench.run();
  } else if (asynchronous) {
    const calls = async (): Promise<void> => {
      for (let i = 0; i < callsPerSample; i++) await prepared.run();
    };
    bench.add("calls", calls, { async: true });
    await bench.run();
  } else {
    const calls = (): void => {
      for (let i = 0; i < callsPerSample; i++) prepared.run();
    };
    bench.add("calls", calls, { async: false });
    bench.runSync();
  }
  const { result } = bench.tasks[0];
  const samples = result && "latency" in result ? result.latency.samples : undefined;
  if (!samples) throw new BenchError("tinybench gave no samples");
  return { seconds: thin(samples).map((ms) => ms / 1000 / callsPerSample), callsPerSample, asynchronous };
}

/** At most `mostSamples` of them, their quantiles kept. */
function thin(samples: readonly number[]): number[] {
  const sorted = [...samples].sort((a, b) => a - b);
  if (sorted.length <= mostSamples) return sorted;
  return Array.from(
    { length: mostSamples },
    (_, i) => sorted[Math.round((i * (sorted.length - 1)) / (mostSamples - 1))],
  );
}
