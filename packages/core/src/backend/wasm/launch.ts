// Calling kernels by name. A kernel module is one wasm instance over the shared memory; the pool runs its kernels.

import { BackendError } from "../../errors.js";
import type { KernelEntry, KernelFunction, ThreadPool } from "./pool.js";
import { maximumFloats, maximumInts } from "./worker-source.js";

export interface LaunchOptions {
  /** Units of one chunk, from shapes alone, so that results do not depend on the threads. Default: all units. */
  readonly grain?: number;
  /** Bytes of scratch memory that each thread needs. */
  readonly scratchBytes?: number;
}

const noFloats: readonly number[] = [];

export class KernelModule {
  readonly #pool: ThreadPool;
  readonly #kernels: Map<string, KernelEntry>;
  /** Where the module's table of functions has the first kernel. */
  readonly #first: number;

  /** @param number - the module's number in the pool */
  constructor(pool: ThreadPool, number: number, module: WebAssembly.Module) {
    this.#pool = pool;
    const { exports } = new WebAssembly.Instance(module, { env: pool.imports });
    const table = exports.table as WebAssembly.Table | undefined;
    this.#first = table?.length ?? 0;
    this.#kernels = new Map(
      WebAssembly.Module.exports(module)
        .filter(({ kind }) => kind === "function")
        // Workers number the functions in the same order, and put them into the module's table in it.
        .map(({ name }, index) => {
          const run = exports[name] as KernelFunction;
          table?.set(table.grow(1), run);
          return [name, { name, module: number, index, run }];
        }),
    );
  }

  /**
   * Runs a kernel on units 0 to `units`, cut into chunks of `options.grain` that the threads share.
   *
   * @param ints - up to 96 integers for the argument block; addresses of any size and signed numbers alike
   * @param floats - up to 16 doubles
   * @throws {BackendError} when there is no such kernel, when it traps, when a worker dies in it, or when called in a kernel
   */
  launch(
    kernel: string,
    units: number,
    ints: ArrayLike<number>,
    floats: readonly number[] = noFloats,
    options?: LaunchOptions,
  ): void {
    if (units <= 0) return;
    const entry = this.#kernels.get(kernel);
    if (entry === undefined) throw new BackendError(`wasm: no kernel "${kernel}"`);
    if (ints.length > maximumInts || floats.length > maximumFloats) {
      throw new BackendError(`wasm: too many arguments for kernel "${kernel}"`);
    }
    const grain = Math.max(1, options?.grain ?? units);
    this.#pool.run(entry, units, grain, options?.scratchBytes ?? 0, ints, floats);
  }

  /** The number by which kernels call another one of their module: its place in the table. */
  index(kernel: string): number {
    return this.#first + (this.#kernels.get(kernel)?.index ?? Number.NaN);
  }

  /** True when the module has a kernel of that name. */
  has(kernel: string): boolean {
    return this.#kernels.has(kernel);
  }
}
