// Which backends exist and which one is active. In Node the first use starts wasm; in a browser `await init()` does.

// First: see the package's index.ts.
import { createWasmBackend, createWasmBackendAsync } from "./wasm/backend.js";

// All else.

import { ArgumentError, BackendError } from "../errors.js";
import { runtime } from "../runtime.js";
import type { GpuBackend } from "./gpu/backend.js";
import type { GpuMode } from "./gpu/library.js";
import { createReferenceBackend } from "./reference/index.js";
import type { Backend } from "./types.js";

export type BackendName = "wasm" | "reference" | "gpu";

export interface InitOptions {
  /** Backend that new tensors go to (default "wasm"). */
  backend?: BackendName;
  /** Threads of the wasm backend, the caller's included (default: NOMOAT_THREADS or the cores that the process may use). */
  threads?: number;
  /** How gpu.js computes on the gpu backend (default: the best mode that truly runs here). */
  mode?: GpuMode;
}

function checkThreads(threads: number | undefined): void {
  if (threads !== undefined && (!Number.isInteger(threads) || threads < 1 || threads > 256)) {
    throw new ArgumentError(`init: threads must be an integer from 1 to 256, not ${threads}`);
  }
}

/** The gpu backend in the mode that is asked for. Its code, and gpu.js, are loaded here and nowhere else. */
async function startGpu(mode: GpuMode | undefined): Promise<Backend> {
  const started = runtime.backends.get("gpu") as GpuBackend | undefined;
  if (started && !started.failure) {
    if (mode === undefined || mode === started.mode) return started;
    throw new BackendError(
      `init: the gpu backend runs in mode ${started.mode}; call shutdown() before you start it in mode ${mode}`,
    );
  }
  const { createGpuBackend } = await import("./gpu/backend.js");
  started?.shutdown();
  const backend = await createGpuBackend({ mode });
  runtime.backends.set("gpu", backend);
  return backend;
}

/**
 * Starts a backend, or makes a started one active. Asking for another thread count stops the wasm backend's workers
 * and starts new ones; tensors stay. A gpu backend that lost its device starts anew; its tensors are lost.
 * @throws {BackendError} when it cannot run here
 */
export async function init(options: InitOptions = {}): Promise<void> {
  const name = options.backend ?? "wasm";
  checkThreads(options.threads);
  if (name !== "wasm" && name !== "reference" && name !== "gpu") {
    throw new ArgumentError(`init: unknown backend "${String(name)}" (known: wasm, reference, gpu)`);
  }
  if (options.mode !== undefined && name !== "gpu") {
    throw new ArgumentError(`init: mode is for the gpu backend; the ${name} backend has none`);
  }
  if (options.threads !== undefined && name !== "wasm") {
    throw new ArgumentError(`init: threads is for the wasm backend; the ${name} backend has none`);
  }
  if (name === "gpu") {
    runtime.active = await startGpu(options.mode);
    return;
  }
  if (name === "wasm" && !inNode() && !runtime.backends.has(name)) {
    const made = await createWasmBackendAsync({ threads: options.threads });
    // Another call may have been faster.
    if (runtime.backends.has(name)) made.shutdown();
    else runtime.backends.set(name, made);
  }
  // Nothing was awaited in Node: work that does not wait for `init` finds this backend, and not a second one.
  const backend = backendByName(name);
  if (options.threads !== undefined) backend.setThreads?.(options.threads);
  runtime.active = backend;
}

function inNode(): boolean {
  const { process } = globalThis as { process?: { versions?: { node?: string } } };
  return typeof process?.versions?.node === "string";
}

/**
 * Stops all workers and forgets all backends. Tensors made before must not be used afterwards.
 * The next use starts anew.
 */
export function shutdown(): void {
  for (const backend of runtime.backends.values()) backend.shutdown();
  runtime.backends.clear();
  runtime.active = null;
}

/** The backend that new tensors go to. */
export function activeBackend(): Backend {
  return (runtime.active ??= backendByName("wasm"));
}

/** The started backend of that name; in Node it is started if need be. */
export function backendByName(name: BackendName): Backend {
  let backend: Backend | undefined = runtime.backends.get(name);
  if (!backend) {
    if (name === "reference") backend = createReferenceBackend();
    else if (name === "wasm") {
      if (!inNode()) {
        throw new BackendError(
          "the wasm backend starts asynchronously in a browser: call `await init()` first",
        );
      }
      backend = createWasmBackend();
    } else if (name === "gpu") {
      throw new BackendError(
        'the gpu backend starts asynchronously: call `await init({ backend: "gpu" })` first',
      );
    } else throw new ArgumentError(`unknown backend "${String(name)}" (known: wasm, reference, gpu)`);
    runtime.backends.set(name, backend);
  }
  return backend;
}

/** Runs `fn` with new tensors going to the named backend. */
export function withBackend<T>(name: BackendName, fn: () => T): T {
  const before = runtime.active;
  runtime.active = backendByName(name);
  try {
    return fn();
  } finally {
    runtime.active = before;
  }
}
