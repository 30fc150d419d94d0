// The one WebAssembly.Memory that kernels, threads and storages share: its layout, its growth and typed windows
// over it. Hands out nothing: the allocator does.
//
//   0         never used, so that address 0 means "nothing"
//   1024      static data of core's kernels
//   65536     static data of other packages' kernels
//   262144    heap

import { BackendError } from "../../errors.js";

export const pageBytes = 65536;
/** Pages of a 32-bit memory; kernels are compiled for this maximum. */
export const maximumPages = 65536;
/** Pages that kernels expect to exist when they are instantiated. */
const initialPages = 16;

export const heapBase = 262144;

/** The memory, and windows over it that are made anew after each growth. */
export class SharedMemory {
  readonly memory: WebAssembly.Memory;
  readonly maximumBytes: number;
  #f32!: Float32Array;
  #f64!: Float64Array;
  #i32!: Int32Array;
  #u8!: Uint8Array;

  /** @throws {BackendError} when the host cannot make a shared memory at all */
  constructor(maximumBytes = maximumPages * pageBytes) {
    let pages = Math.min(maximumPages, Math.max(initialPages, Math.floor(maximumBytes / pageBytes)));
    let memory: WebAssembly.Memory | undefined;
    // Some hosts (phones, mostly) refuse to reserve 4 GiB of addresses: ask for less.
    while (!memory) {
      try {
        memory = new WebAssembly.Memory({ initial: initialPages, maximum: pages, shared: true });
      } catch (cause) {
        if (pages <= 1024) throw new BackendError("wasm: cannot make a shared WebAssembly.Memory", { cause });
        pages = Math.max(1024, pages >>> 1);
      }
    }
    this.memory = memory;
    this.maximumBytes = pages * pageBytes;
    this.#refresh();
  }

  /** Bytes that the memory has now. */
  get bytes(): number {
    return this.#u8.length;
  }

  /**
   * Makes the memory at least `bytes` long.
   *
   * @returns false when the host or the maximum forbids it; nothing has changed then
   */
  grow(bytes: number): boolean {
    const pages = Math.ceil((bytes - this.bytes) / pageBytes);
    if (pages <= 0) return true;
    if (this.bytes + pages * pageBytes > this.maximumBytes) return false;
    try {
      this.memory.grow(pages);
    } catch {
      return false;
    }
    this.#refresh();
    return true;
  }

  #refresh(): void {
    const buffer = this.memory.buffer;
    this.#f32 = new Float32Array(buffer);
    this.#f64 = new Float64Array(buffer);
    this.#i32 = new Int32Array(buffer);
    this.#u8 = new Uint8Array(buffer);
  }

  // Windows over the whole memory. Do not keep one across an allocation: it would miss what was added.
  f32(): Float32Array {
    return this.#f32;
  }

  f64(): Float64Array {
    return this.#f64;
  }

  i32(): Int32Array {
    return this.#i32;
  }

  u8(): Uint8Array {
    return this.#u8;
  }
}
