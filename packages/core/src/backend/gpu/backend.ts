// The gpu backend: the contract's primitives as kernels of gpu.js, on arrays that stay on the device until `await data()`.

import { bytesPerElement, type DType } from "../../dtype.js";
import { BackendError } from "../../errors.js";
import * as plain from "../reference/elementwise.js";
import { gather as plainGather, scatterAdd as plainScatterAdd } from "../reference/indexing.js";
import { matmul as plainMatmul } from "../reference/matmul.js";
import {
  argReduce as plainArgReduce,
  reduce as plainReduce,
  scan as plainScan,
} from "../reference/reduce.js";
import type {
  ArgReduceKind,
  Backend,
  BackendMemory,
  BinaryKind,
  BufferHandle,
  CompareKind,
  FusedKernels,
  MatmulOptions,
  Operand,
  ReduceKind,
  ScanKind,
  UnaryKind,
} from "../types.js";
import { bufferOf, clear, encode, GpuBuffer, hostBytes, setHost, storable, unpackBytes } from "./buffer.js";
import { KernelBuilder, planOutput, thread } from "./builder.js";
import { Device } from "./device.js";
import * as elementwise from "./elementwise.js";
import { fusedKernelsOf } from "./fused.js";
import { computeOnHost } from "./host.js";
import { gather, scatterAdd } from "./indexing.js";
import { type GpuMode, loadLibrary, start } from "./library.js";
import { matmul } from "./matmul.js";
import { argReduce, reduce, scan } from "./reduce.js";

/** float32 arithmetic on the device; integers are floats there, exact up to ±2²⁴, and on the host where the host knows them. */
export class GpuBackend implements Backend {
  readonly name: string = "gpu";
  readonly synchronous = false;
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
  readonly fused: Partial<FusedKernels>;
  readonly #device: Device;

  constructor(device: Device) {
    this.#device = device;
    this.fused = fusedKernelsOf(device);
  }

  /** The mode of gpu.js that runs the kernels. */
  get mode(): GpuMode {
    return this.#device.mode;
  }

  /** Why the backend cannot go on (a lost device); null while all is well. */
  get failure(): BackendError | null {
    return this.#device.failure;
  }

  /** Elements of the largest array in one piece, a texture or a buffer; Infinity where memory alone is the limit. */
  get largestTile(): number {
    return this.#device.largest;
  }

