// Statistics of comparisons, on samples whose truth is known.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  normalQuantile,
  type RatioInterval,
  ratioInterval,
  studentQuantile,
} from "../src/compare/bootstrap.js";
import { verdictOf } from "../src/compare/compare.js";
import { pairedInterval } from "../src/compare/paired.js";
import { randomWords } from "../src/inputs.js";
import { quantile, type Samples, sortedCopy, summarize } from "../src/statistics.js";

interface Noise {
  /** Deviation of the log of a sample within its round. */
  readonly within: number;
  /** Deviation of the log of a round's times. */
  readonly between: number;
  /** Share of samples that another program disturbed, which take up to four times as long. */
  readonly disturbed: number;
}

/** Normal numbers by Box and Muller. */
function normals(seed: number): () => number {
  const next = randomWords(seed);
  return () => Math.sqrt(-2 * Math.log((next() + 1) / 2 ** 32)) * Math.cos((2 * Math.PI * next()) / 2 ** 32);
}

function sampled(seed: number, seconds: number, noise: Noise, rounds = 8, count = 15): number[][] {
  const normal = normals(seed);
  const next = randomWords(seed ^ 0x5bd1e995);
  return Array.from({ length: rounds }, () => {
    const round = seconds * Math.exp(noise.between * normal());
    return Array.from({ length: count }, () => {
      const time = round * Math.exp(noise.within * Math.abs(normal()));
      return next() / 2 ** 32 < noise.disturbed ? time * (1 + (3 * next()) / 2 ** 32) : time;
    });
  });
}

/** Rounds of one process. */
const single = (rounds: number[][]): Samples => ({
  rounds,
  launches: rounds.length > 0 ? [rounds.length] : [],
});

/** Rounds of several processes, whose times differ from process to process. */
function launched(seed: number, seconds: number, noise: Noise, between: number, launches = 3): Samples {
  const normal = normals(seed ^ 0x2545f491);
  const parts = Array.from({ length: launches }, (_, i) =>
    sampled(seed + 104_729 * (i + 1), seconds * Math.exp(between * normal()), noise, 3, 8),
  );
  return { rounds: parts.flat(), launches: parts.map(({ length }) => length) };
}

/** Share of `trials` in which `holds`. */
function share(trials: number, holds: (seed: number) => boolean): number {
  let count = 0;
  for (let seed = 1; seed <= trials; seed++) if (holds(7919 * seed)) count++;
  return count / trials;
}

const machines: Record<string, Noise> = {
  quiet: { within: 0.01, between: 0.005, disturbed: 0.02 },
  "with slow and fast rounds": { within: 0.02, between: 0.03, disturbed: 0.05 },
  disturbed: { within: 0.05, between: 0.02, disturbed: 0.15 },
};

describe("quantiles", () => {
  test("agree with tables", () => {
    expect(normalQuantile(0.975)).toBeCloseTo(1.959963985, 8);
    expect(normalQuantile(0.001)).toBeCloseTo(-3.090232306, 8);
    expect(normalQuantile(0.5)).toBeCloseTo(0, 12);
    expect(studentQuantile(0.995, 12)).toBeCloseTo(3.0545, 2);
    expect(Math.abs(studentQuantile(0.995, 4) / 4.6041 - 1)).toBeLessThan(0.02);
    expect(quantile([1, 2, 3, 4], 0.5)).toBe(2.5);
  });

  test("lie between the extremes and grow with q", () => {
    const values = fc.array(fc.double({ min: 1e-9, max: 1e3, noNaN: true }), { minLength: 1, maxLength: 40 });
    fc.assert(
      fc.property(values, fc.double({ min: 0, max: 1, noNaN: true }), (list, q) => {
        const sorted = sortedCopy(list);
        const value = quantile(sorted, q);
        expect(value).toBeGreaterThanOrEqual(sorted[0]);
        expect(value).toBeLessThanOrEqual(sorted[sorted.length - 1]);
        expect(quantile(sorted, q / 2)).toBeLessThanOrEqual(value);
      }),
    );
  });
});

