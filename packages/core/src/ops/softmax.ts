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

type Kind = "softmax" | "logSoftmax";

/** The kernels of the gradients, by name: names put together in each call are slow to look up. */
const backwardOf = { softmax: "softmaxBackward", logSoftmax: "logSoftmaxBackward" } as const;

/** The operation along `axis`: by the kernel of its name, or by the composition that defines it. */
function normalize(
  kind: Kind,
  x: Tensor,
  axis: number,
  rule: OwnRule<null>,
  reference: (x: Tensor) => Tensor,
): Tensor {
  commonBackend(kind, [x]);
  return alongLast(kind, x, axis, (rows) => {
    if (!fusedKernels([rows], kind, backwardOf[kind])) return reference(rows);
    const source = contiguous(rows);
    const { backend } = source.storage;
    const out = empty(backend, source.dtype, source.shape);
    backend.fused[kind]!(operand(source), operand(out));
    return finishBy(rule, [source], null, out);
  });
}

function ruleOf(kind: Kind, reference: (x: Tensor) => Tensor): OwnRule<null> {
  return {
    name: kind,
    needs: () => ["output", 0],
    backward: (c, dy) =>
      fusedBackward(
        c,
        dy,
        1,
        ([x]) => reference(x),
        (dy) => {
          const [places, [dx]] = gradientPlaces(c, dy);
          dy.storage.backend.fused[backwardOf[kind]]!(operand(c.output()), operand(dy), dx!);
          return places;
        },
      ),
  };
}

/** e^x / Σ e^x along `axis`. */
export function softmax(x: Tensor, axis = -1): Tensor {
  return normalize("softmax", x, axis, softmaxRule, softmaxReference);
}

export const softmaxRule = /* @__PURE__ */ ruleOf("softmax", softmaxReference);

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
  return normalize("logSoftmax", x, axis, logSoftmaxRule, logSoftmaxReference);
}

export const logSoftmaxRule = /* @__PURE__ */ ruleOf("logSoftmax", logSoftmaxReference);

/** logSoftmax over the last axis in primitives. */
export function logSoftmaxReference(x: Tensor): Tensor {
  return tidy(() => {
    if (x.shape[x.rank - 1] === 0) return cast(x, x.dtype);
    const shifted = sub(x, max(x.detach(), -1, true));
    return sub(shifted, log(sum(exp(shifted), -1, true)));
  });
}
