// Compiled kernels, by source and lengths; the ones not used for longest make room for new ones.

import { functionsIn } from "./functions.js";
import type { GpuInstance, GpuMode, RunnableKernel } from "./library.js";

/** What an argument of a kernel is: a stretch of an array, or a number. */
export type ArgumentForm =
  | { readonly tile: { readonly length: number } }
  | { readonly length: number }
  | { readonly type: "Integer" | "Float" };

export interface CachedKernel {
  run: RunnableKernel | null;
  /** Arrays that it made and that are in use, and runs that wait. */
  live: number;
  evicted: boolean;
  readonly bytes: number;
}

/** Bounds of the kernel cache. In mode webasm each kernel keeps a memory as large as its arguments and its output. */
const maxKernels = 512;
const maxKernelBytes = 256 * 2 ** 20;

export class KernelCache {
  /** Kernels that were compiled since the start. */
  compiled = 0;
  readonly #gpu: GpuInstance;
  readonly #mode: GpuMode;
  readonly #onHost: boolean;
  readonly #cache = new Map<string, CachedKernel>();
  #cachedBytes = 0;

  /** @param onHost - whether arrays lie in this process's memory */
  constructor(gpu: GpuInstance, mode: GpuMode, onHost: boolean) {
    this.#gpu = gpu;
    this.#mode = mode;
    this.#onHost = onHost;
  }

  get size(): number {
    return this.#cache.size;
  }

  /** The kernel of `source` for arguments of these kinds and lengths, compiled when it is first asked for. */
  get(source: string, args: readonly ArgumentForm[], length: number): CachedKernel {
    const lengths = args.map((argument) =>
      "tile" in argument ? argument.tile.length : "length" in argument ? argument.length : argument.type,
    );
    const key = `${source}|${length}|${lengths.join()}`;
    const known = this.#cache.get(key);
    if (known) {
      this.#cache.delete(key);
      this.#cache.set(key, known);
      return known;
    }
    const arrays = lengths.filter((extent) => typeof extent === "number");
    const bytes = this.#mode === "webasm" ? 4 * arrays.reduce((sum, extent) => sum + extent, length) : 0;
    const made: CachedKernel = { run: null, live: 0, evicted: false, bytes };
    for (const [oldKey, old] of this.#cache) {
      if (this.#cache.size < maxKernels && this.#cachedBytes + bytes <= maxKernelBytes) break;
      this.#evict(oldKey, old);
    }
    made.run = this.#gpu.createKernel(source, {
      output: [length],
      pipeline: true,
      immutable: true,
      precision: "single",
      tactic: "precision",
      strictIntegers: true,
      functions: functionsIn(source),
      argumentTypes: this.#argumentTypes(args),
    });
    this.compiled++;
    this.#cachedBytes += bytes;
    this.#cache.set(key, made);
    return made;
  }

  #argumentTypes(args: readonly ArgumentForm[]): string[] {
    return args.map((argument) => {
      if ("type" in argument) return argument.type;
      if (this.#onHost || "length" in argument) return "Array";
      return this.#mode === "webgpu" ? "WebGPUBuffer" : "ArrayTexture(1)";
    });
  }

  #evict(key: string, kernel: CachedKernel): void {
    this.#cache.delete(key);
    this.#cachedBytes -= kernel.bytes;
    kernel.evicted = true;
    if (kernel.live === 0) this.#discard(kernel);
  }

  #discard(kernel: CachedKernel): void {
    const { run } = kernel;
    if (!run) return;
    kernel.run = null;
    run.destroy();
    for (const held of [run, run.kernel]) {
      const at = this.#gpu.kernels.indexOf(held);
      if (at >= 0) this.#gpu.kernels.splice(at, 1);
    }
  }

  /** Frees all that nothing waits for, and the others when it does no more. */
  clear(): void {
    for (const [key, kernel] of this.#cache) this.#evict(key, kernel);
  }

  /** One array or run less that needs `kernel`. */
  letGo(kernel: CachedKernel): void {
    kernel.live--;
    if (kernel.evicted && kernel.live === 0) this.#discard(kernel);
  }
}
