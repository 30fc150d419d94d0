import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { build } from "esbuild";
import { afterEach, describe, expect, it } from "vitest";
import { Allocator } from "../../src/backend/wasm/allocator.js";
import { KernelModule } from "../../src/backend/wasm/launch.js";
import { heapBase, SharedMemory } from "../../src/backend/wasm/memory.js";
import { type PoolOptions, ThreadPool } from "../../src/backend/wasm/pool.js";
import { type RuntimeOptions, WasmRuntime } from "../../src/backend/wasm/runtime.js";
import { startWorker, type WorkerHandle } from "../../src/backend/wasm/worker.js";
import { workerSource } from "../../src/backend/wasm/worker-source.js";
import { BackendError, OutOfMemoryError } from "../../src/errors.js";
import { testKernelBytes, testKernels } from "./test-kernels.js";

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});

function runtimeWith(options: RuntimeOptions) {
  const runtime = WasmRuntime.create(options);
  cleanups.push(() => runtime.shutdown());
  return { runtime, kernels: runtime.registerKernels("test", testKernels) };
}

/** How often `mark` has met each of `units`, in chunks of `grain`. */
function marks(runtime: WasmRuntime, kernels: KernelModule, units: number, grain: number): Int32Array {
  const address = runtime.allocator.allocate(4 * units);
  const window = runtime.views
    .i32()
    .subarray(address / 4, address / 4 + units)
    .fill(0);
  kernels.launch("mark", units, [address], [], { grain });
  const result = window.slice();
  runtime.allocator.free(address);
  return result;
}

describe("launch", () => {
  it("hands every unit to one thread, whatever the grain and the number of threads", () => {
    for (const threads of [1, 2, 5]) {
      const { runtime, kernels } = runtimeWith({ threads });
      runtime.waitForWorkers();
      for (const [units, grain] of [
        [1, 1],
        [7, 100],
        [1000, 1],
        [1000, 7],
        [4096, 1024],
      ]) {
        expect(marks(runtime, kernels, units, grain).every((count) => count === 1)).toBe(true);
      }
      expect(marks(runtime, kernels, 0, 1)).toHaveLength(0);
    }
  });

  it("works from the first call on, before workers are up, and through thousands of short jobs", () => {
    const { runtime, kernels } = runtimeWith({ threads: 3, spinMicroseconds: 5 });
    for (let i = 0; i < 5000; i++) {
      const counts = marks(runtime, kernels, 8, 1);
      for (const count of counts) if (count !== 1) throw new Error(`job ${i}: ${counts}`);
    }
  });

  it("keeps working through growth of the memory and changes of the number of threads", () => {
    const { runtime, kernels } = runtimeWith({ threads: 2 });
    runtime.waitForWorkers();
    for (const threads of [3, 1, 4, 2]) {
      const big = runtime.allocator.allocate(40 << 20);
      runtime.setThreads(threads);
      expect(runtime.threads).toBe(threads);
      expect(runtime.waitForWorkers()).toBe(threads - 1);
      expect(marks(runtime, kernels, 300, 1).every((count) => count === 1)).toBe(true);
      runtime.allocator.free(big);
    }
  });

  it("names unknown kernels and refuses work after shutdown", () => {
    const { runtime, kernels } = runtimeWith({ threads: 2 });
    expect(() => kernels.launch("nothing", 1, [])).toThrow(/no kernel "nothing"/);
    expect(runtime.registerKernels("test", testKernels)).toBe(kernels);
    runtime.shutdown();
    expect(() => kernels.launch("mark", 1, [0])).toThrow(BackendError);
  });

  it("checks the options", () => {
    expect(() => WasmRuntime.create({ threads: 0 })).toThrow(/positive integer/);
    expect(() => WasmRuntime.create({ threads: 1.5 })).toThrow(/positive integer/);
    expect(runtimeWith({ simd: "baseline", threads: 1 }).runtime.relaxed).toBe(false);
  });
});

describe("a kernel that traps", () => {
  it("throws by name on every thread, and the next call works", () => {
    const { runtime, kernels } = runtimeWith({ threads: 2 });
    runtime.waitForWorkers();
    for (const unit of [0, 5, 50, 99]) {
      expect(() => kernels.launch("trap", 100, [unit], [], { grain: 1 })).toThrow(
        /kernel "trap" failed: .*unreachable/,
      );
      expect(marks(runtime, kernels, 100, 1).every((count) => count === 1)).toBe(true);
    }
    expect(() => kernels.launch("trap", 1, [0])).toThrow(/unreachable/);
  });
});

