// Cases of the rarer arithmetic: integer division, bits, predicates, running sums, norms.

import * as ops from "../../../src/index.js";
import {
  betweenIntegers,
  exactly,
  flags,
  indices,
  nonzero,
  normal,
  type OpCase,
  op,
  positive,
} from "../../support/check-op.js";

const flat = { gradient: false };
const special = exactly([2, 3], [Number.NaN, 1, Number.POSITIVE_INFINITY, -2, Number.NEGATIVE_INFINITY, 0]);

/** Magnitudes far apart. */
const apart = exactly([3, 2], [0.5, -3, -1, 2, 1.5, 1]);

/** In place, over a copy. */
const copied = (fn: (x: ops.Tensor, y: ops.Tensor) => ops.Tensor) => (x: ops.Tensor, y: ops.Tensor) =>
  fn(ops.clone(x), y);

export const arithmeticCases: OpCase[] = [
  op("floorDivide", ops.floorDivide, [betweenIntegers(3, 4), exactly([4], [1, -1, 2, 0.75])]),
  op("floorDivide of integers", ops.floorDivide, [indices(20, 3, 4), indices(5, 4)], flat),
  op("remainder", ops.remainder, [betweenIntegers(3, 4), exactly([4], [1.5, -1.5, 2.25, 4.5])]),
  op("remainder of integers", ops.remainder, [indices(20, 3, 4), indices(5, 4)], flat),
  op("trunc", ops.trunc, [betweenIntegers(3, 4)]),
  op("log2", ops.log2, [positive(3, 4)]),
  op("log10", ops.log10, [positive(3, 4)]),
  op("bitwiseAnd", ops.bitwiseAnd, [indices(99, 3, 4), indices(77, 4)], flat),
  op("bitwiseOr", ops.bitwiseOr, [indices(99, 3, 4), indices(77, 3, 1)], flat),
  op("bitwiseXor", ops.bitwiseXor, [indices(99, 3, 4), indices(77, 4)], flat),
  op("bitwiseNot", ops.bitwiseNot, [indices(99, 3, 4)], flat),
  op("bitwiseNot of bool", ops.bitwiseNot, [flags(3, 4)], flat),
  op("shiftLeft", ops.shiftLeft, [indices(99, 3, 4), indices(8, 4)], flat),
  op("shiftRight", ops.shiftRight, [indices(99, 3, 4), indices(8, 4)], flat),
  op("isnan", ops.isnan, [special], flat),
  op("isfinite", ops.isfinite, [special], flat),
  op("isclose", (a, b) => ops.isclose(a, b, 0.5, 0.1), [special, special], flat),
  op("isclose, NaN too", (a, b) => ops.isclose(a, b, 0, 0, true), [special, special], flat),
  op("isinf", ops.isinf, [special], flat),
  op("isinf of integers", ops.isinf, [indices(3, 4)], flat),
  op("logicalAnd", ops.logicalAnd, [flags(2, 3), special], flat),
  op("logicalOr", ops.logicalOr, [flags(2, 3), flags(3)], flat),
  op("logicalXor", ops.logicalXor, [flags(2, 3), flags(2, 1)], flat),
  op("any", (x) => ops.any(x, 1), [flags(3, 2)], flat),
  op("any of nothing", (x) => ops.any(x, 1, true), [normal(2, 0)], flat),
  op("all", (x) => ops.all(x), [special], flat),
  op("all over the first axis", (x) => ops.all(x, 0), [flags(2, 5)], flat),
  op("leakyRelu", (x) => ops.leakyRelu(x, 0.1), [nonzero(3, 4)]),

  op("add_", copied(ops.add_), [normal(3, 4), normal(4)], flat),
  op("sub_", copied(ops.sub_), [normal(3, 4), normal(3, 1)], flat),
  op("mul_", copied(ops.mul_), [normal(3, 4), normal(3, 4)], flat),
  op("div_", copied(ops.div_), [normal(3, 4), nonzero()], flat),
  op("clip_", (x) => ops.clip_(ops.clone(x), -0.5, 0.5), [normal(3, 4)], flat),
  op("fill_", (x) => ops.fill_(ops.clone(x), -0.5), [normal(3, 4)], flat),

  op("cumsum", (x) => ops.cumsum(x, 0), [normal(5, 3)]),
  op("cumsum over the last axis", (x) => ops.cumsum(x, -1), [normal(2, 9)]),
  op("cumsum over a middle axis", (x) => ops.cumsum(x, 1), [normal(2, 3, 7)]),
  op("cumsum of nothing", (x) => ops.cumsum(x, 1), [normal(2, 0, 3)]),
  op("cumsum of integers", (x) => ops.cumsum(x, 0), [indices(9, 5, 2)], flat),
  op("cumprod", (x) => ops.cumprod(x, 1), [nonzero(3, 4)]),
  op("cumprod with zeros", (x) => ops.cumprod(x, 0), [exactly([4, 2], [2, 0, 0, 3, -1, 2, 0, 1.5])]),
  op("std", (x) => ops.std(x, 0), [normal(4, 3)]),
  op("std of all, biased", (x) => ops.std(x, undefined, true, 0), [normal(4, 3)]),
  op("norm", (x) => ops.norm(x), [normal(3, 4)]),
  op("norm, p = 1", (x) => ops.norm(x, 1, 0), [nonzero(3, 4)]),
  op("norm, p = 3", (x) => ops.norm(x, 3, -1, true), [nonzero(3, 4)]),
  op("norm, p = 0.5", (x) => ops.norm(x, 0.5, -1), [nonzero(3, 4)]),
  op("norm, p = −2", (x) => ops.norm(x, -2, -1), [nonzero(3, 4)]),
  op("norm, p = 0", (x) => ops.norm(x, 0, 0), [flags(3, 4)], flat),
  op("norm, p = ∞", (x) => ops.norm(x, Number.POSITIVE_INFINITY, 0), [apart]),
  op("norm, p = −∞", (x) => ops.norm(x, Number.NEGATIVE_INFINITY, 0), [apart]),
];
