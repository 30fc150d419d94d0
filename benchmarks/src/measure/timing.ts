// Timing of one entry by tinybench: warmed up until it gets no faster, calls shorter than the clock can tell batched.

import { Bench } from "tinybench";
import { BenchError, type Prepared } from "../model.js";

/** How much is measured. */
export interface Effort {
  readonly name: "quick" | "standard" | "long";
  /** Times that the whole selection is gone through; a case's samples spread over the run that way. */
  readonly rounds: number;
  /** Least milliseconds of a case in a round. */
  readonly milliseconds: number;
  /** Least samples of a case in a round. */
  readonly samples: number;
  /** Most milliseconds of warming up in the first round. */
  readonly warmup: number;
}

export const efforts: Readonly<Record<Effort["name"], Effort>> = {
  quick: { name: "quick", rounds: 3, milliseconds: 60, samples: 3, warmup: 300 },
  standard: { name: "standard", rounds: 7, milliseconds: 150, samples: 5, warmup: 1500 },
  long: { name: "long", rounds: 15, milliseconds: 500, samples: 10, warmup: 3000 },
};

/** A sample takes this long at least, so that reading the clock is far below 1 % of it. */
const leastSampleMilliseconds = 0.1;

/** Length of the batches of the warm-up. */
const batchSeconds = 0.01;

/** Most samples that are kept of one round; a file stays readable that way. */
const mostSamples = 200;

export interface Timing {
  /** Seconds of one call, a sample each. */
  readonly seconds: number[];
  readonly callsPerSample: number;
}

/** Seconds of one of `calls` calls, and whether a call gives a promise. */
async function time(prepared: Prepared, calls: number): Promise<{ seconds: number; asynchronous: boolean }> {
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
async function warmUp(
  prepared: Prepared,
  milliseconds: number,
): Promise<{ seconds: number; asynchronous: boolean }> {
  const deadline = performance.now() + milliseconds;
  const best = await time(prepared, 1);
  let idle = 0;
  while (idle < 3 && performance.now() < deadline) {
    const calls = Math.round(batchSeconds / Math.max(best.seconds, 1e-9));
    const { seconds } = await time(prepared, Math.min(Math.max(1, calls), 10_000));
    idle = seconds < 0.98 * best.seconds ? 0 : idle + 1;
    best.seconds = Math.min(best.seconds, seconds);
  }
  return best;
}

/** Measures one round of an entry. */
export async function timeEntry(prepared: Prepared, effort: Effort, first: boolean): Promise<Timing> {
  const { seconds, asynchronous } = await warmUp(prepared, first ? effort.warmup : effort.warmup / 10);
  const callsPerSample = Math.max(1, Math.ceil(leastSampleMilliseconds / 1000 / Math.max(seconds, 1e-9)));
  const bench = new Bench({
    time: effort.milliseconds,
    iterations: effort.samples,
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
  return { seconds: thin(samples).map((ms) => ms / 1000 / callsPerSample), callsPerSample };
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