describe("a worker that is lost", () => {
  it("in a kernel is an error in time, and the next call works with new workers", () => {
    const { runtime, kernels } = runtimeWith({ threads: 2, deadlineMilliseconds: 2000 });
    runtime.waitForWorkers();
    const words = runtime.allocator.allocate(64);
    const view = runtime.views.i32();
    kernels.launch("scratchOf", 1, [words], [], { scratchBytes: 64 });
    const callersScratch = view[words / 4];
    view[words / 4] = 0;
    expect(() =>
      kernels.launch("hang", 2, [words, callersScratch], [], { grain: 1, scratchBytes: 64 }),
    ).toThrow(/worker 1 died or hung in kernel "hang"/);
    expect(marks(runtime, kernels, 200, 1).every((count) => count === 1)).toBe(true);
    expect(runtime.waitForWorkers()).toBe(1);
  });

  function poolWith(options: Partial<PoolOptions>) {
    const memory = new SharedMemory();
    const handles: WorkerHandle[] = [];
    const pool = new ThreadPool(memory, new Allocator(memory, heapBase), {
      threads: 2,
      deadlineMilliseconds: 30_000,
      spinMicroseconds: 50,
      startWorker(data, onEnd) {
        handles.push(startWorker(data, onEnd));
        return handles[handles.length - 1];
      },
      ...options,
    });
    cleanups.push(() => pool.stop());
    const bytes = new Uint8Array(testKernelBytes);
    const kernels = new KernelModule(pool, pool.addModule(bytes), new WebAssembly.Module(bytes));
    return { pool, handles, kernels, memory };
  }

  it("between kernels is replaced, whether or not the event loop has noticed", async () => {
    const { pool, handles, kernels, memory } = poolWith({});
    const counts = () => memory.i32().subarray(262144, 262144 + 64);
    memory.grow(4 << 20);
    const markAll = () => {
      counts().fill(0);
      kernels.launch("mark", 64, [4 * 262144], [], { grain: 1 });
      return counts().every((count) => count === 1);
    };
    expect(pool.waitUntilReady(60_000)).toBe(1);
    handles[0].terminate();
    expect(markAll()).toBe(true);
    while (!handles[0].dead()) await new Promise((resolve) => setTimeout(resolve, 5));
    expect(markAll()).toBe(true);
    expect(handles).toHaveLength(2);
    expect(pool.waitUntilReady(60_000)).toBe(1);
    expect(markAll()).toBe(true);
  });

  it("in the middle of a kernel is noticed long before the deadline, and the next call works", () => {
    const deaths = { count: 1 };
    // The first worker's thread exits inside the first kernel that it runs.
    const dying = workerSource.replace("kernel(args,", "process.exit(); kernel(args,");
    expect(dying).not.toBe(workerSource);
    const { pool, kernels, memory } = poolWith({
      deadlineMilliseconds: 600_000,
      // Longer than a worker that lives waits for a processor.
      leastDeadlineMilliseconds: 2000,
      startWorker(data, onEnd) {
        if (deaths.count-- <= 0) return startWorker(data, onEnd);
        let ended = false;
        const worker = new Worker(dying, { eval: true, workerData: data });
        worker.on("exit", () => {
          ended = true;
          onEnd();
        });
        return { terminate: () => void worker.terminate(), dead: () => ended };
      },
    });
    memory.grow(4 << 20);
    const counts = () => memory.i32().subarray(262144, 262144 + 4096);
    const markAll = () => kernels.launch("mark", 4096, [4 * 262144], [], { grain: 1 });
    expect(pool.waitUntilReady(60_000)).toBe(1);
    const start = performance.now();
    // The caller may have done everything before the worker wakes up: until it has died, once more.
    const untilDeath = () => {
      while (performance.now() - start < 120_000) markAll();
    };
    expect(untilDeath).toThrow(/worker 1 died or hung in kernel "mark"; its output is incomplete/);
    counts().fill(0);
    markAll();
    expect(counts().every((count) => count === 1)).toBe(true);
    expect(pool.waitUntilReady(60_000)).toBe(1);
    counts().fill(0);
    markAll();
    expect(counts().every((count) => count === 1)).toBe(true);
  });

  it("at every start leaves the caller to work alone", async () => {
    const warnings: Error[] = [];
    const listen = (warning: Error) => warnings.push(warning);
    process.on("warning", listen);
    const { kernels, pool } = poolWith({
      startWorker() {
        throw new Error("not here");
      },
    });
    for (let i = 0; i < 5; i++) kernels.launch("trap", 10, [-1], [], { grain: 1 });
    expect(pool.waitUntilReady(0)).toBe(0);
    await new Promise((resolve) => setTimeout(resolve, 10));
    process.off("warning", listen);
    expect(warnings.map(String).join()).toMatch(/workers cannot be started.*not here/);
    expect(warnings).toHaveLength(1);
  });
});

describe("limits", () => {
  it("leave everything usable when memory runs out", () => {
    const { runtime, kernels } = runtimeWith({ threads: 2, maximumBytes: 8 << 20 });
    const blocks: number[] = [];
    expect(() => {
      for (;;) blocks.push(runtime.allocator.allocate(1 << 20));
    }).toThrow(OutOfMemoryError);
    expect(blocks.length).toBeGreaterThan(5);
    expect(() => kernels.launch("mark", 1, [0], [], { scratchBytes: 1 << 20 })).toThrow(OutOfMemoryError);
    runtime.allocator.free(blocks[0]);
    expect(marks(runtime, kernels, 100, 1).every((count) => count === 1)).toBe(true);
    expect(() => runtime.allocator.free(blocks[0])).toThrow(/freed twice/);
  });
});

describe("inside a worker thread", () => {
  it("runs with workers of its own", async () => {
    const { outputFiles } = await build({
      entryPoints: [fileURLToPath(new URL("../../src/backend/wasm/runtime.ts", import.meta.url))],
      bundle: true,
      format: "cjs",
      platform: "node",
      write: false,
    });
    const program = `${outputFiles[0].text}
      const runtime = module.exports.WasmRuntime.create({ threads: 2 });
      const ready = runtime.waitForWorkers();
      const out = runtime.allocator.allocate(64);
      runtime.core.launch("peak", 64, [out], [0.5], { grain: 1 });
      const value = runtime.views.f32()[out / 4];
      runtime.shutdown();
      require("node:worker_threads").parentPort.postMessage({ ready, value });`;
    const worker = new Worker(program, { eval: true });
    const answer = await new Promise((resolve, reject) => {
      worker.once("message", resolve);
      worker.once("error", reject);
    });
    await worker.terminate();
    expect(answer).toEqual({ ready: 1, value: 12 });
  });
});
