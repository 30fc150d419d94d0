// What every law of the conformance suite is checked on: a backend with a float dtype.

import type { BackendName, CreationOptions, DType } from "../../src/index.js";

export interface Subject {
  readonly name: string;
  readonly device: BackendName;
  readonly dtype: Extract<DType, "float32" | "float64">;
}

/** Float64 on the plain backend: what the others are measured by. */
export const oracle: Subject = { name: "reference float64", device: "reference", dtype: "float64" };

/** What applications run on: SIMD kernels, float32. */
export const wasm: Subject = { name: "wasm float32", device: "wasm", dtype: "float32" };

export const subjects: readonly Subject[] = [
  oracle,
  { name: "reference float32", device: "reference", dtype: "float32" },
  wasm,
];

/** One subject for each backend, in the dtype that training uses there. */
export const backends: readonly Subject[] = subjects.filter(
  (subject) => subject.name !== "reference float32",
);

/** Creation options of a float tensor of `subject`. */
export function on(subject: Subject, more: CreationOptions = {}): CreationOptions {
  return { device: subject.device, dtype: subject.dtype, ...more };
}
