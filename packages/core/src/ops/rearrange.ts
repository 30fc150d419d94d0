// What is made of views and joins: elements shifted, mirrored, repeated, padded, cut to a triangle. All are compositions of
// differentiable operations.

import { requireInteger, requireList, requireOneOf, requireThat, use } from "../arguments.js";
import { positions, scalarLike } from "../creation.js";
import { ArgumentError, ShapeError } from "../errors.js";
import { reshapeLayout } from "../layout.js";
import { tidy } from "../memory.js";
import {
  checkShape,
  formatShape,
  inferShape,
  listOf,
  normalizeAxes,
  normalizeAxis,
  range,
} from "../shape.js";
import type { Tensor } from "../tensor.js";
import { commonBackend, viewOf } from "./dispatch.js";
import { add, alias, cast, greaterEqual, where } from "./elementwise.js";
import {
  along,
  concat,
  expand,
  narrow,
  permute,
  type Range,
  reshape,
  slice,
  sliceBackward,
  split,
  unsqueeze,
} from "./view.js";

/**
 * The same elements in another shape, never copied; one extent may be −1.
 * @throws {ShapeError} when the layout needs a copy; use reshape
 */
export function view(x: Tensor, shape: readonly number[]): Tensor {
  use("view", x);
  const target = inferShape("view", shape, x.size);
  const layout = reshapeLayout(x.layout, target);
  if (!layout) {
    throw new ShapeError(
      `view: ${formatShape(x.shape)} with strides ${formatShape(x.strides)} cannot be seen as ${formatShape(target)} without a copy; use reshape`,
    );
  }
  return viewOf("reshape", x, null, layout);
}

/** `x` repeated to exactly `shape` by the rules of broadcasting, without a copy. */
export function broadcastTo(x: Tensor, shape: readonly number[]): Tensor {
  use("broadcastTo", x);
  checkShape("broadcastTo", shape);
  return expand(x, shape);
}

/** At most `chunks` views of equal length (the last may be shorter) along `axis`, as torch.chunk. */
export function chunk(x: Tensor, chunks: number, axis = 0): Tensor[] {
  use("chunk", x);
  requireInteger("chunk", "chunks", chunks, 1);
  const at = normalizeAxis("chunk", axis, x.rank);
  if (x.shape[at] === 0) return Array.from({ length: chunks }, () => alias(x));
  return split(x, Math.ceil(x.shape[at] / chunks), at);
}

/** The elements of `axes` (left out: all) in reverse. A view. */
export function flip(x: Tensor, axes?: number | readonly number[]): Tensor {
  use("flip", x);
  const list = normalizeAxes("flip", axes, x.rank);
  return slice(x, ...x.shape.map((_, i): Range => (list.includes(i) ? [null, null, -1] : null)));
}

/**
 * Elements moved on by `shift` places, those that leave at the end come in at the start, as numpy.roll.
 * @param axes - which axes; left out, the flattened elements are rolled; several take one shift each or all the same
 */
export function roll(
  x: Tensor,
  shift: number | readonly number[],
  axes?: number | readonly number[],
): Tensor {
  use("roll", x);
  const shifts = listOf(shift);
  requireList("roll", "shift", shifts);
  for (const value of shifts) requireInteger("roll", "shift", value);
  if (axes === undefined) {
    if (shifts.length !== 1) throw new ArgumentError(`roll: ${shifts.length} shifts for no axes`);
    return tidy(() => reshape(roll(reshape(x, [-1]), shifts[0], 0), x.shape));
  }
  const named = listOf(axes);
  requireList("roll", "axes", named);
  const list = named.map((axis) => normalizeAxis("roll", axis, x.rank));
  if (shifts.length !== 1 && shifts.length !== list.length)
    throw new ArgumentError(`roll: ${shifts.length} shifts for ${list.length} axes`);
  return tidy(() => {
    let y = alias(x);
    list.forEach((axis, i) => {
      const extent = x.shape[axis];
      const by = extent === 0 ? 0 : (((shifts[i] ?? shifts[0]) % extent) + extent) % extent;
      if (by !== 0) y = concat([narrow(y, axis, extent - by, by), narrow(y, axis, 0, extent - by)], axis);
    });
    return y;
  });
}

