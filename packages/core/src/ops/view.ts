// Operations that change how elements are laid out: views where a layout can say it, copies where not.

import { describe, requireList, requireThat, use } from "../arguments.js";
import { fromValues } from "../creation.js";
import { type DTypeArray, promote } from "../dtype.js";
import { ArgumentError, AutogradError, ShapeError } from "../errors.js";
import { expandLayout, permuteLayout, reshapeLayout, sliceLayout } from "../layout.js";
import { tidy } from "../memory.js";
import { runtime } from "../runtime.js";
import {
  checkShape,
  formatShape,
  inferShape,
  normalizeAxes,
  normalizeAxis,
  sameShape,
  sizeOf,
} from "../shape.js";
import { Tensor } from "../tensor.js";
import { commonBackend, contiguous, empty, filled, finish, operand, viewOf } from "./dispatch.js";
import { cast } from "./elementwise.js";

/** The same elements in another shape; one extent may be −1. A view where the layout allows it, else a copy. */
export function reshape(x: Tensor, shape: readonly number[]): Tensor {
  use("reshape", x);
  const target = inferShape("reshape", shape, x.size);
  const layout = reshapeLayout(x.layout, target);
  if (layout) return viewOf("reshape", x, null, layout);
  return tidy(() => reshape(contiguous(x), target));
}

/** Axes `startAxis` to `endAxis` (inclusive) made one. */
export function flatten(x: Tensor, startAxis = 0, endAxis = -1): Tensor {
  use("flatten", x);
  if (x.rank === 0) return reshape(x, [1]);
  const start = normalizeAxis("flatten", startAxis, x.rank);
  const end = normalizeAxis("flatten", endAxis, x.rank);
  if (start > end) throw new ShapeError(`flatten: startAxis ${startAxis} comes after endAxis ${endAxis}`);
  const middle = sizeOf(x.shape.slice(start, end + 1));
  return reshape(x, [...x.shape.slice(0, start), middle, ...x.shape.slice(end + 1)]);
}

/** Axis i of the result is axis `order[i]` of `x`. */
export function permute(x: Tensor, order: readonly number[]): Tensor {
  use("permute", x);
  requireList("permute", "order", order);
  const axes = order.map((axis) => normalizeAxis("permute", axis, x.rank));
  if (axes.length !== x.rank || axes.some((axis, i) => axes.indexOf(axis) !== i)) {
    throw new ShapeError(`permute: ${formatShape(order)} does not name each of the ${x.rank} axes once`);
  }
  return viewOf("permute", x, { order: axes }, permuteLayout(x.layout, axes));
}

/** `x` with its axes in `order`: itself where they are. */
export const arranged = (x: Tensor, order: readonly number[]): Tensor =>
  order.every((axis, i) => axis === i) ? x : permute(x, order);

/** `x` with two axes swapped; by default the last two. */
export function transpose(x: Tensor, axis1 = -2, axis2 = -1): Tensor {
  use("transpose", x);
  const order = Array.from({ length: x.rank }, (_, i) => i);
  const a = normalizeAxis("transpose", axis1, x.rank);
  const b = normalizeAxis("transpose", axis2, x.rank);
  order[a] = b;
  order[b] = a;
  return permute(x, order);
}

/** `x` repeated along new axes and those of length 1, without a copy. −1 keeps an extent. */
export function expand(x: Tensor, shape: readonly number[]): Tensor {
  use("expand", x);
  requireList("expand", "shape", shape);
  const lead = shape.length - x.rank;
  const target = shape.map((extent, i) => (extent === -1 && i >= lead ? x.shape[i - lead] : extent));
  checkShape("expand", target);
  return viewOf("expand", x, null, expandLayout("expand", x.layout, target));
}

/** Without the axes of length 1, or without those named. */
export function squeeze(x: Tensor, axes?: number | readonly number[]): Tensor {
  use("squeeze", x);
  const named = axes === undefined ? null : normalizeAxes("squeeze", axes, x.rank);
  for (const axis of named ?? []) {
    if (x.shape[axis] !== 1)
      throw new ShapeError(
        `squeeze: axis ${axis} of ${formatShape(x.shape)} is ${x.shape[axis]} long, not 1`,
      );
  }
  return reshape(
    x,
    x.shape.filter((extent, i) => (named ? !named.includes(i) : extent !== 1)),
  );
}

/** With a new axis of length 1 at `axis`. */
export function unsqueeze(x: Tensor, axis: number): Tensor {
  use("unsqueeze", x);
  const at = normalizeAxis("unsqueeze", axis, x.rank + 1);
  return reshape(x, [...x.shape.slice(0, at), 1, ...x.shape.slice(at)]);
}

/**
 * What to take of one axis: everything (null), one element (which drops the axis), or `[start, end, step]` as NumPy's
 * `start:end:step` (null for the natural end; negative positions count from the back; negative steps walk backwards).
 */
export type Range = null | number | readonly [start?: number | null, end?: number | null, step?: number];

