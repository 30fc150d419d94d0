// The reference backend: every primitive in plain TypeScript on typed arrays, one ArrayBuffer a tensor. It is the oracle that
// other backends are tested against and the fallback where there are none; it is never optimised. It has no fused kernels:
// fused operations run their compositions here.

import { bytesPerElement, type DType, type DTypeArray, dtypes, viewAs } from "../../dtype.js";
import { OutOfMemoryError } from "../../errors.js";
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
import * as elementwise from "./elementwise.js";
import { gather, scatterAdd } from "./indexing.js";
import { matmul } from "./matmul.js";
import { argReduce, reduce, scan } from "./reduce.js";
import { bytesOf, type ReferenceBuffer } from "./strided.js";

/** All dtypes are stored; arithmetic is on float64, float32 and int32. */
export class ReferenceBackend implements Backend {
  readonly name: string = "reference";
  readonly synchronous = true;
  readonly dtypes: ReadonlySet<DType> = new Set(Object.keys(dtypes) as DType[]);
  readonly arithmetic: ReadonlySet<DType> = new Set<DType>(["float64", "float32", "int32"]);
  readonly fused: Partial<FusedKernels> = {};

  #used = 0;
  #peak = 0;

  alloc(bytes: number): BufferHandle {
    let data: ArrayBuffer;
    try {
      data = new ArrayBuffer(bytes);
    } catch {
      throw new OutOfMemoryError(
        `reference: cannot allocate ${bytes} bytes; ${this.#used} bytes are in use`,
        bytes,
        this.#used,
      );
    }
    this.#used += bytes;
    this.#peak = Math.max(this.#peak, this.#used);
    const buffer: ReferenceBuffer = { bytes, data };
    return buffer;
  }

  free(buffer: BufferHandle): void {
    bytesOf(buffer);
    (buffer as ReferenceBuffer).data = null;
    this.#used -= buffer.bytes;
  }

  write(buffer: BufferHandle, byteOffset: number, source: Uint8Array): void {
    new Uint8Array(bytesOf(buffer)).set(source, byteOffset);
  }

  async read(buffer: BufferHandle, byteOffset: number, bytes: number): Promise<Uint8Array> {
    return this.readSync(buffer, byteOffset, bytes);
  }

  readSync(buffer: BufferHandle, byteOffset: number, bytes: number): Uint8Array {
    return new Uint8Array(bytesOf(buffer)).slice(byteOffset, byteOffset + bytes);
  }

  window({ buffer, dtype, shape, offset }: Operand): DTypeArray {
    const length = shape.reduce((product, axis) => product * axis, 1);
    return viewAs(dtype, bytesOf(buffer), offset * bytesPerElement(dtype), length);
  }

  /** `reserved` is what is used: every buffer goes back to the engine when it is freed. */
  memory(): BackendMemory {
    return { used: this.#used, peak: this.#peak, reserved: this.#used };
  }

  resetPeak(): void {
    this.#peak = this.#used;
  }

  fill(out: Operand, value: number): void {
    elementwise.fill(out, value);
  }

  copy(x: Operand, out: Operand): void {
    elementwise.copy(x, out);
  }

  cast(x: Operand, out: Operand): void {
    elementwise.cast(x, out);
  }

  unary(kind: UnaryKind, x: Operand, out: Operand): void {
    elementwise.unary(kind, x, out);
  }

  binary(kind: BinaryKind, a: Operand, b: Operand, out: Operand): void {
    elementwise.binary(kind, a, b, out);
  }

  compare(kind: CompareKind, a: Operand, b: Operand, out: Operand): void {
    elementwise.compare(kind, a, b, out);
  }

  where(condition: Operand, a: Operand, b: Operand, out: Operand): void {
    elementwise.where(condition, a, b, out);
  }

  reduce(kind: ReduceKind, x: Operand, axes: readonly number[], out: Operand): void {
    reduce(kind, x, axes, out);
  }

  scan(kind: ScanKind, x: Operand, axis: number, out: Operand): void {
    scan(kind, x, axis, out);
  }

  argReduce(kind: ArgReduceKind, x: Operand, axis: number, out: Operand): void {
    argReduce(kind, x, axis, out);
  }

  matmul(a: Operand, b: Operand, options: MatmulOptions, out: Operand): void {
    matmul(a, b, options, out);
  }

  gather(x: Operand, indices: Operand, out: Operand): void {
    gather(x, indices, out);
  }

  scatterAdd(source: Operand, indices: Operand, out: Operand): void {
    scatterAdd(source, indices, out);
  }

  shutdown(): void {}
}

/** A reference backend with a memory count of its own. */
export function createReferenceBackend(): Backend {
  return new ReferenceBackend();
}
