// Cosines and sines of the rotary embedding, by position; made once for each model and grown on demand.

import { type BackendName, keep, type Tensor, tensor } from "@nomoat/core";
import type { LlamaConfig } from "./config.js";

/** Angles by which position 1 is rotated, [headDim / 2]: ropeTheta^(−2i/headDim), scaled as the configuration says. */
function rotaryFrequencies(config: LlamaConfig): Float64Array {
  const half = config.headDim / 2;
  const frequencies = Float64Array.from(
    { length: half },
    (_, i) => config.ropeTheta ** ((-2 * i) / config.headDim),
  );
  const scaling = config.ropeScaling;
  if (scaling?.type === "linear") return frequencies.map((frequency) => frequency / scaling.factor);
  if (scaling?.type === "llama3") {
    // Long wavelengths are stretched, short ones kept, those between mixed (Llama 3.1's scheme, as in Transformers).
    const { factor, lowFreqFactor, highFreqFactor, originalMaxPositionEmbeddings } = scaling;
    return frequencies.map((frequency) => {
      const turns = (originalMaxPositionEmbeddings * frequency) / (2 * Math.PI);
      if (turns < lowFreqFactor) return frequency / factor;
      if (turns > highFreqFactor) return frequency;
      const smooth = (turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
      return (1 - smooth) * (frequency / factor) + smooth * frequency;
    });
  }
  return frequencies;
}

export class RotaryTables {
  readonly #frequencies: Float64Array;
  #length = 0;
  #cos: Tensor | null = null;
  #sin: Tensor | null = null;

  constructor(config: LlamaConfig) {
    this.#frequencies = rotaryFrequencies(config);
  }

  /** cos and sin [length, headDim/2] of positions start … start + length − 1: views, to be disposed by the caller's scope. */
  at(start: number, length: number, like: Tensor): { cos: Tensor; sin: Tensor } {
    const stale = this.#cos && (this.#cos.device !== like.device || this.#cos.dtype !== like.dtype);
    if (start + length > this.#length || stale)
      this.#grow(Math.max(start + length, stale ? this.#length : 2 * this.#length), like);
    return { cos: this.#cos!.slice([start, start + length]), sin: this.#sin!.slice([start, start + length]) };
  }

  #grow(length: number, like: Tensor): void {
    this.dispose();
    const half = this.#frequencies.length;
    const table = (fn: (angle: number) => number): Tensor => {
      const values = Float64Array.from({ length: length * half }, (_, i) =>
        fn(Math.floor(i / half) * this.#frequencies[i % half]),
      );
      return keep(
        tensor(values, { shape: [length, half], dtype: like.dtype, device: like.device as BackendName }),
      );
    };
    this.#cos = table(Math.cos);
    this.#sin = table(Math.sin);
    this.#length = length;
  }

  dispose(): void {
    this.#cos?.dispose();
    this.#sin?.dispose();
    this.#cos = this.#sin = null;
    this.#length = 0;
  }
}
