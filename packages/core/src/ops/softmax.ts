// softmax and logSoftmax along any axis.

import { fusedBackward, gradientPlaces, type OwnRule } from "../autograd/rule.js";
import { isFloat, requireFloat } from "../dtype.js";
import { tidy } from "../memory.js";
import { normalizeAxis } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { commonBackend, contiguous, empty, finishBy, operand } from "./dispatch.js";
import { cast, div, exp, log, sub } from "./elementwise.js";
import { fusedKernels } from "./fused.js";
import { throughFloat32 } from "./narrow.js";
import { max, sum } from "./reduce.js";
import { transpose } from "./view.js";

/** Runs `fn` with `axis` moved to the end and back. */
function alongLast(operation: string, x: Tensor, axis: number, fn: (x: Tensor) => Tensor): Tensor {
  requireFloat(operation, "x", x.dtype);
  const at = normalizeAxis(operation, axis, x.rank);
  const narrow = throughFloat32(x, (wide) => alongLast(operation, wide, axis, fn));
  if (narrow) return narrow;
  return tidy(() => (at === x.rank - 1 ? fn(x) : transpose(fn(transpose(x, at, -1)), at, -1)));
}

/** e^x / Σ e^x along `axis`. */
export function softmax(x: Tensor, axis = -1): Tensor {
  commonBackend("softmax", [x]);
  return alongLast("softmax", x, axis, (rows) => {
    if (!fusedKernels([rows], "softmax", "softmaxBackward")) return softmaxReference(rows);
    const source = contiguous(rows);
    const { backend } = source.storage;
    const out = empty(backend, source.dtype, source.shape);
    backend.fused.softmax!(operand(source), operand(out));
    return finishBy(softmaxRule, [source], null, out);
  });
}

export const softmaxRule: OwnRule<null> = {
  name: "softmax",
  needs: () => ["output", 0],
  backward: (c, dy) =>
    fusedBackward(
      c,
      dy,
      1,
      ([x]) => softmaxReference(x),
      (dy) => {
        const [places, [dx]] = gradientPlaces(c, dy);
        dy.storage.backend.fused.softmaxBackward!(operand(c.output()), operand(dy), dx!);
        return places;
      },
    ),
};

/** softmax over the last axis in primitives. */
export function softmaxReference(x: Tensor): Tensor {
  return tidy(() => {
    if (x.shape[x.rank - 1] === 0 || !isFloat(x.dtype)) return cast(x, x.dtype);
    const e = exp(sub(x, max(x.detach(), -1, true)));
    return div(e, sum(e, -1, true));
  });
}

/** x − log Σ e^x along `axis`. */
export function logSoftmax(x: Tensor, axis = -1): Tensor {
  commonBackend("logSoftmax", [x]);
  return alongLast("logSoftmax", x, axis, (rows) => {
    if (!fusedKernels([rows], "logSoftmax", "logSoftmaxBackward")) return logSoftmaxReference(rows);
    const source = contiguous(rows);
    const { backend } = source.storage;
    const out = empty(backend, source.dtype, source.shape);
    backend.fused.logSoftmax!(operand(source), operand(out));
    return finishBy(logSoftmaxRule, [source], null, out);
  });
}

export const logSoftmaxRule: OwnRule<null> = {
  name: "logSoftmax",
  needs: () => ["output", 0],
  backward: (c, dy) =>
    fusedBackward(
      c,
      dy,
      1,
      ([x]) => logSoftmaxReference(x),
      (dy) => {
        const [places, [dx]] = gradientPlaces(c, dy);
        dy.storage.backend.fused.logSoftmaxBackward!(operand(c.output()), operand(dy), dx!);
        return places;
      },
    ),
};

/** logSoftmax over the last axis in primitives. */
export function logSoftmaxReference(x: Tensor): Tensor {
  return tidy(() => {
    if (x.shape[x.rank - 1] === 0) return cast(x, x.dtype);
    const shifted = sub(x, max(x.detach(), -1, true));
    return sub(shifted, log(sum(exp(shifted), -1, true)));
  });
}
