// Inputs of peers' tasks: the same bits as this library's own entries get.

import { uniformWords } from "../inputs.js";
import type { ConvolutionTask, PoolingTask, ProductTask, WindowShape } from "./protocol.js";

export interface Stored {
  readonly values: Float32Array;
  readonly shape: number[];
}

export interface InputPair {
  readonly a: Stored;
  readonly b: Stored;
}

/** The operands as they are stored: transposed ones with their axes swapped. */
export function productInputs({ m, n, k, batch, transposes, seeds }: ProductTask): InputPair {
  const shape = (rows: number, columns: number, transposed: boolean): number[] => [
    ...(batch > 1 ? [batch] : []),
    ...(transposed ? [columns, rows] : [rows, columns]),
  ];
  return {
    a: { values: uniformWords(seeds[0], batch * m * k), shape: shape(m, k, transposes[0] === "T") },
    b: { values: uniformWords(seeds[1], batch * k * n), shape: shape(k, n, transposes[1] === "T") },
  };
}

/** Rows and columns of windows. */
export function windowCounts({ height, width, kernel, stride, padding }: WindowShape): [number, number] {
  const count = (extent: number, size: number): number =>
    Math.floor((extent + 2 * padding - size) / stride) + 1;
  return [count(height, kernel[0]), count(width, kernel[1])];
}

/** Images, weight and the output's gradient, channels before rows. */
export function convolutionInputs(task: ConvolutionTask): Record<"x" | "weight" | "dy", Stored> {
  const { images, channels, height, width, kernel, outChannels, groups, seeds } = task;
  const made = (seed: number, shape: number[]): Stored => ({
    values: uniformWords(
      seed,
      shape.reduce((product, extent) => product * extent, 1),
    ),
    shape,
  });
  return {
    x: made(seeds[0], [images, channels, height, width]),
    weight: made(seeds[1], [outChannels, channels / groups, ...kernel]),
    dy: made(seeds[2], [images, outChannels, ...windowCounts(task)]),
  };
}

/** The images of a pooling. */
export function poolingInput({ images, channels, height, width, seed }: PoolingTask): Stored {
  return {
    values: uniformWords(seed, images * channels * height * width),
    shape: [images, channels, height, width],
  };
}
