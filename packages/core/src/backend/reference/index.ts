// The reference backend: every primitive in plain TypeScript on typed arrays, one ArrayBuffer a tensor. It is the oracle that
// other backends are tested against and the fallback where there are none; it is never optimised. It has no fused kernels:
// fused operations run their compositions here.

import { bytesPerElement, type DType, dtypes, viewAs } from "../../dtype.js";
import { OutOfMemoryError } from "../../errors.js";
import { sizeOf } from "../../size.js";
import type { Backend, BufferHandle } from "../types.js";
import { binary, cast, compare, copy, fill, unary, where } from "./elementwise.js";
import { gather, scatterAdd } from "./indexing.js";
import { matmul } from "./matmul.js";
import { argReduce, reduce, scan } from "./reduce.js";
import { bytesOf, type ReferenceBuffer } from "./strided.js";

/** A reference backend with a memory count of its own. All dtypes are stored; arithmetic is on float64, float32 and int32. */
export function createReferenceBackend() {
  let used = 0;
  let peak = 0;
  const readSync = (buffer: BufferHandle, byteOffset: number, bytes: number): Uint8Array =>
    new Uint8Array(bytesOf(buffer)).slice(byteOffset, byteOffset + bytes);
  return {
    name: "reference",
    synchronous: true,
    dtypes: new Set(Object.keys(dtypes) as DType[]),
    arithmetic: new Set<DType>(["float64", "float32", "int32"]),
    fused: {},

    alloc(bytes) {
      let data: ArrayBuffer;
      try {
        data = new ArrayBuffer(bytes);
      } catch {
        const message = `reference: cannot allocate ${bytes} bytes; ${used} bytes are in use`;
        throw new OutOfMemoryError(message, bytes, used);
      }
      used += bytes;
      peak = Math.max(peak, used);
      const buffer: ReferenceBuffer = { bytes, data };
      return buffer;
    },
    free(buffer) {
      bytesOf(buffer);
      (buffer as ReferenceBuffer).data = null;
      used -= buffer.bytes;
    },
    write: (buffer, byteOffset, source) => new Uint8Array(bytesOf(buffer)).set(source, byteOffset),
    read: async (buffer, byteOffset, bytes) => readSync(buffer, byteOffset, bytes),
    readSync,
    window: ({ buffer, dtype, shape, offset }) =>
      viewAs(dtype, bytesOf(buffer), offset * bytesPerElement(dtype), sizeOf(shape)),
    /** `reserved` is what is used: every buffer goes back to the engine when it is freed. */
    memory: () => ({ used, peak, reserved: used }),
    resetPeak() {
      peak = used;
    },

    ...{
      fill,
      copy,
      cast,
      unary,
      binary,
      compare,
      where,
      reduce,
      scan,
      argReduce,
      matmul,
      gather,
      scatterAdd,
    },

    shutdown() {},
  } satisfies Backend;
}
