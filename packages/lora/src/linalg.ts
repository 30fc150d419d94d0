// Small dense linear algebra in float64 on the host: QR, singular values, solving. For factors of adapters and single weights, not for
// training steps; plain loops, no tensors.

import { ArgumentError, type Generator, type Tensor } from "@nomoat/core";
import { hostValues } from "@nomoat/core/extend";

/** A row-major matrix. */
export interface Matrix {
  readonly rows: number;
  readonly columns: number;
  readonly data: Float64Array;
}

export function matrix(
  rows: number,
  columns: number,
  data: Float64Array = new Float64Array(rows * columns),
): Matrix {
  return { rows, columns, data };
}

/** What to do where values have to be waited for (gpu). */
export const onWasm =
  "do it with the model on the wasm backend; saveAdapter and loadAdapter bring the adapter here";

/**
 * The values of a tensor [rows, columns].
 * @throws {BackendError} naming the operation where they have to be waited for
 */
export function fromTensor(operation: string, tensor: Tensor): Matrix {
  return matrix(tensor.shape[0], tensor.shape[1], Float64Array.from(hostValues(operation, tensor, onWasm)));
}

export function transposed({ rows, columns, data }: Matrix): Matrix {
  const out = matrix(columns, rows);
  for (let i = 0; i < rows; i++)
    for (let j = 0; j < columns; j++) out.data[j * rows + i] = data[i * columns + j];
  return out;
}

/** a · b. */
export function multiply(a: Matrix, b: Matrix): Matrix {
  if (a.columns !== b.rows) throw new ArgumentError(`multiply: ${a.columns} columns against ${b.rows} rows`);
  const out = matrix(a.rows, b.columns);
  const n = b.columns;
  for (let i = 0; i < a.rows; i++) {
    for (let k = 0; k < a.columns; k++) {
      const factor = a.data[i * a.columns + k];
      if (factor === 0) continue;
      for (let j = 0; j < n; j++) out.data[i * n + j] += factor * b.data[k * n + j];
    }
  }
  return out;
}

/** The first `count` columns. */
export function leadingColumns(a: Matrix, count: number): Matrix {
  const out = matrix(a.rows, count);
  for (let i = 0; i < a.rows; i++)
    out.data.set(a.data.subarray(i * a.columns, i * a.columns + count), i * count);
  return out;
}

/** a · diag(s). */
export function scaleColumns(a: Matrix, s: ArrayLike<number>): Matrix {
  return { ...a, data: a.data.map((value, i) => value * s[i % a.columns]) };
}

/**
 * a = q · r with k = min(rows, columns): q [rows, k] has orthonormal columns, r [k, columns] is upper triangular. Householder
 * reflections, with LAPACK's signs.
 */
export function qr(a: Matrix): { q: Matrix; r: Matrix } {
  const { rows: m, columns: n } = a;
  const k = Math.min(m, n);
  const work = a.data.slice();
  const betas = new Float64Array(k);
  // Reflector j is (1, v…) with v below the diagonal of column j.
  for (let j = 0; j < k; j++) {
    let tail = 0;
    for (let i = j + 1; i < m; i++) tail += work[i * n + j] ** 2;
    if (tail === 0) continue;
    const alpha = work[j * n + j];
    const diagonal = -Math.sign(alpha || 1) * Math.sqrt(alpha * alpha + tail);
    betas[j] = (diagonal - alpha) / diagonal;
    for (let i = j + 1; i < m; i++) work[i * n + j] /= alpha - diagonal;
    work[j * n + j] = diagonal;
    for (let c = j + 1; c < n; c++) reflect(work, n, j, c, work, n, j, m, betas[j]);
  }
  const q = matrix(m, k);
  for (let j = 0; j < k; j++) q.data[j * k + j] = 1;
  for (let j = k - 1; j >= 0; j--)
    for (let c = j; c < k; c++) reflect(q.data, k, j, c, work, n, j, m, betas[j]);
  const r = matrix(k, n);
  for (let i = 0; i < k; i++) for (let j = i; j < n; j++) r.data[i * n + j] = work[i * n + j];
  return { q, r };
}

/** Applies reflector `v` (column `vc` of `v`, 1 at row `top`) to column `c` of `x`. */
function reflect(
  x: Float64Array,
  xWidth: number,
  top: number,
  c: number,
  v: Float64Array,
  vWidth: number,
  vc: number,
  rows: number,
  beta: number,
): void {
  if (beta === 0) return;
  let dot = x[top * xWidth + c];
  for (let i = top + 1; i < rows; i++) dot += v[i * vWidth + vc] * x[i * xWidth + c];
  dot *= beta;
  x[top * xWidth + c] -= dot;
  for (let i = top + 1; i < rows; i++) x[i * xWidth + c] -= dot * v[i * vWidth + vc];
}

/** a = u · diag(s) · vᵀ with k = min(rows, columns): u [rows, k], s descending, v [columns, k]. */
export interface Svd {
  readonly u: Matrix;
  readonly s: Float64Array;
  readonly v: Matrix;
}

/**
 * Singular values and vectors by one-sided Jacobi rotations after a QR (Demmel and Veselić 1992): small singular values come out as
 * accurate as large ones. Cubic in the smaller side, with about ten sweeps.
 */
