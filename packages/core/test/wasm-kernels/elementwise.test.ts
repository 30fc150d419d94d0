// The elementwise primitives on wasm against the reference backend, over layouts of rank 0 to 4.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { BinaryKind, CompareKind, UnaryKind } from "../../src/backend/types.js";
import {
  contiguousView,
  dtypes,
  fillerOf,
  firstDifference,
  onBoth,
  operandOf,
  shapeAndViews,
  wasm,
} from "./support.js";

const runs = { numRuns: 120 };

describe("copy and fill", () => {
  it.each(dtypes)("copies %s between any layouts", (dtype) => {
    fc.assert(
      fc.property(shapeAndViews(2), fc.nat(), ([x, target], seed) => {
        // Where an expanded axis would be written several times, the target is contiguous instead.
        const view = target.strides.some((stride, i) => stride === 0 && target.shape[i] > 1)
          ? target.shape
          : target;
        const [a, b] = onBoth(
          [{ dtype, view: x, fill: () => fillerOf(dtype, seed) }],
          { dtype, view },
          (backend, [input], out) => backend.copy(input, out),
        );
        expect(firstDifference(a, b, 0, 0)).toBeNull();
      }),
      runs,
    );
  });

  it("transposes planes larger than a tile", () => {
    for (const dtype of ["float32", "float16", "uint8"] as const) {
      for (const [rows, columns] of [
        [33, 70],
        [64, 64],
        [129, 31],
      ]) {
        const view = {
          shape: [3, rows, columns],
          strides: [rows * columns, 1, rows],
          offset: 0,
          span: 3 * rows * columns,
        };
        const [a, b] = onBoth(
          [{ dtype, view, fill: () => fillerOf(dtype, 5) }],
          { dtype, view: view.shape },
          (backend, [x], out) => backend.copy(x, out),
        );
        expect(firstDifference(a, b, 0, 0)).toBeNull();
      }
    }
  });

  it("walks more axes than the odometer has", () => {
    const rank = 13;
    const shape = new Array<number>(rank).fill(2);
    const strides = shape.map((_, i) => 3 ** (rank - 1 - i));
    const view = { shape, strides, offset: 0, span: 3 ** rank };
    const [a, b] = onBoth(
      [{ dtype: "float32", view, fill: () => fillerOf("float32", 1) }],
      { dtype: "float32", view: shape },
      (backend, [x], out) => backend.copy(x, out),
    );
    expect(firstDifference(a, b, 0, 0)).toBeNull();
  });

  it.each(dtypes)("fills %s", (dtype) => {
    fc.assert(
      fc.property(
        shapeAndViews(1),
        fc.constantFrom(0, 1, -3.7, 1e10, -1e10, Number.NaN, Number.POSITIVE_INFINITY, 0.1),
        ([view], value) => {
          const [a, b] = onBoth([], { dtype, view }, (backend, _, out) => backend.fill(out, value));
          expect(firstDifference(a, b, 0, 0)).toBeNull();
        },
      ),
      { numRuns: 40 },
    );
  });
});

describe("cast", () => {
  const pairs = dtypes.flatMap((from) => dtypes.map((to) => [from, to] as const));
  it.each(pairs)("%s → %s", (from, to) => {
    fc.assert(
      fc.property(shapeAndViews(1), fc.nat(), ([view], seed) => {
        const [a, b] = onBoth(
          [{ dtype: from, view, fill: () => fillerOf(from, seed, true) }],
          { dtype: to, view: view.shape },
          (backend, [x], out) => backend.cast(x, out),
        );
        // A NaN of 16 bits may have any payload.
        const nan = (bits: number) =>
          to === "float16" ? (bits & 0x7fff) > 0x7c00 : (bits & 0x7fff) > 0x7f80;
        const clean = (list: ArrayLike<number>) =>
          to.endsWith("16") ? Array.from(list, (v) => (nan(v) ? -1 : v)) : list;
        expect(firstDifference(clean(a), clean(b), 0, 0)).toBeNull();
      }),
      { numRuns: 25 },
    );
  });

  it("rounds every float16 and bfloat16 neighbourhood as the reference does", () => {
    for (const to of ["float16", "bfloat16"] as const) {
      const count = 65536 * 3;
      const scratch = new DataView(new ArrayBuffer(4));
      const fill = () => (i: number) => {
        // All upper halves of float32, each at, just below and just above a tie.
        scratch.setUint32(
          0,
          (((i / 3) | 0) << 16) | (to === "float16" ? (i % 3) * 0x0fff + 1 : 0x7fff + (i % 3)),
        );
        return scratch.getFloat32(0);
      };
      const [a, b] = onBoth(
        [{ dtype: "float32", view: contiguousView([count]), fill }],
        { dtype: to, view: [count] },
        (backend, [x], out) => backend.cast(x, out),
      );
      const infinity = to === "float16" ? 0x7c00 : 0x7f80;
      let wrong = 0;
      for (let i = 0; i < count; i++) {
        if (a[i] !== b[i] && !((a[i] & 0x7fff) > infinity && (b[i] & 0x7fff) > infinity)) wrong++;
      }
      expect(wrong).toBe(0);
    }
  });
});

/** Elements may differ by this, relative and absolute, from float64 rounded once: functions are good to 2.5 ulp. */
const functionTolerance = 4e-7;

