// Different adapters for different rows of one batch: which adapter a row belongs to, and how a layer runs them in one pass.

import { ArgumentError, concat, ShapeError, slice, type Tensor, tidy } from "@nomoat/core";
import type { Module } from "@nomoat/core/nn";
import { adaptedLayers, adaptersOf } from "./adapter.js";
import type { AdapterBranch } from "./branch.js";
import { rowsOfLayer } from "./layer.js";
import { runThenRestore } from "./scope.js";
import { type RowSegment, segmentedUpdate } from "./segments.js";
import { LoraBranch } from "./variants/lora.js";

interface Run {
  readonly start: number;
  readonly end: number;
  readonly branch: AdapterBranch | null;
}

/** Consecutive rows of one adapter, in entries of the first axis of a tensor of `leading` entries. */
function runsOf(
  rows: readonly (string | null)[],
  leading: number,
  adapters: readonly AdapterBranch[],
): Run[] {
  if (leading % rows.length !== 0) {
    throw new ShapeError(
      `adapter rows: ${rows.length} rows were given, but the first axis of a layer's input has ${leading} entries`,
    );
  }
  const each = leading / rows.length;
  const runs: Run[] = [];
  for (let i = 0; i < rows.length; ) {
    let j = i + 1;
    while (j < rows.length && rows[j] === rows[i]) j++;
    const branch = adapters.find((candidate) => candidate.adapter === rows[i]) ?? null;
    runs.push({ start: i * each, end: j * each, branch });
    i = j;
  }
  return runs;
}

/** True for branches that are nothing but s·B·A at the moment. */
function isPlain(branch: AdapterBranch | null, dtype: string): boolean {
  if (branch === null) return true;
  if (branch.constructor !== LoraBranch) return false;
  const { loraA, loraBias, dropsOut } = branch as LoraBranch;
  return loraA.dtype === dtype && !loraBias && !dropsOut;
}

/**
 * The output of a layer whose rows belong to different adapters.
 * @param x - the layer's input
 * @param y - the base's output, which may be written over
 */
export function mixedUpdate(
  x: Tensor,
  y: Tensor,
  rows: readonly (string | null)[],
  adapters: readonly AdapterBranch[],
  base: Module,
): Tensor {
  const runs = runsOf(rows, x.shape[0] ?? 0, adapters);
  if (runs.every(({ branch }) => branch === null)) return y;
  if (runs.every(({ branch }) => isPlain(branch, y.dtype))) {
    const branches = [...new Set(runs.flatMap(({ branch }) => branch ?? []))] as LoraBranch[];
    const inner = x.shape.slice(1, -1).reduce((product, extent) => product * extent, 1);
    const segments = runs.map(
      ({ start, end, branch }): RowSegment => ({
        start: start * inner,
        end: end * inner,
        index: branch ? branches.indexOf(branch as LoraBranch) : -1,
        scaling: branch ? branch.scaling * branch.weight : 0,
      }),
    );
    return segmentedUpdate(
      x,
      y,
      branches.flatMap(({ loraA, loraB }) => [loraA, loraB]),
      segments,
    );
  }
  return tidy(() =>
    concat(
      runs.map(({ start, end, branch }) => {
        const part = slice(y, [start, end]);
        return branch ? branch.update(slice(x, [start, end]), part, { base, isBaseOutput: true }) : part;
      }),
      0,
    ),
  );
}

/**
 * Runs `fn` (which may return a promise) with each row of the batch adapted by an adapter of its own, forward and backward, whatever is
 * enabled or merged. With gradient checkpointing, which runs layers again, `backward` has to be called within `fn` too. The first axis of every adapted layer's input must count the rows (or a multiple of them, when batch and positions
 * are one axis).
 *
 * @param rows - the adapter's name for each row; null for the base alone
 * @throws {ArgumentError} for a name that the model does not have, or an adapter with modules that are saved as a whole or biases
 */
export function withAdapterRows<T>(model: Module, rows: readonly (string | null)[], fn: () => T): T {
  if (rows.length === 0) throw new ArgumentError("withAdapterRows: no rows given");
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
  for (const layer of layers) rowsOfLayer.set(layer, { rows, update: mixedUpdate });
  const restore = () => {
    layers.forEach((layer, i) => {
      const rest = before[i];
      if (rest) rowsOfLayer.set(layer, rest);
      else rowsOfLayer.delete(layer);
    });
  };
  return runThenRestore(fn, restore);
}
