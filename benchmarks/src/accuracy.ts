// Float64 references that are not the library's own: plain loops, plainly right, over as much of a result as a tenth of a
// second allows.

import type { Accuracy } from "./model.js";

/** Multiply-adds that a reference may take. */
const budget = 5e7;

/** Collects differences between values and their reference. */
export class Comparison {
  #maxError = 0;
  #scale = 0;
  #compared = 0;

  /** A NaN on either side counts as an infinite error. */
  add(value: number, reference: number): void {
    const error = Math.abs(value - reference);
    this.#maxError = Math.max(this.#maxError, Number.isNaN(error) ? Number.POSITIVE_INFINITY : error);
    this.#scale = Math.max(this.#scale, Math.abs(reference));
    this.#compared++;
  }

  result(tolerance: number): Accuracy {
    return { maxError: this.#maxError, scale: this.#scale, tolerance, compared: this.#compared };
  }
}

/** Compares two arrays element by element. */
export function compareArrays(
  values: ArrayLike<number>,
  reference: ArrayLike<number>,
  tolerance: number,
): Accuracy {
  if (values.length !== reference.length) {
    return {
      maxError: Number.POSITIVE_INFINITY,
      scale: 1,
      tolerance,
      compared: Math.min(values.length, reference.length),
    };
  }
  const comparison = new Comparison();
  for (let i = 0; i < values.length; i++) comparison.add(values[i], reference[i]);
  return comparison.result(tolerance);
}

/** Whether a result may be shown as one. */
export function isAccurate({ maxError, scale, tolerance }: Accuracy): boolean {
  return maxError <= tolerance * Math.max(scale, Number.MIN_VALUE);
}

/** A matrix in a flat array: element (i, j) of product p stands at p·batch + i·row + j·column. */
export interface Matrix {
  readonly values: ArrayLike<number>;
  readonly batch: number;
  readonly row: number;
  readonly column: number;
}

/** The rows that are compared when not all can be: spread evenly, first and last among them. */
export function sampledRows(rows: number, costOfRow: number): number[] {
  const count = Math.max(1, Math.min(rows, Math.floor(budget / costOfRow)));
  if (count === 1) return [rows - 1];
  return Array.from({ length: count }, (_, i) => Math.round((i * (rows - 1)) / (count - 1)));
}

/**
 * Compares `batch` products [m, n] with Σ a·b in float64, as many rows as the budget allows.
 *
 * @param out - [batch, m, n], contiguous
 */
export function compareProduct(
  out: ArrayLike<number>,
  a: Matrix,
  b: Matrix,
  size: { m: number; n: number; k: number; batch?: number },
  tolerance: number,
): Accuracy {
  const { m, n, k, batch = 1 } = size;
  const comparison = new Comparison();
  const sums = new Float64Array(n);
  for (const row of sampledRows(batch * m, n * k)) {
    const product = Math.floor(row / m);
    const i = row - product * m;
    sums.fill(0);
    for (let l = 0; l < k; l++) {
      const x = a.values[product * a.batch + i * a.row + l * a.column];
      const start = product * b.batch + l * b.row;
      for (let j = 0; j < n; j++) sums[j] += x * b.values[start + j * b.column];
    }
    for (let j = 0; j < n; j++) comparison.add(out[row * n + j], sums[j]);
  }
  return comparison.result(tolerance);
}
