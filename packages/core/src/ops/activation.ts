// Activations that are more than one primitive.

import { requireFinite, use } from "../arguments.js";
import { fusedBackward, gradientPlaces, type OwnRule } from "../autograd/rule.js";
import { requireFloat } from "../dtype.js";
import { ShapeError } from "../errors.js";
import { tidy } from "../memory.js";
import { formatShape, sameShape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { commonBackend, contiguous, empty, finishBy, operand } from "./dispatch.js";
import { greater, mul, silu, where } from "./elementwise.js";
import { fusedKernels } from "./fused.js";

/** silu(gate) · up (Shazeer, arXiv:2002.05202), without the intermediate. */
export function swiglu(gate: Tensor, up: Tensor): Tensor {
  const backend = commonBackend("swiglu", [gate, up]);
  if (!sameShape(gate.shape, up.shape)) {
    throw new ShapeError(`swiglu: gate ${formatShape(gate.shape)} and up ${formatShape(up.shape)} differ`);
  }
  if (!fusedKernels([gate, up], "swiglu", "swigluBackward")) return swigluReference(gate, up);
  return tidy(() => {
    const g = contiguous(gate);
    const u = contiguous(up);
    const out = empty(backend, g.dtype, g.shape);
    backend.fused.swiglu!(operand(g), operand(u), operand(out));
    return finishBy(swigluRule, [g, u], null, out);
  });
}

export const swigluRule: OwnRule<null> = {
  name: "swiglu",
  needs: () => [0, 1],
  backward: (c, dy) =>
    fusedBackward(
      c,
      dy,
      2,
      ([gate, up]) => swigluReference(gate, up),
      (dy) => {
        const [places, [dGate, dUp]] = gradientPlaces(c, dy);
        dy.storage.backend.fused.swigluBackward!(
          operand(c.input(0)),
          operand(c.input(1)),
          operand(dy),
          dGate,
          dUp,
        );
        return places;
      },
    ),
  remake: (input) => swiglu(input(0), input(1)),
};

/** swiglu in primitives. */
export function swigluReference(gate: Tensor, up: Tensor): Tensor {
  return tidy(() => mul(silu(gate), up));
}

/** x where it is positive, else slope · x (Maas et al. 2013). */
export function leakyRelu(x: Tensor, slope = 0.01): Tensor {
  use("leakyRelu", x);
  requireFloat("leakyRelu", "x", x.dtype);
  requireFinite("leakyRelu", "slope", slope);
  return tidy(() => where(greater(x, 0), x, mul(x, slope)));
}
