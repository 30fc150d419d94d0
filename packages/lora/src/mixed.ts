// Different adapters for different rows of one batch: which adapter a row belongs to, and how a layer runs them in one pass.

import { ArgumentError, concat, noGrad, ones, ShapeError, slice, type Tensor, tidy } from "@nomoat/core";
import { requireFunction, requireList } from "@nomoat/core/extend";
import { type Module, requireModule } from "@nomoat/core/nn";
import { adaptedLayers, adaptersOf } from "./adapter.js";
import type { AdapterBranch } from "./branch.js";
import { type RowAssignment, rowsOfLayer } from "./layer.js";
import type { Mask } from "./low-rank.js";
import { runThenRestore } from "./scope.js";
import { type RowSegment, type SegmentedLayer, segmentedUpdates } from "./segments.js";
import type { LoraBranch } from "./variants/lora.js";

interface Run {
  readonly start: number;
  readonly end: number;
  readonly branch: AdapterBranch | null;
  /** Entries of the second axis that are the rows' own, of an input [rows, positions, features]; null: all. */
  readonly length: number | null;
}

/** Which adapter has which rows of a batch. */
export interface Rows {
  readonly names: readonly (string | null)[];
  /** Positions of each row that count; those after are padding. */
  readonly lengths: readonly number[] | null;
}

/** Consecutive rows of one adapter, in entries of the first axis of a tensor of `leading` entries. */
function runsOf({ names: rows, lengths }: Rows, x: Tensor, adapters: readonly AdapterBranch[]): Run[] {
  const [leading = 0] = x.shape;
  if (leading % rows.length !== 0) {
    throw new ShapeError(
      `adapter rows: ${rows.length} rows were given, but the first axis of a layer's input has ${leading} entries`,
    );
  }
  const each = leading / rows.length;
  const runs: Run[] = [];
  for (let i = 0; i < rows.length; ) {
    let j = i + 1;
    while (j < rows.length && rows[j] === rows[i] && lengths?.[j] === lengths?.[i]) j++;
    const branch = adapters.find((candidate) => candidate.adapter === rows[i]) ?? null;
    const length = x.rank === 3 && each === 1 && lengths ? lengths[i] : null;
    runs.push({ start: i * each, end: j * each, branch, length });
    i = j;
  }
  return runs;
}

/** True for branches that are nothing but s·B·A and dropout at the moment. */
function isPlain(branch: AdapterBranch | null, dtype: string): boolean {
  return branch === null || branch.lowRankPair()?.a.dtype === dtype;
}

/** A layer whose runs are all plain, as one operation takes it. */
function segmentedLayer(x: Tensor, y: Tensor, runs: readonly Run[]): SegmentedLayer {
  const branches = [...new Set(runs.flatMap(({ branch }) => branch ?? []))];
  const inner = x.shape.slice(1, -1).reduce((product, extent) => product * extent, 1);
  const segments = runs.map(
    ({ start, end, branch }): RowSegment => ({
      start: start * inner,
      end: end * inner,
      index: branch ? branches.indexOf(branch) : -1,
      scaling: branch ? branch.scaling * branch.weight : 0,
    }),
  );
  const pairs = branches.map((branch) => branch.lowRankPair()!);
  return { y, factors: pairs.flatMap(({ a, b }) => [a, b]), segments };
}

/** The part of `x` [rows, positions, ...] that belongs to a run, without its padding. */
function partOf(x: Tensor, { start, end, length }: Run): Tensor {
  return length === null ? slice(x, [start, end]) : slice(x, [start, end], [0, length]);
}

/** The masks of all runs that drop elements of their input, 1 elsewhere; each drawn in the shape that its run has alone. */
function maskOf(x: Tensor, runs: readonly Run[]): Mask | null {
  const masks = runs.map((run) =>
    run.branch ? tidy(() => (run.branch as LoraBranch).drawMask(partOf(x, run))) : null,
  );
  if (masks.every((mask) => mask === null)) return null;
  return (input) =>
    noGrad(() =>
      tidy(() => {
        const all = ones(input.shape, { dtype: input.dtype, device: input.device });
        runs.forEach((run, i) => {
          const mask = masks[i];
          if (mask) partOf(all, run).copyFrom(mask(partOf(input, run)));
        });
        return all;
      }),
    );
}

/**
 * The output of a layer whose rows belong to different adapters.
 * @param x - the layer's input
 * @param y - the base's output, which may be written over
 */
