// Convolutions and pooling on the wasm kernels: images put into frames, how windows are walked over, and how the work is cut, from
// shapes alone. Computes nothing itself.

import { sizeOf } from "../../shape.js";
import type { ConvolutionGeometry, Operand, PoolingAxis, PoolingKind } from "../types.js";
import { grainOperations, launchWindows, windowProduct } from "./matmul.js";
import type { WasmRuntime } from "./runtime.js";
import { rowGrain } from "./strided.js";

/** Most output channels a group that are summed where the windows stand: packing pays for more. */
const fewChannels = 3;
/** Elements of a chunk of pooling, and of copies. */
const poolChunk = 65536;
/** As in assembly/pooling.ts. */
const windowBytes = 16;
const poolingKinds: readonly PoolingKind[] = ["max", "mean", "paddedMean"];
/** Most elements of frames that a thread makes for itself. */
const ownFrame = 1 << 16;

/**
 * Runs `work` on the address of x [images, channels, rows, columns] with padding around, rows and columns long enough for `spans`; where
 * it makes its `own` frames, on x itself, and what kernels are told of frames: extents of x and of a frame, and the padding.
 */
function withFrame(
  runtime: WasmRuntime,
  x: Operand,
  { padding }: ConvolutionGeometry,
  spans: readonly number[],
  own: boolean,
  work: (at: number, extents: readonly number[], around: readonly number[] | null) => void,
): void {
  const [images, channels, ...extents] = x.shape;
  const source = runtime.address(x);
  if (spans.every((span, i) => padding[i] === 0 && span <= extents[i])) {
    work(source, extents, null);
    return;
  }
  const around = [...extents, ...spans, ...padding];
  if (own) {
    work(source, spans, around);
    return;
  }
  const { allocator, core } = runtime;
  const [rows, columns] = spans;
  const at = allocator.allocateUncounted(4 * images * channels * rows * columns);
  try {
    const grain = rowGrain(columns, poolChunk);
    core.launch("frame", images * channels * rows, [source, at, ...around], undefined, { grain });
    work(at, spans, null);
  } finally {
    allocator.freeUncounted(at);
  }
}