describe("unary", () => {
  const floatKinds: UnaryKind[] = [
    "neg",
    "abs",
    "sign",
    "sqrt",
    "rsqrt",
    "exp",
    "expm1",
    "log",
    "log1p",
    "sin",
    "cos",
    "tanh",
    "erf",
    "sigmoid",
    "silu",
    "gelu",
    "geluTanh",
    "softplus",
    "relu",
    "square",
    "reciprocal",
    "floor",
    "ceil",
    "round",
  ];
  it.each(floatKinds)("%s of float32", (kind) => {
    fc.assert(
      fc.property(shapeAndViews(1), fc.nat(), ([view], seed) => {
        const [a, b] = onBoth(
          [{ dtype: "float32", view, fill: () => fillerOf("float32", seed, true) }],
          { dtype: "float32", view: view.shape },
          (backend, [x], out) => backend.unary(kind, x, out),
        );
        // gelu's tail is a difference of numbers near 1, geluTanh's an exponential of a rounded cubic: absolute errors.
        const absolute = kind.startsWith("gelu") ? 2e-6 : 1e-37;
        // x · sigmoid x at −∞ is −∞ · 0 in the reference; the kernels give the limit, 0.
        const limits = /silu|gelu/.test(kind);
        const clean = (list: ArrayLike<number>) =>
          Array.from(list, (v) => (limits && Number.isNaN(v) ? 0 : v));
        expect(
          firstDifference(clean(a), clean(b), absolute, functionTolerance * (kind === "erf" ? 2 : 1)),
        ).toBeNull();
      }),
      { numRuns: 60 },
    );
  });

  it.each(["neg", "abs", "sign", "square", "floor", "ceil", "round"] as UnaryKind[])(
    "%s of int32",
    (kind) => {
      fc.assert(
        fc.property(shapeAndViews(1), fc.nat(), ([view], seed) => {
          const [a, b] = onBoth(
            [{ dtype: "int32", view, fill: () => fillerOf("int32", seed, true) }],
            { dtype: "int32", view: view.shape },
            (backend, [x], out) => backend.unary(kind, x, out),
          );
          expect(firstDifference(a, b, 0, 0)).toBeNull();
        }),
        { numRuns: 30 },
      );
    },
  );

  it("works in place", () => {
    const x = operandOf(wasm, "float32", contiguousView([1000]), (i) => i);
    wasm.unary("square", x, x);
    expect(Array.from(wasm.window(x))).toEqual(Array.from({ length: 1000 }, (_, i) => Math.fround(i * i)));
    wasm.free(x.buffer);
  });
});

describe("binary, compare, where", () => {
  const kinds: BinaryKind[] = [
    ...(["add", "sub", "mul", "div", "pow", "minimum", "maximum", "floorDivide", "remainder"] as const),
  ];
  // Operations divide and raise integers in float32 and by squaring: there are no kernels for that.
  const integer = kinds.filter((kind) => kind !== "div" && kind !== "pow");
  it.each([
    ...kinds.map((kind) => [kind, "float32"] as const),
    ...integer.map((kind) => [kind, "int32"] as const),
  ])("%s of %s", (kind, dtype) => {
    fc.assert(
      fc.property(shapeAndViews(2), fc.nat(), ([x, y], seed) => {
        const [a, b] = onBoth(
          [
            { dtype, view: x, fill: () => fillerOf(dtype, seed, true) },
            { dtype, view: y, fill: () => fillerOf(dtype, seed + 1, true) },
          ],
          { dtype, view: x.shape },
          (backend, [left, right], out) => backend.binary(kind, left, right, out),
        );
        expect(firstDifference(a, b, 1e-44, kind === "pow" ? 1.2e-7 : 0)).toBeNull();
      }),
      runs,
    );
  });

  const tests: CompareKind[] = ["equal", "notEqual", "less", "lessEqual", "greater", "greaterEqual"];
  it.each(
    tests.flatMap((kind) =>
      (["float32", "int32", "uint8", "bool"] as const).map((dtype) => [kind, dtype] as const),
    ),
  )("%s of %s", (kind, dtype) => {
    fc.assert(
      fc.property(shapeAndViews(2), fc.nat(), ([x, y], seed) => {
        const [a, b] = onBoth(
          [
            { dtype, view: x, fill: () => fillerOf(dtype, seed, true) },
            { dtype, view: y, fill: () => fillerOf(dtype, seed + (seed % 2), true) },
          ],
          { dtype: "bool", view: x.shape },
          (backend, [left, right], out) => backend.compare(kind, left, right, out),
        );
        expect(firstDifference(a, b, 0, 0)).toBeNull();
      }),
      { numRuns: 30 },
    );
  });

  it.each(dtypes)("where of %s", (dtype) => {
    fc.assert(
      fc.property(shapeAndViews(3), fc.nat(), ([c, x, y], seed) => {
        const [a, b] = onBoth(
          [
            { dtype: "bool", view: c, fill: () => fillerOf("bool", seed) },
            { dtype, view: x, fill: () => fillerOf(dtype, seed + 1) },
            { dtype, view: y, fill: () => fillerOf(dtype, seed + 2) },
          ],
          { dtype, view: x.shape },
          (backend, [condition, left, right], out) => backend.where(condition, left, right, out),
        );
        expect(firstDifference(a, b, 0, 0)).toBeNull();
      }),
      { numRuns: 40 },
    );
  });
});

it("leaves no memory behind", () => {
  expect(wasm.memory().used).toBe(0);
});
