// How far a model's predictions have moved from those of the model that it was made of: perplexity and Kullback-Leibler
// divergence, gathered batch by batch. Whose logits they are, and how they come about, is the caller's affair.

import {
  ArgumentError,
  argmax,
  gather,
  logSoftmax,
  noGrad,
  ShapeError,
  stack,
  Tensor,
  tensor,
  tidy,
} from "@nomoat/core";

/** Means over the positions whose next token was asked for; logarithms are natural. */
export interface PredictionError {
  /** Positions. */
  readonly tokens: number;
  /** exp of the mean −ln p(token), of the model and of the reference. */
  readonly perplexity: number;
  readonly referencePerplexity: number;
  /**
   * Standard error of the difference of the two mean losses, ln(perplexity / referencePerplexity): both are measured on the same tokens, so
   * it is that of the mean of the differences, token by token. NaN for one token.
   */
  readonly standardError: number;
  /** Mean of KL(reference ‖ model) = Σ p·ln(p/q) over the vocabulary, in nats. */
  readonly divergence: number;
  /** Share of the positions where both hold the same token for the likeliest. */
  readonly agreement: number;
}

/** Rows of logits that are compared at once: three tables of [rows, classes] live at a time. */
const rowsAtOnce = 256;

/**
 * Gathers {@link PredictionError}s over batches of logits.
 *
 * ```ts
 * const comparison = new PredictionComparison();
 * for (const { x, targets } of batches) await comparison.add(model.forward(x), reference.forward(x), targets);
 * console.log(comparison.result.divergence);
 * ```
 */
export class PredictionComparison {
  #tokens = 0;
  #loss = 0;
  #referenceLoss = 0;
  #squaredDifference = 0;
  readonly #losses: Float32Array[] = [];
  #divergence = 0;
  #agreeing = 0;

  /**
   * Adds a batch. The tensors stay the caller's.
   *
   * @param logits - of the model, float [..., classes]
   * @param reference - of the model that it is measured against, of the same shape
   * @param targets - the class that each position should have predicted, [...]; positions with −100 do not count
   * @throws {ShapeError} when shapes differ
   * @throws {ArgumentError} for a target that is no class
   */
  async add(logits: Tensor, reference: Tensor, targets: Tensor | ArrayLike<number>): Promise<void> {
    const classes = logits.shape.at(-1) ?? 0;
    const wanted = targets instanceof Tensor ? await targets.data() : targets;
    const positions = classes === 0 ? 0 : logits.size / classes;
    if (logits.shape.join() !== reference.shape.join() || logits.rank === 0 || wanted.length !== positions) {
      throw new ShapeError(
        `PredictionComparison: logits [${logits.shape.join(", ")}], of the reference [${reference.shape.join(", ")}] and ${wanted.length} targets do not belong together`,
      );
    }
    const rows: number[] = [];
    for (let i = 0; i < positions; i++) {
      const target = Number(wanted[i]);
      if (target === -100) continue;
      if (!(Number.isInteger(target) && target >= 0 && target < classes)) {
        throw new ArgumentError(
          `PredictionComparison: target ${target} at ${i} is none of ${classes} classes`,
        );
      }
      rows.push(i);
    }
    for (let from = 0; from < rows.length; from += rowsAtOnce) {
      const part = rows.slice(from, from + rowsAtOnce);
      const figures = compareRows(
        logits,
        reference,
        part,
        part.map((row) => Number(wanted[row])),
      );
      const values = await figures.data();
      figures.dispose();
      const count = part.length;
      const losses = Float32Array.from({ length: count }, (_, i) => -Number(values[i]));
      this.#losses.push(losses);
      for (let i = 0; i < count; i++) {
        const referenceLoss = -Number(values[count + i]);
        this.#loss += losses[i];
        this.#referenceLoss += referenceLoss;
        this.#squaredDifference += (losses[i] - referenceLoss) ** 2;
        this.#divergence += Number(values[2 * count + i]);
        this.#agreeing += Number(values[3 * count + i]);
      }
      this.#tokens += count;
    }
  }

  /** −ln p(token) of the model at the positions that counted, in their order: two models are told apart token by token. */
  get losses(): Float32Array {
    const all = new Float32Array(this.#tokens);
    let at = 0;
    for (const part of this.#losses) {
      all.set(part, at);
      at += part.length;
    }
    return all;
  }

  /** @throws {ArgumentError} when no position was compared */
  get result(): PredictionError {
    if (this.#tokens === 0) throw new ArgumentError("PredictionComparison: nothing was compared");
    const difference = (this.#loss - this.#referenceLoss) / this.#tokens;
    // Rounding may leave less than nothing of a spread that is none.
    const spread = Math.max(0, this.#squaredDifference - this.#tokens * difference ** 2);
    return {
      tokens: this.#tokens,
      perplexity: Math.exp(this.#loss / this.#tokens),
      referencePerplexity: Math.exp(this.#referenceLoss / this.#tokens),
      standardError: Math.sqrt(spread / (this.#tokens - 1) / this.#tokens),
      divergence: this.#divergence / this.#tokens,
      agreement: this.#agreeing / this.#tokens,
    };
  }
}

/** [4, rows]: ln q(target), ln p(target), KL(p ‖ q), 1 where the likeliest classes are the same. */
function compareRows(logits: Tensor, reference: Tensor, rows: number[], targets: number[]): Tensor {
  return noGrad(() =>
    tidy(() => {
      const { device } = logits;
      const classes = logits.shape.at(-1) as number;
      const chosen = tensor(Int32Array.from(rows), { dtype: "int32", device });
      // −∞ on both sides (a forbidden class) would give NaN: 0 · ∞.
      const logarithms = (x: Tensor) =>
        logSoftmax(gather(x.detach().reshape(-1, classes), chosen)).maximum(-1e30);
      const [q, p] = [logarithms(logits), logarithms(reference)];
      const places = targets.map((target, i) => i * classes + target);
      const at = tensor(Int32Array.from(places), { dtype: "int32", device });
      const ofTargets = (x: Tensor) => gather(x.reshape(-1, 1), at).reshape(-1);
      const divergence = p.exp().mul(p.sub(q)).sum(-1);
      const same = argmax(p, -1).equal(argmax(q, -1)).cast(p.dtype);
      return stack([ofTargets(q), ofTargets(p), divergence, same]);
    }),
  );
}
