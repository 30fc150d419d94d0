// Convolutions over one and two spatial axes: windows as a strided view, one copy of them (im2col), one matrix product a group.
// As everywhere in deep learning this is cross-correlation: the kernel is not mirrored.

import { requireInteger, requireList, requireOptions } from "../arguments.js";
import { ArgumentError, ShapeError } from "../errors.js";
import { tidy } from "../memory.js";
import { formatShape, sizeOf } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { commonBackend } from "./dispatch.js";
import { add } from "./elementwise.js";
import { matmul } from "./matmul.js";
import { pad } from "./rearrange.js";
import { permute, reshape } from "./view.js";
import { unfold } from "./windows.js";

/** One number for all spatial axes or one for each. */
export type PerAxis = number | readonly number[];

export interface ConvolutionArguments {
  /** Distance of windows (default 1). */
  stride?: PerAxis;
  /** Zeros before and after each spatial axis (default 0). */
  padding?: PerAxis;
  /** Distance of a window's elements (default 1). */
  dilation?: PerAxis;
  /** Into how many parts the channels are cut, each with output channels of its own (default 1). */
  groups?: number;
}

/** `value` for each of `count` spatial axes. */
export function perAxis(
  operation: string,
  name: string,
  value: PerAxis,
  count: number,
  least: number,
): readonly number[] {
  const list = typeof value === "number" ? Array<number>(count).fill(value) : value;
  requireList(operation, name, list);
  if (list.length !== count)
    throw new ArgumentError(`${operation}: ${name} [${list.join(", ")}] should have ${count} entries`);
  for (const entry of list) requireInteger(operation, name, entry, least);
  return list;
}

/** Windows over the last axes of x [..., spatial…]: [..., counts…, sizes…]; errors name `operation`. */
export function windowsOf(
  operation: string,
  x: Tensor,
  sizes: readonly number[],
  strides: readonly number[],
  dilations: readonly number[],
): Tensor {
  const first = x.rank - sizes.length;
  sizes.forEach((size, i) => {
    const span = dilations[i] * (size - 1) + 1;
    if (span > x.shape[first + i]) {
      throw new ShapeError(
        `${operation}: a window of ${span} does not fit axis ${first + i} of the padded input ${formatShape(x.shape)}`,
      );
    }
  });
  return tidy(() =>
    sizes.reduce((y, size, i) => unfold(y, first + i, size, strides[i], dilations[i]), x.alias()),
  );
}

function convolution(
  operation: string,
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null,
  options: ConvolutionArguments,
  spatial: number,
): Tensor {
  commonBackend(operation, bias ? [x, weight, bias] : [x, weight]);
  requireOptions(operation, options, ["stride", "padding", "dilation", "groups"]);
  const { groups = 1 } = options;
  requireInteger(operation, "groups", groups, 1);
  const stride = perAxis(operation, "stride", options.stride ?? 1, spatial, 1);
  const padding = perAxis(operation, "padding", options.padding ?? 0, spatial, 0);
  const dilation = perAxis(operation, "dilation", options.dilation ?? 1, spatial, 1);
  const rank = spatial + 2;
  const outChannels = weight.shape[0];
  if (x.rank !== rank || weight.rank !== rank) {
    const axes = spatial === 1 ? "length" : "height, width";
    throw new ShapeError(
      `${operation}: expected x [batch, inChannels, ${axes}] and weight [outChannels, inChannels / groups, kernel…], not ${formatShape(x.shape)} and ${formatShape(weight.shape)}`,
    );
  }
  if (x.shape[1] !== weight.shape[1] * groups || outChannels % groups !== 0) {
    throw new ShapeError(
      `${operation}: weight ${formatShape(weight.shape)} with ${groups} groups does not fit x ${formatShape(x.shape)} (channels ${x.shape[1]}, expected ${weight.shape[1] * groups}; ${outChannels} outputs in ${groups} groups)`,
    );
  }
  if (bias && (bias.rank !== 1 || bias.shape[0] !== outChannels))
    throw new ShapeError(`${operation}: bias ${formatShape(bias.shape)} should be [${outChannels}]`);
  return tidy(() => {
    const padded = padding.some((width) => width > 0)
      ? pad(
          x,
          padding.map((width) => [width, width] as const),
        )
      : x;
    const kernel = weight.shape.slice(2);
    // [batch, channels, counts…, kernel…]
    const windows = windowsOf(operation, padded, kernel, stride, dilation);
    const counts = windows.shape.slice(2, 2 + spatial);
    const [batch, channels] = x.shape;
    const axes = counts.map((_, i) => i);
    const order = [0, 1, ...axes.map((i) => 2 + spatial + i), ...axes.map((i) => 2 + i)];
    // [batch, groups, channels/groups · kernel, positions]
    const inner = (channels / groups) * sizeOf(kernel);
    const columns = reshape(permute(windows, order), [batch, groups, inner, sizeOf(counts)]);
    const rows = reshape(weight, [groups, outChannels / groups, inner]);
    const product = reshape(matmul(rows, columns), [batch, outChannels, ...counts]);
    return bias ? add(product, reshape(bias, [outChannels, ...counts.map(() => 1)])) : product;
  });
}

/**
 * Cross-correlation over one axis, as torch.nn.functional.conv1d.
 * @param x - [batch, inChannels, length]
 * @param weight - [outChannels, inChannels / groups, kernelSize]
 * @param bias - [outChannels], or null
 * @returns [batch, outChannels, ⌊(length + 2·padding − dilation·(kernelSize − 1) − 1) / stride⌋ + 1]
 */
export function conv1d(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null = null,
  options: ConvolutionArguments = {},
): Tensor {
  return convolution("conv1d", x, weight, bias, options, 1);
}

/**
 * Cross-correlation over two axes, as torch.nn.functional.conv2d; options may be given for each axis.
 * @param x - [batch, inChannels, height, width]
 * @param weight - [outChannels, inChannels / groups, kernelHeight, kernelWidth]
 * @param bias - [outChannels], or null
 */
export function conv2d(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null = null,
  options: ConvolutionArguments = {},
): Tensor {
  return convolution("conv2d", x, weight, bias, options, 2);
}
