// Means, variances, standard deviations, p-norms and log Σ e^x: compositions of sums, in place of which a kernel reduces rows in one go.

import { requireFinite, requireThat, use } from "../arguments.js";
import { fusedBackward, type OwnRule } from "../autograd/rule.js";
import type { StatisticKind } from "../backend/types.js";
import { isFloat } from "../dtype.js";
import { tidy } from "../memory.js";
import { reducedAxes, reducedShape, sizeOf } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { commonBackend, contiguous, empty, finishBy, operand } from "./dispatch.js";
import {
  abs,
  add,
  cast,
  div,
  equal,
  exp,
  log,
  mul,
  notEqual,
  pow,
  sqrt,
  square,
  sub,
  where,
} from "./elementwise.js";
import { fusedKernels } from "./fused.js";
import { throughFloat32 } from "./narrow.js";
import { max, min, sum } from "./reduce.js";
import { softmax } from "./softmax.js";
import { expand, permute, reshape } from "./view.js";

type Axes = number | readonly number[] | undefined;

/** The operation made of others. */
type Composition = (x: Tensor, axes: readonly number[], keepDims: boolean) => Tensor;

interface Attributes {
  readonly axes: readonly number[];
  readonly keepDims: boolean;
  readonly divisor: number;
  readonly composition: Composition;
}

/** Longer rows are reduced by several threads, and read from memory in every pass anyway. As many elements in other orders are put in order first. */
const longestRow = 65536;

/** By the kernel, for rows that follow one another in memory or are few; and otherwise by the composition that defines the operation. */
function statistic(
  kind: StatisticKind,
  x: Tensor,
  axes: readonly number[],
  keepDims: boolean,
  divisor: number,
  composition: Composition,
): Tensor {
  const length = countOver(x, axes);
  const rows = x.isContiguous && axes.every((axis) => axis >= x.rank - axes.length);
  const short = length > 0 && (rows ? length : x.size) <= longestRow;
  const kernels = short ? fusedKernels([x], "statistic") : null;
  if (!kernels) return tidy(() => composition(x, axes, keepDims));
  const shape = reducedShape(x.shape, axes, keepDims);
  if (!rows) {
    const kept = [...x.shape.keys()].filter((axis) => !axes.includes(axis));
    const last = axes.map((_, i) => kept.length + i);
    return tidy(() => {
      const moved = contiguous(permute(x, [...kept, ...axes]));
      return reshape(statistic(kind, moved, last, false, divisor, composition), shape);
    });
  }
  const out = empty(x.storage.backend, x.dtype, shape);
  kernels.statistic(kind, operand(x), length, divisor, operand(out));
  return finishBy(statisticRules[kind], [x], { axes, keepDims, divisor, composition }, out);
}

function countOver(x: Tensor, axes: readonly number[]): number {
  return sizeOf(axes.map((axis) => x.shape[axis]));
}

/** @param slope - dy times the derivative by x; dy and y have reduced axes of length 1 */
function ruleOf(
  name: StatisticKind,
  needsOutput: boolean,
  slope: (dy: Tensor, attributes: Attributes, x: Tensor, y: () => Tensor) => Tensor,
): OwnRule<Attributes> {
  return {
    name,
    needs: () => (needsOutput ? [0, "output"] : [0]),
    backward: (c, dy) =>
      fusedBackward(
        c,
        dy,
        1,
        ([x]) => c.attributes.composition(x, c.attributes.axes, c.attributes.keepDims),
        (dy) => {
          const kept = (t: Tensor) => reshape(t, reducedShape(c.shape(0), c.attributes.axes, true));
          return [slope(kept(dy), c.attributes, c.input(0), () => kept(c.output()))];
        },
      ),
  };
}

const deviation = (x: Tensor, axes: readonly number[]): Tensor => sub(x, mean(x, axes, true));

/** dy / y, and 0 where y is 0. */
const overRoot = (dy: Tensor, y: Tensor): Tensor => where(equal(y, 0), 0, div(dy, y));

const statisticRules: Record<StatisticKind, OwnRule<Attributes>> = /* @__PURE__ */ (() => ({
  mean: {
    name: "mean",
    needs: () => [],
    backward: (c, dy) => {
      const each = div(reshape(dy, reducedShape(c.shape(0), c.attributes.axes, true)), c.attributes.divisor);
      return [expand(each, c.shape(0))];
    },
  },
  variance: ruleOf("variance", false, (dy, { axes, divisor }, x) =>
    mul(deviation(x, axes), mul(dy, 2 / divisor)),
  ),
  std: ruleOf("std", true, (dy, { axes, divisor }, x, y) =>
    mul(deviation(x, axes), div(overRoot(dy, y()), divisor)),
  ),
  norm: ruleOf("norm", true, (dy, _, x, y) => mul(x, overRoot(dy, y()))),
  // e^(x − y) would have y's rounding in every exponential.
  logsumexp: ruleOf("logsumexp", false, (dy, { axes }, x) => {
    const rows = reshape(x, [...dy.shape.slice(0, dy.rank - axes.length), -1]);
    return mul(reshape(softmax(rows), x.shape), dy);
  }),
}))();

