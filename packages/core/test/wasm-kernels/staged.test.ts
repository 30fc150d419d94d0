// Elementwise kernels over operands that are copied by the box as the kernel goes: shapes larger than a box along each of its axes, with
// remainders, in mixed orders, with short rows, broadcast, backwards; against the reference backend, and the same bits on any number of threads.

import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { createWasmBackend } from "../../src/backend/wasm/backend.js";
import * as nm from "../../src/index.js";
import {
  contiguousView,
  dtypes,
  fillerOf,
  firstDifference,
  onBoth,
  operandOf,
  type View,
  viewsOf,
  wasm,
} from "./support.js";

/** Around the extents at which boxes are cut: 16 and 128 rows, 256 and 2048 elements of a row, 16384 of a box. */
const shapes = [
  [40, 260],
  [260, 37],
  [131, 300],
  [3, 2100],
  [2100, 3],
  [1, 600],
  [600, 1],
  [5, 17, 130],
  [17, 5, 16],
  [9, 8, 16, 16],
  [33, 2, 9, 4],
  [70, 2, 2, 70],
];

/** A shape, and `count` views of it, most of them not contiguous. */
const cases = (count: number) =>
  fc
    .constantFrom(...shapes)
    .chain((shape) => fc.tuple(...Array.from({ length: count }, () => viewsOf(shape, 0.2))));

/** `shape` with its axes in memory in `order`. */
function permuted(shape: number[], order: number[]): View {
  const strides = new Array<number>(shape.length);
  let span = 1;
  for (const axis of order.toReversed()) {
    strides[axis] = span;
    span *= shape[axis];
  }
  return { shape, strides, offset: 0, span };
}

