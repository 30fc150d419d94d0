// Orders: argsort, sort, topk, unique. The order is found on the host; values are picked by it with gradients. NaN counts as the
// largest number, as in NumPy and PyTorch.

import { requireBoolean, requireInteger } from "../arguments.js";
import { fromValues } from "../creation.js";
import { ShapeError } from "../errors.js";
import { tidy } from "../memory.js";
import { formatShape, normalizeAxis } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { commonBackend, hostValues } from "./dispatch.js";
import { takeFound } from "./selection.js";
import { transpose } from "./view.js";

/** Below 0 when `a` comes before `b`, ascending; NaN comes last. */
function ascending(a: number, b: number): number {
  if (a < b) return -1;
  if (a > b) return 1;
  return a === b ? 0 : Number(Number.isNaN(a)) - Number(Number.isNaN(b));
}

/** For each line along `axis`, the positions that `pick` chooses: int32, `count` long along it. */
function positionsAlong(
  operation: string,
  x: Tensor,
  axis: number,
  count: number,
  pick: (line: ArrayLike<number>) => ArrayLike<number>,
): Tensor {
  return tidy(() => {
    const lines = transpose(x.detach(), axis, -1);
    const values = hostValues(operation, lines);
    const length = x.shape[axis];
    const shape = lines.shape.with(-1, count);
    const positions = new Int32Array(shape.reduce((size, extent) => size * extent, 1));
    for (let row = 0; row * count < positions.length; row++) {
      positions.set(pick(values.subarray(row * length, (row + 1) * length)), row * count);
    }
    return transpose(fromValues(x.storage.backend, "int32", shape, positions), axis, -1);
  });
}

/** Positions that a number of 53 bits has room for beside 32 bits of an element. */
const most = 2 ** 21;

function orderOf(line: ArrayLike<number>, descending: boolean): Int32Array {
  const sign = descending ? -1 : 1;
  const single = line instanceof Float32Array;
  if ((single || line instanceof Int32Array) && line.length <= most) {
    // Element and position as one number, which engines sort without calling back: six times as fast.
    const words = new Int32Array(line.buffer, line.byteOffset, line.length);
    const keys = new Float64Array(line.length);
    for (let i = 0; i < keys.length; i++) {
      let key = words[i];
      if (single) {
        if (Number.isNaN(line[i])) key = 0x7fffffff;
        else if (key < 0) key = -(key & 0x7fffffff);
      }
      keys[i] = sign * key * most + i;
    }
    keys.sort();
    const order = new Int32Array(keys.length);
    for (let i = 0; i < order.length; i++) order[i] = keys[i] - Math.floor(keys[i] / most) * most;
    return order;
  }
  return Int32Array.from(line, (_, i) => i).sort((i, j) => sign * ascending(line[i], line[j]) || i - j);
}

/** Positions (int32) that sort `x` along `axis`; equal elements keep their order. */
export function argsort(x: Tensor, axis = -1, descending = false): Tensor {
  return orderAlong("argsort", x, axis, descending);
}

function orderAlong(operation: string, x: Tensor, axis: number, descending: boolean): Tensor {
  commonBackend(operation, [x]);
  requireBoolean(operation, "descending", descending);
  const at = normalizeAxis(operation, axis, x.rank);
  return positionsAlong(operation, x, at, x.shape[at], (line) => orderOf(line, descending));
}

/** `x` sorted along `axis`, NaN last (first when descending); {@link argsort} gives the order. */
export function sort(x: Tensor, axis = -1, descending = false): Tensor {
  return tidy(() => takeFound(x, orderAlong("sort", x, axis, descending), axis));
}

/** The `k` first positions of the sorted line, by insertion into a list that rarely changes when k is small. */
function firstOf(line: ArrayLike<number>, k: number, descending: boolean): ArrayLike<number> {
  if (k > 256 || 4 * k > line.length) return orderOf(line, descending).subarray(0, k);
  const sign = descending ? -1 : 1;
  const best: number[] = [];
  for (let i = 0; i < line.length && k > 0; i++) {
    if (best.length === k && sign * ascending(line[i], line[best[k - 1]]) >= 0) continue;
    let at = Math.min(best.length, k - 1);
    for (; at > 0 && sign * ascending(line[i], line[best[at - 1]]) < 0; at--) best[at] = best[at - 1];
    best[at] = i;
  }
  return best;
}

/**
 * The `k` largest (or smallest) elements along `axis` and their positions, in order; of equal ones the first. Gradients flow
 * through the values.
 * @throws {ShapeError} when the axis is shorter than k
 */
export function topk(x: Tensor, k: number, axis = -1, largest = true): { values: Tensor; indices: Tensor } {
  commonBackend("topk", [x]);
  const at = normalizeAxis("topk", axis, x.rank);
  requireInteger("topk", "k", k, 0);
  requireBoolean("topk", "largest", largest);
  if (k > x.shape[at]) {
    throw new ShapeError(
      `topk: k ${k} exceeds axis ${at} of ${formatShape(x.shape)} (${k} > ${x.shape[at]})`,
    );
  }
  return tidy(() => {
    const indices = positionsAlong("topk", x, at, k, (line) => firstOf(line, k, largest));
    return { values: takeFound(x, indices, at), indices };
  });
}

export interface UniqueResult {
  /** The different elements, ascending, NaN (one for all) last. */
  values: Tensor;
  /** int32 in x's shape: where in `values` each element stands. */
  inverse: Tensor;
  /** int32: how often each occurs. */
  counts: Tensor;
}

/** The different elements of `x`, as numpy.unique. No gradient. */
export function unique(x: Tensor): UniqueResult {
  const backend = commonBackend("unique", [x]);
  const list = hostValues("unique", x);
  const order = orderOf(list, false);
  const values: number[] = [];
  const counts: number[] = [];
  const inverse = new Int32Array(list.length);
  for (const i of order) {
    if (values.length === 0 || ascending(values[values.length - 1], list[i]) !== 0) {
      values.push(list[i]);
      counts.push(0);
    }
    counts[counts.length - 1]++;
    inverse[i] = values.length - 1;
  }
  return tidy(() => ({
    values: fromValues(backend, x.dtype, [values.length], values),
    inverse: fromValues(backend, "int32", x.shape, inverse),
    counts: fromValues(backend, "int32", [counts.length], counts),
  }));
}
