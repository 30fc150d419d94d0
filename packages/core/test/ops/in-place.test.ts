// Operations in place: values in every layout, aliases, and what autograd says of them.

import { describe, expect, test } from "vitest";
import * as nm from "../../src/index.js";
import { backends, on } from "../support/backends.js";
import { expectNoLeak } from "../support/numbers.js";

const { add, sub, mul, div, add_, sub_, mul_, div_ } = nm;
const operations = { add, sub, mul, div };
const inPlace = { add_, sub_, mul_, div_ };

describe.each(backends)("$name", (subject) => {
  const make = (values: number[] | number[][]) => nm.tensor(values, on(subject));

  test("arithmetic in place equals that out of place, through views and broadcasting", () => {
    expectNoLeak("in place", () =>
      nm.tidy(() => {
        const start = [
          [1, 2, 3],
          [4, 5, 6],
        ];
        for (const kind of ["add", "sub", "mul", "div"] as const) {
          for (const other of [2, make([[2], [4]]), nm.tensor(4, { ...on(subject), dtype: "int32" })]) {
            const x = make(start);
            const expected = operations[kind](x, other).toArray();
            expect(inPlace[`${kind}_`](x, other)).toBe(x);
            expect(x.toArray()).toEqual(expected);
          }
          const base = make(start);
          const part = base.transpose().slice([1, null]);
          part[`${kind}_`](2);
          expect(base.slice(null, 0).toArray()).toEqual([1, 4]);
          expect(base.slice(null, [1, null]).toArray()).toEqual(
            operations[kind](make(start), 2).slice(null, [1, null]).toArray(),
          );
        }
      }),
    );
  });

  test("an operand that shares memory is read before it is written", () => {
    nm.tidy(() => {
      const x = make([1, 2, 3, 4]);
      x.add_(x);
      expect(x.toArray()).toEqual([2, 4, 6, 8]);
      x.add_(nm.flip(x));
      expect(x.toArray()).toEqual([10, 10, 10, 10]);
      const y = make([1, 2, 3]);
      y.slice([1, null]).mul_(y.slice([0, 2]));
      expect(y.toArray()).toEqual([1, 2, 6]);
    });
  });

  test("fill_ and clip_, of views too", () => {
    nm.tidy(() => {
      const x = make([
        [1, 2],
        [3, 4],
      ]);
      x.slice(null, 1).fill_(9);
      expect(x.toArray()).toEqual([
        [1, 9],
        [3, 9],
      ]);
      expect(nm.clip_(x, 2, 5).toArray()).toEqual([
        [2, 5],
        [3, 5],
      ]);
      expect(nm.fill_(make([1]), Number.NaN).item()).toBeNaN();
    });
  });

  test("integers keep their dtype", () => {
    nm.tidy(() => {
      const counts = nm.tensor([1, 2], { device: subject.device, dtype: "int32" });
      expect(counts.add_(3).toArray()).toEqual([4, 5]);
      expect(() => counts.add_(0.5)).toThrow("add_: the result is float32 and cannot be kept as int32");
      expect(() => counts.div_(2)).toThrow("div_: the result is float32 and cannot be kept as int32");
    });
  });

  test("a graph that needs the old values says so", () => {
    nm.tidy(() => {
      const w = nm.tensor([2, 3], on(subject, { requiresGrad: true }));
      const x = make([1, 2]);
      const y = nm.sum(nm.mul(w, x));
      x.mul_(2);
      expect(() => y.backward()).toThrow(
        "mul: a tensor of shape [2] that its gradient needs was changed in place",
      );
      const z = nm.sum(nm.add(w, x));
      x.fill_(0);
      z.backward();
      expect(w.grad!.toArray()).toEqual([1, 1]);
    });
  });

  test("errors", () => {
    nm.tidy(() => {
      const w = nm.tensor([2, 3], on(subject, { requiresGrad: true }));
      const x = make([1, 2]);
      expect(() => w.add_(1)).toThrow(
        "add_: writing in place is not recorded, and an operand requires a gradient; wrap it in noGrad() or use add",
      );
      expect(() => x.mul_(w)).toThrow(nm.AutogradError);
      nm.noGrad(() => w.sub_(1));
      expect(w.toArray()).toEqual([1, 2]);
      expect(() => x.add_(make([[1, 2]]))).toThrow("add_: [1, 2] does not broadcast into [2]");
      expect(() => x.add_(make([1, 2, 3]))).toThrow("add_: shapes [2] and [3] do not broadcast");
      expect(() => x.expand(3, 2).add_(1)).toThrow(
        "add_: elements of a tensor expanded to [3, 2] share memory",
      );
      expect(() => nm.ones([1], { device: subject.device, dtype: "int8" }).fill_(Number.NaN)).toThrow(
        "fill_: value must be a finite number, not NaN",
      );
    });
  });
});
