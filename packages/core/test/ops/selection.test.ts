// Picking and ordering: values where libraries differ, and errors.

import { describe, expect, test } from "vitest";
import * as ops from "../../src/index.js";
import { tensor, tidy } from "../../src/index.js";
import { backends, on } from "../support/backends.js";

const { NaN: nan, POSITIVE_INFINITY: inf } = Number;

describe.each(backends)("$name", (subject) => {
  const device = { device: subject.device };
  const float = (values: number[] | number[][]) => tensor(values, on(subject));
  const integers = (values: number[] | number[][]) => tensor(values, { ...device, dtype: "int32" });

  test("NaN is the largest; equal elements keep their order", () => {
    tidy(() => {
      const x = float([2, nan, -inf, 2, inf, 0, -0]);
      expect([...ops.sort(x).dataSync()]).toEqual([-inf, 0, -0, 2, 2, inf, nan]);
      expect([...ops.argsort(x).dataSync()]).toEqual([2, 5, 6, 0, 3, 4, 1]);
      expect([...ops.argsort(x, 0, true).dataSync()]).toEqual([1, 4, 0, 3, 5, 6, 2]);
      expect([...ops.topk(x, 3).indices.dataSync()]).toEqual([1, 4, 0]);
      const { values, counts, inverse } = ops.unique(float([nan, 1, nan, 1, -2]));
      expect([...values.dataSync()]).toEqual([-2, 1, nan]);
      expect([...counts.dataSync()]).toEqual([1, 2, 2]);
      expect([...inverse.dataSync()]).toEqual([2, 1, 2, 1, 0]);
    });
  });

  test("topk of a long line, by insertion, is the beginning of its sort", () => {
    tidy(() => {
      const x = ops.randn([3, 5000], on(subject, {}));
      const rounded = ops.round(x.mul(20)); // many equal ones
      for (const largest of [true, false]) {
        const { values, indices } = ops.topk(rounded, 40, -1, largest);
        const order = ops.argsort(rounded, -1, largest).slice(null, [0, 40]);
        expect([...indices.dataSync()]).toEqual([...order.dataSync()]);
        expect([...values.dataSync()]).toEqual([...ops.takeAlongAxis(rounded, order, -1).dataSync()]);
      }
    });
  });

  test("at takes positions of the first axes", () => {
    tidy(() => {
      const x = float([
        [1, 2],
        [3, 4],
      ]);
      expect(x.at(-1).toArray()).toEqual([3, 4]);
      expect(x.at(0, 1).item()).toBe(2);
    });
  });

  test("of equal indices the last one written stays", () => {
    tidy(() => {
      const y = ops.scatter(float([0, 0, 0]), integers([1, 1, -2]), float([1, 2, 3]), 0);
      expect([...y.dataSync()]).toEqual([0, 3, 0]);
    });
  });

  test("dtypes: integers and bool are picked as they are", () => {
    tidy(() => {
      const x = tensor([[1, 0, 1]], { ...device, dtype: "bool" });
      expect(ops.take(x, integers([1, 2]), 1).dtype).toBe("bool");
      expect([...ops.sort(tensor([3, 1, 2], { ...device, dtype: "uint8" })).dataSync()]).toEqual([1, 2, 3]);
      expect(ops.oneHot(integers([1]), 2, { dtype: "int32" }).dtype).toBe("int32");
    });
  });

  test("errors name the operation, the index and the axis", () => {
    const fails = (fn: () => unknown, message: string) =>
      expect(() => tidy(() => void fn())).toThrow(message);
    const x = float([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    fails(() => ops.take(x, integers([0, 3]), 1), "take: index 3 is out of range for axis 1 of length 3");
    fails(() => ops.take(x, float([1]), 1), "take: indices must be integers, not float");
    fails(
      () => ops.takeAlongAxis(x, integers([0]), 1),
      "takeAlongAxis: indices [1] should have as many axes as x [2, 3]",
    );
    fails(() => ops.takeAlongAxis(x, integers([[-4]]), 1), "index -4 is out of range for axis 1 of length 3");
    fails(() => ops.index(x, null, null, integers([0])), "index: 3 indices for 2 axes");
    fails(() => ops.index(x, integers([2])), "index: index 2 is out of range for axis 0 of length 2");
    fails(() => ops.index(x, tensor([true], device)), "index: mask [1] does not fit axes [2] of x [2, 3]");
    fails(() => ops.index(x, float([1])), "index: indices other than masks must be integers");
    fails(() => ops.oneHot(integers([3]), 3), "oneHot: index 3 is not within 0 to 2");
    fails(() => ops.topk(x, 4), "topk: k 4 exceeds axis 1 of [2, 3] (4 > 3)");
    fails(() => ops.scatter(x, integers([[0]]), integers([[1]]), 1), "scatter: source is int32");
    fails(() => ops.sort(x, 2), "sort: axis 2 is out of range for rank 2");
    fails(
      () => ops.view(x.transpose(), [6]),
      "view: [3, 2] with strides [1, 3] cannot be seen as [6] without a copy",
    );
    fails(
      () =>
        ops.pad(x, [
          [0, 0],
          [0, 0],
          [1, 1],
        ]),
      "pad: 3 pairs of widths for 2 axes",
    );
    fails(() => ops.pad(x, [[-1, 0]]), "pad: [-1, 0] is no shape");
    fails(() => ops.roll(x, [1, 2], [0]), "roll: 2 shifts for 1 axes");
    fails(() => ops.chunk(x, 0), "chunk: chunks must be a positive integer, not 0");
    fails(() => ops.tril(x, 0.5), "tril: k must be an integer, not 0.5");
    x.dispose();
  });
});
