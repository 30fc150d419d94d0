// Convolutions over one and two spatial axes, by kernels, or by the composition that defines them: windows as a strided view, one copy
// of them (im2col), one matrix product a group. As everywhere in deep learning this is cross-correlation: the kernel is not mirrored.

import { requireInteger, requireOptions, requireThat } from "../arguments.js";
import { gradientsThrough } from "../autograd/backward.js";
import type { OwnRule } from "../autograd/rule.js";
import type { ConvolutionGeometry, Operand } from "../backend/types.js";
import { ArgumentError, ShapeError } from "../errors.js";
import { contiguousLayout } from "../layout.js";
import { tidy } from "../memory.js";
import { checkShape, formatShape, sizeOf } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { commonBackend, contiguous, empty, filled, finishBy, operand } from "./dispatch.js";
import { add } from "./elementwise.js";
import { fusedKernels, recordsBackward } from "./fused.js";
import { matmul } from "./matmul.js";
import { pad } from "./rearrange.js";
import { sum } from "./reduce.js";
import { permute, reshape, transpose } from "./view.js";
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
  requireThat(Array.isArray(list), operation, name, `a number or ${count} of them`, value);
  if (list.length !== count)
    throw new ArgumentError(`${operation}: ${name} [${list.join(", ")}] should have ${count} entries`);
  for (const entry of list) requireInteger(operation, name, entry, least);
  return list;
}

/**
 * How many windows of `span` elements, `stride` apart, fit into `length`.
 * @throws {ShapeError} when none does; `padded` is what they lie in
 */
export function windowCount(
  operation: string,
  padded: readonly number[],
  axis: number,
  span: number,
  stride: number,
): number {
  const length = padded[axis];
  if (span > length) {
    throw new ShapeError(
      `${operation}: a window of ${span} does not fit axis ${axis} of the padded input ${formatShape(padded)}`,
    );
  }
  return Math.floor((length - span) / stride) + 1;
}

function convolution(
  operation: string,
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null,
  options: ConvolutionArguments,
  spatial: number,
): Tensor {
  const inputs = bias ? [x, weight, bias] : [x, weight];
  commonBackend(operation, inputs);
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
  const padded = x.shape.map((extent, i) => (i < 2 ? extent : extent + 2 * padding[i - 2]));
  checkShape(operation, padding);
  const counts = stride.map((step, i) =>
    windowCount(operation, padded, 2 + i, dilation[i] * (weight.shape[2 + i] - 1) + 1, step),
  );
  const shape = [x.shape[0], outChannels, ...counts];
  // One spatial axis is the second of two.
  const two = (list: readonly number[], first: number) => (spatial === 1 ? [first, list[0]] : list);
  const geometry = { stride: two(stride, 1), padding: two(padding, 0), dilation: two(dilation, 1), groups };
  if (!fusedKernels(inputs, "convolve", "convolveWeights") || x.size * weight.size * sizeOf(shape) === 0)
    return composition(inputs, geometry, shape);
  return tidy(() => {
    const [images, kernels, addends] = inputs.map(contiguous);
    const { backend } = x.storage;
    const out = empty(backend, x.dtype, shape);
    const addend = addends ? operand(addends) : null;
    backend.fused.convolve!(planar(images), planar(kernels), addend, geometry, planar(out));
    return finishBy(convolutionRule, addends ? [images, kernels, addends] : [images, kernels], geometry, out);
  });
}

/** What defines convolution: the windows of x as a strided view, one copy of them, one matrix product a group. */
function composition(
  [x, weight, bias]: readonly Tensor[],
  geometry: ConvolutionGeometry,
  shape: readonly number[],
): Tensor {
  return tidy(() => {
    const kernel = weight.shape.slice(2);
    const [stride, padding, dilation] = [geometry.stride, geometry.padding, geometry.dilation].map((list) =>
      list.slice(-kernel.length),
    );
    const around = padding.map((width) => [width, width] as const);
    let windows = padding.some((width) => width > 0) ? pad(x, around) : x;
    kernel.forEach((size, i) => {
      windows = unfold(windows, 2 + i, size, stride[i], dilation[i]);
    });
    const [batch, outChannels, ...counts] = shape;
    const { groups } = geometry;
    // [batch, channels, counts…, kernel…] → [batch, groups, channels/groups · kernel, positions]
    const spatial = counts.length;
    const order = counts.map((_, i) => 2 + spatial + i).concat(counts.map((_, i) => 2 + i));
    const inner = weight.shape[1] * sizeOf(kernel);
    const columns = reshape(permute(windows, [0, 1, ...order]), [batch, groups, inner, sizeOf(counts)]);
    const rows = reshape(weight, [groups, outChannels / groups, inner]);
    const product = reshape(matmul(rows, columns), shape);
    return bias ? add(product, reshape(bias, [outChannels, ...counts.map(() => 1)])) : product;
  });
}

/** A contiguous tensor as kernels take it, with two spatial axes. */
function planar(x: Tensor): Operand {
  const { shape, offset } = x.layout;
  if (shape.length === 4) return operand(x);
  const { shape: two, strides } = contiguousLayout([shape[0], shape[1], 1, shape[2]]);
  return operand(x, { shape: two, strides, offset });
}

/** Positions of an axis of x that are as far from a stride: those windows reach them that take every `step`-th element, from `first`. */
interface Phase {
  readonly count: number;
  readonly first: number;
  readonly step: number;
  readonly taps: number;
  readonly dilation: number;
  readonly padding: number;
}

