// The wasm backend: the contract's primitives and fused kernels on one shared memory, computed by SIMD kernels on the
// runtime's threads. Each family of kernels has a file of its own; this one only puts them together.

// First: see the package's index.ts.
import { type RuntimeOptions, type WasmBuffer, WasmRuntime } from "./runtime.js";

// All else.

import { type DType, viewAs } from "../../dtype.js";
import { sizeOf } from "../../shape.js";
import type { Backend, BufferHandle } from "../types.js";
import { binary, cast, compare, copy, fill, unary, where } from "./elementwise.js";
import { fusedKernels } from "./fused.js";
import { gather, scatterAdd } from "./indexing.js";
import { matmul } from "./matmul.js";
import { argReduce, reduce } from "./reduce.js";
import { scan } from "./scan.js";

export type WasmBackendOptions = RuntimeOptions;

export interface WasmBackend extends Required<Backend> {
  /** Memory, threads and kernel modules; other packages register their kernels here. */
  readonly runtime: WasmRuntime;
  readonly fused: ReturnType<typeof fusedKernels>;
}

/** All dtypes but float64 are stored; arithmetic is on float32 and int32. */
function backendOver(runtime: WasmRuntime): WasmBackend {
  const { allocator, views } = runtime;
  const addressOf = (buffer: BufferHandle): number => (buffer as WasmBuffer).address;
  const readSync = (buffer: BufferHandle, byteOffset: number, bytes: number): Uint8Array => {
    const start = addressOf(buffer) + byteOffset;
    // Into memory that is not shared: decoders and streams refuse a shared one.
    const copy = new Uint8Array(bytes);
    copy.set(views.u8().subarray(start, start + bytes));
    return copy;
  };
  return {
    runtime,
    name: "wasm",
    synchronous: true,
    dtypes: new Set<DType>(["float32", "float16", "bfloat16", "int32", "int8", "uint8", "bool"]),
    arithmetic: new Set<DType>(["float32", "int32"]),
    fused: fusedKernels(runtime),

    alloc: (bytes): WasmBuffer => ({ bytes, address: allocator.allocate(bytes) }),
    free: (buffer) => allocator.free(addressOf(buffer)),
    write: (buffer, byteOffset, source) => views.u8().set(source, addressOf(buffer) + byteOffset),
    read: async (buffer, byteOffset, bytes) => readSync(buffer, byteOffset, bytes),
    readSync,
    window: (operand) =>
      viewAs(operand.dtype, runtime.memory.buffer, runtime.address(operand), sizeOf(operand.shape)),
    philox(out, ...words) {
      const units = Math.ceil(out.length / 16);
      const address = allocator.allocate(64 * units);
      try {
        runtime.core.launch("philox", units, [address, ...words]);
        out.set(new Uint32Array(runtime.memory.buffer, address, out.length));
      } finally {
        allocator.free(address);
      }
    },
    memory() {
      const { used, peak, reserved } = allocator.statistics();
      return { used, peak, reserved };
    },
    resetPeak: () => allocator.resetPeak(),

    fill: fill.bind(null, runtime),
    copy: copy.bind(null, runtime),
    cast: cast.bind(null, runtime),
    unary: unary.bind(null, runtime),
    binary: binary.bind(null, runtime),
    compare: compare.bind(null, runtime),
    where: where.bind(null, runtime),
    reduce: reduce.bind(null, runtime),
    scan: scan.bind(null, runtime),
    argReduce: argReduce.bind(null, runtime),
    matmul: matmul.bind(null, runtime),
    gather: gather.bind(null, runtime),
    scatterAdd: scatterAdd.bind(null, runtime),

    setThreads: (threads) => runtime.setThreads(threads),
    shutdown: () => runtime.shutdown(),
  };
}

/**
 * A wasm backend at once; its workers start with the first work that is large enough.
 * @throws {BackendError} when the host has no WebAssembly SIMD or no shared memory
 */
export function createWasmBackend(options?: WasmBackendOptions): WasmBackend {
  return backendOver(WasmRuntime.create(options));
}

/** The same for browsers: compiles off the main thread and waits until the workers run. */
export async function createWasmBackendAsync(options?: WasmBackendOptions): Promise<WasmBackend> {
  return backendOver(await WasmRuntime.createAsync(options));
}
