// Largest and mean elements of windows over one and two spatial axes.

import { ones } from "../creation.js";
import { ArgumentError, ShapeError } from "../errors.js";
import { tidy } from "../memory.js";
import { formatShape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { type PerAxis, perAxis, windowsOf } from "./convolution.js";
import { div } from "./elementwise.js";
import { pad } from "./rearrange.js";
import { max, mean, sum } from "./reduce.js";

export interface PoolingArguments {
  /** Distance of windows (default: their size). */
  stride?: PerAxis;
  /** Places outside x before and after each spatial axis, at most half a window (default 0). */
  padding?: PerAxis;
}

export interface AveragePoolingArguments extends PoolingArguments {
  /** Whether padding counts as zeros (default true, as in PyTorch) or not at all. */
  countIncludePad?: boolean;
}

function pooled(
  operation: string,
  x: Tensor,
  size: PerAxis,
  options: PoolingArguments,
  spatial: number,
  outside: number,
  reduce: (windows: Tensor, axes: number[], windowsLike: (y: Tensor) => Tensor, padding: number[]) => Tensor,
): Tensor {
  x.use(operation);
  if (x.rank !== spatial + 2) {
    const axes = spatial === 1 ? "length" : "height, width";
    throw new ShapeError(`${operation}: expected x [batch, channels, ${axes}], not ${formatShape(x.shape)}`);
  }
  const sizes = perAxis(operation, "size", size, spatial, 1);
  const stride = perAxis(operation, "stride", options.stride ?? sizes, spatial, 1);
  const padding = perAxis(operation, "padding", options.padding ?? 0, spatial, 0);
  padding.forEach((width, i) => {
    if (2 * width > sizes[i])
      throw new ArgumentError(`${operation}: padding ${width} exceeds half of the window's size ${sizes[i]}`);
  });
  const widths = padding.map((width) => [width, width] as const);
  const around = (y: Tensor, value: number) =>
    padding.some((width) => width > 0) ? pad(y, widths, value) : y;
  const dilation = sizes.map(() => 1);
  return tidy(() => {
    const windows = windowsOf(operation, around(x, outside), sizes, stride, dilation);
    const axes = sizes.map((_, i) => 2 + spatial + i);
    return reduce(windows, axes, (y) => windowsOf(operation, around(y, 0), sizes, stride, dilation), padding);
  });
}

function maxPool(
  operation: string,
  x: Tensor,
  size: PerAxis,
  options: PoolingArguments,
  spatial: number,
): Tensor {
  return pooled(operation, x, size, options, spatial, Number.NEGATIVE_INFINITY, (windows, axes) =>
    max(windows, axes),
  );
}

function avgPool(
  operation: string,
  x: Tensor,
  size: PerAxis,
  options: AveragePoolingArguments,
  spatial: number,
): Tensor {
  return pooled(operation, x, size, options, spatial, 0, (windows, axes, windowsLike, padding) => {
    if ((options.countIncludePad ?? true) || padding.every((width) => width === 0))
      return mean(windows, axes);
    const inside = ones([1, 1, ...x.shape.slice(2)], { dtype: x.dtype, device: x.device });
    return div(sum(windows, axes), sum(windowsLike(inside), axes));
  });
}

/** The largest element of each window of x [batch, channels, length]; equal ones share the gradient. */
export const maxPool1d = (x: Tensor, size: number, options: PoolingArguments = {}): Tensor =>
  maxPool("maxPool1d", x, size, options, 1);
/** The largest element of each window of x [batch, channels, height, width]; equal ones share the gradient. */
export const maxPool2d = (x: Tensor, size: PerAxis, options: PoolingArguments = {}): Tensor =>
  maxPool("maxPool2d", x, size, options, 2);
/** The mean of each window of x [batch, channels, length]. */
export const avgPool1d = (x: Tensor, size: number, options: AveragePoolingArguments = {}): Tensor =>
  avgPool("avgPool1d", x, size, options, 1);
/** The mean of each window of x [batch, channels, height, width]. */
export const avgPool2d = (x: Tensor, size: PerAxis, options: AveragePoolingArguments = {}): Tensor =>
  avgPool("avgPool2d", x, size, options, 2);
