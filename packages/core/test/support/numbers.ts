// Reproducible input values, independent of the library's generator, and comparison of results.

import { expect } from "vitest";
import { type DType, memoryStats, type Tensor } from "../../src/index.js";

/** Mulberry32: uniform in [0, 1). */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** `count` values of `make`, rounded to float32 so that every backend starts from the same ones. */
export function values(count: number, seed: number, make: (next: () => number) => number): number[] {
  const next = random(seed);
  return Array.from({ length: count }, () => Math.fround(make(next)));
}

/** The same class of special value: both NaN, or the same infinity. */
function sameSpecial(actual: number, expected: number): boolean {
  return Object.is(actual, expected) || actual === expected;
}

/**
 * Every entry within `tolerance` · max(1, scale), scale being the largest finite magnitude expected: rounding errors of
 * sums are relative to their largest term, not to a result that may have cancelled.
 */
export function expectClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
  label = "values",
): void {
  expect(actual.length, `${label}: count`).toBe(expected.length);
  let scale = 1;
  for (let i = 0; i < expected.length; i++) {
    if (Number.isFinite(expected[i])) scale = Math.max(scale, Math.abs(expected[i]));
  }
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs(actual[i] - expected[i]);
    if (sameSpecial(actual[i], expected[i]) || difference <= tolerance * scale) continue;
    expect.fail(`${label}[${i}]: ${actual[i]} instead of ${expected[i]} (tolerance ${tolerance * scale})`);
  }
}

/** Runs `fn` and checks that it leaves as many tensors, storages and bytes as it found. */
export function expectNoLeak<T>(label: string, fn: () => T): T {
  const count = () => {
    const { tensors, storages, bytes } = memoryStats();
    return { tensors, storages, bytes };
  };
  const before = count();
  const result = fn();
  expect(count(), `${label}: live memory`).toEqual(before);
  return result;
}

/**
 * Rounding allowed in one operation, relative to the largest entry. float64 differs only where views change the order of a sum.
 * float32 has ε = 6e-8; the functions are good to a few ε, and sums of tens of terms lose a few more.
 */
export const rounding: Readonly<Record<Extract<DType, "float32" | "float64">, number>> = {
  float64: 1e-12,
  float32: 4e-6,
};

/** Disposes all. */
export function disposeAll(...tensors: (Tensor | null | undefined)[]): void {
  for (const tensor of tensors) tensor?.dispose();
}