describe("operands in any order", () => {
  it.each(["float32", "int32"] as const)("sub of %s", (dtype) => {
    fc.assert(
      fc.property(cases(2), fc.nat(), ([x, y], seed) => {
        const [a, b] = onBoth(
          [
            { dtype, view: x, fill: () => fillerOf(dtype, seed) },
            { dtype, view: y, fill: () => fillerOf(dtype, seed + 1) },
          ],
          { dtype, view: x.shape },
          (backend, [left, right], out) => backend.binary("sub", left, right, out),
        );
        expect(firstDifference(a, b, 0, 0)).toBeNull();
      }),
      { numRuns: 60 },
    );
  });

  it("pow, which has scratch of its own", () => {
    fc.assert(
      fc.property(cases(2), fc.nat(), ([x, y], seed) => {
        const fill = () => (i: number) => 0.25 + ((i * 7 + seed) % 11) / 4;
        const [a, b] = onBoth(
          [
            { dtype: "float32", view: x, fill },
            { dtype: "float32", view: y, fill },
          ],
          { dtype: "float32", view: x.shape },
          (backend, [left, right], out) => backend.binary("pow", left, right, out),
        );
        expect(firstDifference(a, b, 1e-44, 1.2e-7)).toBeNull();
      }),
      { numRuns: 15 },
    );
  });

  it("less, of wide operands into bytes", () => {
    fc.assert(
      fc.property(cases(2), fc.nat(), ([x, y], seed) => {
        const [a, b] = onBoth(
          [
            { dtype: "float32", view: x, fill: () => fillerOf("float32", seed, true) },
            { dtype: "float32", view: y, fill: () => fillerOf("float32", seed + 1, true) },
          ],
          { dtype: "bool", view: x.shape },
          (backend, [left, right], out) => backend.compare("less", left, right, out),
        );
        expect(firstDifference(a, b, 0, 0)).toBeNull();
      }),
      { numRuns: 40 },
    );
  });

  it.each(["float32", "float16", "uint8"] as const)("where of %s, with bytes beside it", (dtype) => {
    fc.assert(
      fc.property(cases(3), fc.nat(), ([c, x, y], seed) => {
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
      { numRuns: 30 },
    );
  });

  it.each(dtypes)("cast of %s to float32 and copy", (dtype) => {
    fc.assert(
      fc.property(cases(1), fc.nat(), ([x], seed) => {
        for (const to of ["float32", dtype] as const) {
          const [a, b] = onBoth(
            [{ dtype, view: x, fill: () => fillerOf(dtype, seed) }],
            { dtype: to, view: x.shape },
            (backend, [input], out) => (to === dtype ? backend.copy(input, out) : backend.cast(input, out)),
          );
          expect(firstDifference(a, b, 0, 0)).toBeNull();
        }
      }),
      { numRuns: 12 },
    );
  });

  it("an operand that stands there twice, beside another", () => {
    const shape = [150, 270];
    const turned = permuted(shape, [1, 0]);
    const [a, b] = onBoth(
      [
        { dtype: "bool", view: turned, fill: () => fillerOf("bool", 1) },
        { dtype: "float32", view: turned, fill: () => fillerOf("float32", 2) },
      ],
      { dtype: "float32", view: shape },
      (backend, [c, x], out) => backend.where(c, x, { ...x }, out),
    );
    expect(firstDifference(a, b, 0, 0)).toBeNull();
  });

  it("more axes than a box's arguments have", () => {
    const shape = [2, 2, 2, 2, 2, 2, 2, 2, 2, 3];
    const view = permuted(shape, [9, 1, 3, 5, 7, 8, 6, 4, 2, 0]);
    const [a, b] = onBoth(
      [
        { dtype: "float32", view, fill: () => fillerOf("float32", 1) },
        { dtype: "float32", view: contiguousView(shape), fill: () => fillerOf("float32", 2) },
      ],
      { dtype: "float32", view: shape },
      (backend, [x, y], out) => backend.binary("sub", x, y, out),
    );
    expect(firstDifference(a, b, 0, 0)).toBeNull();
  });
});

describe("threads", () => {
  const alone = createWasmBackend({ threads: 1 });
  const three = createWasmBackend({ threads: 3 });
  afterAll(() => {
    alone.shutdown();
    three.shutdown();
  });

  it.each([
    ["transposed", permuted([700, 300], [1, 0])],
    ["short rows", permuted([40, 30, 16, 16], [0, 2, 1, 3])],
    ["backwards", { ...contiguousView([500, 400]), strides: [400, -1], offset: 399 }],
  ] as const)("the same bits: %s", (_, view) => {
    const results = [alone, three].map((backend) => {
      const x = operandOf(backend, "float32", view as View, fillerOf("float32", 1));
      const y = operandOf(backend, "float32", contiguousView([...view.shape]), fillerOf("float32", 2));
      const out = operandOf(backend, "float32", contiguousView([...view.shape]), () => 0);
      backend.binary("div", y, x, out);
      return backend.readSync!(out.buffer, 0, out.buffer.bytes);
    });
    expect(firstDifference(results[1], results[0], 0, 0)).toBeNull();
  });
});

describe("in place", () => {
  it.each([
    ["its own transpose", (x: nm.Tensor) => x.transpose()],
    ["its own rows backwards", (x: nm.Tensor) => nm.flip(x, 1)],
    ["both", (x: nm.Tensor) => nm.flip(x, 1).transpose()],
  ])("adds %s", (_, view) => {
    nm.tidy(() => {
      const x = nm.arange(150 * 150).reshape([150, 150]);
      const expected = x.clone().add(view(x).clone());
      x.add_(view(x));
      expect(x.dataSync()).toEqual(expected.dataSync());
    });
  });

  it("adds an operand in another order to a target in another order", () => {
    nm.tidy(() => {
      const target = nm
        .arange(40 * 9 * 33)
        .reshape([40, 9, 33])
        .permute([2, 0, 1]);
      const other = nm
        .arange(40 * 9 * 33)
        .reshape([9, 33, 40])
        .permute([1, 2, 0]);
      const expected = target.clone().add(other.clone());
      expect(target.add_(other).dataSync()).toEqual(expected.dataSync());
    });
  });
});

it("leaves no memory behind", () => {
  expect(wasm.memory().used).toBe(0);
});
