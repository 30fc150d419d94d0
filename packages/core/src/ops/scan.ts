// Running sums and products along one axis.

import type { ScanKind } from "../backend/types.js";
import { isFloat } from "../dtype.js";
import { tidy } from "../memory.js";
import { normalizeAxis } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { commonBackend, empty, finish, operand } from "./dispatch.js";
import { cast, mul } from "./elementwise.js";
import { along, concat } from "./view.js";

function scan(kind: ScanKind, x: Tensor, axis: number): Tensor {
  const backend = commonBackend(kind, [x]);
  const at = normalizeAxis(kind, axis, x.rank);
  if (!backend.arithmetic.has(x.dtype)) {
    const [work, result] = isFloat(x.dtype) ? (["float32", x.dtype] as const) : (["int32", "int32"] as const);
    return tidy(() => cast(scan(kind, cast(x, work), at), result));
  }
  const out = empty(backend, x.dtype, x.shape);
  backend.scan(kind, operand(x), at, operand(out));
  return finish(kind, [x], { axis: at }, out);
}

/** Running sum along `axis`: element i is the sum of elements 0 … i. Small integers and bool sum in int32. */
export const cumsum = (x: Tensor, axis: number): Tensor => scan("cumsum", x, axis);
/** Running product along `axis`: element i is the product of elements 0 … i. */
export const cumprod = (x: Tensor, axis: number): Tensor => scan("cumprod", x, axis);

/** cumprod in differentiable steps: after step s each element holds the product of the 2^s up to it (Hillis and Steele 1986). */
export function cumprodReference(x: Tensor, axis: number): Tensor {
  return tidy(() => {
    const extent = x.shape[axis];
    let y = x;
    for (let step = 1; step < extent; step *= 2) {
      y = concat(
        [along(y, axis, [0, step]), mul(along(y, axis, [step]), along(y, axis, [0, extent - step]))],
        axis,
      );
    }
    return y === x ? cast(x, x.dtype) : y;
  });
}
