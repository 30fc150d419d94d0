// What the measuring loop itself costs: a busy kernel of known length, measured by the tool and by two clock readings around many
// calls, in turns.

import { efforts, timeEntry } from "./timing.js";

export interface Overhead {
  /** Of one call of the kernel. */
  readonly seconds: number;
  /** What the tool's figure is above that, as a share; noise can make it negative. */
  readonly overhead: number;
}

/** Keeps the arithmetic of `busy` from being thrown away. */
export let sink = 0;

/** A chain of multiplications that nothing can shorten. */
function busy(steps: number): void {
  let x = sink | 1;
  for (let i = 0; i < steps; i++) x = Math.imul(x, 1664525) + 1013904223;
  sink = x;
}

const turns = 12;

/** Steps of `busy` that take about so many seconds. */
function calibrate(seconds: number): number {
  const steps = 20_000;
  let fastest = Number.POSITIVE_INFINITY;
  // Long enough for the compiler to have done its best.
  for (let i = 0; i < 500; i++) {
    const began = performance.now();
    busy(steps);
    fastest = Math.min(fastest, performance.now() - began);
  }
  return Math.ceil((1000 * seconds * steps) / fastest);
}

/** The fastest of several turns of both, which other programs disturb least. */
async function overheadOf(seconds: number): Promise<Overhead> {
  const steps = calibrate(seconds);
  const prepared = { run: () => busy(steps), dispose: () => undefined };
  const calls = Math.ceil(0.02 / seconds);
  let [plain, tool] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  for (let turn = 0; turn < turns; turn++) {
    for (let i = 0; i < calls; i++) {
      const began = performance.now();
      for (let j = 0; j < 5; j++) busy(steps);
      plain = Math.min(plain, (performance.now() - began) / 5000);
    }
    const { seconds: samples } = await timeEntry(prepared, efforts.quick, turn === 0);
    tool = Math.min(tool, ...samples);
  }
  return { seconds: plain, overhead: tool / plain - 1 };
}

/** For calls of 0.1, 0.3 and 1 ms. */
export async function measureOverhead(): Promise<Overhead[]> {
  const all: Overhead[] = [];
  for (const seconds of [1e-4, 3e-4, 1e-3]) all.push(await overheadOf(seconds));
  return all;
}
