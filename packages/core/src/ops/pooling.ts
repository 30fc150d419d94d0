// Pooling: the largest or the mean of each window, by kernels, or by the composition that defines them; windows of a given size, or
// made to fit a given number of outputs.

import { requireOptions, use } from "../arguments.js";
import { needsGraph } from "../autograd/graph.js";
import { fusedBackward, gradientPlaces, type OwnRule } from "../autograd/rule.js";
import type { PoolingAxis, PoolingKind } from "../backend/types.js";
import { fromValues, full } from "../creation.js";
import { requireFloat } from "../dtype.js";
import { ArgumentError, ShapeError } from "../errors.js";
import { tidy } from "../memory.js";
import { checkShape, formatShape, sizeOf } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { type PerAxis, perAxis, windowCount } from "./convolution.js";
import { contiguous, empty, finishBy, operand } from "./dispatch.js";
import { cast, div, less, where } from "./elementwise.js";
import { fusedKernels } from "./fused.js";
import { gather } from "./indexing.js";

import { argmax, sum } from "./reduce.js";
import { takeFound } from "./selection.js";
import { concat, expand, reshape, transpose, unsqueeze } from "./view.js";

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

/** The rows of a line, which 1-d pooling leaves as they are. */
const oneRow: PoolingAxis = { length: 1, count: 1, size: 1, stride: 1, padding: 0, dilation: 1 };

interface Attributes {
  readonly axes: readonly PoolingAxis[];
  readonly kind: PoolingKind;
}

/** The windows along both axes of x. */
function axesOf(
  operation: string,
  x: Tensor,
  size: PerAxis,
  options: MaxPoolingArguments,
  spatial: number,
): PoolingAxis[] {
  checkInput(operation, x, spatial);
  requireOptions(operation, options, ["stride", "padding", "ceilMode", "dilation", "countIncludePad"]);
  const sizes = perAxis(operation, "size", size, spatial, 1);
  const strides = perAxis(operation, "stride", options.stride ?? sizes, spatial, 1);
  const paddings = perAxis(operation, "padding", options.padding ?? 0, spatial, 0);
  const dilations = perAxis(operation, "dilation", options.dilation ?? 1, spatial, 1);
  paddings.forEach((width, i) => {
    if (2 * width > sizes[i])
      throw new ArgumentError(`${operation}: padding ${width} exceeds half of the window's size ${sizes[i]}`);
  });
  const padded = x.shape.map((length, i) => (i < 2 ? length : length + 2 * paddings[i - 2]));
  const axes = sizes.map((size, i) => {
    const [stride, padding, dilation] = [strides[i], paddings[i], dilations[i]];
    const span = dilation * (size - 1) + 1;
    let count = windowCount(operation, padded, 2 + i, span, stride);
    // With ceilMode one more, unless it would start in the padding behind x.
    const next = count * stride;
    const rest = padded[2 + i] - span;
    if ((options.ceilMode ?? false) && rest % stride > 0 && next < padded[2 + i] - padding) count++;
    return { length: x.shape[2 + i], count, size, stride, padding, dilation };
  });
  return spatial === 1 ? [oneRow, axes[0]] : axes;
}

/** The axes of adaptive pooling. */
function adaptiveAxes(operation: string, x: Tensor, outputSize: PerAxis, spatial: number): PoolingAxis[] {
  checkInput(operation, x, spatial);
  const counts = perAxis(operation, "outputSize", outputSize, spatial, 0);
  checkShape(operation, counts);
  const axes = counts.map((count, i) => {
    const length = x.shape[2 + i];
    if (count > 0 && length === 0)
      throw new ShapeError(`${operation}: axis ${2 + i} of x ${formatShape(x.shape)} is empty`);
    // Windows that do not overlap are the usual ones.
    const size = length / count;
    const stride = Number.isInteger(size) ? size : 0;
    return { length, count, size, stride, padding: 0, dilation: 1 };
  });
  return spatial === 1 ? [oneRow, axes[0]] : axes;
}

function outputShape({ shape }: Tensor, [rows, columns]: readonly PoolingAxis[]): number[] {
  return shape.length === 3
    ? [shape[0], shape[1], columns.count]
    : [shape[0], shape[1], rows.count, columns.count];
}

