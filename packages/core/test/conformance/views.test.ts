// Views, broadcasting, reductions and products over arbitrary shapes, against arrays that know nothing of strides.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import * as nm from "../../src/index.js";
import { arrays, broadcastable, shapes, toTensor, views } from "../support/arbitraries.js";
import { on, subjects } from "../support/backends.js";
import { multiplied, type NdArray, reduced, zip } from "../support/ndarray.js";
import { expectClose, expectNoLeak, rounding } from "../support/numbers.js";

/** Zero keeps no sign here: −0 + 0 depends on the order. */
function expectEqual(actual: nm.Tensor, expected: NdArray): void {
  expect(actual.shape).toEqual(expected.shape);
  expect(Array.from(actual.dataSync(), (value) => value + 0)).toEqual(
    expected.data.map((value) => value + 0),
  );
}

describe.each(subjects)("$name", (subject) => {
  const options = on(subject);
  const tolerance = rounding[subject.dtype];

  test("views of views show the elements that they name, and copies of them too", () => {
    fc.assert(
      fc.property(views(), (viewed) => {
        nm.tidy(() => {
          const { view } = toTensor(viewed, options);
          expectEqual(view, viewed.result);
          expectEqual(nm.clone(view), viewed.result);
          expect(nm.clone(view).isContiguous).toBe(true);
          expectEqual(nm.reshape(view, [view.size]), { shape: [view.size], data: viewed.result.data });
        });
      }),
      { numRuns: 400 },
    );
  });

  test("the gradient of a view counts how often it shows each element", () => {
    fc.assert(
      fc.property(views(), (viewed) => {
        nm.tidy(() => {
          const { base, view } = toTensor(viewed, { ...options, requiresGrad: true });
          nm.sum(view).backward();
          // A view of the positions tells the same.
          const positions = { ...viewed, base: { ...viewed.base, data: viewed.base.data.map((_, i) => i) } };
          const shown = viewed.path.reduce((x, step) => step.array(x), positions.base as NdArray);
          const counts = viewed.base.data.map((_, i) => shown.data.filter((at) => at === i).length);
          expect(Array.from(base.grad?.dataSync() ?? counts.map(() => 0))).toEqual(counts);
          base.zeroGrad();
        });
      }),
      { numRuns: 200 },
    );
  });

  test("elementwise operations broadcast views as NumPy does", () => {
    const operands = broadcastable.chain(([a, b]) => fc.tuple(views(fc.constant(a)), arrays(fc.constant(b))));
    fc.assert(
      fc.property(operands, ([left, right]) => {
        nm.tidy(() => {
          const { view } = toTensor(left, options);
          const b = toTensor({ base: right, path: [], result: right }, options).view;
          let expected: NdArray;
          try {
            expected = zip(left.result, right, (x, y) => x * y);
          } catch {
            expect(() => nm.mul(view, b)).toThrow(nm.ShapeError);
            return;
          }
          expectEqual(nm.mul(view, b), expected);
          expectEqual(
            nm.sub(b, view),
            zip(right, left.result, (x, y) => x - y),
          );
          expectEqual(
            nm.less(view, b),
            zip(left.result, right, (x, y) => Number(x < y)),
          );
          expectEqual(
            nm.where(nm.greater(view, 0), view, b),
            zip(left.result, right, (x, y) => (x > 0 ? x : y)),
          );
        });
      }),
      { numRuns: 300 },
    );
  });

  test("reductions over any axes of any view", () => {
    const cases = views().chain((viewed) => {
      const axes = [...Array(viewed.result.shape.length).keys()];
      return fc.tuple(fc.constant(viewed), fc.subarray(axes), fc.boolean());
    });
    fc.assert(
      fc.property(cases, ([viewed, axes, keepDims]) => {
        nm.tidy(() => {
          const { view } = toTensor(viewed, options);
          const check = (actual: nm.Tensor, f: (list: number[]) => number) => {
            const expected = reduced(viewed.result, axes, f);
            const shape = keepDims ? expected.shape : expected.shape.filter((_, i) => !axes.includes(i));
            expect(actual.shape).toEqual(shape);
            expectClose(actual.dataSync(), expected.data, tolerance);
          };
          check(nm.sum(view, axes, keepDims), (list) => list.reduce((a, b) => a + b, 0));
          // Float32 holds products of 27 numbers up to 4; those of a view that repeats them 81 times it need not.
          if (axes.reduce((count, axis) => count * view.shape[axis], 1) <= 27)
            check(nm.prod(view, axes, keepDims), (list) => list.reduce((a, b) => a * b, 1));
          if (axes.some((axis) => view.shape[axis] === 0)) {
            expect(() => nm.max(view, axes)).toThrow(nm.ShapeError);
            return;
          }
          check(nm.max(view, axes, keepDims), (list) => Math.max(...list));
          check(nm.min(view, axes, keepDims), (list) => Math.min(...list));
          if (axes.length === 1)
            check(nm.argmax(view, axes[0], keepDims), (list) => list.indexOf(Math.max(...list)));
        });
      }),
      { numRuns: 300 },
    );
  });

  test("matrix products of broadcast batches, transposed or not", () => {
    const extent = fc.integer({ min: 0, max: 4 });
    const cases = fc
      .tuple(broadcastable, extent, extent, extent, fc.boolean(), fc.boolean())
      .chain(([[left, right], m, k, n, transA, transB]) =>
        fc.tuple(
          arrays(fc.constant([...left.slice(-2), m, k])),
          arrays(fc.constant([...right.slice(-2), k, n])),
          fc.constant([transA, transB] as const),
        ),
      );
    fc.assert(
      fc.property(cases, ([a, b, [transA, transB]]) => {
        expectNoLeak("matmul", () =>
          nm.tidy(() => {
            const make = (x: NdArray, turned: boolean) => {
              const t = toTensor({ base: x, path: [], result: x }, options).view;
              return turned ? nm.clone(nm.transpose(t)) : t;
            };
            const actual = nm.matmul(make(a, transA), make(b, transB), { transA, transB });
            const expected = multiplied(a, b);
            expect(actual.shape).toEqual(expected.shape);
            expectClose(actual.dataSync(), expected.data, tolerance);
          }),
        );
      }),
      { numRuns: 200 },
    );
  });

  test("joining what was split gives the whole again", () => {
    fc.assert(
      fc.property(
        arrays(shapes.filter((shape) => shape.length > 0)),
        fc.nat(),
        fc.nat(),
        (x, axisSeed, cutSeed) => {
          nm.tidy(() => {
            const t = toTensor({ base: x, path: [], result: x }, options).view;
            const axis = axisSeed % t.rank;
            const cut = cutSeed % (t.shape[axis] + 1);
            const parts = nm.split(t, [cut, t.shape[axis] - cut], axis);
            expectEqual(nm.concat(parts, axis), x);
          });
        },
      ),
    );
  });
});
