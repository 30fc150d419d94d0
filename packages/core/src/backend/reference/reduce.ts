// Reductions over axes. Sums and products of floats are accumulated in float64, in row-major order.

import { isFloat } from "../../dtype.js";
import type { ArgReduceKind, Operand, ReduceKind, ScanKind } from "../types.js";
import { encoder } from "./elementwise.js";
import { elements, numbers, type Strided, walk } from "./strided.js";

const start: Readonly<Record<ReduceKind, number>> = {
  sum: 0,
  prod: 1,
  max: Number.NEGATIVE_INFINITY,
  min: Number.POSITIVE_INFINITY,
};

const step: Readonly<Record<ReduceKind, (a: number, b: number) => number>> = {
  sum: (a, b) => a + b,
  prod: (a, b) => a * b,
  max: Math.max,
  min: Math.min,
};

/** Contiguous positions of out's elements from 0, spread over x's shape: stride 0 along the reduced axes. */
function spread(outShape: readonly number[], reduced: (axis: number) => boolean): Strided {
  const strides = new Array<number>(outShape.length);
  let stride = 1;
  for (let axis = outShape.length - 1; axis >= 0; axis--) {
    strides[axis] = reduced(axis) ? 0 : stride;
    stride *= outShape[axis];
  }
  return { strides, offset: 0 };
}

function count(shape: readonly number[]): number {
  return shape.reduce((product, length) => product * length, 1);
}

export function reduce(kind: ReduceKind, x: Operand, axes: readonly number[], out: Operand): void {
  const source = numbers(x);
  const y = numbers(out);
  const size = count(out.shape);
  const results = new Float64Array(size).fill(start[kind]);
  const f = kind === "prod" && !isFloat(x.dtype) ? Math.imul : step[kind];
  walk(x.shape, [x, spread(out.shape, (axis) => axes.includes(axis))], (i, r) => {
    results[r] = f(results[r], source[i]);
  });
  // An empty maximum of integers is their least value; sums wrap as the typed array does.
  const encode = kind === "max" || kind === "min" ? encoder(out.dtype) : (value: number) => value;
  for (let r = 0; r < size; r++) y[out.offset + r] = encode(results[r]);
}

export function argReduce(kind: ArgReduceKind, x: Operand, axis: number, out: Operand): void {
  const source = numbers(x);
  const y = elements(out);
  const length = x.shape[axis];
  const stride = x.strides[axis];
  const better = kind === "argmax" ? (a: number, b: number) => a > b : (a: number, b: number) => a < b;
  walk(out.shape, [out, x], (o, base) => {
    let best = 0;
    for (let i = 1; i < length && !Number.isNaN(source[base + best * stride]); i++) {
      const value = source[base + i * stride];
      if (better(value, source[base + best * stride]) || Number.isNaN(value)) best = i;
    }
    y[o] = best;
  });
}

/** Running sums and products, of floats in float64. */
export function scan(kind: ScanKind, x: Operand, axis: number, out: Operand): void {
  const source = numbers(x);
  const y = numbers(out);
  const floats = isFloat(x.dtype);
  const join: (a: number, b: number) => number =
    kind === "cumsum"
      ? floats
        ? (a, b) => a + b
        : (a, b) => (a + b) | 0
      : floats
        ? (a, b) => a * b
        : Math.imul;
  const lines = out.shape.with(axis, Math.min(1, out.shape[axis]));
  walk(lines, [out, x], (o, i) => {
    let carried = kind === "cumsum" ? 0 : 1;
    for (let k = 0; k < out.shape[axis]; k++) {
      carried = join(carried, source[i + k * x.strides[axis]]);
      y[o + k * out.strides[axis]] = carried;
    }
  });
}
