// Cases of picking and ordering elements.

import * as ops from "../../../src/index.js";
import {
  distinct,
  exactly,
  flags,
  indices,
  nonzero,
  normal,
  type OpCase,
  op,
} from "../../support/check-op.js";

const flat = { gradient: false };
const integers = (shape: number[], ...list: number[]) => ({
  ...exactly(shape, list),
  dtype: "int32" as const,
});
const repeated = exactly([2, 4], [3, 1, 3, -1, 1, 3, 0, 0]);

export const selectionCases: OpCase[] = [
  op("take", (x, i) => ops.take(x, i), [normal(3, 4), integers([3], 0, -1, 5)]),
  op("take along the first axis", (x, i) => ops.take(x, i, 0), [normal(4, 3), indices(4, 2, 2)]),
  op("take along a middle axis", (x, i) => ops.take(x, i, 1), [normal(2, 4, 3), indices(4, 2, 3)]),
  op("take nothing", (x, i) => ops.take(x, i, 1), [normal(2, 4), indices(4, 0)]),
  op("take by a scalar", (x, i) => ops.take(x, i, -1), [normal(2, 4), integers([], -2)]),
  op("takeAlongAxis", (x, i) => ops.takeAlongAxis(x, i, 1), [normal(3, 4), indices(4, 3, 6)]),
  op("takeAlongAxis, first axis, negative", (x, i) => ops.takeAlongAxis(x, i, 0), [
    normal(3, 2),
    integers([2, 2], -1, 0, 1, -3),
  ]),
  op("takeAlongAxis, broadcast", (x, i) => ops.takeAlongAxis(x, i, 1), [
    normal(2, 3, 2),
    indices(3, 1, 2, 2),
  ]),
  op("takeAlongAxis of nothing", (x, i) => ops.takeAlongAxis(x, i, 1), [normal(2, 0), indices(3, 2, 0)]),
  op("scatter", (x, i, source) => ops.scatter(x, i, source, 1), [
    normal(3, 4),
    integers([3, 2], 0, 3, -1, 1, 2, 0),
    nonzero(3, 2),
  ]),
  op("scatter, first axis", (x, i, source) => ops.scatter(x, i, source, 0), [
    normal(3, 2),
    integers([2, 2], 0, 2, 1, 0),
    normal(2, 2),
  ]),
  op("scatter nothing", (x, i, source) => ops.scatter(x, i, source, 1), [
    normal(2, 3),
    indices(3, 2, 0),
    normal(2, 0),
  ]),
  op("scatter, added", (x, i, source) => ops.scatter(x, i, source, 1, { mode: "add" }), [
    normal(2, 3),
    integers([2, 4], 0, 0, 2, 1, 1, 1, 1, -3),
    nonzero(2, 4),
  ]),
  op("oneHot", (i) => ops.oneHot(i, 5), [indices(5, 2, 3)], flat),
  op("index", (x, i) => ops.index(x, i), [normal(4, 3), indices(4, 2, 2)]),
  op("index of two axes", (x, i, j) => ops.index(x, null, i, j), [
    normal(2, 3, 4, 2),
    indices(3, 2, 1),
    indices(4, 3),
  ]),
  op("index apart", (x, i, j) => ops.index(x, i, [1, null], j), [
    normal(3, 3, 4),
    indices(3, 2),
    indices(4, 2),
  ]),
  op(
    "index by a mask",
    (x) => {
      const mask = ops.tensor([true, false, true], { device: x.device });
      const part = ops.index(x, null, mask);
      mask.dispose();
      return part;
    },
    [normal(2, 3, 2)],
  ),
  op("index by ranges alone", (x) => ops.index(x, [null, null, -1], 1), [normal(3, 4)]),
  op("nonzero", ops.nonzero, [flags(3, 4)], flat),
  op("nonzero of nothing", ops.nonzero, [normal(0, 2)], flat),
  op("argsort", (x) => ops.argsort(x, 0), [distinct(5, 3)], flat),
  op("argsort of equal ones, descending", (x) => ops.argsort(x, -1, true), [repeated], flat),
  op("sort", (x) => ops.sort(x), [distinct(3, 5)]),
  op("sort, descending", (x) => ops.sort(x, 0, true), [distinct(4, 2)]),
  op("sort of nothing", (x) => ops.sort(x, 1), [normal(2, 0)]),
  op("topk", (x) => ops.tidy(() => ops.topk(x, 2).values), [distinct(3, 9)]),
  op("topk, smallest", (x) => ops.tidy(() => ops.topk(x, 3, 0, false).values), [distinct(4, 2)]),
  op("topk, positions", (x) => ops.tidy(() => ops.topk(x, 2).indices), [repeated], flat),
  op("topk of none", (x) => ops.tidy(() => ops.topk(x, 0).values), [distinct(3, 4)]),
  op("unique", (x) => ops.tidy(() => ops.unique(x).values), [repeated], flat),
  op("unique, inverse", (x) => ops.tidy(() => ops.unique(x).inverse), [repeated], flat),
  op("unique, counts", (x) => ops.tidy(() => ops.unique(x).counts), [repeated], flat),
];
