// Reductions on the wasm kernels: rows (reduced axes innermost) and columns (a kept axis innermost) directly, in the order of
// memory where that makes one of the two, any other layout after a copy. Long reductions with little output go in two stages over blocks whose size is fixed, so that
// threads share them and the order of additions still depends on the shape alone.

import { BackendError } from "../../errors.js";
import { contiguousStrides, isContiguous } from "../../layout.js";
import { sizeOf } from "../../shape.js";
import type { ArgReduceKind, Operand, ReduceKind } from "../types.js";
import { arithmeticSuffix, copy, fill, kernelName, withContiguous } from "./elementwise.js";
import type { WasmRuntime } from "./runtime.js";
import { rowGrain, withTemporary } from "./strided.js";

/** Elements of one block of a long row. */
const rowBlock = 16384;
/** Columns that a unit of the column kernels takes, and the scratch memory for their sums. */
const columnBlock = 512;
const columnScratch = columnBlock * 12;
/** Rows of one block of a tall reduction by columns, and the height from which it is cut. */
const rowsPerBlock = 256;
const tall = 512;
/** Elements that a chunk should read about. */
const chunk = 32768;

const identities: Record<ReduceKind, number> = {
  sum: 0,
  prod: 1,
  max: Number.NEGATIVE_INFINITY,
  min: Number.POSITIVE_INFINITY,
};

/** An axis that is longer than 1, or several merged. */
interface Run {
  extent: number;
  stride: number;
  reduced: boolean;
}

/** R for a run that is reduced, K for one that is kept. */
function patternOf(runs: readonly Run[]): string {
  return runs.map((run) => (run.reduced ? "R" : "K")).join("");
}

function runsOf(x: Operand, axes: readonly number[]): Run[] {
  const runs: Run[] = [];
  for (let i = 0; i < x.shape.length; i++) {
    const extent = x.shape[i];
    if (extent === 1) continue;
    const stride = x.strides[i];
    const reduced = axes.includes(i);
    const last = runs.at(-1);
    if (last && last.reduced === reduced && last.stride === stride * extent) {
      last.extent *= extent;
      last.stride = stride;
    } else runs.push({ extent, stride, reduced });
  }
  return runs;
}

export function reduce(
  runtime: WasmRuntime,
  kind: ReduceKind,
  x: Operand,
  axes: readonly number[],
  out: Operand,
): void {
  if (sizeOf(out.shape) === 0) return;
  if (sizeOf(x.shape) === 0) {
    fill(runtime, out, identities[kind]);
    return;
  }
  const suffix = arithmeticSuffix(kind, x.dtype);
  let runs = runsOf(x, axes);
  // What is repeated along a reduced axis counts once, and a sum of it as often as it stands there.
  let repeated = 1;
  if (kind !== "prod" && suffix === "") {
    const distinct = runs.filter(({ reduced, stride }) => !reduced || stride !== 0);
    if (distinct.length < runs.length && (kind !== "sum" || /^K?R?$/.test(patternOf(distinct)))) {
      for (const { reduced, stride, extent } of runs) if (reduced && stride === 0) repeated *= extent;
      runs = distinct;
    }
  }
  const pattern = patternOf(runs);
  const address = runtime.address(x);
  const target = runtime.address(out);
  const inner = runs.at(-1);
  const besides = pattern.endsWith("R") ? inner! : { extent: 1, stride: 1 };
  // Memory is read ahead of rows that follow one another, not of those that come before.
  const longBackwards = pattern === "KR" && runs[0].stride < 0 && inner!.extent >= 512;
  if (!pattern.includes("R") && (repeated === 1 || kind !== "sum"))
    copy(runtime, { ...x, shape: out.shape }, out);
  else if (/^K?R?$/.test(pattern) && (besides.stride === 1 || besides.stride === 2) && !longBackwards) {
    const outer = pattern.startsWith("K") ? runs[0] : { extent: 1, stride: 0 };
    rows(runtime, kernelName("rows", kind, suffix), address, outer, besides, target, repeated);
  } else if (/^K?RK$/.test(pattern) && (inner!.stride === 1 || inner!.stride === 2)) {
    const outer = pattern === "RK" ? { extent: 1, stride: 0 } : runs[0];
    const middle = runs[runs.length - 2];
    const name = kernelName("columns", kind, suffix);
    const { extent, stride } = inner!;
    if (stride === 1) columns(runtime, name, address, outer, middle, extent, target);
    else {
      // Those in between come from the same lines of memory: all are reduced, and every other one is taken.
      const width = 2 * extent - 1;
      withTemporary(runtime, out.dtype, [outer.extent, width], (all) => {
        columns(runtime, name, address, outer, middle, width, runtime.address(all));
        const shape = [outer.extent, extent];
        copy(runtime, { ...all, shape, strides: [width, 2] }, { ...out, shape, strides: [extent, 1] });
      });
    }
  } else if (!reduceInMemoryOrder(runtime, kind, x, axes, out)) {
    reduceCopied(runtime, kind, x, axes, out, pattern);
  }
}

