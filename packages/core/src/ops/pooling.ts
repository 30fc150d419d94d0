// Pooling: the largest or the mean of each window, windows being a strided view; and windows made to fit a given number of outputs.

import { requireOptions, use } from "../arguments.js";
import { fromValues, hostArray, ones, positions } from "../creation.js";
import { requireFloat } from "../dtype.js";
import { ArgumentError, ShapeError } from "../errors.js";
import { tidy } from "../memory.js";
import { checkShape, formatShape, sizeOf } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { type PerAxis, perAxis, windowsOf } from "./convolution.js";
import { alias, cast, div, less, where } from "./elementwise.js";
import { pad } from "./rearrange.js";
import { argmax, mean, sum } from "./reduce.js";
import { take, takeFound } from "./selection.js";
import { along, expand, reshape, squeeze, transpose, unsqueeze } from "./view.js";

export interface PoolingArguments {
  /** Distance of windows (default: their size). */
  stride?: PerAxis;
  /** Places outside x before and after each spatial axis, at most half a window (default 0). */
  padding?: PerAxis;
  /** Whether a last window counts that starts inside x or its padding and ends outside (default false). */
  ceilMode?: boolean;
}

export interface MaxPoolingArguments extends PoolingArguments {
  /** Distance of a window's elements (default 1). */
  dilation?: PerAxis;
}

export interface AveragePoolingArguments extends PoolingArguments {
  /** Whether padding counts as zeros (default true, as in PyTorch) or not at all. What ceilMode adds never counts. */
  countIncludePad?: boolean;
}

function checkInput(operation: string, x: Tensor, spatial: number): void {
  use(operation, x);
  requireFloat(operation, "x", x.dtype);
  if (x.rank !== spatial + 2) {
    const axes = spatial === 1 ? "length" : "height, width";
    throw new ShapeError(`${operation}: expected x [batch, channels, ${axes}], not ${formatShape(x.shape)}`);
  }
}

/** Where windows lie over x. */
interface Plan {
  /** Windows of anything of x's spatial extents, with `inside` as its padding and `beyond` where ceilMode leads outside it. */
  windows(y: Tensor, inside: number, beyond: number): Tensor;
  /** The axes that count a window's elements. */
  readonly axes: readonly number[];
  readonly padded: boolean;
  readonly beyond: boolean;
}

function planOf(
  operation: string,
  x: Tensor,
  size: PerAxis,
  options: MaxPoolingArguments,
  spatial: number,
): Plan {
  checkInput(operation, x, spatial);
  requireOptions(operation, options, ["stride", "padding", "ceilMode", "dilation", "countIncludePad"]);
  const sizes = perAxis(operation, "size", size, spatial, 1);
  const stride = perAxis(operation, "stride", options.stride ?? sizes, spatial, 1);
  const padding = perAxis(operation, "padding", options.padding ?? 0, spatial, 0);
  const dilation = perAxis(operation, "dilation", options.dilation ?? 1, spatial, 1);
  padding.forEach((width, i) => {
    if (2 * width > sizes[i])
      throw new ArgumentError(`${operation}: padding ${width} exceeds half of the window's size ${sizes[i]}`);
  });
  // How far the last window of ceilMode reaches over the padding; one that would start there is left out.
  const over = sizes.map((extent, i) => {
    const span = dilation[i] * (extent - 1) + 1;
    const length = x.shape[2 + i] + 2 * padding[i];
    if (!(options.ceilMode ?? false) || span > length) return 0;
    const last = Math.ceil((length - span) / stride[i]) * stride[i];
    return last >= length - padding[i] ? 0 : last + span - length;
  });
  const around = (y: Tensor, widths: (readonly [number, number])[], value: number) =>
    widths.some(([before, after]) => before + after > 0) ? pad(y, widths, value) : y;
  return {
    windows: (y, inside, beyond) => {
      const framed = around(
        y,
        padding.map((width) => [width, width] as const),
        inside,
      );
      const longer = around(
        framed,
        over.map((width) => [0, Math.max(0, width)] as const),
        beyond,
      );
      return windowsOf(operation, longer, sizes, stride, dilation);
    },
    axes: sizes.map((_, i) => 2 + spatial + i),
    padded: padding.some((width) => width > 0),
    beyond: over.some((width) => width > 0),
  };
}

