// The key-value cache: keys and values of what was read, so that each new token costs one position's work.

import { ArgumentError, type BackendName, keep, type Tensor, zeros } from "@nomoat/core";
import type { LlamaConfig } from "./config.js";

export class KVCache {
  /** Positions that fit. */
  readonly capacity: number;
  readonly batch: number;
  /** Positions that are filled. */
  length = 0;
  /** By layer, [batch, kvHeads, capacity, headDim]. */
  readonly #keys: Tensor[] = [];
  readonly #values: Tensor[] = [];

  /** @param like - dtype and backend of the model's activations, by default float32 on the active backend */
  constructor(
    config: LlamaConfig,
    capacity: number,
    batch = 1,
    like: { dtype?: Tensor["dtype"]; device?: BackendName } = {},
  ) {
    this.capacity = capacity;
    this.batch = batch;
    const shape = [batch, config.numKeyValueHeads, capacity, config.headDim];
    for (let layer = 0; layer < config.numLayers; layer++) {
      this.#keys.push(keep(zeros(shape, { dtype: like.dtype, device: like.device })));
      this.#values.push(keep(zeros(shape, { dtype: like.dtype, device: like.device })));
    }
  }

  /**
   * Puts keys and values [batch, kvHeads, new, headDim] of one layer after those at hand, and returns views of all of them.
   * `length` grows when the model has gone through its last layer.
   * @throws {ArgumentError} when they do not fit
   */
  append(layer: number, keys: Tensor, values: Tensor): { keys: Tensor; values: Tensor } {
    const end = this.length + keys.shape[2];
    if (end > this.capacity)
      throw new ArgumentError(`KV cache: ${end} positions do not fit into ${this.capacity}`);
    const place = (store: Tensor, part: Tensor): Tensor => {
      store.slice(null, null, [this.length, end]).copyFrom(part);
      return store.slice(null, null, [0, end]);
    };
    return { keys: place(this.#keys[layer], keys), values: place(this.#values[layer], values) };
  }

  /** Forgets all positions from `length` on. */
  truncate(length: number): void {
    this.length = Math.min(this.length, length);
  }

  dispose(): void {
    for (const tensor of [...this.#keys, ...this.#values]) tensor.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