/**
 * Walks x's axes in the order of its memory, backward ones forwards, where one of the kernels can then read x as it is: a
 * transposed or flipped view. The order of what is added up is free, and what is kept is put into order afterwards.
 *
 * @returns false where that helps nothing, and nothing was done
 */
function reduceInMemoryOrder(
  runtime: WasmRuntime,
  kind: ReduceKind,
  x: Operand,
  axes: readonly number[],
  out: Operand,
): boolean {
  const distance = (axis: number) => Math.abs(x.strides[axis]) || Number.POSITIVE_INFINITY;
  const order = [...x.shape.keys()].filter((i) => x.shape[i] > 1);
  order.sort((i, j) => (distance(i) === distance(j) ? i - j : distance(j) - distance(i)));
  const view = forwards(x, order);
  const reduced = [...order.keys()].filter((place) => axes.includes(order[place]));
  const runs = runsOf(view, reduced);
  const pattern = patternOf(runs);
  if (pattern === "RR" && runs[1].stride <= 2) {
    // All of rows that lie apart or are one: each row, then their results.
    const [outer, inner] = runs;
    const both = { shape: [outer.extent, inner.extent], strides: [outer.stride, inner.stride] };
    withTemporary(runtime, out.dtype, [outer.extent], (temporary) => {
      reduce(runtime, kind, { ...view, ...both }, [1], { ...temporary, shape: [outer.extent, 1] });
      reduce(runtime, kind, temporary, [0], { ...out, shape: [1] });
    });
    return true;
  }
  const stride = runs.at(-1)?.stride;
  if (!(stride === 1 || (stride === 2 && pattern.endsWith("R"))) || !/^(K?R|K?RK)$/.test(pattern))
    return false;
  const kept = order.filter((axis) => !axes.includes(axis));
  const shape = kept.map((axis) => x.shape[axis]);
  const compact = view.shape.map((extent, place) => (reduced.includes(place) ? 1 : extent));
  if (kept.every((axis, i) => x.strides[axis] >= 0 && (i === 0 || axis > kept[i - 1]))) {
    reduce(runtime, kind, view, reduced, { ...out, shape: compact });
    return true;
  }
  withTemporary(runtime, out.dtype, shape, (temporary) => {
    reduce(runtime, kind, view, reduced, { ...temporary, shape: compact });
    const ascending = [...kept.keys()].sort((i, j) => kept[i] - kept[j]);
    const backwards = kept.map((axis) => x.strides[axis] < 0);
    const sorted = ascending.map((place) => shape[place]);
    copy(
      runtime,
      {
        ...temporary,
        shape: sorted,
        strides: ascending.map((i) => (backwards[i] ? -1 : 1) * temporary.strides[i]),
        offset: temporary.strides.reduce(
          (sum, stride, i) => sum + (backwards[i] ? stride * (shape[i] - 1) : 0),
          0,
        ),
      },
      { ...out, shape: sorted, strides: contiguousStrides(sorted) },
    );
  });
  return true;
}

/** x with the axes named, in that order, and each walked towards higher addresses. */
function forwards(x: Operand, order: readonly number[]): Operand {
  return {
    ...x,
    shape: order.map((i) => x.shape[i]),
    strides: order.map((i) => Math.abs(x.strides[i])),
    offset: order.reduce((sum, i) => sum + Math.min(0, x.strides[i]) * (x.shape[i] - 1), x.offset),
  };
}