/** Windows with their elements in one axis, the last. */
const apart = (windows: Tensor, spatial: number): Tensor =>
  reshape(windows, [...windows.shape.slice(0, 2 + spatial), sizeOf(windows.shape.slice(2 + spatial))]);

/** Windows in which the largest is looked for: what lies outside x never is. */
const maxWindows = (plan: Plan, x: Tensor, spatial: number): Tensor =>
  apart(plan.windows(x, Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY), spatial);

/** The element at `first` of the last axis: unlike that of `max`, the gradient goes to the first of equals alone. */
const firstLargest = (windows: Tensor, first: Tensor): Tensor => squeeze(takeFound(windows, first, -1), -1);

function maxPool(
  operation: string,
  x: Tensor,
  size: PerAxis,
  options: MaxPoolingArguments,
  spatial: number,
): Tensor {
  const plan = planOf(operation, x, size, options, spatial);
  return tidy(() => {
    const windows = maxWindows(plan, x, spatial);
    return firstLargest(windows, argmax(windows.detach(), -1, true));
  });
}

function maxPoolWithIndices(
  operation: string,
  x: Tensor,
  size: PerAxis,
  options: MaxPoolingArguments,
  spatial: number,
): { values: Tensor; indices: Tensor } {
  const plan = planOf(operation, x, size, options, spatial);
  return tidy(() => {
    const plane = x.shape.slice(2);
    const windows = maxWindows(plan, x, spatial);
    const places = apart(plan.windows(reshape(positions(sizeOf(plane), x), [1, 1, ...plane]), 0, 0), spatial);
    const first = argmax(windows.detach(), -1, true);
    const indices = takeFound(expand(places, windows.shape), first, -1);
    return { values: firstLargest(windows, first), indices: squeeze(indices, -1) };
  });
}

function avgPool(
  operation: string,
  x: Tensor,
  size: PerAxis,
  options: AveragePoolingArguments,
  spatial: number,
): Tensor {
  const plan = planOf(operation, x, size, options, spatial);
  const countPadding = options.countIncludePad ?? true;
  return tidy(() => {
    const windows = plan.windows(x, 0, 0);
    if (!plan.beyond && (countPadding || !plan.padded)) return mean(windows, plan.axes);
    const inside = ones([1, 1, ...x.shape.slice(2)], { dtype: x.dtype, device: x.device });
    const counts = sum(plan.windows(inside, countPadding ? 1 : 0, 0), plan.axes);
    return div(sum(windows, plan.axes), counts);
  });
}

/** Reduces windows over their last axis; `lengths` (int32 [windows]) says how many elements count, where it is not all of them. */
type WindowReduction = (windows: Tensor, lengths: Tensor | null) => Tensor;

/** `reduce` over the part of axis `axis` that each of `count` outputs sees: from ⌊i·n/count⌋ to ⌈(i+1)·n/count⌉. */
function adaptiveAxis(x: Tensor, axis: number, count: number, reduce: WindowReduction): Tensor {
  const extent = x.shape[axis];
  if (extent === count) return alias(x);
  if (count === 0) return along(x, axis, [0, 0]);
  const last = transpose(x, axis, -1);
  const windows = (y: Tensor, length: number) => reshape(y, [...last.shape.slice(0, -1), count, length]);
  if (extent % count === 0) return transpose(reduce(windows(last, extent / count), null), axis, -1);
  const integers = (size: number, value: (at: number) => number) =>
    hostArray("adaptive pooling", size, Int32Array).map((_, at) => value(at));
  const start = (i: number) => Math.floor((i * extent) / count);
  const lengths = integers(count, (i) => Math.ceil(((i + 1) * extent) / count) - start(i));
  const longest = lengths.reduce((most, length) => Math.max(most, length), 0);
  // Shorter windows end with copies of their last element.
  const places = integers(count * longest, (at) => {
    const i = Math.floor(at / longest);
    return start(i) + Math.min(at % longest, lengths[i] - 1);
  });
  const indices = (values: Int32Array) => fromValues(x.storage.backend, "int32", [values.length], values);
  const parts = windows(take(last, indices(places), -1), longest);
  return transpose(reduce(parts, indices(lengths)), axis, -1);
}

