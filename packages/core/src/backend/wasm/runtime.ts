// What all wasm kernels stand on: the shared memory, its allocator, the thread pool and the kernel modules. Knows
// nothing of operations; the backend is built on top.

// First: see the package's index.ts.
import { builds as coreBuilds } from "./generated/kernels.js";

// All else.

import { bytesPerElement } from "../../dtype.js";
import { ArgumentError, BackendError } from "../../errors.js";
import type { BufferHandle, Operand } from "../types.js";
import { Allocator } from "./allocator.js";
import { hasRelaxedSimd, type KernelBuilds, unpackBuild } from "./builds.js";
import { KernelModule } from "./launch.js";
import { heapBase, SharedMemory } from "./memory.js";
import { PackedRows } from "./packed-rows.js";
import { ThreadPool } from "./pool.js";
import { availableProcessors } from "./worker.js";

/** A storage in the shared memory. */
export interface WasmBuffer extends BufferHandle {
  /** Byte address of its first byte. */
  readonly address: number;
}

export interface RuntimeOptions {
  /** Threads that kernels run on, the caller among them. Default: `NOMOAT_THREADS`, else the processors. */
  readonly threads?: number;
  /** Most bytes that the memory may grow to, at most 4 GiB. */
  readonly maximumBytes?: number;
  /** `"baseline"` leaves relaxed SIMD unused where it exists. Default: `NOMOAT_SIMD`. */
  readonly simd?: "baseline" | "relaxed";
  /**
   * How long a worker may stay silent within one chunk of a kernel, at most, before it counts as dead. Default: 30 s; 5 s where a chunk
   * takes the caller under 5 ms.
   */
  readonly deadlineMilliseconds?: number;
  /** How long idle threads look for work before they sleep. Default: 50. */
  readonly spinMicroseconds?: number;
}

export class WasmRuntime {
  readonly memory: WebAssembly.Memory;
  /** True when the kernels use relaxed SIMD. */
  readonly relaxed: boolean;
  readonly allocator: Allocator;
  /** Windows over the memory; fetch one anew after anything that allocates. */
  readonly views: SharedMemory;
  /** Core's kernels. */
  readonly core: KernelModule;
  /** Left operands of products, packed; shared where products ask for the same one. */
  readonly packedRows = new PackedRows(this);
  readonly #pool: ThreadPool;
  readonly #modules = new Map<string, KernelModule>();

  private constructor(
    options: RuntimeOptions,
    { bytes, module, relaxed }: { bytes: Uint8Array; module: WebAssembly.Module; relaxed: boolean },
  ) {
    this.views = new SharedMemory(options.maximumBytes);
    this.memory = this.views.memory;
    this.allocator = new Allocator(this.views, heapBase);
    this.#pool = new ThreadPool(this.views, this.allocator, {
      threads: threadCount(options.threads),
      deadlineMilliseconds: options.deadlineMilliseconds ?? 30_000,
      spinMicroseconds: options.spinMicroseconds ?? 50,
      relaxed,
    });
    this.relaxed = relaxed;
    this.core = new KernelModule(this.#pool, this.#pool.addModule(bytes), module);
    this.#modules.set("core", this.core);
  }

  /**
   * Makes a runtime at once; its workers start with the first work that is large enough. For hosts that may compile on
   * the calling thread: Node and workers.
   *
   * @throws {BackendError} when the host has no WebAssembly SIMD or no shared memory
   */
  static create(options: RuntimeOptions = {}): WasmRuntime {
    const relaxed = mayRelax(options) && hasRelaxedSimd();
    const bytes = unpackBuild(coreBuilds, relaxed);
    return new WasmRuntime(options, { bytes, module: compile(bytes), relaxed });
  }

  /**
   * As `create`, and compiles off the calling thread. Where that thread may not block, in a page, workers start only while
   * it yields: there it also waits until they run.
   */
  static async createAsync(options: RuntimeOptions = {}): Promise<WasmRuntime> {
    const relaxed = mayRelax(options) && hasRelaxedSimd();
    const bytes = unpackBuild(coreBuilds, relaxed);
    const module = await WebAssembly.compile(bytes);
    const runtime = new WasmRuntime(options, { bytes, module, relaxed });
    if (runtime.#pool.mayBlock) return runtime;
    const deadline = performance.now() + 2000;
    // Late workers join later, so an overloaded page is not an error.
    while (runtime.waitForWorkers(0) < runtime.threads - 1 && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    return runtime;
  }

  /**
   * Adds a package's kernels over the same memory and threads; a second call with the same name gives the same module.
   *
   * @param builds - modules, packed or not, compiled with `--memoryBase 65536`, and static data below address 262144
   */
  registerKernels(name: string, builds: KernelBuilds): KernelModule {
    const known = this.#modules.get(name);
    if (known) return known;
    const bytes = unpackBuild(builds, this.relaxed);
    const module = new KernelModule(this.#pool, this.#pool.addModule(bytes), compile(bytes));
    this.#modules.set(name, module);
    return module;
  }

  /** Threads that kernels run on, the caller among them. */
  get threads(): number {
    return this.#pool.threads;
  }

  /** Changes the number of threads; results stay the same. Must not be called while a kernel runs. */
  setThreads(count: number): void {
    this.#pool.resize(threadCount(count));
  }

  /** Byte address of an operand's first element. */
  address(operand: Operand): number {
    return (operand.buffer as WasmBuffer).address + operand.offset * bytesPerElement(operand.dtype);
  }

  /** Starts the workers and waits until they run or `milliseconds` are over; returns how many run. */
  waitForWorkers(milliseconds = 60_000): number {
    return this.#pool.waitUntilReady(milliseconds);
  }

  /** Ends the workers. Kernels cannot be launched any more; memory goes when nothing refers to it. */
  shutdown(): void {
    this.#pool.stop();
  }
}

function compile(bytes: Uint8Array<ArrayBuffer>): WebAssembly.Module {
  try {
    return new WebAssembly.Module(bytes);
  } catch (cause) {
    throw new BackendError("wasm: this host cannot compile the kernels (SIMD and threads are needed)", {
      cause,
    });
  }
}

function environment(name: string): string | undefined {
  return globalThis.process?.env?.[name] || undefined;
}

function mayRelax(options: RuntimeOptions): boolean {
  const wanted = options.simd ?? environment("NOMOAT_SIMD");
  if (wanted === undefined || wanted === "relaxed") return true;
  if (wanted === "baseline") return false;
  throw new ArgumentError(`NOMOAT_SIMD must be "baseline" or "relaxed", not "${wanted}"`);
}

function threadCount(asked: number | undefined): number {
  // A page that is not cross-origin isolated may make a shared memory, but cannot give it to a worker.
  if (globalThis.crossOriginIsolated === false) return 1;
  const variable = environment("NOMOAT_THREADS");
  const threads = asked ?? (variable === undefined ? availableProcessors() : Number(variable));
  if (!Number.isInteger(threads) || threads < 1) {
    throw new ArgumentError(`the number of threads must be a positive integer, not ${asked ?? variable}`);
  }
  return threads;
}
