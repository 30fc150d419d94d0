// Elements by position along an axis: take, takeAlongAxis, scatter, oneHot. All come down to gather and scatterAdd of rows, so
// that gradients need no rule of their own. Positions may be negative and then count from the end.

import { requireInteger, requireOptions, requireThat, use } from "../arguments.js";
import { fromValues, generated, positions } from "../creation.js";
import { type DType, requireIntegers } from "../dtype.js";
import { DTypeError, ShapeError } from "../errors.js";
import { tidy } from "../memory.js";
import { broadcastShapes, formatShape, normalizeAxis, sameShape, sizeOf } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { commonBackend, hostValues } from "./dispatch.js";
import { add, cast, mul, where } from "./elementwise.js";
import { gather, scatterAdd } from "./indexing.js";
import { moveaxis } from "./rearrange.js";
import { expand, reshape, transpose } from "./view.js";

/**
 * `indices`, which are read, within 0 … extent − 1: negative ones counted from the end.
 * @throws {ShapeError} naming the first index that is out of range
 */
function wrapped(operation: string, indices: Tensor, extent: number, axis: number): Int32Array {
  requireIntegers(operation, "indices", indices.dtype);
  const values = hostValues(operation, indices);
  const list = values instanceof Int32Array ? values : new Int32Array(values);
  for (let i = 0; i < list.length; i++) {
    const index = list[i];
    if (index < -extent || index >= extent)
      throw new ShapeError(
        `${operation}: index ${index} is out of range for axis ${axis} of length ${extent}`,
      );
    if (index < 0) list[i] = index + extent;
  }
  return list;
}

/** Up to so many elements are taken one row after the other out of where they lie; more of them along the first axis of a copy. */
const mostRows = 4096;

/**
 * The parts of `x` at positions `indices` along `axis`, as numpy.take and torch.index_select; without an axis, of the flattened
 * tensor. Equal indices add up in the gradient.
 * @param indices - integers of any shape
 * @returns x's shape with `axis` replaced by indices' shape
 * @throws {ShapeError} naming an index that is out of range
 */
export function take(x: Tensor, indices: Tensor, axis?: number): Tensor {
  const backend = commonBackend("take", [x, indices]);
  return tidy(() => {
    const source = axis === undefined ? reshape(x, [x.size]) : x;
    const at = normalizeAxis("take", axis ?? 0, source.rank);
    const before = source.shape.slice(0, at);
    const [extent, ...after] = source.shape.slice(at);
    const list = wrapped("take", indices, extent, at);
    const shape = [...before, ...indices.shape, ...after];
    const starts = sizeOf(before);
    const rowsOf = (table: Tensor, rows: Int32Array, form: readonly number[] = [rows.length]) =>
      gather(table, fromValues(backend, "int32", form, rows));
    if (at === 0) return rowsOf(source, list, indices.shape);
    if (starts * list.length <= mostRows) {
      const rows = new Int32Array(starts * list.length);
      for (let i = 0, start = 0; i < rows.length; start += extent)
        for (let j = 0; j < list.length; j++) rows[i++] = start + list[j];
      return reshape(rowsOf(reshape(source, [starts * extent, ...after]), rows), shape);
    }
    // [axis, before…, after…] → [indices, before…, after…] → [before…, indices…, after…]
    return reshape(moveaxis(rowsOf(moveaxis(source, at, 0), list), 0, at), shape);
  });
}

interface AlongAxis {
  /** x with the axis last, [rows…, n]. */
  source: Tensor;
  /** Shape of the indices with the axis last, [rows…, m]. */
  shape: readonly number[];
  /** Positions within source flattened, [rows · m]. */
  flat: Int32Array;
  axis: number;
}

const broadcast = (x: Tensor, shape: readonly number[]): Tensor =>
  sameShape(x.shape, shape) ? x : expand(x, shape);

/** `x` with `axis` and the last one swapped. */
const swapped = (x: Tensor, axis: number): Tensor => (axis === x.rank - 1 ? x : transpose(x, axis, -1));

/** Checks `x` and `indices` against each other, broadcasts all axes but one, and works out positions. */
function alongAxis(operation: string, x: Tensor, indices: Tensor, axis: number): AlongAxis {
  commonBackend(operation, [x, indices]);
  const at = normalizeAxis(operation, axis, x.rank);
  if (indices.rank !== x.rank) {
    throw new ShapeError(
      `${operation}: indices ${formatShape(indices.shape)} should have as many axes as x ${formatShape(x.shape)}`,
    );
  }
  const n = x.shape[at];
  const m = indices.shape[at];
  const rows = broadcastShapes(operation, x.shape.with(at, 1), indices.shape.with(at, 1));
  const list = swapped(broadcast(indices, rows.with(at, m)), at);
  const flat = wrapped(operation, list, n, at);
  for (let i = m, start = n; i < flat.length; start += n)
    for (const end = i + m; i < end; i++) flat[i] += start;
  return { source: swapped(broadcast(x, rows.with(at, n)), at), shape: list.shape, flat, axis: at };
}

