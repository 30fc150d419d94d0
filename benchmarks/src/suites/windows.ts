// Convolutions of images, their two gradients, and pooling.

import { avgPool2d, conv2d, maxPool2d, type Tensor, tensor } from "@nomoat/core";
import { Comparison, type Places, sharedReference, spreadOver, valuesAt } from "../accuracy.js";
import { hash } from "../inputs.js";
import type { Accuracy, Prepared } from "../model.js";
import { convolutionInputs, poolingInput, type Stored, windowCounts } from "../peers/inputs.js";
import type { ConvolutionTask, PoolingTask } from "../peers/protocol.js";
import { arithmetic, type Case, movement, type Suite, type Sweep, valuesOf } from "./suite.js";

export type WindowTask = ConvolutionTask | PoolingTask;

/** Sums of up to 25,088 products in float32: half a unit each at worst, and they cancel. */
const tolerance = 3e-5;
/** Values of a result that are compared. */
const mostPlaces = 400;

type Convolution = readonly [
  images: number,
  channels: number,
  size: number,
  outChannels: number,
  kernel: number,
  stride?: number,
  groups?: number,
];

function convolution(shape: Convolution, wanted: ConvolutionTask["wanted"] = "output"): ConvolutionTask {
  const [images, channels, size, outChannels, kernel, stride = 1, groups = 1] = shape;
  return {
    ...{ kind: "convolution", images, channels, height: size, width: size, outChannels, groups, wanted },
    ...{ kernel: [kernel, kernel], stride, padding: Math.floor(kernel / 2) },
    seeds: [hash("x"), hash("weight"), hash("dy")],
  };
}

function pooling(
  reduction: PoolingTask["reduction"],
  channels: number,
  size: number,
  kernel: number,
  padding: number,
): PoolingTask {
  return {
    ...{ kind: "pooling", reduction, images: 8, channels, height: size, width: size },
    ...{ kernel: [kernel, kernel], stride: 2, padding, seed: hash("x") },
  };
}

const block: Convolution = [8, 64, 56, 64, 3];
const first: Convolution = [1, 3, 224, 32, 3, 2];
const depthwise: Convolution = [8, 64, 56, 64, 3, 1, 64];

/** What peers are asked for too. */
const common: readonly WindowTask[] = [
  convolution(block),
  convolution(block, "input"),
  convolution(block, "weight"),
  convolution([8, 64, 56, 128, 1]),
  convolution(first),
  convolution(depthwise),
  pooling("max", 64, 112, 3, 1),
  pooling("mean", 64, 112, 2, 0),
];

const others: readonly WindowTask[] = [
  convolution([8, 256, 14, 256, 3]),
  convolution([8, 512, 7, 512, 3]),
  convolution([2, 63, 29, 65, 3]),
  convolution([8, 64, 56, 128, 3, 2]),
  convolution([8, 64, 56, 128, 3, 2], "input"),
  convolution([8, 64, 56, 128, 3, 2], "weight"),
  convolution([8, 64, 28, 64, 3, 1, 4]),
  convolution([...depthwise.slice(0, 5), 2, 64] as unknown as Convolution),
  convolution(depthwise, "input"),
  convolution(depthwise, "weight"),
  convolution([1, 3, 6, 4, 3]),
];

const quick: readonly WindowTask[] = [convolution([2, 16, 28, 16, 3]), pooling("max", 8, 28, 3, 1)];

/** The tasks of a sweep that peers get. */
export const commonTasks = ({ effort }: Sweep): readonly WindowTask[] =>
  effort === "quick" ? quick : common;