function mixedUpdate(
  x: Tensor,
  y: Tensor,
  rows: Rows,
  adapters: readonly AdapterBranch[],
  base: Module,
): Tensor {
  const runs = runsOf(rows, x, adapters);
  if (runs.every(({ branch }) => branch === null)) return y;
  if (runs.every(({ branch }) => isPlain(branch, y.dtype))) {
    return segmentedUpdates(x, [segmentedLayer(x, y, runs)], maskOf(x, runs))[0];
  }
  return tidy(() =>
    concat(
      runs.map((run) => {
        const { start, end, branch, length } = run;
        const whole = slice(y, [start, end]);
        if (!branch) return whole;
        const updated = branch.update(partOf(x, run), partOf(y, run), { base, isBaseOutput: true });
        if (length === null || length === y.shape[1]) return updated;
        return concat([updated, slice(whole, null, [length, y.shape[1]])], 1);
      }),
      0,
    ),
  );
}

/** {@link mixedUpdate} of layers that share their input, in one operation; null where a run is not plain or drops elements. */
function mixedUpdates(
  x: Tensor,
  ys: readonly Tensor[],
  rows: Rows,
  adapters: readonly (readonly AdapterBranch[])[],
): Tensor[] | null {
  const runs = adapters.map((list) => runsOf(rows, x, list));
  const joins = ({ branch }: Run): boolean =>
    branch === null || (isPlain(branch, x.dtype) && branch.lowRankPair()?.dropsOut === false);
  if (!runs.every((list) => list.every(joins)) || ys.some((y) => y.dtype !== x.dtype)) return null;
  return segmentedUpdates(
    x,
    ys.map((y, i) => segmentedLayer(x, y, runs[i])),
  );
}

/**
 * Runs `fn` (which may return a promise) with each row of the batch adapted by an adapter of its own, forward and backward, whatever is
 * enabled or merged. With gradient checkpointing, which runs layers again, `backward` has to be called within `fn` too. The first axis of every adapted layer's input must count the rows (or a multiple of them, when batch and positions
 * are one axis). The products of all plain adapters run together, whatever their ranks; those of other kinds run adapter by adapter.
 *
 * @param rows - the adapter's name for each row; null for the base alone
 * @param options.lengths - positions (of the second axis) of each row that are its own, padding after them: dropout then draws the numbers
 *   that it would draw for the adapter's rows alone
 * @throws {ArgumentError} for a name that the model does not have, or an adapter with modules that are saved as a whole or biases
 */
export function withAdapterRows<T>(
  model: Module,
  rows: readonly (string | null)[],
  fn: () => T,
  options: { lengths?: readonly number[] } = {},
): T {
  requireModule("withAdapterRows", model);
  requireList("withAdapterRows", "rows", rows);
  requireFunction("withAdapterRows", fn);
  if (rows.length === 0) throw new ArgumentError("withAdapterRows: no rows given");
  const lengths = options.lengths ?? null;
  if (lengths && (lengths.length !== rows.length || !lengths.every((n) => Number.isSafeInteger(n) && n > 0)))
    throw new ArgumentError("withAdapterRows: lengths must be a positive integer for each row");
  const known = adaptersOf(model);
  for (const name of new Set(rows)) {
    if (name === null) continue;
    const adapter = known.get(name);
    if (!adapter) throw new ArgumentError(`withAdapterRows: there is no adapter "${name}"`);
    if (adapter.replacesParts)
      throw new ArgumentError(
        `withAdapterRows: adapter "${name}" has modules to save or trained biases, which rows cannot share`,
      );
  }
  const active = [...known.values()].find((adapter) => adapter.active && adapter.replacesParts);
  if (active) {
    throw new ArgumentError(
      `withAdapterRows: disable adapter "${active.name}", whose saved modules or biases every row would use`,
    );
  }
  const layers = [...adaptedLayers(model).values()];
  const before = layers.map((layer) => rowsOfLayer.get(layer));
  const assignment: RowAssignment = {
    update: (x, y, branches, base) => mixedUpdate(x, y, { names: rows, lengths }, branches, base),
    updateGroup: (x, ys, branches) => mixedUpdates(x, ys, { names: rows, lengths }, branches),
  };
  for (const layer of layers) rowsOfLayer.set(layer, assignment);
  const restore = () => {
    layers.forEach((layer, i) => {
      const rest = before[i];
      if (rest) rowsOfLayer.set(layer, rest);
      else rowsOfLayer.delete(layer);
    });
  };
  return runThenRestore(fn, restore);
}
