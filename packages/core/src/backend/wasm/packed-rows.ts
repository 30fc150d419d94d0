// Left operands packed once for several products that share them: the projections of one layer's input.

import { sizeOf } from "../../shape.js";
import type { Operand } from "../types.js";
import type { WasmRuntime } from "./runtime.js";

/** A matrix that several products read, and the address of its packed copy; 0 until one asks for it. */
interface Shared {
  /** Of the matrix. */
  readonly at: number;
  readonly size: number;
  /** Rows of a block of the copy. */
  block: number;
  copy: number;
}

/** Matrices [m, k] of float32, rows one after the other, in the layout that the kernel `gemm` takes its left operand in. */
export class PackedRows {
  readonly #runtime: WasmRuntime;
  readonly #shared: Shared[] = [];

  constructor(runtime: WasmRuntime) {
    this.#runtime = runtime;
  }

  /** Runs `work`, whose products share one packed copy of `x` [..., k], which nobody writes to meanwhile. */
  share<T>(x: Operand, work: () => T): T {
    const one = { at: this.#runtime.address(x), size: sizeOf(x.shape), block: 0, copy: 0 };
    this.#shared.push(one);
    try {
      return work();
    } finally {
      this.#shared.pop();
      if (one.copy) this.#runtime.allocator.freeUncounted(one.copy);
    }
  }

  /** Address of the matrix packed in blocks of `block` rows, which others use too; 0 where it is not shared so. */
  shared(at: number, m: number, k: number, block: number): number {
    const one = this.#shared.find((each) => each.at === at && each.size === m * k);
    if (!one) return 0;
    if (!one.copy) {
      one.copy = this.pack(at, m, k, block);
      one.block = block;
    }
    return one.block === block ? one.copy : 0;
  }

  /** Address of a copy packed in blocks of `block` rows, to be given back by `freeUncounted`. Strides of rows and k in bytes. */
  pack(at: number, m: number, k: number, block: number, row = 4 * k, step = 4): number {
    const { allocator, core } = this.#runtime;
    // Panels of four rows, and blocks of 384 in depth, as in assembly/pack.ts.
    const copy = allocator.allocateUncounted(4 * ((m + 3) & ~3) * k);
    const units = Math.ceil(k / 384) * Math.ceil(m / block);
    core.launch("gemmPack", units, [at, step, row, k, m, copy, block, 1], [], { grain: 1 });
    return copy;
  }
}
