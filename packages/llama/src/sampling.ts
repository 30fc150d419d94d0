// From logits to the next token: penalties, temperature, top-k, top-p, min-p. Plain arithmetic on host arrays.

import { defaultGenerator, Generator, NomoatError } from "@nomoat/core";
import { requireOptions } from "@nomoat/core/extend";
import { OptionChecker } from "./options.js";

export interface SamplingOptions {
  /** 0 takes the most likely token (default); 1 samples from the model's distribution; higher is more random. */
  temperature?: number;
  /** Only the `topK` most likely tokens. */
  topK?: number;
  /** Only the most likely tokens whose probabilities add up to `topP` (Holtzman et al., arXiv:1904.09751). */
  topP?: number;
  /** Only tokens at least `minP` times as likely as the most likely one (arXiv:2407.01082). */
  minP?: number;
  /** Makes tokens that were read or written less likely; 1 is without effect (Keskar et al., arXiv:1909.05858). */
  repetitionPenalty?: number;
  /** Same seed, same text. Default: core's default generator goes on. */
  seed?: number | bigint;
}

/** Names of {@link SamplingOptions}. */
export const samplingOptionNames = ["temperature", "topK", "topP", "minP", "repetitionPenalty", "seed"];

/**
 * Chooses tokens. The filters apply in Hugging Face's order: repetition penalty, temperature, top-k, top-p, min-p.
 * Of equally likely tokens the one with the smaller id comes first.
 */
export class Sampler {
  readonly #temperature: number;
  readonly #topK: number;
  readonly #topP: number;
  readonly #minP: number;
  readonly #penalty: number;
  readonly #generator: Generator;

  /** @throws {ArgumentError} naming the option that is out of range */
  constructor(options: SamplingOptions = {}, operation = "sample") {
    const check = new OptionChecker(operation);
    requireOptions(operation, options);
    const { temperature = 0, topK, topP = 1, minP = 0, repetitionPenalty = 1, seed } = options;
    this.#temperature = check.number(
      "temperature",
      temperature,
      "a finite number of at least 0",
      (value) => value >= 0 && value < Number.POSITIVE_INFINITY,
    );
    this.#topK = topK === undefined ? Number.POSITIVE_INFINITY : check.integer("topK", topK, 1);
    this.#topP = check.number("topP", topP, "above 0 and at most 1", (value) => value > 0 && value <= 1);
    this.#minP = check.number("minP", minP, "from 0 to 1", (value) => value >= 0 && value <= 1);
    this.#penalty = check.number(
      "repetitionPenalty",
      repetitionPenalty,
      "a finite number above 0",
      (value) => value > 0 && value < Number.POSITIVE_INFINITY,
    );
    this.#generator = seed === undefined ? defaultGenerator() : new Generator(seed);
  }

  /**
   * The next token.
   * @param logits - one score a token [vocabSize]; −∞ for tokens that must not come
   * @param seen - ids of the tokens so far, for the repetition penalty
   * @throws {NomoatError} with code "NOT_FINITE" when a logit is NaN or +∞, or none is finite
   */
  sample(logits: ArrayLike<number>, seen: Iterable<number> = []): number {
    const scores = Float64Array.from(logits);
    if (this.#penalty !== 1) {
      for (const id of new Set(seen)) {
        if (id < scores.length) scores[id] *= scores[id] > 0 ? 1 / this.#penalty : this.#penalty;
      }
    }
    const best = mostLikely(scores);
    if (this.#temperature === 0) return best;
    const top = scores[best];
    // Relative to the most likely token: the sum is at least 1, and nothing overflows.
    const weights = scores.map((score) => Math.exp((score - top) / this.#temperature));
    return draw(this.#candidates(weights), weights, this.#generator);
  }

  /** Ids that pass the filters, the most likely first where order matters. */
  #candidates(weights: Float64Array): ArrayLike<number> {
    let ids: Int32Array | number[] = Int32Array.from(weights, (_, id) => id);
    const byWeight = (a: number, b: number): number => weights[b] - weights[a] || a - b;
    if (this.#topK < weights.length) {
      const threshold = Float64Array.from(weights).sort()[weights.length - this.#topK];
      ids = ids
        .filter((id) => weights[id] >= threshold)
        .sort(byWeight)
        .slice(0, this.#topK);
    }
    if (this.#topP < 1) {
      const total = sumOf(ids, weights);
      // A token below its even share of what may be left out cannot belong to the smallest set.
      const least = ((1 - this.#topP) * total) / ids.length;
      const sorted = ids.filter((id) => weights[id] >= least).sort(byWeight);
      let sum = 0;
      const end = sorted.findIndex((id) => (sum += weights[id]) >= this.#topP * total);
      ids = end < 0 ? sorted : sorted.slice(0, end + 1);
    }
    return this.#minP > 0 ? ids.filter((id) => weights[id] >= this.#minP) : ids;
  }
}

/** Index of the greatest score; the first of equals. */
function mostLikely(scores: Float64Array): number {
  let best = 0;
  for (let id = 0; id < scores.length; id++) {
    const score = scores[id];
    if (Number.isNaN(score) || score === Number.POSITIVE_INFINITY) {
      throw new NomoatError(
        `logits: the model gives ${score} for token ${id}; its weights, or an adapter's, hold values that are not finite or far too large`,
        "NOT_FINITE",
      );
    }
    if (score > scores[best]) best = id;
  }
  if (!(scores[best] > Number.NEGATIVE_INFINITY))
    throw new NomoatError("logits: no token is possible: all are −∞", "NOT_FINITE");
  return best;
}

function sumOf(ids: ArrayLike<number>, weights: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < ids.length; i++) sum += weights[ids[i]];
  return sum;
}

function draw(ids: ArrayLike<number>, weights: Float64Array, generator: Generator): number {
  let left = generator.uniform() * sumOf(ids, weights);
  let chosen = ids[0];
  for (let i = 0; i < ids.length; i++) {
    if (weights[ids[i]] === 0) continue;
    chosen = ids[i];
    left -= weights[chosen];
    if (left < 0) break;
  }
  return chosen;
}
