// Reductions, gather and scatterAdd on wasm against the reference backend, over layouts of rank 0 to 4.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { ReduceKind } from "../../src/backend/types.js";
import {
  contiguousView,
  dtypes,
  fillerOf,
  firstDifference,
  onBoth,
  operandOf,
  outputOf,
  randomizer,
  shapeAndViews,
  viewsOf,
  wasm,
} from "./support.js";

const runs = { numRuns: 120 };

describe("reduce", () => {
  const kinds: ReduceKind[] = ["sum", "prod", "max", "min"];
  it.each(kinds.flatMap((kind) => [[kind, "float32"] as const, [kind, "int32"] as const]))(
    "%s of %s",
    (kind, dtype) => {
      fc.assert(
        fc.property(shapeAndViews(1), fc.nat(), fc.nat(15), ([x], seed, mask) => {
          const axes = [...x.shape.keys()].filter((axis) => mask & (1 << axis));
          const shape = x.shape.map((extent, i) => (axes.includes(i) ? 1 : extent));
          const [a, b] = onBoth(
            // Products of numbers around 1, so that no order of multiplications overflows.
            [
              {
                dtype,
                view: x,
                fill: () =>
                  kind === "prod"
                    ? (i) => (1 - 2 * (i % 2)) * (dtype === "int32" ? 1 : 1 + (i % 7) / 10000)
                    : fillerOf(dtype, seed, kind === "max" || kind === "min"),
              },
            ],
            { dtype, view: shape },
            (backend, [input], out) => backend.reduce(kind, input, axes, out),
          );
          expect(
            firstDifference(a, b, kind === "sum" ? 1e-4 : 1e-37, kind === "prod" ? 1e-4 : 1e-6),
          ).toBeNull();
        }),
        runs,
      );
    },
  );

  /** Beyond the extents at which rows and columns are cut, and cut unevenly. */
  const large = [[40_001], [3, 20_001], [700, 5], [5, 1030], [600, 67], [2, 130, 515], [1030, 2, 3]];

  it.each(kinds)("%s of what is long, backwards, every other, repeated or in another order", (kind) => {
    const views = fc.constantFrom(...large).chain((shape) => viewsOf(shape, 0.1));
    fc.assert(
      fc.property(views, fc.nat(), fc.integer({ min: 1, max: 7 }), (x, seed, mask) => {
        const axes = [...x.shape.keys()].filter((axis) => mask & (1 << axis));
        const shape = x.shape.map((extent, i) => (axes.includes(i) ? 1 : extent));
        const near = (i: number) => (1 - 2 * (i % 2)) * (1 + (i % 7) / 1e7);
        const fill = () => (kind === "prod" ? near : fillerOf("float32", seed));
        const [a, b] = onBoth(
          [{ dtype: "float32", view: x, fill }],
          { dtype: "float32", view: shape },
          (backend, [input], out) => backend.reduce(kind, input, axes, out),
        );
        expect(
          firstDifference(a, b, kind === "sum" ? 1e-3 : 1e-37, kind === "prod" ? 1e-2 : 1e-6),
        ).toBeNull();
      }),
      { numRuns: 40 },
    );
  });

  it.each(kinds)("%s of every other element does not see those in between", (kind) => {
    for (const [rows, length] of [
      [3, 1],
      [2, 2],
      [1, 37],
      [2, 530],
      [1, 16_400],
    ]) {
      const view = { shape: [rows, length], strides: [2 * length, 2], offset: 0, span: 2 * rows * length };
      for (const axis of [0, 1]) {
        const x = operandOf(wasm, "float32", view, (i) => (i % 2 === 1 ? Number.NaN : 1));
        const out = outputOf(wasm, "float32", axis === 0 ? [1, length] : [rows, 1]);
        wasm.reduce(kind, x, [axis], out);
        const expected = kind === "sum" ? (axis === 0 ? rows : length) : 1;
        expect(new Set(wasm.window(out))).toEqual(new Set([expected]));
        wasm.free(x.buffer);
        wasm.free(out.buffer);
      }
    }
  });

  it.each(["argmax", "argmin"] as const)("%s", (kind) => {
    for (const dtype of ["float32", "int32"] as const) {
      fc.assert(
        fc.property(shapeAndViews(1), fc.nat(), fc.nat(3), ([x], seed, axis) => {
          fc.pre(axis < x.shape.length && x.shape[axis] > 0);
          const shape = x.shape.map((extent, i) => (i === axis ? 1 : extent));
          const [a, b] = onBoth(
            [{ dtype, view: x, fill: () => fillerOf(dtype, seed, true) }],
            { dtype: "int32", view: shape },
            (backend, [input], out) => backend.argReduce(kind, input, axis, out),
          );
          expect(firstDifference(a, b, 0, 0)).toBeNull();
        }),
        { numRuns: 60 },
      );
    }
  });

  it("keeps the error of long sums small, in rows and in columns", () => {
    const count = 1_000_003;
    const next = randomizer(7);
    const values = Float32Array.from({ length: count }, () => next());
    const exact = values.reduce((sum, value) => sum + value, 0);
    for (const shape of [[count], [count, 1]]) {
      const x = operandOf(wasm, "float32", contiguousView(shape), (i) => values[i]);
      const out = outputOf(
        wasm,
        "float32",
        shape.map(() => 1),
      );
      wasm.reduce("sum", x, [0], out);
      expect(Math.abs(wasm.window(out)[0] - exact) / exact).toBeLessThan(1e-7);
      wasm.free(x.buffer);
      wasm.free(out.buffer);
    }
    // The same numbers as 4 columns that are alike.
    const x = operandOf(wasm, "float32", contiguousView([250_000, 4]), (i) => values[i >> 2]);
    const out = outputOf(wasm, "float32", [1, 4]);
    const quarter = values.subarray(0, 250_000).reduce((sum, value) => sum + value, 0);
    wasm.reduce("sum", x, [0], out);
    for (const sum of wasm.window(out)) expect(Math.abs(sum - quarter) / quarter).toBeLessThan(1e-7);
    wasm.free(x.buffer);
    wasm.free(out.buffer);
  });
});

