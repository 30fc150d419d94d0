// Questions about elements, answered in bool: NaN and infinity, and, or, whether any or all are true. None has a gradient.

import { requireBoolean, requireNonNegative, use } from "../arguments.js";
import { isFloat } from "../dtype.js";
import { tidy } from "../memory.js";
import { broadcastShapes, reducedAxes } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { commonBackend } from "./dispatch.js";
import {
  abs,
  add,
  cast,
  equal,
  less,
  lessEqual,
  logicalNot,
  mul,
  notEqual,
  sub,
  where,
} from "./elementwise.js";
import { sum } from "./reduce.js";

/** True where x is NaN. */
export const isnan = (x: Tensor): Tensor => {
  use("isnan", x);
  return notEqual(x, x);
};
/** True where x is neither NaN nor infinite. */
export const isfinite = (x: Tensor): Tensor => {
  use("isfinite", x);
  return isFloat(x.dtype) ? tidy(() => less(abs(x.detach()), Number.POSITIVE_INFINITY)) : equal(x, x);
};
/** True where x is ∞ or −∞. */
export const isinf = (x: Tensor): Tensor => {
  use("isinf", x);
  return isFloat(x.dtype) ? tidy(() => equal(abs(x.detach()), Number.POSITIVE_INFINITY)) : notEqual(x, x);
};

const truth = (x: Tensor): Tensor => cast(x, "bool");

/** True where both are not 0 (NaN is not 0). Shapes broadcast. */
export const logicalAnd = (a: Tensor, b: Tensor): Tensor =>
  truths("logicalAnd", a, b, (x) => where(x, truth(b), x));
/** True where one at least is not 0. */
export const logicalOr = (a: Tensor, b: Tensor): Tensor =>
  truths("logicalOr", a, b, (x) => where(x, x, truth(b)));
/** True where exactly one is not 0. */
export const logicalXor = (a: Tensor, b: Tensor): Tensor =>
  truths("logicalXor", a, b, (x) => where(x, logicalNot(b), truth(b)));

function truths(operation: string, a: Tensor, b: Tensor, choose: (x: Tensor) => Tensor): Tensor {
  commonBackend(operation, [a, b]);
  broadcastShapes(operation, a.shape, b.shape);
  return tidy(() => choose(truth(a)));
}

type Axes = number | readonly number[];

/** Whether an element is not 0 (NaN is not 0); false over empty axes. */
export const any = (x: Tensor, axes?: Axes, keepDims = false): Tensor => {
  use("any", x);
  const list = reducedAxes("any", axes, keepDims, x.rank);
  return tidy(() => notEqual(sum(cast(x.detach(), "bool"), list, keepDims), 0));
};
/** Whether no element is 0; true over empty axes. */
export const all = (x: Tensor, axes?: Axes, keepDims = false): Tensor => {
  use("all", x);
  const list = reducedAxes("all", axes, keepDims, x.rank);
  return tidy(() => equal(sum(logicalNot(cast(x.detach(), "bool")), list, keepDims), 0));
};

/**
 * Where |a − b| ≤ absolute + relative · |b|, as torch.isclose and numpy.isclose: equal infinities are close, NaN is close to nothing
 * unless `equalNan` says so.
 */
export function isclose(a: Tensor, b: Tensor, relative = 1e-5, absolute = 1e-8, equalNan = false): Tensor {
  commonBackend("isclose", [a, b]);
  requireNonNegative("isclose", "relative", relative);
  requireNonNegative("isclose", "absolute", absolute);
  requireBoolean("isclose", "equalNan", equalNan);
  broadcastShapes("isclose", a.shape, b.shape);
  return tidy(() => {
    // Differences of integers could overflow.
    const [x, y] = [a, b].map((t) => (isFloat(t.dtype) ? t.detach() : cast(t, "float32")));
    const apart = abs(sub(x, y));
    // Within an infinite tolerance only what is not infinitely far apart.
    const near = logicalAnd(lessEqual(apart, add(mul(abs(y), relative), absolute)), isfinite(apart));
    const close = logicalOr(near, equal(a, b));
    return equalNan ? logicalOr(close, logicalAnd(isnan(a), isnan(b))) : close;
  });
}

/** Whether all elements are close, see {@link isclose}. @throws {BackendError} on a backend that is read asynchronously */
export function allclose(
  a: Tensor,
  b: Tensor,
  relative?: number,
  absolute?: number,
  equalNan?: boolean,
): boolean {
  return tidy(() => all(isclose(a, b, relative, absolute, equalNan)).item() === 1);
}
