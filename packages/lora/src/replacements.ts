// What an adapter puts in the place of parts of the model while it is enabled: whole modules, and biases.

import type { Tensor } from "@nomoat/core";

/** Parts of the model that give way to an adapter's own while it is enabled. */
export interface Replacement {
  /** Number of replaced parts. */
  readonly size: number;
  /** The adapter's tensors by their keys in a file, without PEFT's prefix. */
  tensors(): Iterable<[key: string, tensor: Tensor]>;
  parameters(): Tensor[];
  /** @throws {ArgumentError} when another adapter's part stands where one of these belongs */
  checkFree(): void;
  /** Puts the adapter's parts (or the originals) into the model. */
  setActive(active: boolean): void;
  /** Leaves the adapter's parts to the model and disposes the originals. */
  releaseOriginals(): void;
  /** Disposes the adapter's parts. */
  dispose(): void;
  /** Disposes the adapter's parts and the originals, those in the model and those beside it. */
  disposeAll(): void;
}

/** Several kinds of replaced parts as one. */
export class Replacements implements Replacement {
  readonly #parts: readonly Replacement[];

  constructor(parts: readonly Replacement[] = []) {
    this.#parts = parts;
  }

  get size(): number {
    return this.#parts.reduce((sum, part) => sum + part.size, 0);
  }

  *tensors(): Generator<[key: string, tensor: Tensor]> {
    for (const part of this.#parts) yield* part.tensors();
  }

  parameters(): Tensor[] {
    return this.#parts.flatMap((part) => part.parameters());
  }

  checkFree(): void {
    for (const part of this.#parts) part.checkFree();
  }

  setActive(active: boolean): void {
    if (active) this.checkFree();
    for (const part of this.#parts) part.setActive(active);
  }

  releaseOriginals(): void {
    for (const part of this.#parts) part.releaseOriginals();
  }

  dispose(): void {
    for (const part of this.#parts) part.dispose();
  }

  disposeAll(): void {
    for (const part of this.#parts) part.disposeAll();
  }
}
