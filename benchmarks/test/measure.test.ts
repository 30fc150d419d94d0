// The measuring itself: its own cost, slowing on purpose, and how a run shares its time.

import { describe, expect, test } from "vitest";
import { pairedInterval } from "../src/compare/paired.js";
import { measureOverhead } from "../src/measure/overhead.js";
import { slow } from "../src/measure/slowed.js";
import { type Effort, efforts, timeEntry } from "../src/measure/timing.js";
import { takeTurns } from "../src/measure/turns.js";
import type { Entry, Prepared } from "../src/model.js";
import { crossoverLines } from "../src/present.js";
import { measureRun, type Step } from "../src/run.js";
import { aResult, aRun } from "./support.js";

const brief: Effort = { ...efforts.quick, seconds: 0.5, rounds: 3, milliseconds: 5, warmup: 5 };

function spin(milliseconds: number): void {
  const end = performance.now() + milliseconds;
  while (performance.now() < end);
}

function entryOf(name: string, run: () => unknown, more: Partial<Prepared> = {}): Entry {
  const { suite, parameters, work, implementation } = aResult();
  return {
    ...{ suite, parameters, work, implementation, name, backend: "wasm", threads: 1 },
    prepare: async () => ({ run, dispose: () => undefined, ...more }),
  };
}

test("the loop adds less than 1 % to calls of 100 µs and more", async () => {
  // Another program can disturb all turns of one attempt.
  let worst = Number.POSITIVE_INFINITY;
  for (let attempt = 0; attempt < 20 && worst >= 0.01; attempt++) {
    worst = Math.max(...(await measureOverhead()).map(({ overhead }) => overhead));
  }
  expect(worst).toBeLessThan(0.01);
});

test("a slowed call takes a tenth longer, no more", () => {
  let inner = 0;
  const run = (): void => {
    const began = performance.now();
    spin(2);
    inner = performance.now() - began;
  };
  const prepared = slow({ run, dispose: () => undefined }, 0.1);
  let closest = Number.POSITIVE_INFINITY;
  // Until nothing disturbs both.
  for (let i = 0; i < 20 || (closest >= 1.12 && i < 5000); i++) {
    const began = performance.now();
    prepared.run();
    const ratio = (performance.now() - began) / inner;
    expect(ratio).toBeGreaterThanOrEqual(1.1 - 1e-9);
    closest = Math.min(closest, ratio);
  }
  expect(closest).toBeLessThan(1.12);
});

test("turns are taken by each as often, and find what was slowed", async () => {
  const entry = entryOf("spin", () => spin(0.3));
  let found = 0;
  // Another program can disturb all turns of one attempt.
  for (let attempt = 0; attempt < 20 && found <= 1.3; attempt++) {
    const { plain, again, slowed } = await takeTurns(entry, { ...brief, milliseconds: 3 }, 0.5, 0);
    expect(again).toHaveLength(plain.length);
    expect(slowed).toHaveLength(plain.length);
    found = pairedInterval(plain, slowed).ratio;
  }
  expect(found).toBeGreaterThan(1.3);
});

describe("timing", () => {
  test("batches short calls and keeps few samples of long ones", async () => {
    const prepared = (run: () => unknown): Prepared => ({ run, dispose: () => undefined });
    const short = await timeEntry(
      prepared(() => undefined),
      brief,
      true,
      0.05,
    );
    expect(short.callsPerSample).toBeGreaterThan(100);
    expect(short.seconds.length).toBeLessThanOrEqual(200);
    const long = await timeEntry(
      prepared(() => spin(30)),
      brief,
      true,
      0.01,
    );
    expect(long.callsPerSample).toBe(1);
    expect(long.seconds).toHaveLength(1);
  });

  test("waits for promises", async () => {
    const run = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 3));
    const { seconds } = await timeEntry({ run, dispose: () => undefined }, brief, false, 0.05);
    expect(Math.min(...seconds)).toBeGreaterThan(0.002);
  });
});

describe("a run", () => {
  test("gives slow cases fewer rounds, keeps failures, and tells how far it is", async () => {
    const steps: Step[] = [];
    let prepared = 0;
    const wrong = { maxError: 1, scale: 1, tolerance: 1e-6, compared: 4 };
    const entries = [
      entryOf("slow", () => spin(400)),
      entryOf("quick", () => spin(0.2), {
        details: () => {
          prepared++;
          return { bytes: 7 };
        },
      }),
      entryOf("wrong", () => undefined, { verify: () => wrong }),
      entryOf("broken", () => {
        throw new Error("no such kernel\nand more");
      }),
      entryOf("other", () => spin(0.2)),
    ];
    const run = await measureRun({
      ...{
        entries,
        // Longer than any machine takes, so that nothing is cut off.
        effort: { ...brief, seconds: 3600, rounds: 4 },
        label: "",
        onStep: (step) => steps.push(step),
      },
      options: { effort: "quick", suites: [], filter: null },
      describe: () => aRun([]).machine,
    });
    const [slow, quick, bad, broken] = run.results;
    expect(slow.rounds).toHaveLength(1);
    expect(slow.rounds[0].length).toBeLessThanOrEqual(2);
    expect(quick.rounds).toHaveLength(4);
    expect(quick.details).toEqual({ bytes: 7 });
    expect(prepared).toBe(1);
    expect(bad).toMatchObject({
      rounds: [],
      accuracy: wrong,
      failure: expect.stringContaining("wrong result"),
    });
    expect(broken.failure).toBe("no such kernel");
    expect(steps.at(-1)).toMatchObject({ share: 1, secondsLeft: 0 });
    expect(steps.slice(0, 10).every(({ secondsLeft }) => secondsLeft > 0)).toBe(true);
    expect(steps.every(({ share }) => share >= 0 && share <= 1)).toBe(true);
  });
});

describe("the crossover", () => {
  const timed = (backend: string, size: number, seconds: number) =>
    aResult({
      ...{ suite: "crossover", name: `product ${size}`, backend, parameters: { size } },
      rounds: [[seconds]],
    });
  const wasm = [64, 256, 1024].map((size) => timed("wasm", size, size * 1e-6));

  test("is told where there is one, and where there is none", () => {
    const gpu = [2e-3, 3e-4, 4e-4].map((seconds, i) => timed("gpu", [64, 256, 1024][i], seconds));
    expect(crossoverLines(aRun([...wasm, ...gpu]))[0]).toMatch(
      /^gpu is faster than wasm from 1024 on \(.*64: 0\.0320×, 256: 0\.853×, 1024: 2\.56×\)$/,
    );
    const slow = [1, 1, 1].map((seconds, i) => timed("gpu", [64, 256, 1024][i], seconds));
    expect(crossoverLines(aRun([...wasm, ...slow]))[0]).toMatch(/^gpu does not overtake wasm up to 1024/);
    expect(crossoverLines(aRun(wasm))).toEqual([]);
  });
});
