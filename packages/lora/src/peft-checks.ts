// Faults of an adapter's file, found before anything is touched.

import { ArgumentError, type BackendName, FormatError, type Tensor } from "@nomoat/core";
import type { OpenSafetensors } from "@nomoat/core/safetensors";

/** Faults that one message lists. */
const maxListed = 30;

/** A tensor that a file should hold. */
export interface Expected {
  /** Rank of the layer's factors; null for a tensor that has none. */
  readonly r: number | null;
  readonly suffix: string;
  /** Files may lack it. */
  readonly optional?: boolean;
  readonly shape: readonly number[];
}

/** Keys of tensors with values that are not finite. */
export async function nonFinite(tensors: ReadonlyMap<string, Tensor>): Promise<string[]> {
  const found: string[] = [];
  for (const [key, tensor] of tensors) if (!(await tensor.data()).every(Number.isFinite)) found.push(key);
  return found;
}

/** Faults as one line. */
export function listed(items: readonly string[]): string {
  const shown = items.slice(0, maxListed).join("; ");
  return items.length > maxListed ? `${shown}; and ${items.length - maxListed} more` : shown;
}

/** Safetensors' dtypes that adapters are read from. */
const floats: ReadonlySet<string> = new Set(["F64", "F32", "F16", "BF16"]);

/** Faults of a file's header, against what is expected. */
function headerFaults(
  entries: OpenSafetensors["entries"],
  expected: ReadonlyMap<string, Expected>,
): string[] {
  const faults: string[] = [];
  for (const [key, { r, suffix, shape, optional }] of expected) {
    const entry = entries.get(key);
    if (!entry) {
      if (!optional) faults.push(`missing ${key} [${shape.join(", ")}]`);
      continue;
    }
    if (!floats.has(entry.dtype)) faults.push(`${key} is ${entry.dtype}, expected a float`);
    if (entry.shape.join() === shape.join()) continue;
    const axis = suffix === "lora_A.weight" ? 0 : suffix === "lora_B.weight" ? 1 : -1;
    const rankOnly =
      entry.shape.length === shape.length &&
      entry.shape.every((extent, i) => i === axis || extent === shape[i]);
    faults.push(
      rankOnly && r !== null
        ? `${key} has rank ${entry.shape[axis]}, but r and rank_pattern give ${r}`
        : `${key} is [${entry.shape.join(", ")}], expected [${shape.join(", ")}]`,
    );
  }
  for (const key of entries.keys())
    if (!expected.has(key)) faults.push(`unexpected ${JSON.stringify(key.slice(0, 200))}`);
  return faults;
}

/** What a configuration asks for in vain is a fault of its file. */
export function asFormatError<T>(fn: () => T, file: string): T {
  try {
    return fn();
  } catch (error) {
    if (error instanceof ArgumentError) throw new FormatError(error.message, { file }, { cause: error });
    throw error;
  }
}

/**
 * Reads the expected tensors of an open file into `tensors`, which the caller disposes, also after a fault.
 * @returns optional tensors that the file lacks
 * @throws {FormatError} listing every missing, unexpected, misshapen, non-float and non-finite tensor
 */
export async function readTensors(
  opened: OpenSafetensors,
  expected: ReadonlyMap<string, Expected>,
  options: { file: string; tensors: Map<string, Tensor>; dtype: "float32" | "float64"; device: BackendName },
): Promise<{ missing: string[] }> {
  const { file, tensors, dtype, device } = options;
  const faults = headerFaults(opened.entries, expected);
  const missing: string[] = [];
  for (const key of expected.keys()) {
    const entry = opened.entries.get(key);
    if (!entry) missing.push(key);
    else if (floats.has(entry.dtype)) tensors.set(key, await opened.load(key, { dtype, device }));
  }
  faults.push(...(await nonFinite(tensors)).map((key) => `${key} has values that are not finite`));
  if (faults.length > 0) throw new FormatError(listed(faults), { file });
  return { missing };
}
