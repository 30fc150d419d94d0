// The triangular factor of an inverse, in float64.

import { ArgumentError } from "@nomoat/core";

/**
 * The upper triangular U with A⁻¹ = Uᵀ·U, for a symmetric positive definite A [n, n], row-major; A is overwritten.
 *
 * A = R·Rᵀ with an upper R (Cholesky's decomposition from the last row on), and U = R⁻¹: the inverse itself is never formed.
 * @throws {ArgumentError} when A is not positive definite
 */
export function inverseFactor(a: Float64Array, n: number): Float64Array {
  for (let j = n - 1; j >= 0; j--) {
    let pivot = a[j * n + j];
    for (let k = j + 1; k < n; k++) pivot -= a[j * n + k] ** 2;
    if (!(pivot > 0))
      throw new ArgumentError("inverseFactor: the matrix is not positive definite: raise the damping");
    const root = Math.sqrt(pivot);
    a[j * n + j] = root;
    for (let i = 0; i < j; i++) {
      let sum = a[i * n + j];
      for (let k = j + 1; k < n; k++) sum -= a[i * n + k] * a[j * n + k];
      a[i * n + j] = sum / root;
    }
  }
  const inverse = new Float64Array(n * n);
  for (let i = n - 1; i >= 0; i--) {
    const reciprocal = 1 / a[i * n + i];
    inverse[i * n + i] = reciprocal;
    // Row i of U is −1/Rᵢᵢ · Σₖ Rᵢₖ · (row k of U), k > i: rows below are finished.
    for (let k = i + 1; k < n; k++) {
      const factor = a[i * n + k] * reciprocal;
      for (let j = k; j < n; j++) inverse[i * n + j] -= factor * inverse[k * n + j];
    }
  }
  return inverse;
}
