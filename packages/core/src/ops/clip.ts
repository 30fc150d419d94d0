// Elements kept within bounds, as a new tensor and in place.

import { requireThat, use } from "../arguments.js";
import { noGrad } from "../autograd/graph.js";
import type { OwnRule } from "../autograd/rule.js";
import type { Operand } from "../backend/types.js";
import { scalarLike } from "../creation.js";
import { dtypeBeside, isFloat } from "../dtype.js";
import { tidy } from "../memory.js";
import { Tensor } from "../tensor.js";
import { elementByElement, finishBy, operand, overwriting } from "./dispatch.js";
import { alias, greater, less, where } from "./elementwise.js";
import { copyInto, requireWritable } from "./view.js";

type Bound = Tensor | number | null;

interface Bounds {
  readonly low: number | null;
  readonly high: number | null;
}

function checkBound(name: string, bound: Bound): void {
  const valid =
    bound === null || bound instanceof Tensor || (typeof bound === "number" && !Number.isNaN(bound));
  requireThat(valid, "clip", name, "a number, a tensor, or null for no bound", bound);
}

/**
 * `x` with every element within [low, high] (NaN stays, `high` wins over `low`); no gradient outside, a whole one at the ends.
 * @param low - a number, a tensor that broadcasts, or null for no bound
 * @param high - as `low`
 */
export function clip(x: Tensor, low: Bound = null, high: Bound = null): Tensor {
  use("clip", x);
  checkBound("low", low);
  checkBound("high", high);
  const bounds = numbersBeside(x, low, high);
  if (!bounds) return tidy(() => clipReference(x, low, high));
  const out = elementByElement("clip", x.dtype, [x], (place, source) => clipInto(x, source, place, bounds));
  return isFloat(x.dtype) ? finishBy(clipRule, [x], bounds, out) : out;
}

export const clipRule: OwnRule<Bounds> = {
  name: "clip",
  needs: () => [0],
  backward: (c, dy) => {
    const { low, high } = c.attributes;
    const x = c.input(0);
    const raised = low === null ? dy : where(less(x, low), 0, dy);
    return [high === null ? raised : where(greater(x, high), 0, raised)];
  },
};

function clipReference(x: Tensor, low: Bound, high: Bound): Tensor {
  const raised = low === null ? alias(x) : where(less(x, low), low, x);
  return high === null ? raised : where(greater(raised, high), high, raised);
}

/** Every element of x within [low, high], numbers, or null for no bound. */
export function clip_(x: Tensor, low: number | null = null, high: number | null = null): Tensor {
  use("clip_", x);
  requireWritable("clip_", x, null, "clip");
  checkBound("low", low);
  checkBound("high", high);
  const bounds = numbersBeside(x, low, high);
  const operands = bounds ? overwriting("clip_", x, x) : null;
  if (bounds && operands) {
    clipInto(x, operands[1], operands[0], bounds);
    x.storage.version++;
  } else noGrad(() => tidy(() => copyInto(x, clip(x, low, high))));
  return x;
}

/** The bounds, where there are any and all are numbers of x's dtype, in which the backend computes; else null. */
function numbersBeside(x: Tensor, low: Bound, high: Bound): Bounds | null {
  const fits = (bound: Bound): bound is number | null =>
    bound === null || (typeof bound === "number" && dtypeBeside(x.dtype, bound) === x.dtype);
  const direct = x.storage.backend.arithmetic.has(x.dtype) && (low ?? high) !== null;
  return direct && fits(low) && fits(high) ? { low, high } : null;
}

/** Writes `x`, of `like`, within the bounds into `out`, which may be x itself. */
function clipInto(like: Tensor, x: Operand, out: Operand, { low, high }: Bounds): void {
  let source = x;
  for (const [kind, bound] of [
    ["maximum", low],
    ["minimum", high],
  ] as const) {
    if (bound === null) continue;
    const number = scalarLike("clip", like, bound, like.dtype, true);
    try {
      const { shape } = out;
      const repeated = { ...operand(number), shape, strides: shape.map(() => 0) };
      like.storage.backend.binary(kind, source, repeated, out);
    } finally {
      number.dispose();
    }
    source = out;
  }
}