describe("the summary", () => {
  test("scales with the samples and does not mind their order", () => {
    const rounds = fc.array(
      fc.array(fc.double({ min: 1e-6, max: 10, noNaN: true }), { minLength: 1, maxLength: 9 }),
      {
        minLength: 1,
        maxLength: 5,
      },
    );
    fc.assert(
      fc.property(rounds, fc.double({ min: 0.01, max: 100, noNaN: true }), (given, factor) => {
        const summary = summarize(single(given))!;
        const scaled = summarize(
          single(given.map((round) => round.map((one) => factor * one).reverse()).reverse()),
        )!;
        expect(scaled.typical / summary.typical / factor).toBeCloseTo(1, 9);
        expect(summary.best).toBeLessThanOrEqual(summary.typical * (1 + 1e-12));
      }),
    );
    expect(summarize(single([]))).toBeNull();
  });
});

describe.each(Object.entries(machines))("on a %s machine", (_, noise) => {
  test("intervals hold the true ratio as often as they promise, and equal runs do not differ in 95 % of cases", () => {
    const ratio = 1.07;
    const intervals = Array.from({ length: 200 }, (_, trial) => {
      const seed = 7919 * (trial + 1);
      const [first, second] = [
        single(sampled(seed, 1e-3, noise)),
        single(sampled(seed + 1, ratio * 1e-3, noise)),
      ];
      return ratioInterval(first, second, { resamples: 400, seed });
    });
    const share = (holds: (interval: RatioInterval) => boolean): number =>
      intervals.filter(holds).length / intervals.length;
    expect(share(({ low, high }) => low <= ratio && ratio <= high)).toBeGreaterThanOrEqual(0.97);
    // Intervals scale with the second's samples (tested below), so these are those of equal runs.
    const equal = intervals.map((one) => ({
      ratio: one.ratio / ratio,
      low: one.low / ratio,
      high: one.high / ratio,
    }));
    const unchanged = equal.filter((one) => verdictOf(one) === "no significant change").length;
    expect(unchanged / equal.length).toBeGreaterThanOrEqual(0.95);
  });
});

describe("runs of three processes", () => {
  test.each([0, 0.02, 0.05])(
    "whose times differ by %f are found equal, and their intervals hold the truth",
    (between) => {
      const intervals = Array.from({ length: 200 }, (_, trial) => {
        const seed = 6007 * (trial + 1);
        return ratioInterval(
          launched(seed, 1e-3, machines.quiet, between),
          launched(seed + 1, 1e-3, machines.quiet, between),
          { resamples: 300, seed },
        );
      });
      const held = intervals.filter(({ low, high }) => low <= 1 && 1 <= high).length;
      expect(held / intervals.length).toBeGreaterThanOrEqual(0.97);
      const unchanged = intervals.filter((one) => verdictOf(one) === "no significant change").length;
      expect(unchanged / intervals.length).toBeGreaterThanOrEqual(0.97);
    },
  );

  test("that differ by 1 % show a tenth", () => {
    const found = share(100, (seed) => {
      const [a, b] = [1e-3, 1.1e-3].map((seconds, i) => launched(seed + i, seconds, machines.quiet, 0.01));
      return verdictOf(ratioInterval(a, b, { resamples: 300, seed })) === "slower";
    });
    expect(found).toBeGreaterThanOrEqual(0.9);
  });
});

describe("times taken in turns", () => {
  /** Both of a pair are slowed by what the machine does at the time, by up to four times. */
  function pairs(seed: number, ratio: number, count: number): [number[], number[]] {
    const [next, normal] = [randomWords(seed), normals(seed ^ 0x9e3779b9)];
    const times: [number[], number[]] = [[], []];
    for (let i = 0; i < count; i++) {
      const machine = 1 + (3 * next()) / 2 ** 32;
      times[0].push(machine * Math.exp(0.02 * normal()));
      times[1].push(machine * ratio * Math.exp(0.02 * normal()));
    }
    return times;
  }

  test("have intervals that hold the true ratio, and show a tenth on a machine that is anything but quiet", () => {
    const intervals = Array.from({ length: 300 }, (_, i) =>
      pairedInterval(...pairs(7919 * (i + 1), 1.1, 12)),
    );
    const held = intervals.filter(({ low, high }) => low <= 1.1 && 1.1 <= high).length;
    expect(held / intervals.length).toBeGreaterThanOrEqual(0.975);
    const found = intervals.filter((one) => verdictOf(one) === "slower").length;
    expect(found / intervals.length).toBeGreaterThanOrEqual(0.97);
  });

  test("say nothing when they are few", () => {
    expect(pairedInterval([1, 1, 1], [2, 2, 2])).toEqual({
      ratio: 2,
      low: 0,
      high: Number.POSITIVE_INFINITY,
    });
    // All eight ratios one way happens once in 128 times.
    const eight = pairedInterval(new Array(8).fill(1), [1, 2, 3, 4, 5, 6, 7, 8]);
    expect(eight.low).toBeCloseTo(1, 12);
    expect(eight.high).toBeCloseTo(8, 12);
  });
});

