// Operations that write their result over their first operand, for running means, gradients and states that should not be
// allocated anew. They are not recorded; a graph that saved the old values reports it in backward.

import { use } from "../arguments.js";
import { noGrad } from "../autograd/graph.js";
import type { BinaryKind } from "../backend/types.js";
import { requireFilling, scalarLike } from "../creation.js";
import { dtypeBeside, isFloat } from "../dtype.js";
import { DTypeError, ShapeError } from "../errors.js";
import { tidy } from "../memory.js";
import { broadcastShapes, formatShape, sameShape } from "../shape.js";
import { Tensor } from "../tensor.js";
import { commonBackend, operand, overwriting } from "./dispatch.js";
import { add, div, mul, sub } from "./elementwise.js";
import { copyInto, requireWritable } from "./view.js";

type ArithmeticKind = Extract<BinaryKind, "add" | "sub" | "mul" | "div">;

const arithmetic = { add, sub, mul, div };

function inPlace(kind: ArithmeticKind, target: Tensor, other: Tensor | number): Tensor {
  const operation = `${kind}_`;
  const backend = commonBackend(operation, other instanceof Tensor ? [target, other] : [target]);
  requireWritable(operation, target, other, kind);
  if (
    other instanceof Tensor &&
    !sameShape(broadcastShapes(operation, target.shape, other.shape), target.shape)
  ) {
    throw new ShapeError(
      `${operation}: ${formatShape(other.shape)} does not broadcast into ${formatShape(target.shape)}`,
    );
  }
  const number = typeof other === "number";
  const dtype = number ? dtypeBeside(target.dtype, other) : other instanceof Tensor ? other.dtype : null;
  const direct =
    dtype === target.dtype &&
    backend.arithmetic.has(target.dtype) &&
    (kind !== "div" || isFloat(target.dtype)) &&
    // A shifted view of the target would be read after it was written.
    (number || other.storage !== target.storage || other.layout === target.layout);
  if (direct) {
    const source = number ? scalarLike(operation, target, other, target.dtype, true) : other;
    const operands = overwriting(operation, target, source);
    if (operands) backend.binary(kind, operands[0], operands[1], operands[0]);
    if (number) source.dispose();
    if (operands) {
      target.storage.version++;
      return target;
    }
  }
  noGrad(() =>
    tidy(() => {
      const result = arithmetic[kind](target, other);
      if (isFloat(result.dtype) && !isFloat(target.dtype))
        throw new DTypeError(
          `${operation}: the result is ${result.dtype} and cannot be kept as ${target.dtype}`,
        );
      copyInto(target, result);
    }),
  );
  return target;
}

/** x += other, which broadcasts to x's shape; returns x. So for all operations whose name ends in `_`. */
export const add_ = (x: Tensor, other: Tensor | number): Tensor => inPlace("add", x, other);
/** x −= other. */
export const sub_ = (x: Tensor, other: Tensor | number): Tensor => inPlace("sub", x, other);
/** x *= other. */
export const mul_ = (x: Tensor, other: Tensor | number): Tensor => inPlace("mul", x, other);
/** x /= other; for float tensors. */
export const div_ = (x: Tensor, other: Tensor | number): Tensor => inPlace("div", x, other);

/** Every element of x `value`, converted as cast does. */
export function fill_(x: Tensor, value: number): Tensor {
  const { backend } = use("fill_", x);
  requireWritable("fill_", x, null, "fullLike");
  requireFilling("fill_", value, x.dtype);
  backend.fill(operand(x), value);
  x.storage.version++;
  return x;
}
