// Reductions over one, several or all axes. No axes named means all; an empty list means none.

import { requireBoolean, use } from "../arguments.js";
import type { ArgReduceKind, ReduceKind } from "../backend/types.js";
import { isFloat } from "../dtype.js";
import { ShapeError } from "../errors.js";
import { tidy } from "../memory.js";
import { formatShape, normalizeAxis, reducedAxes, reducedShape, sizeOf } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { commonBackend, empty, finish, operand } from "./dispatch.js";
import { add, cast, mul } from "./elementwise.js";
import { concat, permute, reshape, slice } from "./view.js";

type Axes = number | readonly number[] | undefined;

function reduce(kind: ReduceKind, x: Tensor, axes: Axes, keepDims: boolean): Tensor {
  const backend = commonBackend(kind, [x]);
  const list = reducedAxes(kind, axes, keepDims, x.rank);
  if (kind === "max" || kind === "min") requireElements(kind, x, list);
  if (!backend.arithmetic.has(x.dtype)) {
    const work = isFloat(x.dtype) ? "float32" : "int32";
    const back = isFloat(x.dtype) || kind === "max" || kind === "min" ? x.dtype : "int32";
    return tidy(() => cast(reduce(kind, cast(x, work), axes, keepDims), back));
  }
  const out = empty(backend, x.dtype, reducedShape(x.shape, list, true));
  backend.reduce(kind, operand(x), list, operand(out));
  const result = finish(kind, [x], { axes: list }, out);
  if (keepDims || list.length === 0) return result;
  const dropped = reshape(result, reducedShape(x.shape, list, false));
  result.dispose();
  return dropped;
}

/** Sum; 0 over empty axes. Integers sum in int32. */
export const sum = (x: Tensor, axes?: Axes, keepDims = false): Tensor => reduce("sum", x, axes, keepDims);
/** Product; 1 over empty axes. */
export const prod = (x: Tensor, axes?: Axes, keepDims = false): Tensor => reduce("prod", x, axes, keepDims);
/** Largest element, NaN if there is one; equal ones share the gradient. @throws {ShapeError} over an empty axis */
export const max = (x: Tensor, axes?: Axes, keepDims = false): Tensor => reduce("max", x, axes, keepDims);
/** Smallest element, NaN if there is one; equal ones share the gradient. @throws {ShapeError} over an empty axis */
export const min = (x: Tensor, axes?: Axes, keepDims = false): Tensor => reduce("min", x, axes, keepDims);

function requireElements(operation: string, x: Tensor, axes: readonly number[]): void {
  for (const axis of axes) {
    if (x.shape[axis] === 0)
      throw new ShapeError(
        `${operation}: axis ${axis} of ${formatShape(x.shape)} is empty and has no ${operation}`,
      );
  }
}

/** prod with keepDims as products of pairs: differentiable any number of times, at zeros too. */
export function prodReference(x: Tensor, axes: readonly number[]): Tensor {
  return tidy(() => {
    const kept = x.shape.map((_, i) => i).filter((i) => !axes.includes(i));
    const rest = kept.map((i) => x.shape[i]);
    // [factors, rest…]
    let factors = reshape(permute(x, [...axes, ...kept]), [sizeOf(axes.map((i) => x.shape[i])), ...rest]);
    if (factors.shape[0] === 0) return add(sum(x, axes, true), 1);
    while (factors.shape[0] > 1) {
      const half = factors.shape[0] >> 1;
      const pairs = mul(slice(factors, [0, half]), slice(factors, [half, 2 * half]));
      factors = factors.shape[0] % 2 === 0 ? pairs : concat([pairs, slice(factors, [2 * half])]);
    }
    return reshape(factors, reducedShape(x.shape, axes, true));
  });
}

function argReduce(kind: ArgReduceKind, x: Tensor, axis: number | undefined, keepDims: boolean): Tensor {
  return tidy(() => {
    use(kind, x);
    requireBoolean(kind, "keepDims", keepDims);
    const source = axis === undefined ? reshape(x, [-1]) : x;
    const backend = commonBackend(kind, [source]);
    const at = normalizeAxis(kind, axis ?? 0, source.rank);
    requireElements(kind, source, [at]);
    const work = backend.arithmetic.has(source.dtype)
      ? source
      : cast(source, isFloat(source.dtype) ? "float32" : "int32");
    const out = empty(backend, "int32", reducedShape(source.shape, [at], true));
    backend.argReduce(kind, operand(work), at, operand(out));
    const shape =
      axis === undefined ? (keepDims ? x.shape.map(() => 1) : []) : reducedShape(x.shape, [at], keepDims);
    return reshape(out, shape);
  });
}

/** Position (int32) of the largest element along `axis`, or in the flattened tensor; the first of equals. */
export const argmax = (x: Tensor, axis?: number, keepDims = false): Tensor =>
  argReduce("argmax", x, axis, keepDims);
/** Position (int32) of the smallest element along `axis`, or in the flattened tensor; the first of equals. */
export const argmin = (x: Tensor, axis?: number, keepDims = false): Tensor =>
  argReduce("argmin", x, axis, keepDims);

/** `x` summed over the axes along which `shape` was broadcast to x's shape: the gradient of broadcasting. */
export function sumTo(x: Tensor, shape: readonly number[]): Tensor {
  const lead = x.rank - shape.length;
  const axes: number[] = [];
  x.shape.forEach((extent, i) => {
    if (i < lead || (shape[i - lead] === 1 && extent !== 1)) axes.push(i);
  });
  if (axes.length === 0) return x;
  return tidy(() => reshape(sum(x, axes, true), shape));
}
