// Questions about elements, answered in bool: NaN and infinity, and, or, whether any or all are true. None has a gradient.

import { isFloat } from "../dtype.js";
import { tidy } from "../memory.js";
import type { Tensor } from "../tensor.js";
import { abs, cast, equal, less, logicalNot, notEqual, where } from "./elementwise.js";
import { sum } from "./reduce.js";

/** True where x is NaN. */
export const isnan = (x: Tensor): Tensor => notEqual(x, x);
/** True where x is neither NaN nor infinite. */
export const isfinite = (x: Tensor): Tensor =>
  isFloat(x.dtype) ? tidy(() => less(abs(x.detach()), Number.POSITIVE_INFINITY)) : equal(x, x);
/** True where x is ∞ or −∞. */
export const isinf = (x: Tensor): Tensor =>
  isFloat(x.dtype) ? tidy(() => equal(abs(x.detach()), Number.POSITIVE_INFINITY)) : notEqual(x, x);

/** True where both are not 0 (NaN is not 0). Shapes broadcast. */
export const logicalAnd = (a: Tensor, b: Tensor): Tensor =>
  tidy(() => {
    const [x, y] = [cast(a, "bool"), cast(b, "bool")];
    return where(x, y, x);
  });
/** True where one at least is not 0. */
export const logicalOr = (a: Tensor, b: Tensor): Tensor =>
  tidy(() => {
    const [x, y] = [cast(a, "bool"), cast(b, "bool")];
    return where(x, x, y);
  });
/** True where exactly one is not 0. */
export const logicalXor = (a: Tensor, b: Tensor): Tensor =>
  tidy(() => {
    const y = cast(b, "bool");
    return where(cast(a, "bool"), logicalNot(y), y);
  });

type Axes = number | readonly number[];

/** Whether an element is not 0 (NaN is not 0); false over empty axes. */
export const any = (x: Tensor, axes?: Axes, keepDims = false): Tensor =>
  tidy(() => notEqual(sum(cast(x.detach(), "bool"), axes, keepDims), 0));
/** Whether no element is 0; true over empty axes. */
export const all = (x: Tensor, axes?: Axes, keepDims = false): Tensor =>
  tidy(() => equal(sum(logicalNot(cast(x.detach(), "bool")), axes, keepDims), 0));