  /** Kernels compiled since the start, and those kept for reuse. */
  get kernels(): { compiled: number; cached: number } {
    return { compiled: this.#device.compiled, cached: this.#device.cachedKernels };
  }

  /** Resolves when all operations so far are computed: for timings. @throws {BackendError} when the device was lost */
  finish(): Promise<void> {
    return this.#device.finish();
  }

  alloc(bytes: number): BufferHandle {
    return new GpuBuffer(bytes);
  }

  free(handle: BufferHandle): void {
    const buffer = bufferOf(handle);
    clear(this.#device, buffer);
    buffer.freed = true;
  }

  write(handle: BufferHandle, byteOffset: number, source: Uint8Array): void {
    const buffer = bufferOf(handle);
    if (byteOffset === 0 && source.length === buffer.bytes) {
      setHost(this.#device, buffer, source.slice());
      return;
    }
    const known = hostBytes(buffer);
    if (known) {
      const bytes = known.slice();
      bytes.set(source, byteOffset);
      setHost(this.#device, buffer, bytes);
      return;
    }
    const dtype = buffer.dtype!;
    const size = bytesPerElement(dtype);
    const part = new GpuBuffer(source.length);
    setHost(this.#device, part, source.slice());
    const layout = { dtype, shape: [source.length / size], strides: [1] };
    elementwise.copy(
      this.#device,
      { ...layout, buffer: part, offset: 0 },
      { ...layout, buffer, offset: byteOffset / size },
    );
    clear(this.#device, part);
  }

  async read(handle: BufferHandle, byteOffset: number, bytes: number): Promise<Uint8Array> {
    const buffer = bufferOf(handle);
    const known = hostBytes(buffer);
    if (known) return known.slice(byteOffset, byteOffset + bytes);
    if (bytes === 0) return new Uint8Array(0);
    const dtype = buffer.dtype!;
    const size = bytesPerElement(dtype);
    const device = this.#device;
    if (buffer.packed && !buffer.array) {
      const words = await device.download(buffer.packed);
      return unpackBytes(words, byteOffset, bytes);
    }
    if (bytes === buffer.bytes) return encode(dtype, await device.download(buffer.array!));
    const kernel = new KernelBuilder(device);
    const reader = kernel.array(buffer.array!, byteOffset / size);
    kernel.line(`return ${reader([[thread, 1]])};`);
    const part = kernel.run(bytes / size);
    try {
      return encode(dtype, await device.download(part));
    } finally {
      device.release(part);
    }
  }

  /**
   * What the host wrote itself, or computed of that alone.
   * @throws {BackendError} for values that the device computed
   */
  readSync(handle: BufferHandle, byteOffset: number, bytes: number): Uint8Array {
    const known = hostBytes(handle);
    if (!known) {
      throw new BackendError(
        "the gpu backend reads what it computed asynchronously: use await data(), and tensor(values) to move it to another backend",
      );
    }
    return known.slice(byteOffset, byteOffset + bytes);
  }

  /** The arrays on the device, 4 bytes an element whatever its dtype. */
  memory(): BackendMemory {
    const { used, peak } = this.#device;
    return { used, peak, reserved: used };
  }

  resetPeak(): void {
    this.#device.peak = this.#device.used;
  }

  fill(out: Operand, value: number): void {
    const device = this.#device;
    if (planOutput(out).whole || !computeOnHost(device, [], out, (_, y) => plain.fill(y, value))) {
      elementwise.fill(device, out, storable(out.dtype, value));
    }
  }

  copy(x: Operand, out: Operand): void {
    if (computeOnHost(this.#device, [x], out, ([a], y) => plain.copy(a, y))) return;
    elementwise.copy(this.#device, x, out);
  }

  cast(x: Operand, out: Operand): void {
    if (computeOnHost(this.#device, [x], out, ([a], y) => plain.cast(a, y))) return;
    elementwise.cast(this.#device, x, out);
  }

  unary(kind: UnaryKind, x: Operand, out: Operand): void {
    if (computeOnHost(this.#device, [x], out, ([a], y) => plain.unary(kind, a, y))) return;
    elementwise.unary(this.#device, kind, x, out);
  }

  binary(kind: BinaryKind, a: Operand, b: Operand, out: Operand): void {
    if (computeOnHost(this.#device, [a, b], out, ([l, r], y) => plain.binary(kind, l, r, y))) return;
    elementwise.binary(this.#device, kind, a, b, out);
  }

  compare(kind: CompareKind, a: Operand, b: Operand, out: Operand): void {
    if (computeOnHost(this.#device, [a, b], out, ([l, r], y) => plain.compare(kind, l, r, y))) return;
    elementwise.compare(this.#device, kind, a, b, out);
  }

  where(condition: Operand, a: Operand, b: Operand, out: Operand): void {
    if (computeOnHost(this.#device, [condition, a, b], out, ([c, l, r], y) => plain.where(c, l, r, y)))
      return;
    elementwise.compute(this.#device, out, [condition, a, b], ([c, l, r]) => `choose(${c}, ${l}, ${r})`);
  }

  reduce(kind: ReduceKind, x: Operand, axes: readonly number[], out: Operand): void {
    if (computeOnHost(this.#device, [x], out, ([a], y) => plainReduce(kind, a, axes, y))) return;
    reduce(this.#device, kind, x, axes, out);
  }

  scan(kind: ScanKind, x: Operand, axis: number, out: Operand): void {
    if (computeOnHost(this.#device, [x], out, ([a], y) => plainScan(kind, a, axis, y))) return;
    scan(this.#device, kind, x, axis, out);
  }

  argReduce(kind: ArgReduceKind, x: Operand, axis: number, out: Operand): void {
    if (computeOnHost(this.#device, [x], out, ([a], y) => plainArgReduce(kind, a, axis, y))) return;
    argReduce(this.#device, kind, x, axis, out);
  }

  matmul(a: Operand, b: Operand, options: MatmulOptions, out: Operand): void {
    if (computeOnHost(this.#device, [a, b], out, ([l, r], y) => plainMatmul(l, r, options, y))) return;
    matmul(this.#device, a, b, options, out);
  }

  gather(x: Operand, indices: Operand, out: Operand): void {
    if (computeOnHost(this.#device, [x, indices], out, ([a, i], y) => plainGather(a, i, y))) return;
    gather(this.#device, x, indices, out);
  }

  scatterAdd(source: Operand, indices: Operand, out: Operand): void {
    if (computeOnHost(this.#device, [source, indices], out, ([a, i], y) => plainScatterAdd(a, i, y))) return;
    scatterAdd(this.#device, source, indices, out);
  }

  shutdown(): void {
    this.#device.destroy();
  }
}

/**
 * Starts gpu.js in `mode`, or in the best that truly runs. Arrays of more than `largestTile` elements are kept in several pieces;
 * the default is what fits one texture or buffer. Kernels read `mostInputs` pieces; the default is what the device binds.
 * @throws {BackendError} saying what to install or enable
 */
export async function createGpuBackend(
  options: { mode?: GpuMode; largestTile?: number; mostInputs?: number } = {},
): Promise<GpuBackend> {
  const library = await loadLibrary();
  const { gpu, mode } = await start(library, options.mode);
  return new GpuBackend(
    await Device.create(library, gpu, mode, { largest: options.largestTile, mostInputs: options.mostInputs }),
  );
}