/**
 * For each place, the element of `x` at the index that stands there: out[i, j] = x[i, indices[i, j]] for axis 1, as
 * numpy.take_along_axis and torch.gather. The other axes broadcast.
 * @param indices - integers, as many axes as x
 * @returns indices' shape, broadcast
 */
export function takeAlongAxis(x: Tensor, indices: Tensor, axis: number): Tensor {
  return tidy(() => {
    const { source, shape, flat, axis: at } = alongAxis("takeAlongAxis", x, indices, axis);
    return pick(source, fromValues(x.storage.backend, "int32", [flat.length], flat), shape, at);
  });
}

/** {@link takeAlongAxis} by indices that `argmax`, `argmin` or `argsort` of `x` along `axis` gave: on any backend, read or not. */
export function takeFound(x: Tensor, indices: Tensor, axis: number): Tensor {
  if (x.storage.backend.synchronous) return takeAlongAxis(x, indices, axis);
  return tidy(() => {
    const at = normalizeAxis("takeAlongAxis", axis, x.rank);
    const list = swapped(indices, at);
    const count = sizeOf(list.shape.slice(0, -1));
    const starts = mul(reshape(positions(count, x), [count, 1]), x.shape[at]);
    const flat = reshape(add(reshape(list, [count, indices.shape[at]]), starts), [list.size]);
    return pick(swapped(x, at), flat, list.shape, at);
  });
}

const pick = (source: Tensor, flat: Tensor, shape: readonly number[], axis: number): Tensor =>
  swapped(reshape(gather(reshape(source, [source.size]), flat), shape), axis);

export interface ScatterArguments {
  /** "replace" (default): the last of equal indices wins. "add": values add up on top of x, as torch.scatter_add. */
  mode?: "replace" | "add";
}

/**
 * `x` with elements of `source` put where `indices` say: out[i, indices[i, j]] = source[i, j] for axis 1, as torch.scatter and
 * numpy.put_along_axis. Differentiable in x and source.
 * @param indices - integers, as many axes as x; other extents are x's
 * @param source - of indices' shape and x's dtype
 */
export function scatter(
  x: Tensor,
  indices: Tensor,
  source: Tensor,
  axis: number,
  options: ScatterArguments = {},
): Tensor {
  requireOptions("scatter", options, ["mode"]);
  const { mode = "replace" } = options;
  const backend = commonBackend("scatter", [x, indices, source]);
  requireThat(mode === "replace" || mode === "add", "scatter", "mode", '"replace" or "add"', mode);
  if (source.dtype !== x.dtype) throw new DTypeError(`scatter: source is ${source.dtype}, x is ${x.dtype}`);
  return tidy(() => {
    const { source: into, shape, flat, axis: at } = alongAxis("scatter", x, indices, axis);
    if (!sameShape(into.shape, swapped(x, at).shape)) {
      throw new ShapeError(
        `scatter: indices ${formatShape(indices.shape)} exceed x ${formatShape(x.shape)} in an axis other than ${at}`,
      );
    }
    const listed = swapped(broadcast(source, shape.with(at, shape.at(-1)!).with(-1, shape[at])), at);
    const values = reshape(listed, [flat.length]);
    if (mode === "add") {
      const sums = scatterAdd(x.size, fromValues(backend, "int32", [flat.length], flat), values);
      return add(x, swapped(reshape(sums, into.shape), at));
    }
    if (flat.length === 0) return cast(x, x.dtype);
    const from = new Int32Array(x.size);
    const written = new Uint8Array(x.size);
    for (let i = 0; i < flat.length; i++) {
      from[flat[i]] = i;
      written[flat[i]] = 1;
    }
    const chosen = gather(values, fromValues(backend, "int32", [x.size], from));
    const hit = fromValues(backend, "bool", into.shape, written);
    return swapped(where(hit, reshape(chosen, into.shape), into), at);
  });
}

/**
 * 1 at the index, 0 elsewhere.
 * @param indices - integers within 0 … numClasses − 1, [...]
 * @returns [..., numClasses], float32 unless `dtype` says otherwise
 * @throws {ShapeError} naming an index that is no class
 */
export function oneHot(indices: Tensor, numClasses: number, options: { dtype?: DType } = {}): Tensor {
  use("oneHot", indices);
  requireInteger("oneHot", "numClasses", numClasses, 0);
  requireOptions("oneHot", options, ["dtype"]);
  requireIntegers("oneHot", "indices", indices.dtype);
  const list = hostValues("oneHot", indices);
  const { dtype = "float32" } = options;
  const shape = [...indices.shape, numClasses];
  return generated("oneHot", shape, { dtype, device: indices.device }, Float32Array, (values) => {
    for (let i = 0; i < list.length; i++) {
      if (list[i] < 0 || list[i] >= numClasses)
        throw new ShapeError(`oneHot: index ${list[i]} is not within 0 to ${numClasses - 1}`);
      values[i * numClasses + list[i]] = 1;
    }
  });
}