/** What a task is, without who computes it. */
export function describeTask(task: WindowTask): Omit<Case, "prepare"> {
  const { images, channels, height, width, kernel, stride, padding } = task;
  const counts = windowCounts(task);
  const windows = counts[0] * counts[1];
  const window = `${kernel.join("x")}${stride > 1 ? ` stride ${stride}` : ""}`;
  const input = `${images}x${channels}x${height}x${width}`;
  const suite = "windows";
  const shape = { images, channels, height, width, kernel: kernel.join("x"), stride, padding };
  if (task.kind === "pooling") {
    const name = `${task.reduction} pooling ${input}, ${window}`;
    const bytes = 4 * images * channels * (height * width + windows);
    const operations = images * channels * windows * kernel[0] * kernel[1];
    return { suite, name, parameters: { ...shape, kind: task.reduction }, work: movement(bytes, operations) };
  }
  const { outChannels, groups, wanted } = task;
  const weights = (outChannels * channels * kernel[0] * kernel[1]) / groups;
  const bytes = 4 * (images * (channels * height * width + outChannels * windows) + weights);
  const what = wanted === "output" ? "" : `, gradient of the ${wanted}`;
  return {
    suite,
    name: `convolution ${input} → ${outChannels}, ${window}${groups > 1 ? `, ${groups} groups` : ""}${what}`,
    parameters: { ...shape, kind: wanted, outChannels, groups },
    work: arithmetic(2 * images * windows * weights, bytes),
  };
}

/** One value of a convolution's result, from its definition. */
function convolutionValue(
  task: ConvolutionTask,
  { x, weight, dy }: Record<string, Stored>,
  at: number,
): number {
  const { images, channels, height, width, kernel, outChannels, groups, wanted, stride, padding } = task;
  const [rows, columns] = windowCounts(task);
  const [each, out] = [channels / groups, outChannels / groups];
  let sum = 0;
  /** Every product of the sum: channel i of the image's group, element (r, s) of the window at (y, z). */
  const add = (n: number, o: number, i: number, r: number, s: number, y: number, z: number): void => {
    const [top, left] = [y * stride + r - padding, z * stride + s - padding];
    if (top < 0 || top >= height || left < 0 || left >= width || y < 0 || y >= rows || z < 0 || z >= columns)
      return;
    const channel = Math.floor(o / out) * each + i;
    const image = x.values[((n * channels + channel) * height + top) * width + left];
    const factor = weight.values[((o * each + i) * kernel[0] + r) * kernel[1] + s];
    const gradient = dy.values[((n * outChannels + o) * rows + y) * columns + z];
    sum += wanted === "output" ? image * factor : wanted === "input" ? factor * gradient : image * gradient;
  };
  const shape = { output: dy.shape, input: x.shape, weight: weight.shape }[wanted];
  const [a, b, c, d] = placeIn(shape, at);
  const window = (visit: (r: number, s: number) => void): void => {
    for (let r = 0; r < kernel[0]; r++) for (let s = 0; s < kernel[1]; s++) visit(r, s);
  };
  if (wanted === "output") {
    for (let i = 0; i < each; i++) window((r, s) => add(a, b, i, r, s, c, d));
  } else if (wanted === "input") {
    const group = Math.floor(b / each);
    for (let o = group * out; o < (group + 1) * out; o++)
      window((r, s) => {
        const [y, z] = [(c + padding - r) / stride, (d + padding - s) / stride];
        if (Number.isInteger(y) && Number.isInteger(z)) add(a, o, b % each, r, s, y, z);
      });
  } else {
    for (let n = 0; n < images; n++)
      for (let y = 0; y < rows; y++) for (let z = 0; z < columns; z++) add(n, a, b, c, d, y, z);
  }
  return sum;
}

function placeIn(shape: readonly number[], at: number): number[] {
  let rest = at;
  return shape
    .toReversed()
    .map((extent) => {
      const place = rest % extent;
      rest = Math.floor(rest / extent);
      return place;
    })
    .reverse();
}