/** The positions of window `i` along an axis, those outside x too. */
function positionsOf({ length, count, size, stride, padding, dilation }: PoolingAxis, i: number): number[] {
  if (stride > 0) return Array.from({ length: size }, (_, k) => i * stride - padding + k * dilation);
  const start = Math.floor((i * length) / count);
  return Array.from({ length: Math.ceil(((i + 1) * length) / count) - start }, (_, k) => start + k);
}

/**
 * What defines pooling: all elements of all windows by their places, the last place standing for what lies outside x, and the largest
 * of them, or their sum, by how many count.
 */
function composition(x: Tensor, { axes, kind }: Attributes): { values: Tensor; indices: Tensor | null } {
  const [batch, channels] = x.shape;
  const planes = batch * channels;
  const outside = sizeOf(axes.map(({ length }) => length));
  // For each window its places in x's plane, and how many elements count: the product over axes.
  let windows: { places: number[]; counted: number }[] = [{ places: [0], counted: 1 }];
  for (const axis of axes) {
    const { length, count, padding } = axis;
    const along = Array.from({ length: count }, (_, i) => positionsOf(axis, i));
    windows = windows.flatMap((before) =>
      along.map((positions) => {
        const reach = kind === "paddedMean" ? padding : 0;
        const inReach = positions.filter((at) => at >= -reach && at < length + reach);
        return {
          places: before.places.flatMap((place) =>
            positions.map((at) => (place < 0 || at < 0 || at >= length ? -1 : place * length + at)),
          ),
          counted: before.counted * inReach.length,
        };
      }),
    );
  }
  const most = windows.reduce((longest, { places }) => Math.max(longest, places.length), 0);
  const table = new Int32Array(windows.length * most).fill(outside);
  windows.forEach(({ places }, i) => {
    places.forEach((place, k) => {
      if (place >= 0) table[i * most + k] = place;
    });
  });
  const { backend } = x.storage;
  const { dtype, device } = x;
  const shape = outputShape(x, axes);
  return tidy(() => {
    const filler = full([1, planes], kind === "max" ? Number.NEGATIVE_INFINITY : 0, { dtype, device });
    const elements = concat([transpose(reshape(x, [planes, outside]), 0, 1), filler], 0);
    const places = fromValues(backend, "int32", [windows.length, most], table);
    // [windows, elements, planes]
    const found = gather(elements, places);
    const back = (y: Tensor) => reshape(transpose(reshape(y, [windows.length, planes]), 0, 1), shape);
    if (kind !== "max") {
      const counts = fromValues(
        backend,
        "float32",
        [windows.length, 1],
        new Float32Array(windows.map((w) => w.counted)),
      );
      return { values: back(div(sum(found, 1), cast(counts, dtype))), indices: null };
    }
    const first = argmax(found.detach(), 1, true);
    const at = takeFound(expand(unsqueeze(places, -1), found.shape), first, 1);
    return {
      // Unlike that of `max`, the gradient goes to the first of equals alone.
      values: back(takeFound(found, first, 1)),
      indices: back(where(less(at, outside), at, -1)),
    };
  });
}

export const poolingRule: OwnRule<Attributes> = {
  name: "pooling",
  needs: () => [0, "extras"],
  backward: (c, dy) =>
    fusedBackward(
      c,
      dy,
      1,
      ([x]) => composition(x, c.attributes).values,
      (dy) => {
        const { axes, kind } = c.attributes;
        const [places, [dx]] = gradientPlaces(c, dy);
        const indices = kind === "max" ? operand(c.extra(0)) : null;
        dy.storage.backend.fused.poolBackward!(operand(dy), axes, kind, dx!, indices);
        return places;
      },
    ),
};

function pooled(
  x: Tensor,
  attributes: Attributes,
  withIndices = false,
): { values: Tensor; indices: Tensor | null } {
  const { axes, kind } = attributes;
  const shape = outputShape(x, axes);
  if (!fusedKernels([x], "pool", "poolBackward") || x.size * sizeOf(shape) === 0)
    return composition(x, attributes);
  return tidy(() => {
    const { backend } = x.storage;
    const source = contiguous(x);
    const out = empty(backend, x.dtype, shape);
    // The gradient of the largest goes where it stood.
    const found = kind === "max" && (withIndices || needsGraph([x]));
    const indices = found ? empty(backend, "int32", shape) : null;
    backend.fused.pool!(operand(source), axes, kind, operand(out), indices && operand(indices));
    return { values: finishBy(poolingRule, [source], attributes, out, indices ? [indices] : []), indices };
  });
}

