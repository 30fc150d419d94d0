// The wasm backend: the contract's primitives and fused kernels on one shared memory, computed by SIMD kernels on the
// runtime's threads. Each family of kernels has a file of its own; this one only puts them together.

// First: see the package's index.ts.
import { type RuntimeOptions, type WasmBuffer, WasmRuntime } from "./runtime.js";

// All else.

import { type DType, type DTypeArray, viewAs } from "../../dtype.js";
import { sizeOf } from "../../shape.js";
import type {
  ArgReduceKind,
  Backend,
  BackendMemory,
  BinaryKind,
  BufferHandle,
  CompareKind,
  MatmulOptions,
  Operand,
  ReduceKind,
  ScanKind,
  UnaryKind,
} from "../types.js";
import * as elementwise from "./elementwise.js";
import { fusedKernels } from "./fused.js";
import { gather, scatterAdd } from "./indexing.js";
import { matmul } from "./matmul.js";
import { argReduce, reduce } from "./reduce.js";
import { scan } from "./scan.js";

export type WasmBackendOptions = RuntimeOptions;

/** All dtypes but float64 are stored; arithmetic is on float32 and int32. */
export class WasmBackend implements Backend {
  readonly name: string = "wasm";
  readonly synchronous = true;
  readonly dtypes: ReadonlySet<DType> = new Set<DType>([
    "float32",
    "float16",
    "bfloat16",
    "int32",
    "int8",
    "uint8",
    "bool",
  ]);
  readonly arithmetic: ReadonlySet<DType> = new Set<DType>(["float32", "int32"]);
  readonly fused: ReturnType<typeof fusedKernels>;
  /** Memory, threads and kernel modules; other packages register their kernels here. */
  readonly runtime: WasmRuntime;

  constructor(runtime: WasmRuntime) {
    this.runtime = runtime;
    this.fused = fusedKernels(runtime);
  }

  alloc(bytes: number): WasmBuffer {
    return { bytes, address: this.runtime.allocator.allocate(bytes) };
  }

  free(buffer: BufferHandle): void {
    this.runtime.allocator.free((buffer as WasmBuffer).address);
  }

  write(buffer: BufferHandle, byteOffset: number, source: Uint8Array): void {
    this.runtime.views.u8().set(source, (buffer as WasmBuffer).address + byteOffset);
  }

  async read(buffer: BufferHandle, byteOffset: number, bytes: number): Promise<Uint8Array> {
    return this.readSync(buffer, byteOffset, bytes);
  }

  readSync(buffer: BufferHandle, byteOffset: number, bytes: number): Uint8Array {
    const start = (buffer as WasmBuffer).address + byteOffset;
    // Into memory that is not shared: decoders and streams refuse a shared one.
    const copy = new Uint8Array(bytes);
    copy.set(this.runtime.views.u8().subarray(start, start + bytes));
    return copy;
  }

  window(operand: Operand): DTypeArray {
    return viewAs(
      operand.dtype,
      this.runtime.memory.buffer,
      this.runtime.address(operand),
      sizeOf(operand.shape),
    );
  }

  memory(): BackendMemory {
    const { used, peak, reserved } = this.runtime.allocator.statistics();
    return { used, peak, reserved };
  }

  resetPeak(): void {
    this.runtime.allocator.resetPeak();
  }

  fill(out: Operand, value: number): void {
    elementwise.fill(this.runtime, out, value);
  }

  copy(x: Operand, out: Operand): void {
    elementwise.copy(this.runtime, x, out);
  }

  cast(x: Operand, out: Operand): void {
    elementwise.cast(this.runtime, x, out);
  }

  unary(kind: UnaryKind, x: Operand, out: Operand): void {
    elementwise.unary(this.runtime, kind, x, out);
  }

  binary(kind: BinaryKind, a: Operand, b: Operand, out: Operand): void {
    elementwise.binary(this.runtime, kind, a, b, out);
  }

  compare(kind: CompareKind, a: Operand, b: Operand, out: Operand): void {
    elementwise.compare(this.runtime, kind, a, b, out);
  }

  where(condition: Operand, a: Operand, b: Operand, out: Operand): void {
    elementwise.where(this.runtime, condition, a, b, out);
  }

  reduce(kind: ReduceKind, x: Operand, axes: readonly number[], out: Operand): void {
    reduce(this.runtime, kind, x, axes, out);
  }

  scan(kind: ScanKind, x: Operand, axis: number, out: Operand): void {
    scan(this.runtime, kind, x, axis, out);
  }

  argReduce(kind: ArgReduceKind, x: Operand, axis: number, out: Operand): void {
    argReduce(this.runtime, kind, x, axis, out);
  }

  matmul(a: Operand, b: Operand, options: MatmulOptions, out: Operand): void {
    matmul(this.runtime, a, b, options, out);
  }

  gather(x: Operand, indices: Operand, out: Operand): void {
    gather(this.runtime, x, indices, out);
  }

  scatterAdd(source: Operand, indices: Operand, out: Operand): void {
    scatterAdd(this.runtime, source, indices, out);
  }

  setThreads(threads: number): void {
    this.runtime.setThreads(threads);
  }

  shutdown(): void {
    this.runtime.shutdown();
  }
}

/**
 * A wasm backend at once; its workers start with the first work that is large enough.
 * @throws {BackendError} when the host has no WebAssembly SIMD or no shared memory
 */
export function createWasmBackend(options?: WasmBackendOptions): WasmBackend {
  return new WasmBackend(WasmRuntime.create(options));
}

/** The same for browsers: compiles off the main thread and waits until the workers run. */
export async function createWasmBackendAsync(options?: WasmBackendOptions): Promise<WasmBackend> {
  return new WasmBackend(await WasmRuntime.createAsync(options));
}
