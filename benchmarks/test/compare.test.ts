// Matching of cases, and the roofline.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { isAccurate, type Matrix, placesOf, productCheck, valuesAt } from "../src/accuracy.js";
import { compareRuns, machineDifferences } from "../src/compare/compare.js";
import { rowsOf } from "../src/present.js";
import { bandwidthFor, roofOf } from "../src/roofline.js";
import { keyOf } from "../src/titles.js";
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
  const identity: Matrix = { values: [1, 0, 0, 1], batch: 0, row: 2, column: 1 };
  const size = { m: 2, n: 2, k: 2 };
  const compare = (values: number[], b: Matrix) =>
    productCheck(null, size, 1e-6, () => [identity, b]).compareWhole(values);

  test("knows a right product from a wrong one", () => {
    const b = { values: [1, 2, 3, 4], batch: 0, row: 2, column: 1 };
    expect(isAccurate(compare([1, 2, 3, 4], b))).toBe(true);
    expect(isAccurate(compare([1, 2, 3, 5], b))).toBe(false);
    expect(isAccurate(compare([1, 2, 3, Number.NaN], b))).toBe(false);
    expect(isAccurate(compare([1, 2, 3], b))).toBe(false);
    const turned = { ...b, row: 1, column: 2 };
    expect(isAccurate(compare([1, 3, 2, 4], turned))).toBe(true);
  });

  test("compares small products whole, large ones on a grid with all four corners", () => {
    const extent = fc.integer({ min: 2, max: 5000 });
    fc.assert(
      fc.property(extent, extent, extent, fc.integer({ min: 1, max: 8 }), (m, n, k, batch) => {
        const { rows, columns, width } = placesOf({ m, n, k, batch });
        expect(width).toBe(n);
        for (const [chosen, all] of [
          [rows, batch * m],
          [columns, n],
        ] as const) {
          expect(chosen[0]).toBe(0);
          expect(chosen.at(-1)).toBe(all - 1);
          expect(new Set(chosen).size).toBe(chosen.length);
        }
        const count = rows.length * columns.length;
        expect(count * k).toBeLessThan(3e7);
        if (batch * m * n * k < 1e7 && batch * m * n < 1e5) expect(count).toBe(batch * m * n);
        // No stretch of a large product goes without: a wrong tile of a kernel is met.
        const gap = Math.max(...rows.map((row, i) => row - (rows[i - 1] ?? 0)));
        if (batch === 1 && Math.max(m, n, k) <= 2048) expect(gap).toBeLessThanOrEqual(32);
      }),
      { numRuns: 100 },
    );
  });

  test("reads and computes the same places, in every product of a batch", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 4 }), (m, batch) => {
        const [n, k] = [5, 3];
        const values = (count: number, factor: number) =>
          Float64Array.from({ length: count }, (_, i) => Math.sin(factor * i));
        const [a, b] = [values(batch * m * k, 1.7), values(batch * k * n, 2.3)];
        const out = new Float64Array(batch * m * n);
        for (let p = 0; p < batch; p++)
          for (let i = 0; i < m; i++)
            for (let j = 0; j < n; j++)
              for (let l = 0; l < k; l++)
                out[(p * m + i) * n + j] += a[(p * m + i) * k + l] * b[(p * k + l) * n + j];
        const size = { m, n, k, batch };
        const check = productCheck(null, size, 1e-12, () => [
          { values: a, batch: m * k, row: k, column: 1 },
          { values: b, batch: k * n, row: n, column: 1 },
        ]);
        expect(isAccurate(check.compareWhole(out))).toBe(true);
        expect(isAccurate(check.compare(valuesAt(out, check.places)))).toBe(true);
        out[out.length - 1] += 1e-6;
        expect(isAccurate(check.compareWhole(out))).toBe(false);
      }),
      { numRuns: 30 },
    );
  });
});