/** Arithmetic mean, in float32 for integers and for 16-bit floats, whose sums would overflow; NaN over empty axes. */
export function mean(x: Tensor, axes?: Axes, keepDims = false): Tensor {
  commonBackend("mean", [x]);
  const list = reducedAxes("mean", axes, keepDims, x.rank);
  if (!isFloat(x.dtype)) return tidy(() => mean(cast(x, "float32"), list, keepDims));
  const narrow = throughFloat32(x, (wide) => mean(wide, list, keepDims));
  if (narrow) return narrow;
  const count = countOver(x, list);
  return statistic("mean", x, list, keepDims, count, (x, axes, keepDims) =>
    div(sum(x, axes, keepDims), count),
  );
}

/** What {@link variance} and {@link std} share: their checks, 16-bit floats through float32, the degrees of freedom. */
function dispersion(
  kind: "variance" | "std",
  x: Tensor,
  axes: Axes,
  keepDims: boolean,
  correction: number,
  composition: (x: Tensor, axes: readonly number[], keepDims: boolean, divisor: number) => Tensor,
): Tensor {
  use(kind, x);
  const list = reducedAxes(kind, axes, keepDims, x.rank);
  requireFinite(kind, "correction", correction);
  const narrow = throughFloat32(x, (wide) => dispersion(kind, wide, list, keepDims, correction, composition));
  if (narrow) return narrow;
  const divisor = Math.max(0, countOver(x, list) - correction);
  return statistic(kind, x, list, keepDims, divisor, (x, axes, keepDims) =>
    composition(x, axes, keepDims, divisor),
  );
}

/** Variance, Σ(x − mean)² / (n − correction); correction 1 is the unbiased estimate, as in PyTorch. */
export function variance(x: Tensor, axes?: Axes, keepDims = false, correction = 1): Tensor {
  return dispersion("variance", x, axes, keepDims, correction, (x, axes, keepDims, divisor) =>
    div(sum(square(deviation(x, axes)), axes, keepDims), divisor),
  );
}

/** `root` of x where x is not 0, and 0 with a gradient of 0 where it is (as PyTorch defines it). */
function rootOrZero(x: Tensor, root: (x: Tensor) => Tensor): Tensor {
  const zero = equal(x, 0);
  return where(zero, 0, root(where(zero, 1, x)));
}

/** Standard deviation, √variance; correction 1 is PyTorch's default, 0 NumPy's. The gradient of a constant is 0. */
export function std(x: Tensor, axes?: Axes, keepDims = false, correction = 1): Tensor {
  return dispersion("std", x, axes, keepDims, correction, (x, axes, keepDims) =>
    rootOrZero(variance(x, axes, keepDims, correction), sqrt),
  );
}

/**
 * The p-norm (Σ |x|^p)^(1/p) of all elements or along axes, as torch.linalg.vector_norm. `p` may be 0 (how many are not 0), Infinity
 * (the largest magnitude) and −Infinity (the smallest).
 * @throws {ShapeError} for ±Infinity over an empty axis
 */
export function norm(x: Tensor, p = 2, axes?: Axes, keepDims = false): Tensor {
  use("norm", x);
  const list = reducedAxes("norm", axes, keepDims, x.rank);
  requireThat(typeof p === "number" && !Number.isNaN(p), "norm", "p", "a number", p);
  if (!isFloat(x.dtype)) return tidy(() => norm(cast(x, "float32"), p, list, keepDims));
  const narrow = throughFloat32(x, (wide) => norm(wide, p, list, keepDims));
  if (narrow) return narrow;
  if (p === 2)
    return statistic("norm", x, list, keepDims, 1, (x, axes, keepDims) =>
      rootOrZero(sum(square(x), axes, keepDims), sqrt),
    );
  return tidy(() => {
    if (p === 0) return sum(cast(notEqual(x, 0), x.dtype), list, keepDims);
    const magnitude = abs(x);
    if (p === 1) return sum(magnitude, list, keepDims);
    if (!Number.isFinite(p)) return (p > 0 ? max : min)(magnitude, list, keepDims);
    if (p < 0) {
      // One 0 makes the norm 0, whose gradient PyTorch defines as 0.
      const zero = equal(magnitude, 0);
      const powers = where(zero, Number.POSITIVE_INFINITY, pow(where(zero, 1, magnitude), p));
      return pow(sum(powers, list, keepDims), 1 / p);
    }
    const powers = rootOrZero(magnitude, (positive) => pow(positive, p));
    return rootOrZero(sum(powers, list, keepDims), (total) => pow(total, 1 / p));
  });
}

/** log Σ e^x without overflow, in float32 for integers; −∞ over empty axes, as in PyTorch. */
export function logsumexp(x: Tensor, axes?: Axes, keepDims = false): Tensor {
  use("logsumexp", x);
  const list = reducedAxes("logsumexp", axes, keepDims, x.rank);
  if (!isFloat(x.dtype)) return tidy(() => logsumexp(cast(x, "float32"), list, keepDims));
  const narrow = throughFloat32(x, (wide) => logsumexp(wide, list, keepDims));
  if (narrow) return narrow;
  return statistic("logsumexp", x, list, keepDims, 1, (x, axes, keepDims) => {
    if (countOver(x, axes) === 0) return add(sum(x, axes, keepDims), Number.NEGATIVE_INFINITY);
    const top = max(x.detach(), axes, true);
    // An infinite maximum would make ∞ − ∞: shift by 0 there, the sum is then right by itself.
    const finite = mul(top, 0).equal(0);
    const shift = where(finite, top, 0);
    const result = add(log(sum(exp(sub(x, shift)), axes, true)), shift);
    return keepDims ? result : reshape(result, reducedShape(x.shape, axes, false));
  });
}
