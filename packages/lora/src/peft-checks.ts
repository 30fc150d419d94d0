// Faults of an adapter's files, found before anything is touched and reported together.

import { ArgumentError, type BackendName, FormatError, NomoatError, type Tensor } from "@nomoat/core";
import type { OpenSafetensors } from "@nomoat/core/safetensors";

/** Faults of one file that one message lists. */
const maxListed = 30;

/** Faults as one line. */
export function listed(items: readonly string[]): string {
  const shown = items.slice(0, maxListed).join("; ");
  return items.length > maxListed ? `${shown}; and ${items.length - maxListed} more` : shown;
}

/** What is wrong with an adapter's files, so far. */
export class Faults {
  readonly #found = new Map<string, string[]>();

  add(file: string, texts: readonly string[]): void {
    if (texts.length > 0) this.#found.set(file, [...(this.#found.get(file) ?? []), ...texts]);
  }

  /** By file. */
  get found(): ReadonlyMap<string, readonly string[]> {
    return this.#found;
  }

  get none(): boolean {
    return this.#found.size === 0;
  }

  /** Runs `fn`; what it finds wrong with a file, or asks for in vain, is noted and gives null. Other errors pass. */
  async attempt<T>(file: string, fn: () => T | Promise<T>): Promise<T | null> {
    try {
      return await fn();
    } catch (error) {
      // A file that is not there matters less than what is wrong with those that are.
      const counts =
        error instanceof FormatError ||
        error instanceof ArgumentError ||
        (error instanceof NomoatError && error.code === "IO" && !this.none);
      if (!counts) throw error;
      const prefix = `${file}: `;
      this.add(file, [error.message.startsWith(prefix) ? error.message.slice(prefix.length) : error.message]);
      return null;
    }
  }

  /** @throws {FormatError} listing all of them, if there are any */
  throwIfAny(): void {
    if (this.none) return;
    const [[file, texts], ...others] = this.#found;
    const more = others.map(([name, items]) => `; ${name}: ${listed(items)}`).join("");
    throw new FormatError(`${listed(texts)}${more}`, { file });
  }
}

/** A tensor that a file should hold. */
export interface Expected {
  /** Name of the layer whose factor it is; null for a tensor that has no rank. */
  readonly layer: string | null;
  /** Files may lack it. */
  readonly optional?: boolean;
  /** Null for extents that depend on a rank that is not known. */
  readonly shape: readonly (number | null)[];
  /** The axis that is as long as the rank, or −1. */
  readonly rankAxis: number;
}

/** Keys of tensors with values that are not finite. */
export async function nonFinite(tensors: ReadonlyMap<string, Tensor>): Promise<string[]> {
  const found: string[] = [];
  for (const [key, tensor] of tensors) if (!(await allFinite(tensor))) found.push(key);
  return found;
}

const allFinite = async (tensor: Tensor): Promise<boolean> => (await tensor.data()).every(Number.isFinite);

/** Safetensors' dtypes that adapters are read from. */
const floats: ReadonlySet<string> = new Set(["F64", "F32", "F16", "BF16"]);

const quoted = (key: string): string => JSON.stringify(key.slice(0, 200));

/** Faults of a file's header, against what is expected. */
function headerFaults(
  entries: OpenSafetensors["entries"],
  expected: ReadonlyMap<string, Expected>,
): string[] {
  const faults: string[] = [];
  const ranks = new Map<string, Set<number>>();
  for (const [key, { layer, shape, rankAxis, optional }] of expected) {
    const entry = entries.get(key);
    if (!entry) {
      if (!optional) faults.push(`missing ${key} [${shape.map((extent) => extent ?? "r").join(", ")}]`);
      continue;
    }
    const matches = (i: number) => shape[i] === null || entry.shape[i] === shape[i];
    const others = entry.shape.length === shape.length && shape.every((_, i) => i === rankAxis || matches(i));
    if (others && rankAxis >= 0 && shape[rankAxis] === null)
      ranks.set(layer ?? "", (ranks.get(layer ?? "") ?? new Set()).add(entry.shape[rankAxis]));
    if (others && (rankAxis < 0 || matches(rankAxis))) continue;
    faults.push(
      others
        ? `${key} has rank ${entry.shape[rankAxis]}, but r and rank_pattern give ${shape[rankAxis]}`
        : `${key} is [${entry.shape.join(", ")}], expected [${shape.map((extent) => extent ?? "r").join(", ")}]`,
    );
  }
  for (const [layer, found] of ranks)
    if (found.size > 1) faults.push(`the tensors of ${layer} have ranks ${[...found].join(" and ")}`);
  return faults;
}

export interface ReadOptions {
  readonly file: string;
  readonly faults: Faults;
  /** Takes the tensors; the caller disposes them, also after a fault. */
  readonly tensors: Map<string, Tensor>;
  readonly dtype: "float32" | "float64";
  readonly device: BackendName;
  /** False where not all that may be in the file is known. */
  readonly complete?: boolean;
}

/**
 * Reads the expected tensors of an open file, and notes every missing, unexpected, misshapen, non-float and non-finite one. Without
 * expectations nothing is read into `tensors`, and what can be told without them is noted.
 * @returns optional tensors that the file lacks
 */
export async function readTensors(
  opened: OpenSafetensors,
  expected: ReadonlyMap<string, Expected> | null,
  { file, faults, tensors, dtype, device, complete = true }: ReadOptions,
): Promise<{ missing: string[] }> {
  const { entries } = opened;
  const found = expected ? headerFaults(entries, expected) : [];
  const unexpected = (key: string) =>
    expected && complete ? !expected.has(key) : !key.startsWith("base_model.");
  for (const [key, entry] of entries) {
    if (unexpected(key)) {
      found.push(`unexpected ${quoted(key)}`);
      continue;
    }
    if (!floats.has(entry.dtype)) {
      found.push(`${key} is ${entry.dtype}, expected a float`);
      continue;
    }
    const tensor = await opened.load(key, { dtype, device });
    if (!(await allFinite(tensor))) found.push(`${key} has values that are not finite`);
    if (expected?.has(key)) tensors.set(key, tensor);
    else tensor.dispose();
  }
  faults.add(file, found);
  return { missing: expected ? [...expected.keys()].filter((key) => !entries.has(key)) : [] };
}