/** The last axis first: among equal elements the first in row-major order is found. */
function adaptivePool(
  operation: string,
  x: Tensor,
  outputSize: PerAxis,
  spatial: number,
  reduce: WindowReduction,
): Tensor {
  checkInput(operation, x, spatial);
  const counts = perAxis(operation, "outputSize", outputSize, spatial, 0);
  checkShape(operation, counts);
  counts.forEach((count, i) => {
    if (count > 0 && x.shape[2 + i] === 0)
      throw new ShapeError(`${operation}: axis ${2 + i} of x ${formatShape(x.shape)} is empty`);
  });
  return tidy(() => counts.reduceRight((y, count, i) => adaptiveAxis(y, 2 + i, count, reduce), alias(x)));
}

const meanOver: WindowReduction = (windows, lengths) => {
  if (lengths === null) return mean(windows, -1);
  const within = less(positions(windows.shape[windows.rank - 1], windows), unsqueeze(lengths, -1));
  const counted = where(within, windows, 0);
  return div(sum(counted, -1), cast(lengths, windows.dtype));
};
const maxOver: WindowReduction = (windows) => firstLargest(windows, argmax(windows.detach(), -1, true));

/** The largest element of each window of x [batch, channels, length]; the gradient goes to the first of equals. */
export const maxPool1d = (x: Tensor, size: number, options: MaxPoolingArguments = {}): Tensor =>
  maxPool("maxPool1d", x, size, options, 1);
/** The largest element of each window of x [batch, channels, height, width]; the gradient goes to the first of equals. */
export const maxPool2d = (x: Tensor, size: PerAxis, options: MaxPoolingArguments = {}): Tensor =>
  maxPool("maxPool2d", x, size, options, 2);
/** {@link maxPool1d} and where in x's length each largest element stands (int32, the first of equals). */
export const maxPool1dWithIndices = (
  x: Tensor,
  size: number,
  options: MaxPoolingArguments = {},
): { values: Tensor; indices: Tensor } => maxPoolWithIndices("maxPool1dWithIndices", x, size, options, 1);
/** {@link maxPool2d} and where in x's flattened [height, width] each largest element stands (int32, the first of equals). */
export const maxPool2dWithIndices = (
  x: Tensor,
  size: PerAxis,
  options: MaxPoolingArguments = {},
): { values: Tensor; indices: Tensor } => maxPoolWithIndices("maxPool2dWithIndices", x, size, options, 2);
/** The mean of each window of x [batch, channels, length]. */
export const avgPool1d = (x: Tensor, size: number, options: AveragePoolingArguments = {}): Tensor =>
  avgPool("avgPool1d", x, size, options, 1);
/** The mean of each window of x [batch, channels, height, width]. */
export const avgPool2d = (x: Tensor, size: PerAxis, options: AveragePoolingArguments = {}): Tensor =>
  avgPool("avgPool2d", x, size, options, 2);

/** The mean of each of `outputSize` parts of x [batch, channels, length], which overlap where they do not divide it, as in PyTorch. */
export const adaptiveAvgPool1d = (x: Tensor, outputSize: number): Tensor =>
  adaptivePool("adaptiveAvgPool1d", x, outputSize, 1, meanOver);
/** The mean of each of `outputSize` parts of x [batch, channels, height, width]. */
export const adaptiveAvgPool2d = (x: Tensor, outputSize: PerAxis): Tensor =>
  adaptivePool("adaptiveAvgPool2d", x, outputSize, 2, meanOver);
/** The largest element of each of `outputSize` parts of x [batch, channels, length]; the gradient goes to the first of equals. */
export const adaptiveMaxPool1d = (x: Tensor, outputSize: number): Tensor =>
  adaptivePool("adaptiveMaxPool1d", x, outputSize, 1, maxOver);
/** The largest element of each of `outputSize` parts of x [batch, channels, height, width]; the gradient goes to the first of equals. */
export const adaptiveMaxPool2d = (x: Tensor, outputSize: PerAxis): Tensor =>
  adaptivePool("adaptiveMaxPool2d", x, outputSize, 2, maxOver);