/** A part of `x`, one range for each axis from the front; axes without one are taken whole. A view. */
export const slice = (x: Tensor, ...ranges: readonly Range[]): Tensor => sliceFor("slice", x, ranges);

/** {@link slice} for another operation, which its errors name. */
export function sliceFor(operation: string, x: Tensor, ranges: readonly Range[]): Tensor {
  use(operation, x);
  if (ranges.length > x.rank)
    throw new ShapeError(`${operation}: ${ranges.length} ranges for ${x.rank} axes`);
  const starts: number[] = [];
  const extents: number[] = [];
  const steps: number[] = [];
  const dropped: number[] = [];
  x.shape.forEach((extent, axis) => {
    const range = ranges[axis] ?? null;
    if (typeof range === "number") {
      starts.push(checkedIndex(operation, range, extent, axis));
      extents.push(1);
      steps.push(1);
      dropped.push(axis);
      return;
    }
    const [start, count, step] = resolveRange(operation, range ?? [], extent);
    starts.push(start);
    extents.push(count);
    steps.push(step);
  });
  const part = viewOf("slice", x, { starts, steps }, sliceLayout(x.layout, starts, extents, steps));
  if (dropped.length === 0) return part;
  const squeezed = squeeze(part, dropped);
  part.dispose();
  return squeezed;
}

/** The part of `x` that a range takes of one axis, and all of the others. A view. */
export function along(x: Tensor, axis: number, range: Range): Tensor {
  return slice(x, ...x.shape.map((_, i) => (i === axis ? range : null)));
}

/** Elements `start` … `start + count − 1` along an axis, which has them, and all of the others. A view. */
export function narrow(x: Tensor, axis: number, start: number, count: number): Tensor {
  const { shape, strides, offset } = x.layout;
  const none = new Array<number>(shape.length).fill(0);
  return viewOf(
    "slice",
    x,
    { starts: none.with(axis, start), steps: none.fill(1) },
    { shape: shape.with(axis, count), strides, offset: offset + (count > 0 ? start * strides[axis] : 0) },
  );
}

function checkedIndex(operation: string, index: number, extent: number, axis: number): number {
  if (!Number.isInteger(index) || index < -extent || index >= extent) {
    throw new ShapeError(`${operation}: index ${index} is out of range for axis ${axis} of length ${extent}`);
  }
  return index < 0 ? index + extent : index;
}

/** First position, count and step of a NumPy-style range over an axis of length `extent`. */
function resolveRange(
  operation: string,
  range: readonly (number | null | undefined)[],
  extent: number,
): [number, number, number] {
  requireThat(Array.isArray(range), operation, "each range", "null, an integer or [start, end, step]", range);
  const step = range[2] ?? 1;
  for (const value of [range[0] ?? 0, range[1] ?? 0, step]) {
    if (!Number.isInteger(value))
      throw new ShapeError(`${operation}: [${range.join(", ")}] is no range of integers`);
  }
  if (step === 0) throw new ShapeError(`${operation}: step must not be 0`);
  const [low, high] = step > 0 ? [0, extent] : [-1, extent - 1];
  const place = (value: number | null | undefined, natural: number) =>
    value === null || value === undefined
      ? natural
      : Math.min(Math.max(value < 0 ? value + extent : value, low), high);
  const start = place(range[0], step > 0 ? 0 : extent - 1);
  const end = place(range[1], step > 0 ? extent : -1);
  const count = Math.max(0, Math.ceil((end - start) / step));
  return [count === 0 ? 0 : start, count, step];
}

/** The gradient of {@link slice}: zeros of `shape` with `x` laid into the places that the slice took. */
export function sliceBackward(
  x: Tensor,
  shape: readonly number[],
  starts: readonly number[],
  steps: readonly number[],
): Tensor {
  const backend = commonBackend("sliceBackward", [x]);
  const out = filled(backend, x.dtype, shape, 0);
  if (x.size > 0) backend.copy(operand(x), operand(out, sliceLayout(out.layout, starts, x.shape, steps)));
  return finish("sliceBackward", [x], { starts, steps }, out);
}

/**
 * Tensors joined along `axis`; other extents must agree, dtypes promote.
 * @throws {ShapeError} naming the tensor that does not fit
 */
export function concat(tensors: readonly Tensor[], axis = 0): Tensor {
  requireList("concat", "tensors", tensors);
  if (tensors.length === 0) throw new ShapeError("concat: expected at least one tensor");
  const backend = commonBackend("concat", tensors);
  const first = tensors[0];
  const at = normalizeAxis("concat", axis, first.rank);
  let { dtype } = first;
  let total = 0;
  for (let i = 0; i < tensors.length; i++) {
    const { shape } = tensors[i];
    let fits = shape.length === first.rank;
    for (let j = 0; fits && j < shape.length; j++) fits = j === at || shape[j] === first.shape[j];
    if (!fits) {
      throw new ShapeError(
        `concat: tensor ${i} of shape ${formatShape(shape)} does not fit ${formatShape(first.shape)} along axis ${at}`,
      );
    }
    dtype = promote(dtype, tensors[i].dtype);
    total += shape[at];
  }
  if (tensors.some((tensor) => tensor.dtype !== dtype)) {
    return tidy(() =>
      concat(
        tensors.map((tensor) => cast(tensor, dtype)),
        at,
      ),
    );
  }
  const out = empty(backend, dtype, first.shape.with(at, total));
  const { strides } = out;
  let offset = 0;
  for (const tensor of tensors) {
    const { shape } = tensor;
    if (sizeOf(shape) > 0) backend.copy(operand(tensor), operand(out, { shape, strides, offset }));
    offset += shape[at] * strides[at];
  }
  return finish("concat", tensors, { axis: at }, out);
}

