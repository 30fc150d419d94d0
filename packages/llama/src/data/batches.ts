// Rows of token ids, the order they come in, and the tensors of a batch.

import { ArgumentError, Generator, type Tensor, tensor } from "@nomoat/core";
import type { LlamaForCausalLM } from "../model/model.js";

/** One row of a batch. */
export interface Row {
  readonly ids: Int32Array;
  /** As Hugging Face: not shifted, −100 where nothing is learnt. */
  readonly labels: Int32Array;
}

export interface Batch {
  /** int32 [rows, length of the longest] */
  ids: Tensor;
  /** int32 of the same shape, −100 where padded */
  labels: Tensor;
  /** Labels that count in the loss: those after each row's first position that are not −100. */
  counted: number;
}

/** Labels of a row that count in the loss; the first position is predicted by nothing. */
export function countedLabels(row: Row): number {
  let counted = 0;
  for (let i = 1; i < row.labels.length; i++) if (row.labels[i] !== -100) counted++;
  return counted;
}

/** Length of the common beginning. */
export function commonPrefix(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const end = Math.min(a.length, b.length);
  let n = 0;
  while (n < end && a[n] === b[n]) n++;
  return n;
}

/**
 * The tensors of a batch, on the model's backend; the caller's scope owns them. Rows are padded on the right with id 0, which under
 * causal attention no counted position can see.
 */
export function batchTensors(rows: readonly Row[], model: LlamaForCausalLM): Batch {
  const length = Math.max(...rows.map((row) => row.ids.length));
  const ids = new Int32Array(rows.length * length);
  const labels = new Int32Array(rows.length * length).fill(-100);
  rows.forEach((row, i) => {
    ids.set(row.ids, i * length);
    labels.set(row.labels, i * length);
  });
  const options = { shape: [rows.length, length], device: model.model.norm.weight.device };
  const counted = rows.reduce((sum, row) => sum + countedLabels(row), 0);
  return { ids: tensor(ids, options), labels: tensor(labels, options), counted };
}

/**
 * An endless sequence of rows, epoch after epoch, each epoch in an order of its own. What stands at a place depends on the place, the
 * number of rows and the seed alone.
 */
export class RowOrder {
  readonly #count: number;
  /** Null: as given. */
  readonly #generator: Generator | null;
  #epoch = -1;
  #order = new Int32Array();

  constructor(count: number, options: { seed: number | bigint; shuffle: boolean }) {
    if (count < 1) throw new ArgumentError("there are no rows to order");
    this.#count = count;
    this.#generator = options.shuffle ? new Generator(options.seed).fork("row order") : null;
  }

  /** Index of the row at `place`, counting from 0 over all epochs. */
  at(place: number): number {
    const epoch = Math.floor(place / this.#count);
    const index = place % this.#count;
    if (!this.#generator) return index;
    if (epoch !== this.#epoch) {
      this.#order = this.#generator.fork(epoch).permutation(this.#count) as Int32Array<ArrayBuffer>;
      this.#epoch = epoch;
    }
    return this.#order[index];
  }
}
