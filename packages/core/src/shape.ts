// Shapes as arrays of integers: sizes, axes, broadcasting. Nothing here knows of memory or strides.

import { describe, requireBoolean, requireThat } from "./arguments.js";
import { ShapeError } from "./errors.js";
import { sizeOf } from "./size.js";

export { sizeOf };

export type Shape = readonly number[];

/** 0 … count − 1: the axes of a tensor, mostly. */
export function range(count: number): number[] {
  const list = new Array<number>(count);
  for (let i = 0; i < count; i++) list[i] = i;
  return list;
}

/** One number, or several, as a list. */
export function listOf(values: number | readonly number[]): readonly number[] {
  return Array.isArray(values) ? values : [values as number];
}

export function sameShape(a: Shape, b: Shape): boolean {
  if (a === b) return true;
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** `[2, 3]` as messages print it. */
export function formatShape(shape: Shape): string {
  return `[${shape.map(describe).join(", ")}]`;
}

/**
 * Checks that `shape` can be the shape of a tensor.
 * @throws {ShapeError} on extents that are not non-negative integers or whose product is not a safe integer
 */
export function checkShape(operation: string, shape: Shape): void {
  if (!Array.isArray(shape))
    throw new ShapeError(`${operation}: a shape must be an array of integers, not ${describe(shape)}`);
  let size = 1;
  for (const extent of shape) {
    if (!Number.isSafeInteger(extent) || extent < 0) {
      throw new ShapeError(
        `${operation}: ${formatShape(shape)} is no shape: ${describe(extent)} is not a non-negative integer`,
      );
    }
    size *= extent;
  }
  if (!Number.isSafeInteger(size))
    throw new ShapeError(`${operation}: shape ${formatShape(shape)} has too many elements`);
}

/**
 * `axis` counted from the front.
 * @throws {ArgumentError} when it is no number
 * @throws {ShapeError} when it is not within −rank … rank−1
 */
export function normalizeAxis(operation: string, axis: number, rank: number): number {
  requireThat(typeof axis === "number", operation, "axis", "an integer", axis);
  if (!Number.isInteger(axis) || axis < -rank || axis >= rank) {
    const range = rank === 0 ? "a scalar has no axes" : `expected ${-rank} to ${rank - 1}`;
    throw new ShapeError(`${operation}: axis ${axis} is out of range for rank ${rank} (${range})`);
  }
  return axis < 0 ? axis + rank : axis;
}

/** Axes counted from the front, sorted; `undefined` means all of them. */
export function normalizeAxes(
  operation: string,
  axes: number | readonly number[] | undefined,
  rank: number,
): number[] {
  if (axes === undefined) return range(rank);
  const list = listOf(axes).map((axis) => normalizeAxis(operation, axis, rank));
  list.sort((a, b) => a - b);
  for (let i = 1; i < list.length; i++) {
    if (list[i] === list[i - 1]) throw new ShapeError(`${operation}: axis ${list[i]} is named twice`);
  }
  return list;
}

/** The axes to reduce, as {@link normalizeAxes} gives them, for an operation that takes `keepDims` after them. */
export function reducedAxes(
  operation: string,
  axes: number | readonly number[] | undefined,
  keepDims: boolean,
  rank: number,
): number[] {
  const given = axes === undefined || typeof axes === "number" || Array.isArray(axes);
  requireThat(given, operation, "axes", "an integer or an array of integers", axes);
  requireBoolean(operation, "keepDims", keepDims);
  return normalizeAxes(operation, axes, rank);
}

/**
 * The shape that `a` and `b` broadcast to, by NumPy's rules.
 * @throws {ShapeError} when an axis differs and neither extent is 1
 */
export function broadcastShapes(operation: string, a: Shape, b: Shape): Shape {
  if (sameShape(a, b)) return a;
  const rank = Math.max(a.length, b.length);
  const out = new Array<number>(rank);
  for (let i = 1; i <= rank; i++) {
    const da = i <= a.length ? a[a.length - i] : 1;
    const db = i <= b.length ? b[b.length - i] : 1;
    if (da !== db && da !== 1 && db !== 1) {
      throw new ShapeError(
        `${operation}: shapes ${formatShape(a)} and ${formatShape(b)} do not broadcast (axis ${-i}: ${da} ≠ ${db})`,
      );
    }
    out[rank - i] = da === 1 ? db : da;
  }
  return out;
}

/** `shape` with the extent −1, if any, worked out from `size`. */
export function inferShape(operation: string, shape: Shape, size: number): Shape {
  if (!Array.isArray(shape)) checkShape(operation, shape);
  const unknown = shape.indexOf(-1);
  if (unknown < 0) {
    checkShape(operation, shape);
    if (sizeOf(shape) !== size) {
      throw new ShapeError(
        `${operation}: ${size} elements do not fit shape ${formatShape(shape)} (${sizeOf(shape)})`,
      );
    }
    return shape;
  }
  if (shape.indexOf(-1, unknown + 1) >= 0)
    throw new ShapeError(`${operation}: only one extent of ${formatShape(shape)} may be -1`);
  const rest = shape.filter((_, i) => i !== unknown);
  checkShape(operation, rest);
  const known = sizeOf(rest);
  if (known === 0 || size % known !== 0) {
    throw new ShapeError(`${operation}: ${size} elements do not divide into shape ${formatShape(shape)}`);
  }
  return shape.map((extent) => (extent === -1 ? size / known : extent));
}

/** The shape left after reducing `axes` (normalized). */
export function reducedShape(shape: Shape, axes: readonly number[], keepDims: boolean): Shape {
  return keepDims
    ? shape.map((extent, i) => (axes.includes(i) ? 1 : extent))
    : shape.filter((_, i) => !axes.includes(i));
}