function poolingValue(task: PoolingTask, { values, shape }: Stored, at: number): number {
  const { height, width, kernel, stride, padding, reduction } = task;
  const [n, c, y, z] = placeIn([...shape.slice(0, 2), ...windowCounts(task)], at);
  const found: number[] = [];
  for (let r = y * stride - padding; r < y * stride - padding + kernel[0]; r++)
    for (let s = z * stride - padding; s < z * stride - padding + kernel[1]; s++)
      if (r >= 0 && r < height && s >= 0 && s < width)
        found.push(values[((n * shape[1] + c) * height + r) * width + s]);
  return reduction === "max" ? Math.max(...found) : found.reduce((sum, value) => sum + value) / found.length;
}

/** Where a result is compared, and with what. */
export function checkOf(task: WindowTask): { places: Places; compare(values: ArrayLike<number>): Accuracy } {
  const { images, channels } = task;
  const counts = windowCounts(task);
  let shape: readonly number[] = [images, channels, ...counts];
  if (task.kind === "convolution") {
    const { x, weight, dy } = convolutionInputs(task);
    shape = { output: dy.shape, input: x.shape, weight: weight.shape }[task.wanted];
  }
  const size = shape.reduce((product, extent) => product * extent, 1);
  // Steps that no extent divides, or all places would lie in one column.
  const columns = spreadOver(size, mostPlaces).map((place, i) => Math.max(0, place - (i % 7)));
  const places = { rows: [0], columns, width: size };
  const reference = (): number[] =>
    sharedReference(`windows ${describeTask(task).name}`, () => {
      if (task.kind === "pooling") {
        const input = poolingInput(task);
        return columns.map((at) => poolingValue(task, input, at));
      }
      const inputs = convolutionInputs(task);
      return columns.map((at) => convolutionValue(task, inputs, at));
    });
  return {
    places,
    compare(values) {
      const comparison = new Comparison();
      for (const [i, value] of reference().entries()) comparison.add(values[i], value);
      return comparison.result(tolerance);
    },
  };
}

const asTensor = ({ values, shape }: Stored): Tensor => tensor(values, { shape });

/** Inputs and a call on the active backend; of gradients the forward pass runs once, before. */
export function prepareTask(task: WindowTask): Prepared {
  const { places, compare } = checkOf(task);
  const verify = (make: () => Tensor) => (): Accuracy => {
    const result = make();
    const accuracy = compare(valuesAt(valuesOf(result), places));
    result.dispose();
    return accuracy;
  };
  const { kernel, stride, padding } = task;
  if (task.kind === "pooling") {
    const x = asTensor(poolingInput(task));
    const call = (): Tensor =>
      task.reduction === "max"
        ? maxPool2d(x, kernel, { stride, padding })
        : avgPool2d(x, kernel, { stride, padding, countIncludePad: false });
    return { run: () => call().dispose(), verify: verify(call), dispose: () => x.dispose() };
  }
  const { groups, wanted } = task;
  const stored = convolutionInputs(task);
  const [x, weight, dy] = [stored.x, stored.weight, stored.dy].map(asTensor);
  const options = { stride, padding, groups };
  const dispose = (): void => {
    for (const one of [x, weight, dy]) one.dispose();
  };
  if (wanted === "output") {
    const call = (): Tensor => conv2d(x, weight, null, options);
    return { run: () => call().dispose(), verify: verify(call), dispose };
  }
  const leaf = wanted === "input" ? x : weight;
  leaf.requiresGrad = true;
  const y = conv2d(x, weight, null, options);
  const call = (): Tensor => {
    y.backward(dy, { retainGraph: true });
    const { grad } = leaf;
    leaf.grad = null;
    return grad!;
  };
  return {
    run: () => call().dispose(),
    verify: verify(call),
    dispose() {
      y.dispose();
      dispose();
    },
  };
}

export const windows: Suite = {
  name: "windows",
  about: "convolutions of images, by channels and in groups, their gradients, pooling",
  cases: (sweep) =>
    [...commonTasks(sweep), ...(sweep.effort === "quick" ? [] : others)].map((task) => ({
      ...describeTask(task),
      prepare: () => prepareTask(task),
    })),
};