describe("gather and scatterAdd", () => {
  it.each(dtypes)("gathers rows of %s", (dtype) => {
    fc.assert(
      fc.property(shapeAndViews(1, 3), shapeAndViews(1, 2), fc.nat(), ([x], [indices], seed) => {
        fc.pre(x.shape.length > 0 && x.shape[0] > 0);
        const pick = () => {
          const next = randomizer(seed);
          return () => Math.floor(next() * x.shape[0]);
        };
        const [a, b] = onBoth(
          [
            { dtype, view: x, fill: () => fillerOf(dtype, seed) },
            { dtype: "int32", view: indices, fill: pick },
          ],
          { dtype, view: [...indices.shape, ...x.shape.slice(1)] },
          (backend, [table, list], out) => backend.gather(table, list, out),
        );
        expect(firstDifference(a, b, 0, 0)).toBeNull();
      }),
      { numRuns: 50 },
    );
  });

  it("names the index that is out of range", () => {
    const x = operandOf(wasm, "float32", contiguousView([4, 3]), (i) => i);
    const indices = operandOf(wasm, "int32", contiguousView([3]), (i) => [0, 3, 4][i]);
    const out = outputOf(wasm, "float32", [3, 3]);
    expect(() => wasm.gather(x, indices, out)).toThrow(/index 4 at position 2/);
    for (const { buffer } of [x, indices, out]) wasm.free(buffer);
  });

  it.each(["float32", "int32"] as const)("adds rows of %s in index order", (dtype) => {
    fc.assert(
      fc.property(shapeAndViews(1, 3), fc.integer({ min: 1, max: 5 }), fc.nat(), ([source], rows, seed) => {
        fc.pre(source.shape.length > 0);
        const pick = () => {
          const next = randomizer(seed);
          return () => Math.floor(next() * rows);
        };
        const [a, b] = onBoth(
          [
            { dtype, view: source, fill: () => fillerOf(dtype, seed) },
            { dtype: "int32", view: contiguousView([source.shape[0]]), fill: pick },
          ],
          { dtype, view: [rows, ...source.shape.slice(1)] },
          (backend, [x, list], out) => backend.scatterAdd(x, list, out),
        );
        expect(firstDifference(a, b, 0, 0)).toBeNull();
      }),
      { numRuns: 80 },
    );
  });
});

it("leaves no memory behind", () => {
  expect(wasm.memory().used).toBe(0);
});