/**
 * The gradient of x along an axis, position by position y = r + stride·q: x[y] meets element k in window (y + padding − k·dilation) /
 * stride where that is whole, so for every g-th k, g = stride / gcd(stride, dilation). For each r that is a convolution of the
 * windows' gradients, of stride 1, with those elements in reverse.
 */
function phasesOf(extent: number, size: number, stride: number, padding: number, dilation: number): Phase[] {
  let divisor = stride;
  for (let rest = dilation; rest > 0; ) [divisor, rest] = [rest, divisor % rest];
  const step = stride / divisor;
  return Array.from({ length: Math.min(stride, extent) }, (_, r) => {
    let first = 0;
    while (first < step && (r + padding - first * dilation) % stride !== 0) first++;
    const taps = first < step ? Math.max(0, Math.ceil((size - first) / step)) : 0;
    const apart = dilation / divisor;
    const before = (taps - 1) * apart - (r + padding - first * dilation) / stride;
    return { count: Math.ceil((extent - r) / stride), first, step, taps, dilation: apart, padding: before };
  });
}

/** dx from dy and the weight. */
function inputGradient(
  dy: Tensor,
  weight: Tensor,
  geometry: ConvolutionGeometry,
  shape: readonly number[],
): Tensor {
  const { backend } = dy.storage;
  const dx = empty(backend, dy.dtype, shape);
  const [target, source, given] = [planar(dx), planar(dy), planar(weight)];
  const { stride, padding, dilation, groups } = geometry;
  const [outChannels, inChannels, ...kernel] = given.shape;
  const [images, channels, height, width] = target.shape;
  const phases = [0, 1].map((i) =>
    phasesOf(target.shape[2 + i], kernel[i], stride[i], padding[i], dilation[i]),
  );
  const [plane, line] = [kernel[0] * kernel[1], kernel[1]];
  phases[0].forEach((down, top) => {
    phases[1].forEach((across, left) => {
      const part = {
        ...target,
        shape: [images, channels, down.count, across.count],
        strides: [channels * height * width, height * width, stride[0] * width, stride[1]],
        offset: target.offset + top * width + left,
      };
      const taps = [down.taps, across.taps] as const;
      if (taps[0] * taps[1] === 0) {
        backend.fill(part, 0);
        return;
      }
      // [groups, inChannels, outChannels / groups, taps…], from the last tap to the first.
      const each = outChannels / groups;
      const turned = empty(backend, dy.dtype, [channels, each, ...taps]);
      const reversed = {
        ...given,
        shape: [groups, inChannels, each, ...taps],
        strides: [each * inChannels * plane, plane, inChannels * plane, -down.step * line, -across.step],
        offset:
          given.offset +
          (down.first + (taps[0] - 1) * down.step) * line +
          across.first +
          (taps[1] - 1) * across.step,
      };
      backend.copy(reversed, { ...operand(turned), ...contiguousLayout(reversed.shape) });
      const whole = stride[0] * stride[1] === 1;
      const result = whole ? dx : empty(backend, dy.dtype, part.shape);
      const place = whole ? target : operand(result);
      const turnedGeometry: ConvolutionGeometry = {
        stride: [1, 1],
        dilation: [down.dilation, across.dilation],
        padding: [down.padding, across.padding],
        groups,
      };
      backend.fused.convolve!(source, operand(turned), null, turnedGeometry, place);
      if (!whole) backend.copy(place, part);
      turned.dispose();
      if (!whole) result.dispose();
    });
  });
  return dx;
}

function weightGradient(
  x: Tensor,
  dy: Tensor,
  geometry: ConvolutionGeometry,
  shape: readonly number[],
): Tensor {
  const { backend } = dy.storage;
  const out = empty(backend, dy.dtype, shape);
  // [outChannels, images, …]: then all of a channel's elements lie in the order of the sum.
  const turned = dy.shape[0] === 1 ? dy.reshape([dy.shape[1], 1, ...dy.shape.slice(2)]) : null;
  const byChannel = turned ?? contiguous(transpose(dy, 0, 1));
  backend.fused.convolveWeights!(planar(x), planar(byChannel), geometry, planar(out));
  return out;
}

export const convolutionRule: OwnRule<ConvolutionGeometry> = {
  name: "convolution",
  needs: (index) => (index === 0 ? [1] : index === 1 ? [0] : []),
  backward: (c, dy) => {
    const shape = dy.shape;
    // What does not matter for the gradients that are wanted was not kept.
    const input = (i: number) =>
      i < 2 && c.wants[1 - i] ? c.input(i) : filled(dy.storage.backend, dy.dtype, c.shape(i), 0);
    if (recordsBackward()) {
      const inputs = c.wants.map((_, i) => input(i));
      return gradientsThrough((given) => composition(given, c.attributes, shape), inputs, dy, c.wants);
    }
    const whole = contiguous(dy);
    const axes = shape.map((_, i) => i).filter((i) => i !== 1);
    return [
      c.wants[0] ? inputGradient(whole, c.input(1), c.attributes, c.shape(0)) : undefined,
      c.wants[1] ? weightGradient(c.input(0), whole, c.attributes, c.shape(1)) : undefined,
      c.wants[2] ? sum(whole, axes) : undefined,
    ];
  },
};

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
