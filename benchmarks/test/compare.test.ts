// Matching of cases, and the roofline.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { compareProduct, isAccurate, sampledRows } from "../src/accuracy.js";
import { compareRuns, keyOf, machineDifferences } from "../src/compare/compare.js";
import { rowsOf } from "../src/present.js";
import { bandwidthFor, roofOf } from "../src/roofline.js";
import { aResult, aRun } from "./support.js";

const results = [1, 2, 4].flatMap((threads) =>
  ["NN", "NT", "TN"].map((name) =>
    aResult({ name, threads, implementation: { name: "nomoat", version: "1" } }),
  ),
);

describe("matching", () => {
  test("finds each case whatever the order, and tells what is missing on either side", () => {
    const some = fc.shuffledSubarray(results);
    fc.assert(
      fc.property(some, some, (first, second) => {
        const { matched, unmatched } = compareRuns(aRun(first), aRun(second, { id: "b" }));
        const keys = (list: typeof first): string[] => list.map(keyOf);
        const common = keys(first).filter((key) => keys(second).includes(key));
        expect(matched.map((one) => keyOf(one.first))).toEqual(common);
        expect(matched.every((one) => keyOf(one.first) === keyOf(one.second))).toBe(true);
        expect(unmatched).toHaveLength(first.length + second.length - 2 * common.length);
      }),
      { numRuns: 30 },
    );
  });

  test("goes by what is computed, not by the version that does", () => {
    const other = aResult({ implementation: { name: "nomoat", version: "2.0.0" } });
    expect(compareRuns(aRun([aResult()]), aRun([other])).matched).toHaveLength(1);
  });

  test("refuses cases that count different work, and failed ones", () => {
    const work = { ...aResult().work, operations: 1 };
    const failed = aResult({ rounds: [], failure: "no memory" });
    for (const [other, reason] of [
      [aResult({ work }), "the two count different work"],
      [failed, "failed in the second: no memory"],
    ] as const) {
      const { matched, unmatched } = compareRuns(aRun([aResult()]), aRun([other]));
      expect(matched).toEqual([]);
      expect(unmatched[0].reason).toBe(reason);
    }
  });

  test("shows of the machines only what differs", () => {
    const a = aRun([]);
    const b = { ...a, machine: { ...a.machine, runtime: "Node 24.0.0", simd: "relaxed" as const } };
    expect(machineDifferences([a, b])).toEqual([
      { field: "runtime", values: ["Node 20.0.0", "Node 24.0.0"] },
      { field: "simd", values: ["baseline", "relaxed"] },
    ]);
    expect(machineDifferences([a, a])).toEqual([]);
  });
});

describe("the roofline", () => {
  const [peaks] = aRun([]).peaks;

  test("is the slower of arithmetic and memory", () => {
    const work = { ...aResult().work, operations: 40e9, bytes: 1e9 };
    expect(roofOf(work, peaks)).toEqual({ bound: "compute", seconds: 1 });
    expect(roofOf({ ...work, bytes: 100e9 }, peaks)).toEqual({ bound: "memory", seconds: 5 });
    expect(roofOf({ ...work, arithmetic: "int8" }, peaks)?.seconds).toBe(0.5);
    expect(roofOf({ ...work, operations: 0, bytes: 0 }, peaks)).toBeNull();
  });

  test("takes the bandwidth of the size that is nearest", () => {
    expect(bandwidthFor(peaks, 1000).bytes).toBe(262144);
    expect(bandwidthFor(peaks, 1 << 20).bytes).toBe(262144);
    expect(bandwidthFor(peaks, 1e9).bytes).toBe(134217728);
  });

  test("gives rates and shares of rows", () => {
    const [row] = rowsOf(aRun([aResult()]));
    expect(row.bestRate).toBeCloseTo(20, 10);
    expect(row.share).toBeCloseTo(0.5, 10);
    expect(row.bound).toBe("compute");
    expect(row.error).toBe(5e-7);
  });
});

describe("accuracy", () => {
  const identity = { values: [1, 0, 0, 1], batch: 0, row: 2, column: 1 };
  const size = { m: 2, n: 2, k: 2 };

  test("knows a right product from a wrong one", () => {
    const b = { values: [1, 2, 3, 4], batch: 0, row: 2, column: 1 };
    expect(isAccurate(compareProduct([1, 2, 3, 4], identity, b, size, 1e-6))).toBe(true);
    expect(isAccurate(compareProduct([1, 2, 3, 5], identity, b, size, 1e-6))).toBe(false);
    expect(isAccurate(compareProduct([1, 2, 3, Number.NaN], identity, b, size, 1e-6))).toBe(false);
    const turned = { ...b, row: 1, column: 2 };
    expect(isAccurate(compareProduct([1, 3, 2, 4], identity, turned, size, 1e-6))).toBe(true);
  });

  test("compares the first and the last row where it cannot compare all", () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 1e5 }), fc.integer({ min: 1, max: 2e7 }), (rows, cost) => {
        const chosen = sampledRows(rows, cost);
        expect(chosen[0]).toBe(0);
        expect(chosen.at(-1)).toBe(rows - 1);
        expect(new Set(chosen).size).toBe(chosen.length);
      }),
      { numRuns: 50 },
    );
  });
});
