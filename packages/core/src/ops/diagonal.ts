// Diagonals of matrices, read and made. All are views and joins, so that gradients need no rule of their own.

import { requireInteger, use } from "../arguments.js";
import { ShapeError } from "../errors.js";
import { tidy } from "../memory.js";
import { formatShape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { moveaxis, pad } from "./rearrange.js";
import { sum } from "./reduce.js";
import { reshape, slice, unsqueeze } from "./view.js";

/**
 * The elements whose place along `axis2` is their place along `axis1` plus `offset`, as the last axis, as torch.diagonal.
 * @throws {ShapeError} for fewer than two axes, or twice the same
 */
export function diagonal(x: Tensor, offset = 0, axis1 = 0, axis2 = 1): Tensor {
  use("diagonal", x);
  requireInteger("diagonal", "offset", offset);
  if (x.rank < 2) throw new ShapeError(`diagonal: expected two axes or more, not ${formatShape(x.shape)}`);
  return tidy(() => {
    const matrices = moveaxis(x, [axis1, axis2], [-2, -1]);
    const lead = matrices.shape.slice(0, -2);
    const [rows, columns] = matrices.shape.slice(-2);
    const [down, right] = offset < 0 ? [-offset, 0] : [0, offset];
    const count = Math.max(0, Math.min(rows - down, columns - right));
    // In [..., rows · columns] every (columns + 1)th.
    const first = down * columns + right;
    const end = count === 0 ? first : first + (count - 1) * (columns + 1) + 1;
    const flat = reshape(matrices, [...lead, rows * columns]);
    return slice(flat, ...lead.map(() => null), [first, end, columns + 1]);
  });
}

/**
 * Of a vector [n] the matrix with it on diagonal `k` and zeros elsewhere; of a matrix its diagonal `k`; as torch.diag and numpy.diag.
 * @throws {ShapeError} for other ranks
 */
export function diag(x: Tensor, k = 0): Tensor {
  use("diag", x);
  requireInteger("diag", "k", k);
  if (x.rank === 2) return diagonal(x, k);
  if (x.rank !== 1)
    throw new ShapeError(`diag: expected [n] or [rows, columns], not ${formatShape(x.shape)}`);
  const [n] = x.shape;
  return tidy(() => {
    // [n, n + 1], one element at the front of each row, is the matrix [n, n] and n zeros, in another shape.
    const rows = reshape(pad(unsqueeze(x, 1), [[0, n]]), [n * (n + 1)]);
    const square = reshape(slice(rows, [0, n * n]), [n, n]);
    const [down, right] = k < 0 ? [-k, 0] : [0, k];
    return pad(square, [
      [down, right],
      [right, down],
    ]);
  });
}

/** The sum of the diagonal of [rows, columns, rest...]: [rest...], as numpy.trace. */
export function trace(x: Tensor, offset = 0): Tensor {
  use("trace", x);
  return tidy(() => sum(diagonal(x, offset), -1));
}
