// The way to the wasm kernels: registers them with the runtime that holds a tensor, and puts a weight into kernel
// arguments. Where there are none (another backend, a format without kernels), callers run the reference.

import type { Tensor } from "@nomoat/core";
import { operand, type PackedWeight, wasmRuntime } from "@nomoat/core/extend";
import { dynamicMap } from "./formats/dynamic-map.js";
import type { BlockFormat, WeightShape } from "./formats/format.js";
import { builds } from "./generated/kernels.js";

type Runtime = NonNullable<ReturnType<typeof wasmRuntime>>;

/** Kernels ready to run on one runtime's memory. */
export interface Kernels {
  readonly runtime: Runtime;
  readonly module: ReturnType<Runtime["registerKernels"]>;
  /** Address of the dynamic map, 256 floats. */
  readonly dynamicMap: number;
}

const known = new WeakMap<Runtime, Kernels>();
let disabled = false;

/** The kernels for a weight of `format` that lives where `tensor` does; null when the reference has to do. */
export function kernelsFor(tensor: Tensor, format: BlockFormat): Kernels | null {
  if (disabled || format.kernel === null) return null;
  const runtime = wasmRuntime(tensor);
  if (!runtime) return null;
  let kernels = known.get(runtime);
  if (!kernels) {
    const module = runtime.registerKernels("quant", builds);
    const address = runtime.allocator.allocateUncounted(dynamicMap.byteLength);
    runtime.views.u8().set(new Uint8Array(dynamicMap.buffer), address);
    kernels = { runtime, module, dynamicMap: address };
    known.set(runtime, kernels);
  }
  return kernels;
}

/** A weight as backends take it that decode its elements themselves (gpu); null elsewhere, and for formats that do not tell how. */
export function packedWeight(
  format: BlockFormat,
  shape: WeightShape,
  parts: readonly Tensor[],
): PackedWeight | null {
  const { element } = format;
  if (disabled || !element || !parts[0].storage.backend.fused.packedMatmul) return null;
  return { shape, parts: parts.map((part) => operand(part)), element };
}

/** Runs `fn` on the reference alone: what the kernels are tested against. */
export function withoutKernels<T>(fn: () => T): T {
  const before = disabled;
  disabled = true;
  try {
    return fn();
  } finally {
    disabled = before;
  }
}

/** Byte address of a tensor's first element. */
export function addressOf(kernels: Kernels, tensor: Tensor): number {
  return kernels.runtime.address(operand(tensor));
}

/**
 * The first nine arguments of every kernel that reads a weight: format, its parts in order (up to four), columns, dynamic
 * map, elements that share a scale, scales of a row.
 */
export function weightArguments(
  kernels: Kernels,
  format: BlockFormat,
  parts: readonly Tensor[],
  columns: number,
): number[] {
  const addresses = [0, 0, 0, 0];
  for (const [i, part] of parts.entries()) addresses[i] = addressOf(kernels, part);
  const [groupSize, groupsOfRow] = format.kernelOptions?.(columns) ?? [1, 1];
  return [format.kernel as number, ...addresses, columns, kernels.dynamicMap, groupSize, groupsOfRow];
}