/** Copies x so that one of the kernels fits: as it is, or with the reduced axes moved to the end. */
function reduceCopied(
  runtime: WasmRuntime,
  kind: ReduceKind,
  x: Operand,
  axes: readonly number[],
  out: Operand,
  pattern: string,
): void {
  const keepsOrder = /^K*R+K*$/.test(pattern) && !isContiguous(x);
  const kept = x.shape.map((_, i) => i).filter((i) => !axes.includes(i));
  const order = keepsOrder ? x.shape.map((_, i) => i) : [...kept, ...axes];
  const view: Operand = {
    ...x,
    shape: order.map((i) => x.shape[i]),
    strides: order.map((i) => x.strides[i]),
  };
  withTemporary(runtime, x.dtype, view.shape, (temporary) => {
    copy(runtime, view, temporary);
    const reduced = order.flatMap((axis, i) => (axes.includes(axis) ? [i] : []));
    reduce(runtime, kind, temporary, reduced, {
      ...out,
      shape: view.shape.map((extent, i) => (reduced.includes(i) ? 1 : extent)),
    });
  });
}

/** Rows of elements that are neighbours, or of every other one → one number a row; sums `repeated` times. */
function rows(
  runtime: WasmRuntime,
  name: string,
  x: number,
  outer: { extent: number; stride: number },
  inner: { extent: number; stride: number },
  out: number,
  repeated = 1,
): void {
  const blocks = Math.ceil(inner.extent / rowBlock);
  const stage = (target: number, factor: number) =>
    runtime.core.launch(
      name,
      outer.extent * blocks,
      [inner.extent, blocks, rowBlock, x, outer.stride * 4, target, inner.stride - 1],
      [factor],
      { grain: rowGrain(Math.min(inner.extent, rowBlock) + 16, chunk) },
    );
  if (blocks === 1) stage(out, repeated);
  else {
    withTemporary(runtime, "float32", [outer.extent, blocks], (partial) => {
      const address = runtime.address(partial);
      stage(address, 1);
      const sums = { extent: outer.extent, stride: blocks };
      rows(runtime, name, address, sums, { extent: blocks, stride: 1 }, out, repeated);
    });
  }
}

/** x [outer, rows, columns] → [outer, columns]. */
function columns(
  runtime: WasmRuntime,
  name: string,
  x: number,
  outer: { extent: number; stride: number },
  middle: { extent: number; stride: number },
  width: number,
  out: number,
): void {
  const columnBlocks = Math.ceil(width / columnBlock);
  const cut = middle.extent >= tall && outer.extent * columnBlocks < 16 && middle.extent * width > 4 * chunk;
  const perBlock = cut ? rowsPerBlock : middle.extent;
  const rowBlocks = Math.ceil(middle.extent / perBlock);
  const stage = (target: number) =>
    runtime.core.launch(
      name,
      outer.extent * rowBlocks * columnBlocks,
      [
        middle.extent,
        width,
        columnBlocks,
        rowBlocks,
        perBlock,
        x,
        outer.stride * 4,
        middle.stride * 4,
        target,
      ],
      undefined,
      { grain: rowGrain(perBlock * Math.min(width, columnBlock), chunk), scratchBytes: columnScratch },
    );
  if (!cut) stage(out);
  else {
    withTemporary(runtime, "float32", [outer.extent, rowBlocks, width], (partial) => {
      const address = runtime.address(partial);
      stage(address);
      const blocks = { extent: rowBlocks, stride: width };
      columns(
        runtime,
        name,
        address,
        { extent: outer.extent, stride: rowBlocks * width },
        blocks,
        width,
        out,
      );
    });
  }
}

/** Sums the rows of a contiguous float32 [rows, columns] at an address into [columns] at another, in a fixed order. */
export function sumColumns(runtime: WasmRuntime, x: number, count: number, width: number, out: number): void {
  columns(runtime, "columns_sum", x, { extent: 1, stride: 0 }, { extent: count, stride: width }, width, out);
}

export function argReduce(
  runtime: WasmRuntime,
  kind: ArgReduceKind,
  x: Operand,
  axis: number,
  out: Operand,
): void {
  const count = sizeOf(out.shape);
  if (count === 0) return;
  if (x.shape[axis] === 0) throw new BackendError(`${kind}: axis ${axis} has no elements`);
  const suffix = arithmeticSuffix(kind, x.dtype);
  const order = [...x.shape.keys()].filter((i) => i !== axis).concat(axis);
  const view: Operand = {
    ...x,
    shape: order.map((i) => x.shape[i]),
    strides: order.map((i) => x.strides[i]),
  };
  withContiguous(runtime, view, (contiguous) => {
    const length = x.shape[axis];
    runtime.core.launch(
      kernelName("argRows", kind, suffix),
      count,
      [length, runtime.address(contiguous), runtime.address(out)],
      undefined,
      { grain: rowGrain(length + 16, chunk) },
    );
  });
}