/**
 * Each element `repeats` times along `axis` (left out: of the flattened tensor), as numpy.repeat and torch.repeat_interleave:
 * [a, b] twice is [a, a, b, b]. See {@link tile} for the whole repeated.
 */
export function repeat(x: Tensor, repeats: number, axis?: number): Tensor {
  use("repeat", x);
  checkShape("repeat", [repeats]);
  return tidy(() => {
    const source = axis === undefined ? reshape(x, [x.size]) : x;
    const at = normalizeAxis("repeat", axis ?? 0, source.rank);
    const { shape } = source;
    const wide = expand(unsqueeze(source, at + 1), [
      ...shape.slice(0, at + 1),
      repeats,
      ...shape.slice(at + 1),
    ]);
    return reshape(wide, shape.with(at, shape[at] * repeats));
  });
}

/** The whole of `x` repeated `repetitions[i]` times along axis i, as numpy.tile; the shorter of shape and list gets ones in front. */
export function tile(x: Tensor, repetitions: number | readonly number[]): Tensor {
  use("tile", x);
  const list = listOf(repetitions);
  checkShape("tile", list);
  const rank = Math.max(x.rank, list.length);
  const front = (values: readonly number[]) => [...Array<number>(rank - values.length).fill(1), ...values];
  const shape = front(x.shape);
  const times = front(list);
  const apart: number[] = [];
  const wide: number[] = [];
  for (let i = 0; i < rank; i++) {
    apart.push(1, shape[i]);
    wide.push(times[i], shape[i]);
  }
  return tidy(() =>
    reshape(
      expand(reshape(x, apart), wide),
      shape.map((extent, i) => times[i] * extent),
    ),
  );
}

/** Which elements of x stand around it: mirrored ones (the edge once), the edge, or those of the other end. */
export type PadMode = "reflect" | "replicate" | "circular";

const padModes: readonly PadMode[] = ["reflect", "replicate", "circular"];

/** The parts of axis `axis` that stand before and after x in `mode`. */
function padding(
  x: Tensor,
  axis: number,
  [before, after]: readonly [number, number],
  mode: PadMode,
): Tensor[] {
  const extent = x.shape[axis];
  const most =
    mode === "reflect" ? extent - 1 : mode === "circular" ? extent : extent > 0 ? before + after : 0;
  for (const width of [before, after]) {
    if (width > Math.max(0, most))
      throw new ShapeError(
        `pad: width ${width} exceeds what ${mode} has at axis ${axis} of ${formatShape(x.shape)} (${width} > ${Math.max(0, most)})`,
      );
  }
  const part = (first: number, count: number, step: number) => {
    const end = first + count * step;
    return along(x, axis, [first, end < 0 ? null : end, step]);
  };
  const empty = () => along(x, axis, [0, 0]);
  if (mode === "replicate") {
    const edge = (at: number, width: number) =>
      width === 0 ? empty() : expand(part(at, 1, 1), x.shape.with(axis, width));
    return [edge(0, before), edge(extent - 1, after)];
  }
  if (mode === "circular") return [part(extent - before, before, 1), part(0, after, 1)];
  return [
    before === 0 ? empty() : part(before, before, -1),
    after === 0 ? empty() : part(extent - 2, after, -1),
  ];
}

/**
 * `x` with elements around it: all of one value, or by the mode copies of its own, as torch.nn.functional.pad. Later axes are padded
 * after earlier ones, so that corners repeat what was added before.
 * @param widths - [before, after] of every axis, or of the last axes when there are fewer
 * @param filling - a number (default 0) or a mode
 * @throws {ShapeError} when a mode has fewer elements than are asked for: "reflect" the extent − 1, "circular" the extent
 */
