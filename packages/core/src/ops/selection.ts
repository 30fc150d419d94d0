// Elements by position along an axis: take, takeAlongAxis, scatter, oneHot. All come down to gather and scatterAdd of rows, so
// that gradients need no rule of their own. Positions may be negative and then count from the end.

import { requireInteger, requireOptions, requireThat, use } from "../arguments.js";
import { fromValues, positions } from "../creation.js";
import { type DType, requireIntegers } from "../dtype.js";
import { DTypeError, ShapeError } from "../errors.js";
import { tidy } from "../memory.js";
import { broadcastShapes, formatShape, normalizeAxis, sameShape, sizeOf } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { commonBackend, hostValues } from "./dispatch.js";
import { add, cast, equal, less, mul, where } from "./elementwise.js";
import { gather, scatterAdd } from "./indexing.js";
import { moveaxis } from "./rearrange.js";
import { expand, reshape, transpose, unsqueeze } from "./view.js";

/** The least and the largest of some values: on the host, where those of few take less than two kernels. */
function boundsOf(values: ArrayLike<number>): [low: number, high: number] {
  let [low, high] = [values[0], values[0]];
  for (let i = 1; i < values.length; i++) {
    if (values[i] < low) low = values[i];
    else if (values[i] > high) high = values[i];
  }
  return [low, high];
}

/**
 * `indices` as int32 within 0 … extent − 1, negative ones counted from the end.
 * @throws {ShapeError} naming an index that is out of range
 */
function wrapIndices(operation: string, indices: Tensor, extent: number, axis: number): Tensor {
  requireIntegers(operation, "indices", indices.dtype);
  const list = cast(indices, "int32");
  if (list.size === 0) return list;
  const [low, high] = boundsOf(hostValues(operation, list));
  if (low < -extent || high >= extent) {
    throw new ShapeError(
      `${operation}: index ${low < -extent ? low : high} is out of range for axis ${axis} of length ${extent}`,
    );
  }
  return low < 0 ? where(less(list, 0), add(list, extent), list) : list;
}

/**
 * The parts of `x` at positions `indices` along `axis`, as numpy.take and torch.index_select; without an axis, of the flattened
 * tensor. Equal indices add up in the gradient.
 * @param indices - integers of any shape
 * @returns x's shape with `axis` replaced by indices' shape
 * @throws {ShapeError} naming an index that is out of range
 */
export function take(x: Tensor, indices: Tensor, axis?: number): Tensor {
  commonBackend("take", [x, indices]);
  return tidy(() => {
    const source = axis === undefined ? reshape(x, [x.size]) : x;
    const at = normalizeAxis("take", axis ?? 0, source.rank);
    const list = wrapIndices("take", indices, source.shape[at], at);
    if (at === 0) return gather(source, list);
    // [axis, before…, after…] → [indices, before…, after…] → [before…, indices…, after…]
    const rows = gather(moveaxis(source, at, 0), reshape(list, [list.size]));
    const shape = [...source.shape.slice(0, at), ...indices.shape, ...source.shape.slice(at + 1)];
    return reshape(moveaxis(rows, 0, at), shape);
  });
}

interface AlongAxis {
  /** x with the axis last, [rows…, n]. */
  source: Tensor;
  /** int32, indices within source with the axis last, [rows…, m]. */
  list: Tensor;
  /** Positions within source flattened, [rows · m]. */
  flat: Tensor;
  axis: number;
}

/**
 * Checks `x` and `indices` against each other, broadcasts all axes but one, and works out positions.
 * @param inRange - indices are within 0 … n − 1 by the way they were made, and need not be read to be checked
 */
function alongAxis(operation: string, x: Tensor, indices: Tensor, axis: number, inRange = false): AlongAxis {
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
  const source = transpose(expand(x, rows.with(at, n)), at, -1);
  const wrapped = inRange ? cast(indices, "int32") : wrapIndices(operation, indices, n, at);
  const list = transpose(expand(wrapped, rows.with(at, m)), at, -1);
  const count = sizeOf(rows);
  const starts = mul(reshape(positions(count, x), [count, 1]), n);
  const flat = reshape(add(reshape(list, [count, m]), starts), [count * m]);
  return { source, list, flat, axis: at };
}

/**
 * For each place, the element of `x` at the index that stands there: out[i, j] = x[i, indices[i, j]] for axis 1, as
 * numpy.take_along_axis and torch.gather. The other axes broadcast.
 * @param indices - integers, as many axes as x
 * @returns indices' shape, broadcast
 */
export function takeAlongAxis(x: Tensor, indices: Tensor, axis: number): Tensor {
  return tidy(() => pick(alongAxis("takeAlongAxis", x, indices, axis)));
}

/** {@link takeAlongAxis} by indices that `argmax`, `argmin` or `argsort` of `x` along `axis` gave, which are not read: on any backend. */
export function takeFound(x: Tensor, indices: Tensor, axis: number): Tensor {
  return tidy(() => pick(alongAxis("takeAlongAxis", x, indices, axis, true)));
}

function pick({ source, list, flat, axis }: AlongAxis): Tensor {
  return transpose(reshape(gather(reshape(source, [source.size]), flat), list.shape), axis, -1);
}

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
    const place = alongAxis("scatter", x, indices, axis);
    const { list, axis: at } = place;
    const shape = transpose(list, at, -1).shape;
    if (!sameShape(place.source.shape, transpose(x, at, -1).shape)) {
      throw new ShapeError(
        `scatter: indices ${formatShape(indices.shape)} exceed x ${formatShape(x.shape)} in an axis other than ${at}`,
      );
    }
    const values = reshape(transpose(expand(source, shape), at, -1), [list.size]);
    if (mode === "add") {
      const sums = scatterAdd(x.size, place.flat, values);
      return add(x, transpose(reshape(sums, place.source.shape), at, -1));
    }
    const from = new Int32Array(x.size).fill(-1);
    hostValues("scatter", place.flat).forEach((position, i) => {
      from[position] = i;
    });
    const written = new Uint8Array(from.length);
    for (let i = 0; i < from.length; i++) {
      if (from[i] >= 0) written[i] = 1;
      else from[i] = 0;
    }
    if (list.size === 0) return cast(x, x.dtype);
    const chosen = gather(values, fromValues(backend, "int32", [x.size], from));
    const hit = fromValues(backend, "bool", place.source.shape, written);
    const result = where(hit, reshape(chosen, place.source.shape), place.source);
    return transpose(result, at, -1);
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
  return tidy(() => {
    requireIntegers("oneHot", "indices", indices.dtype);
    const list = cast(indices, "int32");
    if (list.size > 0) {
      for (const value of boundsOf(hostValues("oneHot", list))) {
        if (value < 0 || value >= numClasses)
          throw new ShapeError(`oneHot: index ${value} is not within 0 to ${numClasses - 1}`);
      }
    }
    return cast(equal(unsqueeze(list, -1), positions(numClasses, indices)), options.dtype ?? "float32");
  });
}
