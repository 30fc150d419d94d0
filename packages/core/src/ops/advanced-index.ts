// NumPy's indexing with integer and boolean tensors, and nonzero. The positions are worked out on the host, because shapes
// depend on them; the elements are gathered by the backend, with gradients.

import { use } from "../arguments.js";
import { fromValues } from "../creation.js";
import { requireIntegers } from "../dtype.js";
import { ShapeError } from "../errors.js";
import { tidy } from "../memory.js";
import { broadcastShapes, formatShape, range, sameShape, sizeOf } from "../shape.js";
import { Tensor } from "../tensor.js";
import { commonBackend, hostValues } from "./dispatch.js";
import { gather } from "./indexing.js";
import { arranged, expand, type Range, reshape, sliceFor } from "./view.js";

/** What to take of an axis: a {@link Range}, integer positions (negative ones from the end), or a bool mask over one or more axes. */
export type Index = Range | Tensor;

/** The positions of the elements that are not 0, [count, rank] int32, in row-major order, as torch.nonzero. */
export function nonzero(x: Tensor): Tensor {
  const backend = commonBackend("nonzero", [x]);
  const positions = truePositions("nonzero", x);
  const count = positions.count;
  const values = new Int32Array(count * x.rank);
  positions.axes.forEach((list, axis) => {
    for (let i = 0; i < count; i++) values[i * x.rank + axis] = list[i];
  });
  return fromValues(backend, "int32", [count, x.rank], values);
}

/** Position along each axis of every element that is not 0. */
function truePositions(operation: string, x: Tensor): { count: number; axes: number[][] } {
  const axes: number[][] = x.shape.map(() => []);
  let count = 0;
  hostValues(operation, x).forEach((value, flat) => {
    if (value === 0) return;
    count++;
    let rest = flat;
    for (let axis = x.rank - 1; axis >= 0; axis--) {
      axes[axis].push(rest % x.shape[axis]);
      rest = Math.floor(rest / x.shape[axis]);
    }
  });
  return { count, axes };
}

/** Positions along one axis, to be broadcast against those of other axes. */
interface Positions {
  readonly axis: number;
  readonly shape: readonly number[];
  readonly values: ArrayLike<number>;
}

/**
 * x[indices…] by NumPy's rules, one index for each axis from the front (a bool mask takes as many axes as it has): integer tensors
 * broadcast against each other, and their common shape stands where they stood, or in front when they were not side by side;
 * numbers beside tensors count as integer tensors. A view when no tensor is among the indices, else a copy.
 * @throws {ShapeError} naming the index or mask that does not fit
 */
export function index(x: Tensor, ...indices: readonly Index[]): Tensor {
  use("index", x);
  if (!indices.some((item) => item instanceof Tensor))
    return sliceFor("index", x, indices as readonly Range[]);
  const backend = commonBackend("index", [x, ...indices.filter((item) => item instanceof Tensor)]);
  return tidy(() => {
    const positions: Positions[] = [];
    const ranges: Range[] = [];
    for (const item of indices) {
      const axis = ranges.length;
      if (item instanceof Tensor && item.dtype === "bool") {
        const covered = x.shape.slice(axis, axis + item.rank);
        if (!sameShape(covered, item.shape)) {
          throw new ShapeError(
            `index: mask ${formatShape(item.shape)} does not fit axes ${formatShape(covered)} of x ${formatShape(x.shape)}`,
          );
        }
        const { count, axes } = truePositions("index", item);
        axes.forEach((values, i) => {
          positions.push({ axis: axis + i, shape: [count], values });
          ranges.push(null);
        });
      } else if (item instanceof Tensor) {
        requireIntegers("index", "indices other than masks", item.dtype);
        positions.push({ axis, shape: item.shape, values: hostValues("index", item) });
        ranges.push(null);
      } else if (typeof item === "number") {
        positions.push({ axis, shape: [], values: [item] });
        ranges.push(null);
      } else ranges.push(item);
    }
    if (ranges.length > x.rank) throw new ShapeError(`index: ${ranges.length} indices for ${x.rank} axes`);
    const part = ranges.some((each) => each !== null) ? sliceFor("index", x, ranges) : x;
    const shape = positions.reduce<readonly number[]>(
      (all, one) => broadcastShapes("index", all, one.shape),
      [],
    );
    const axes = positions.map(({ axis }) => axis);
    const rows = flatPositions(x, positions, shape);
    const rest = range(part.rank).filter((i) => !axes.includes(i));
    const restShape = rest.map((i) => part.shape[i]);
    const table = reshape(arranged(part, [...axes, ...rest]), [
      sizeOf(axes.map((i) => x.shape[i])),
      ...restShape,
    ]);
    const picked = gather(table, fromValues(backend, "int32", shape, rows));
    const adjacent = axes.every((axis, i) => i === 0 || axis === axes[i - 1] + 1);
    const before = adjacent && axes.length > 0 ? axes[0] : 0;
    // [indexed…, rest…] → [rest before…, indexed…, rest after…]
    const order = [
      ...rest.slice(0, before).map((_, i) => shape.length + i),
      ...shape.map((_, i) => i),
      ...rest.slice(before).map((_, i) => shape.length + before + i),
    ];
    return arranged(picked, order);
  });
}

/** Position in the indexed axes, taken as one, for each element of the common shape. */
function flatPositions(x: Tensor, positions: readonly Positions[], shape: readonly number[]): Int32Array {
  const flat = new Int32Array(sizeOf(shape));
  for (const { axis, shape: own, values } of positions) {
    const extent = x.shape[axis];
    const checked = new Int32Array(values.length);
    for (let i = 0; i < checked.length; i++) {
      const value = values[i];
      if (!Number.isInteger(value) || value < -extent || value >= extent)
        throw new ShapeError(`index: index ${value} is out of range for axis ${axis} of length ${extent}`);
      checked[i] = value < 0 ? value + extent : value;
    }
    const spread = spreadValues(x, checked, own, shape);
    for (let i = 0; i < flat.length; i++) flat[i] = flat[i] * extent + spread[i];
  }
  return flat;
}

function spreadValues(
  like: Tensor,
  values: Int32Array,
  from: readonly number[],
  to: readonly number[],
): ArrayLike<number> {
  if (sameShape(from, to)) return values;
  return tidy(() => expand(fromValues(like.storage.backend, "int32", from, values), to).dataSync());
}