export function pad(
  x: Tensor,
  widths: readonly (readonly [before: number, after: number])[],
  filling: number | PadMode = 0,
): Tensor {
  use("pad", x);
  if (typeof filling !== "number") requireOneOf("pad", "mode", filling, padModes);
  requireList("pad", "widths", widths);
  for (const pair of widths)
    requireThat(pair?.length === 2, "pad", "each of widths", "[before, after] of an axis", pair);
  if (widths.length > x.rank)
    throw new ShapeError(`pad: ${widths.length} pairs of widths for ${x.rank} axes`);
  for (const pair of widths) checkShape("pad", pair);
  const all = x.shape.map((_, i) => widths[i - (x.rank - widths.length)] ?? ([0, 0] as const));
  const shape = x.shape.map((extent, i) => all[i][0] + extent + all[i][1]);
  checkShape("pad", shape);
  if (typeof filling !== "number")
    return tidy(() => {
      let y = alias(x);
      all.forEach((pair, axis) => {
        if (pair[0] === 0 && pair[1] === 0) return;
        const [front, back] = padding(y, axis, pair, filling);
        y = concat([front, y, back], axis);
      });
      return y;
    });
  const ones = x.shape.map(() => 1);
  if (filling === 0)
    return sliceBackward(
      x,
      shape,
      all.map(([before]) => before),
      ones,
    );
  return tidy(() => {
    const scalar = reshape(scalarLike("pad", x, filling, x.dtype), ones);
    let y = alias(x);
    all.forEach(([before, after], axis) => {
      const part = (width: number) => expand(scalar, y.shape.with(axis, width));
      if (before > 0 || after > 0) y = concat([part(before), y, part(after)], axis);
    });
    return y;
  });
}

/** Keeps the elements of the last two axes for which column − row compares so with `k`. */
function triangle(operation: string, x: Tensor, k: number, lower: boolean): Tensor {
  use(operation, x);
  if (x.rank < 2)
    throw new ShapeError(`${operation}: expected [..., rows, columns], not ${formatShape(x.shape)}`);
  requireInteger(operation, "k", k);
  const [rows, columns] = x.shape.slice(-2);
  return tidy(() => {
    const diagonal = reshape(add(positions(rows, x), k), [rows, 1]);
    const column = positions(columns, x);
    const kept = where(lower ? greaterEqual(diagonal, column) : greaterEqual(column, diagonal), x, 0);
    return cast(kept, x.dtype);
  });
}

/** The lower triangle of [..., rows, columns]: zeros where column − row > k. */
export const tril = (x: Tensor, k = 0): Tensor => triangle("tril", x, k, true);
/** The upper triangle of [..., rows, columns]: zeros where column − row < k. */
export const triu = (x: Tensor, k = 0): Tensor => triangle("triu", x, k, false);

/**
 * Axes `from` at the places `to`, one or several, the others in their order. A view.
 * @throws {ShapeError} when an axis is named twice
 */
export function moveaxis(
  x: Tensor,
  from: number | readonly number[],
  to: number | readonly number[],
): Tensor {
  use("moveaxis", x);
  const [sources, places] = [from, to].map((axes) => {
    const list = listOf(axes).map((axis) => normalizeAxis("moveaxis", axis, x.rank));
    normalizeAxes("moveaxis", list, x.rank);
    return list;
  });
  if (sources.length !== places.length)
    throw new ArgumentError(`moveaxis: ${sources.length} axes for ${places.length} places`);
  const rest = range(x.rank).filter((axis) => !sources.includes(axis));
  return permute(
    x,
    range(x.rank).map((at) => sources[places.indexOf(at)] ?? rest.shift()!),
  );
}

/** The parts of `x` along `axis`, which they lack: views, as torch.unbind. */
export function unbind(x: Tensor, axis = 0): Tensor[] {
  use("unbind", x);
  const at = normalizeAxis("unbind", axis, x.rank);
  return range(x.shape[at]).map((i) => along(x, at, i));
}

/**
 * Vectors [n], [m] … each repeated over a grid [n, m, …]: views. With "xy" the first two axes of the grid are swapped, as numpy.meshgrid
 * has it by default.
 */
export function meshgrid(vectors: readonly Tensor[], indexing: "ij" | "xy" = "ij"): Tensor[] {
  requireList("meshgrid", "vectors", vectors);
  requireOneOf("meshgrid", "indexing", indexing, ["ij", "xy"]);
  commonBackend("meshgrid", vectors);
  vectors.forEach((vector, i) => {
    if (vector.rank !== 1)
      throw new ShapeError(`meshgrid: vector ${i} must be [n], not ${formatShape(vector.shape)}`);
  });
  const place = (i: number) => (indexing === "xy" && i < 2 && vectors.length > 1 ? 1 - i : i);
  const shape = range(vectors.length).map((i) => vectors[place(i)].shape[0]);
  return vectors.map((vector, i) =>
    tidy(() =>
      expand(
        reshape(
          vector,
          shape.map((_, at) => (at === place(i) ? -1 : 1)),
        ),
        shape,
      ),
    ),
  );
}