const maxPool = (x: Tensor, axes: readonly PoolingAxis[]): Tensor =>
  tidy(() => pooled(x, { axes, kind: "max" }).values);

function maxPoolWithIndices(x: Tensor, axes: readonly PoolingAxis[]): { values: Tensor; indices: Tensor } {
  const { values, indices } = pooled(x, { axes, kind: "max" }, true);
  return { values, indices: indices! };
}

function avgPool(x: Tensor, axes: readonly PoolingAxis[], countPadding: boolean): Tensor {
  return pooled(x, { axes, kind: countPadding ? "paddedMean" : "mean" }).values;
}

/** The largest element of each window of x [batch, channels, length]; the gradient goes to the first of equals. */
export const maxPool1d = (x: Tensor, size: number, options: MaxPoolingArguments = {}): Tensor =>
  maxPool(x, axesOf("maxPool1d", x, size, options, 1));
/** The largest element of each window of x [batch, channels, height, width]; the gradient goes to the first of equals. */
export const maxPool2d = (x: Tensor, size: PerAxis, options: MaxPoolingArguments = {}): Tensor =>
  maxPool(x, axesOf("maxPool2d", x, size, options, 2));
/**
 * {@link maxPool1d} and where in x's length each largest element stands: int32, the first of equals; −1 for a window that has no element
 * of x, as a dilated one may.
 */
export const maxPool1dWithIndices = (
  x: Tensor,
  size: number,
  options: MaxPoolingArguments = {},
): { values: Tensor; indices: Tensor } =>
  maxPoolWithIndices(x, axesOf("maxPool1dWithIndices", x, size, options, 1));
/**
 * {@link maxPool2d} and where in x's flattened [height, width] each largest element stands: int32, the first of equals; −1 for a window
 * that has no element of x, as a dilated one may.
 */
export const maxPool2dWithIndices = (
  x: Tensor,
  size: PerAxis,
  options: MaxPoolingArguments = {},
): { values: Tensor; indices: Tensor } =>
  maxPoolWithIndices(x, axesOf("maxPool2dWithIndices", x, size, options, 2));
/** The mean of each window of x [batch, channels, length]. */
export const avgPool1d = (x: Tensor, size: number, options: AveragePoolingArguments = {}): Tensor =>
  avgPool(x, axesOf("avgPool1d", x, size, options, 1), options.countIncludePad ?? true);
/** The mean of each window of x [batch, channels, height, width]. */
export const avgPool2d = (x: Tensor, size: PerAxis, options: AveragePoolingArguments = {}): Tensor =>
  avgPool(x, axesOf("avgPool2d", x, size, options, 2), options.countIncludePad ?? true);

/** The mean of each of `outputSize` parts of x [batch, channels, length], which overlap where they do not divide it, as in PyTorch. */
export const adaptiveAvgPool1d = (x: Tensor, outputSize: number): Tensor =>
  avgPool(x, adaptiveAxes("adaptiveAvgPool1d", x, outputSize, 1), false);
/** The mean of each of `outputSize` parts of x [batch, channels, height, width]. */
export const adaptiveAvgPool2d = (x: Tensor, outputSize: PerAxis): Tensor =>
  avgPool(x, adaptiveAxes("adaptiveAvgPool2d", x, outputSize, 2), false);
/** The largest element of each of `outputSize` parts of x [batch, channels, length]; the gradient goes to the first of equals. */
export const adaptiveMaxPool1d = (x: Tensor, outputSize: number): Tensor =>
  maxPool(x, adaptiveAxes("adaptiveMaxPool1d", x, outputSize, 1));
/** The largest element of each of `outputSize` parts of x [batch, channels, height, width]; the gradient goes to the first of equals. */
export const adaptiveMaxPool2d = (x: Tensor, outputSize: PerAxis): Tensor =>
  maxPool(x, adaptiveAxes("adaptiveMaxPool2d", x, outputSize, 2));