export function svd(a: Matrix): Svd {
  if (a.rows < a.columns) {
    const { u, s, v } = svd(transposed(a));
    return { u: v, s, v: u };
  }
  const { q, r } = qr(a);
  const n = a.columns;
  // Rows of `w` are columns of r; rotating them makes them orthogonal: r · V = U · S.
  const w = transposed(r).data;
  const v = matrix(n, n);
  for (let i = 0; i < n; i++) v.data[i * n + i] = 1;
  for (let sweep = 0, rotated = true; rotated && sweep < 60; sweep++) {
    rotated = false;
    for (let i = 0; i < n - 1; i++)
      for (let j = i + 1; j < n; j++) rotated = rotate(w, v.data, n, i, j) || rotated;
  }
  const norms = Float64Array.from({ length: n }, (_, i) => Math.hypot(...w.subarray(i * n, (i + 1) * n)));
  const order = Array.from(norms.keys()).sort((x, y) => norms[y] - norms[x]);
  const s = Float64Array.from(order, (i) => norms[i]);
  const inner = matrix(n, n);
  const right = matrix(n, n);
  order.forEach((from, to) => {
    for (let i = 0; i < n; i++) {
      inner.data[i * n + to] = norms[from] > 0 ? w[from * n + i] / norms[from] : 0;
      right.data[i * n + to] = v.data[from * n + i];
    }
  });
  return { u: multiply(q, inner), s, v: right };
}

/** Makes rows i and j of `w` orthogonal, rotating those of `v` along; false when they are already. */
function rotate(w: Float64Array, v: Float64Array, n: number, i: number, j: number): boolean {
  let alpha = 0;
  let beta = 0;
  let gamma = 0;
  for (let k = 0, p = i * n, q = j * n; k < n; k++, p++, q++) {
    const x = w[p];
    const y = w[q];
    alpha += x * x;
    beta += y * y;
    gamma += x * y;
  }
  if (gamma === 0 || Math.abs(gamma) <= 1e-15 * Math.sqrt(alpha * beta)) return false;
  const zeta = (beta - alpha) / (2 * gamma);
  const t = Math.sign(zeta || 1) / (Math.abs(zeta) + Math.hypot(1, zeta));
  const c = 1 / Math.hypot(1, t);
  turn(w, n, i, j, c, c * t);
  turn(v, n, i, j, c, c * t);
  return true;
}

/** Rotates rows i and j by cosine c and sine s. */
function turn(rows: Float64Array, n: number, i: number, j: number, c: number, s: number): void {
  for (let k = 0, p = i * n, q = j * n; k < n; k++, p++, q++) {
    const x = rows[p];
    const y = rows[q];
    rows[p] = c * x - s * y;
    rows[q] = s * x + c * y;
  }
}

/** Only the `rank` largest singular values with their vectors. */
export function truncated({ u, s, v }: Svd, rank: number): Svd {
  const k = Math.min(rank, s.length);
  return { u: leadingColumns(u, k), s: s.slice(0, k), v: leadingColumns(v, k) };
}

/**
 * The SVD of b · a for b [m, r] and a [r, n], through the QRs of both: the product itself, [m, n], is never made.
 */
export function svdOfProduct(b: Matrix, a: Matrix): Svd {
  const left = qr(b);
  const right = qr(transposed(a));
  const core = svd(multiply(left.r, transposed(right.r)));
  return { u: multiply(left.q, core.u), s: core.s, v: multiply(right.q, core.v) };
}

/**
 * The `rank` largest singular values with their vectors, by subspace iteration from a random start (Halko, Martinsson and Tropp,
 * arXiv:0909.4061, algorithm 5.1; as torch.svd_lowrank).
 *
 * @param iterations - the more, the closer; 2 to 16 are usual
 */
export function lowRankSvd(
  a: Matrix,
  rank: number,
  options: { iterations: number; generator: Generator; oversampling?: number },
): Svd {
  const width = Math.min(rank + (options.oversampling ?? 0), a.rows, a.columns);
  const start = matrix(a.columns, width);
  options.generator.fillNormal(start.data);
  const at = transposed(a);
  let q = qr(multiply(a, start)).q;
  for (let i = 0; i < options.iterations; i++) q = qr(multiply(a, qr(multiply(at, q)).q)).q;
  const { u, s, v } = svd(multiply(transposed(q), a));
  return truncated({ u: multiply(q, u), s, v }, rank);
}

/** The inverse of a symmetric positive definite matrix, by Cholesky. @throws {ArgumentError} when it is not one */
export function inverseSpd(a: Matrix): Matrix {
  const n = a.rows;
  const l = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let value = a.data[i * n + j];
      for (let k = 0; k < j; k++) value -= l[i * n + k] * l[j * n + k];
      if (i === j && !(value > 0)) throw new ArgumentError("inverseSpd: the matrix is not positive definite");
      l[i * n + j] = i === j ? Math.sqrt(value) : value / l[j * n + j];
    }
  }
  const out = matrix(n, n);
  for (let c = 0; c < n; c++) {
    const x = new Float64Array(n);
    for (let i = 0; i < n; i++) {
      let value = i === c ? 1 : 0;
      for (let k = 0; k < i; k++) value -= l[i * n + k] * x[k];
      x[i] = value / l[i * n + i];
    }
    for (let i = n - 1; i >= 0; i--) {
      for (let k = i + 1; k < n; k++) x[i] -= l[k * n + i] * x[k];
      x[i] /= l[i * n + i];
      out.data[i * n + c] = x[i];
    }
  }
  return out;
}
