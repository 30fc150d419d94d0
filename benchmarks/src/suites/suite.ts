// What suites have in common: a suite lists cases for a sweep; a case becomes an entry for each backend and thread count.

import {
  activeBackend,
  type BackendName,
  type DType,
  type InitOptions,
  init,
  type Tensor,
  tensor,
} from "@nomoat/core";
import { uniformValues } from "../inputs.js";
import type { Effort } from "../measure/timing.js";
import { workersRunning } from "../measure/workers.js";
import { BenchError, type Entry, type Parameters, type Prepared, type Work } from "../model.js";

/** What is gone through. */
export interface Sweep {
  readonly effort: Effort["name"];
  /** Sizes in place of the suite's own. */
  readonly sizes: readonly number[] | null;
  /** Formats in place of the suite's own; for suites that quantize. */
  readonly formats: readonly string[] | null;
  /** Dtypes in place of the suite's own; for suites that have several. */
  readonly dtypes: readonly string[] | null;
}

export interface Case {
  readonly suite: string;
  readonly name: string;
  readonly parameters: Parameters;
  readonly work: Work;
  /** Makes the inputs on the active backend. */
  prepare(): Prepared | Promise<Prepared>;
}

export interface Suite {
  readonly name: string;
  /** A line for the help. */
  readonly about: string;
  cases(sweep: Sweep): Case[];
}

export const backendNames = ["wasm", "reference", "gpu"] as const satisfies readonly BackendName[];

type Mode = NonNullable<NonNullable<InitOptions>["mode"]>;

/** Work in arithmetic operations. */
export function arithmetic(operations: number, bytes: number, kind: Work["arithmetic"] = "float32"): Work {
  return { operations, bytes, arithmetic: kind, items: null, shown: "operations" };
}

/** Work that is shown as bytes moved. */
export function movement(bytes: number, operations = 0): Work {
  return { operations, bytes, arithmetic: "float32", items: null, shown: "bytes" };
}

/** Work that is shown as things done a second. */
export function items(count: number, unit: string, operations: number, bytes: number): Work {
  return { operations, bytes, arithmetic: "float32", items: { count, unit }, shown: "items" };
}

/** How floats are stored. */
export const floatDtypes = ["float32", "float16", "bfloat16"] as const satisfies readonly DType[];
export type FloatDtype = (typeof floatDtypes)[number];

/** Relative rounding of what is stored as a dtype. */
export const rounding: Readonly<Record<FloatDtype, number>> = {
  ...{ float32: 0, float16: 2 ** -11, bfloat16: 2 ** -8 },
};

/**
 * The dtypes that the sweep asks for.
 *
 * @param own - those of a suite where none are asked for
 * @throws {BenchError} for one that is none of floats
 */
export function dtypesOf(sweep: Sweep, own: readonly FloatDtype[]): readonly FloatDtype[] {
  if (!sweep.dtypes) return own;
  const unknown = sweep.dtypes.find((dtype) => !(floatDtypes as readonly string[]).includes(dtype));
  if (unknown !== undefined)
    throw new BenchError(`unknown dtype "${unknown}" (known: ${floatDtypes.join(", ")})`);
  return sweep.dtypes as readonly FloatDtype[];
}

/** What a case's name says of its dtype: nothing for float32. */
export const suffixOf = (dtype: FloatDtype): string => (dtype === "float32" ? "" : ` ${dtype}`);

/** A float32 tensor in another dtype; it is disposed of. */
export function stored(x: Tensor, dtype: FloatDtype): Tensor {
  if (dtype === "float32") return x;
  const rounded = x.cast(dtype);
  x.dispose();
  return rounded;
}

/** Seeded values as a float32 tensor on the active backend. */
export function seeded(seed: string, shape: readonly number[], low?: number, high?: number): Tensor {
  const count = shape.reduce((product, extent) => product * extent, 1);
  return tensor(uniformValues(seed, count, low, high), { shape: [...shape] });
}

/** A tensor's values as an array of their own. */
export function valuesOf(x: Tensor): ArrayLike<number> {
  return Float32Array.from(x.dataSync() as Float32Array);
}

/** Sizes of a sweep, by effort, unless the user named some. */
export function sizesOf(
  sweep: Sweep,
  own: { quick: readonly number[]; standard: readonly number[]; long?: readonly number[] },
): readonly number[] {
  if (sweep.sizes) return sweep.sizes;
  return sweep.effort === "long" ? (own.long ?? own.standard) : own[sweep.effort];
}

/** Makes a backend with that many threads the active one, its workers running. */
export async function activate(backend: string, threads: number): Promise<void> {
  const [name, mode] = backend.split(":") as [BackendName, Mode | undefined];
  if (name === "gpu") await init({ backend: "gpu", ...(mode && { mode }) });
  else await init({ backend: name, ...(name === "wasm" && { threads }) });
  if (activeBackend().name === "wasm") await workersRunning(threads);
}

/** This library's entry of a case. */
export function nomoatEntry(one: Case, backend: string, threads: number, version: string): Entry {
  const { suite, name, parameters, work } = one;
  return {
    suite,
    name,
    parameters,
    work,
    implementation: { name: "nomoat", version },
    backend,
    threads,
    async prepare() {
      await activate(backend, threads);
      return one.prepare();
    },
  };
}