/** How far the windows of `counts` reach. */
function spansOf(
  { stride, dilation }: ConvolutionGeometry,
  counts: readonly number[],
  kernel: readonly number[],
): number[] {
  return counts.map((count, i) => (count - 1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1);
}

/** See `convolve` of the contract. */
export function convolve(
  runtime: WasmRuntime,
  x: Operand,
  weight: Operand,
  bias: Operand | null,
  geometry: ConvolutionGeometry,
  out: Operand,
): void {
  const [images, outChannels, ...counts] = out.shape;
  const [, inChannels, ...kernel] = weight.shape;
  const { groups, stride, dilation } = geometry;
  const k = inChannels * sizeOf(kernel);
  const spans = spansOf(geometry, counts, kernel);
  const m = outChannels / groups;
  const own = m <= fewChannels && inChannels * sizeOf(spans) <= ownFrame;
  withFrame(runtime, x, geometry, spans, own, (at, [rows, columns], around) => {
    const plane = 4 * rows * columns;
    const image = plane * inChannels * groups;
    const walk = [kernel[0], kernel[1], plane, 4 * columns * dilation[0], 4 * dilation[1]];
    const positions = counts[0] * counts[1];
    if (m <= fewChannels) {
      const ints = [
        at,
        runtime.address(weight),
        runtime.address(out),
        outChannels,
        m,
        counts[0],
        counts[1],
        k,
      ];
      const source = around ? 4 * x.shape[2] * x.shape[3] : plane;
      ints.push(source * inChannels * groups, source * inChannels, 4 * columns * stride[0], 4 * stride[1]);
      ints.push(...walk, bias ? runtime.address(bias) : 0);
      if (around) ints.push(inChannels, ...around);
      else ints.push(0);
      // Whole planes, so that a frame is made once.
      const planes = Math.ceil(grainOperations / ((2 * k * counts[1] + 256) * counts[0] * m));
      runtime.core.launch("windowRows", images * outChannels * counts[0], ints, undefined, {
        grain: around ? planes * m * counts[0] : Math.ceil(grainOperations / (2 * k * counts[1] + 256)),
        scratchBytes: 4 * k + (around ? inChannels * plane : 0),
      });
      return;
    }
    const across = [counts[0], counts[1], 0, 4 * columns * stride[0], 4 * stride[1]];
    const axes = [
      { length: groups, a: 4 * m * k, b: plane * inChannels, out: 4 * m * positions },
      { length: images, a: 0, b: image, out: 4 * outChannels * positions },
    ];
    const product = windowProduct(m, positions, k, runtime.address(weight), at, runtime.address(out), axes);
    const addends = bias ? [runtime.address(bias), outChannels] : [0, 1];
    if (bias) product.beta = 1;
    launchWindows(runtime, product, [...walk, ...across, ...addends]);
  });
}

/** See `convolveWeights` of the contract. */
export function convolveWeights(
  runtime: WasmRuntime,
  x: Operand,
  dy: Operand,
  geometry: ConvolutionGeometry,
  out: Operand,
): void {
  const [outChannels, images, ...counts] = dy.shape;
  const [, inChannels, ...kernel] = out.shape;
  const { groups, stride, dilation } = geometry;
  const m = outChannels / groups;
  const n = inChannels * sizeOf(kernel);
  const k = images * counts[0] * counts[1];
  withFrame(runtime, x, geometry, spansOf(geometry, counts, kernel), false, (at, [rows, columns]) => {
    const plane = 4 * rows * columns;
    const image = plane * inChannels * groups;
    const down = 4 * columns * stride[0];
    const taps = [kernel[0], kernel[1], plane, 4 * columns * dilation[0], 4 * dilation[1]];
    if (m <= fewChannels) {
      const ints = [at, runtime.address(dy), runtime.address(out), images, m, counts[0], counts[1], n];
      ints.push(image, plane * inChannels, down, 4 * stride[1], ...taps);
      runtime.core.launch("windowDots", outChannels * Math.ceil(n / 4), ints, undefined, {
        grain: Math.ceil(grainOperations / (8 * k)),
        scratchBytes: 4 * n,
      });
      return;
    }
    const walk = [counts[0], counts[1], image, down, 4 * stride[1]];
    const axes = [{ length: groups, a: 4 * m * k, b: plane * inChannels, out: 4 * m * n }];
    const product = windowProduct(m, n, k, runtime.address(dy), at, runtime.address(out), axes);
    launchWindows(runtime, product, [...walk, ...taps, 0, 1]);
  });
}

/** Runs a kernel of pooling on rows or planes, `units` of `elements` each. */
function launchPooling(
  runtime: WasmRuntime,
  kernel: string,
  units: number,
  elements: number,
  operands: readonly (Operand | null)[],
  axes: readonly PoolingAxis[],
  kind: PoolingKind,
): void {
  const ints = operands.map((x) => (x ? runtime.address(x) : 0));
  ints.push(poolingKinds.indexOf(kind));
  for (const { length, count, size, stride, padding, dilation } of axes)
    ints.push(length, count, size, stride, padding, dilation);
  const [, columns] = axes;
  runtime.core.launch(kernel, units, ints, undefined, {
    grain: rowGrain(elements + 16, poolChunk),
    scratchBytes: windowBytes * (columns.count + 1) + 4 * columns.length,
  });
}

/** See `pool` of the contract. */
export function pool(
  runtime: WasmRuntime,
  x: Operand,
  axes: readonly PoolingAxis[],
  kind: PoolingKind,
  out: Operand,
  indices: Operand | null,
): void {
  const [{ size }, columns] = axes;
  const elements = columns.count * Math.max(1, size * columns.size);
  const units = sizeOf(out.shape.slice(0, -1));
  launchPooling(runtime, "pool", units, elements, [x, out, indices], axes, kind);
}

/** See `poolBackward` of the contract. */
export function poolBackward(
  runtime: WasmRuntime,
  dy: Operand,
  axes: readonly PoolingAxis[],
  kind: PoolingKind,
  dx: Operand,
  indices: Operand | null,
): void {
  const plane = axes[0].length * axes[1].length;
  const planes = sizeOf(dx.shape.slice(0, 2));
  launchPooling(runtime, "poolBackward", planes, plane, [dy, dx, indices], axes, kind);
}
