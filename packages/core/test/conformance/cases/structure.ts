// Cases of views, copies, joins, look-ups and reductions.

import * as ops from "../../../src/index.js";
import {
  distinct,
  exactly,
  indices,
  nonzero,
  normal,
  type OpCase,
  op,
  positive,
} from "../../support/check-op.js";

const flat = { gradient: false };

export const viewCases: OpCase[] = [
  op("reshape", (x) => ops.reshape(x, [2, -1]), [normal(3, 4)]),
  op("reshape to a scalar", (x) => ops.reshape(x, []), [normal(1, 1)]),
  op("flatten", (x) => ops.flatten(x, 1), [normal(2, 3, 2)]),
  op("squeeze", (x) => ops.squeeze(x), [normal(1, 3, 1)]),
  op("unsqueeze", (x) => ops.unsqueeze(x, -2), [normal(2, 3)]),
  op("permute", (x) => ops.permute(x, [2, 0, 1]), [normal(2, 3, 4)]),
  op("transpose", (x) => ops.transpose(x, 0, -1), [normal(2, 3, 4)]),
  op("expand", (x) => ops.expand(x, [2, 3, 4]), [normal(3, 1)]),
  op("expand a scalar", (x) => ops.expand(x, [2, 2]), [normal()]),
  op("slice", (x) => ops.slice(x, [1, null], [0, 4, 2]), [normal(3, 5)]),
  op("slice backwards", (x) => ops.slice(x, [null, null, -2], -1), [normal(4, 3)]),
  op("slice to nothing", (x) => ops.slice(x, [2, 1]), [normal(3, 4)]),
  op("clone", ops.clone, [normal(3, 4)]),
  op("concat", (...parts) => ops.concat(parts, 1), [normal(2, 3), normal(2, 0), nonzero(2, 1)]),
  op("concat with itself", (x) => ops.concat([x, x], -1), [normal(2, 3)]),
  op("stack", (...parts) => ops.stack(parts, 1), [normal(2, 3), nonzero(2, 3)]),
  op("split", (x) => ops.tidy(() => ops.split(x, [1, 3], 1)[1]), [normal(2, 4)]),
];

export const indexingCases: OpCase[] = [
  op("gather", ops.gather, [normal(5, 3), indices(5, 2, 4)]),
  op("gather of rank 1", ops.gather, [normal(5), indices(5, 3)]),
  op("gather no rows", ops.gather, [normal(5, 2), indices(5, 0)]),
  op("embedding", ops.embedding, [normal(5, 3), indices(5, 4)]),
  op("scatterAdd", (list, source) => ops.scatterAdd(6, list, source), [indices(6, 5), normal(5, 3)]),
  op("scatterAdd, 2-D indices", (list, source) => ops.scatterAdd(3, list, source), [
    indices(3, 2, 4),
    normal(2, 4),
  ]),
];

export const reduceCases: OpCase[] = [
  op("sum", (x) => ops.sum(x), [normal(3, 4)]),
  op("sum over the first axis", (x) => ops.sum(x, 0), [normal(3, 4)]),
  op("sum over outer axes, keepDims", (x) => ops.sum(x, [0, -1], true), [normal(2, 3, 4)]),
  op("sum over no axes", (x) => ops.sum(x, []), [normal(2, 3)]),
  op("sum over an empty axis", (x) => ops.sum(x, 1), [normal(2, 0, 3)]),
  op("sum of a scalar", (x) => ops.sum(x), [normal()]),
  op("prod", (x) => ops.prod(x, 1), [nonzero(3, 4)]),
  op("prod with one zero in a row", (x) => ops.prod(x, 1), [exactly([2, 3], [0, 2, 3, 0.5, -1, 2])]),
  op("max", (x) => ops.max(x, 1), [distinct(3, 4)]),
  op("max of all", (x) => ops.max(x), [distinct(3, 4)]),
  op("min", (x) => ops.min(x, [0, 2], true), [distinct(2, 3, 4)]),
  op("mean", (x) => ops.mean(x, -1), [normal(3, 4)]),
  op("variance", (x) => ops.variance(x, 0), [normal(4, 3)]),
  op("logsumexp", (x) => ops.logsumexp(x, 1), [normal(3, 4)]),
  op("logsumexp of all, keepDims", (x) => ops.logsumexp(x, undefined, true), [positive(2, 3)]),
  op("logsumexp over an empty axis", (x) => ops.logsumexp(x, 1), [normal(2, 0, 3)]),
  op("argmax", (x) => ops.argmax(x, 1), [distinct(3, 4)], flat),
  op("argmax of all", (x) => ops.argmax(x), [distinct(3, 4)], flat),
  op("argmin, keepDims", (x) => ops.argmin(x, 0, true), [distinct(3, 4)], flat),
];