/** Tensors of one shape joined along a new axis. */
export function stack(tensors: readonly Tensor[], axis = 0): Tensor {
  requireList("stack", "tensors", tensors);
  if (tensors.length === 0) throw new ShapeError("stack: expected at least one tensor");
  commonBackend("stack", tensors);
  const [{ shape, rank }] = tensors;
  const at = normalizeAxis("stack", axis, rank + 1);
  tensors.forEach((tensor, i) => {
    if (!sameShape(tensor.shape, shape))
      throw new ShapeError(
        `stack: tensor ${i} of shape ${formatShape(tensor.shape)} should be ${formatShape(shape)}, as tensor 0`,
      );
  });
  return tidy(() =>
    concat(
      tensors.map((tensor) => unsqueeze(tensor, at)),
      at,
    ),
  );
}

/** Views of `size` (the last may be shorter), or of each of the given sizes, along `axis`. */
export function split(x: Tensor, size: number | readonly number[], axis = 0): Tensor[] {
  use("split", x);
  const at = normalizeAxis("split", axis, x.rank);
  const extent = x.shape[at];
  if (typeof size === "number" && !(Number.isInteger(size) && size > 0)) {
    throw new ShapeError(`split: size must be a positive integer, not ${size}`);
  }
  const sizes =
    typeof size === "number"
      ? Array.from({ length: Math.ceil(extent / size) }, (_, i) => Math.min(size, extent - i * size))
      : size;
  checkShape("split", sizes);
  if (sizes.reduce((sum, part) => sum + part, 0) !== extent) {
    throw new ShapeError(
      `split: sizes [${sizes.join(", ")}] do not add up to ${extent}, the length of axis ${at}`,
    );
  }
  let start = 0;
  return sizes.map((part) => {
    start += part;
    return narrow(x, at, start - part, part);
  });
}

/** A contiguous copy with storage of its own. */
export function clone(x: Tensor): Tensor {
  const backend = commonBackend("clone", [x]);
  const out = empty(backend, x.dtype, x.shape);
  backend.copy(operand(x), operand(out));
  return finish("copy", [x], null, out);
}

/**
 * Throws where writing over `target` would lose a gradient, its own or that of `source`, or where its elements share memory.
 * @param instead - what does the same and is recorded
 */
export function requireWritable(operation: string, target: Tensor, source: unknown, instead: string): void {
  if (runtime.gradEnabled && (target.requiresGrad || (source instanceof Tensor && source.requiresGrad))) {
    throw new AutogradError(
      `${operation}: writing in place is not recorded, and an operand requires a gradient; wrap it in noGrad() or use ${instead}`,
    );
  }
  if (target.strides.some((stride, axis) => stride === 0 && target.shape[axis] > 1)) {
    throw new ShapeError(
      `${operation}: elements of a tensor expanded to ${formatShape(target.shape)} share memory; write to a clone`,
    );
  }
}

/** Writes `source`'s values over `target`'s; see {@link Tensor.copyFrom}. */
export function copyInto(target: Tensor, source: Tensor | DTypeArray): void {
  const storage = use("copyFrom", target);
  requireWritable("copyFrom", target, source, "detach()");
  const { backend } = storage;
  if (source instanceof Tensor) {
    commonBackend("copyFrom", [target, source]);
    if (!sameShape(source.shape, target.shape)) {
      throw new ShapeError(
        `copyFrom: ${formatShape(source.shape)} does not fit ${formatShape(target.shape)}`,
      );
    }
    if (source.dtype === target.dtype && source.storage !== storage)
      backend.copy(operand(source), operand(target));
    else {
      // By way of a copy, since views of one storage may overlap.
      const same = empty(backend, target.dtype, target.shape);
      if (source.dtype === target.dtype) backend.copy(operand(source), operand(same));
      else backend.cast(operand(source), operand(same));
      backend.copy(operand(same), operand(target));
      same.dispose();
    }
  } else {
    if (!ArrayBuffer.isView(source))
      throw new ArgumentError(`copyFrom: expected a tensor or a typed array, not ${describe(source)}`);
    if (source.length !== target.size)
      throw new ShapeError(`copyFrom: ${source.length} values for ${target.size} elements`);
    const staged = fromValues(backend, target.dtype, target.shape, source);
    backend.copy(operand(staged), operand(target));
    staged.dispose();
  }
  storage.version++;
}