describe("a kernel slowed by 10 %", () => {
  test.each([
    ["quick", 5, 8],
    ["standard", 8, 15],
  ] as const)("is found by %s runs of a quiet machine", (_, rounds, count) => {
    const noise = machines.quiet;
    const found = share(100, (seed) => {
      const interval = ratioInterval(
        single(sampled(seed, 1e-3, noise, rounds, count)),
        single(sampled(seed + 1, 1.1e-3, noise, rounds, count)),
        { resamples: 400, seed },
      );
      return verdictOf(interval) === "slower";
    });
    expect(found).toBeGreaterThanOrEqual(0.97);
  });

  test("and where another program slows a third of the rounds by up to a half, without finding what is not there", () => {
    const other = (seed: number, seconds: number): Samples => {
      const next = randomWords(seed ^ 0x27d4eb2f);
      return single(
        sampled(seed, seconds, machines.quiet).map((round) => {
          const factor = next() / 2 ** 32 < 1 / 3 ? 1 + (0.5 * next()) / 2 ** 32 : 1;
          return round.map((one) => factor * one);
        }),
      );
    };
    const verdicts = (factor: number, wanted: string): number =>
      share(100, (seed) => {
        const interval = ratioInterval(other(seed, 1e-3), other(seed + 1, factor * 1e-3), {
          ...{ resamples: 400, seed },
        });
        return verdictOf(interval) === wanted;
      });
    expect(verdicts(1, "no significant change")).toBeGreaterThanOrEqual(0.95);
    expect(verdicts(1.1, "slower")).toBeGreaterThanOrEqual(0.5);
  });

  test("and one made faster by as much, the other way round", () => {
    const [a, b] = [single(sampled(1, 1.1e-3, machines.quiet)), single(sampled(2, 1e-3, machines.quiet))];
    expect(verdictOf(ratioInterval(a, b))).toBe("faster");
    expect(verdictOf(ratioInterval(b, a))).toBe("slower");
  });

  test("a change below what counts is none, however sure", () => {
    expect(verdictOf({ ratio: 1.005, low: 1.004, high: 1.006 })).toBe("no significant change");
    expect(verdictOf({ ratio: 1.05, low: 0.99, high: 1.11 })).toBe("no significant change");
  });
});

test("intervals scale with the samples", () => {
  const [a, b] = [sampled(3, 1e-3, machines.disturbed), sampled(4, 1e-3, machines.disturbed)];
  fc.assert(
    fc.property(fc.double({ min: 0.1, max: 10, noNaN: true }), (factor) => {
      const plain = ratioInterval(single(a), single(b), { resamples: 100 });
      const scaled = ratioInterval(single(a), single(b.map((round) => round.map((one) => factor * one))), {
        resamples: 100,
      });
      for (const field of ["low", "ratio", "high"] as const) {
        expect(scaled[field] / plain[field] / factor).toBeCloseTo(1, 9);
      }
    }),
    { numRuns: 10 },
  );
});

test("the same samples give the same interval", () => {
  const [a, b] = [single(sampled(1, 1, machines.disturbed, 3)), single(sampled(2, 1, machines.disturbed, 1))];
  expect(ratioInterval(a, b)).toEqual(ratioInterval(a, b));
  const { low, ratio, high } = ratioInterval(single([[1, 1.1]]), single([[2]]));
  expect(low).toBeLessThanOrEqual(ratio);
  expect(high).toBeGreaterThanOrEqual(ratio);
});
