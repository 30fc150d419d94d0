// What several tests share.

import { Generator, matmul, randn, type Tensor, tensor, tidy } from "@nomoat/core";
import { formats } from "../src/formats/index.js";

/** A seeded generator of uniform numbers in [0, 1). */
export function uniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Values that look like weights: a bell of the given spread. */
export function bell(size: number, seed: number, spread = 1): Float32Array {
  const random = uniform(seed);
  return Float32Array.from({ length: size }, () => (random() + random() + random() - 1.5) * 2 * spread);
}

export function bellTensor(shape: number[], seed: number, spread = 1, device?: "wasm" | "reference"): Tensor {
  const size = shape.reduce((a, b) => a * b, 1);
  return tensor(bell(size, seed, spread), { shape, device });
}

/** All formats. */
export const allNames = Object.keys(formats) as (keyof typeof formats)[];

/** Those that take rows of 32: all but K-quants. */
export const names = allNames.filter((name) => !name.endsWith("_K"));

/** The extents that a format's rows must be a multiple of. */
export function rowMultiple(name: string): number {
  return name.endsWith("_K") ? 256 : isGgml(name) ? 32 : 1;
}

/** Whether a format is ggml's: its rows must be a multiple of 32 (K-quants: 256) long. */
export function isGgml(name: string): boolean {
  return name.startsWith("q");
}

/** Whether a format has 16 values instead of a scale and steps. */
export function isCodebook(name: string): boolean {
  return name.startsWith("nf4") || name.startsWith("fp4");
}

/** Largest |a − b| over largest |b|. */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let difference = 0;
  let largest = 0;
  for (let i = 0; i < b.length; i++) {
    difference = Math.max(difference, Math.abs(a[i] - b[i]));
    largest = Math.max(largest, Math.abs(b[i]));
  }
  return largest === 0 ? difference : difference / largest;
}

/** Features of {@link inputs}. */
export const inputFeatures = 64;

/** Correlated inputs, some channels far larger than others, as those of a transformer's layers. */
export function inputs(count: number, seed: number): Tensor {
  return tidy(() => {
    const generator = new Generator(seed);
    const random = uniform(9);
    const spread = tensor(
      Float32Array.from({ length: inputFeatures }, () => (random() < 0.1 ? 8 : 0.3 + random())),
    );
    const mixing = tensor(bell(12 * inputFeatures, 5), { shape: [12, inputFeatures] });
    const common = matmul(randn([count, 12], { generator }), mixing);
    return common.add(randn([count, inputFeatures], { generator }).mul(0.3)).mul(spread);
  });
}
