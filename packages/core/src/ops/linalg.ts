// Products of vectors and stacks of matrices: names for common cases of matmul.

import { use } from "../arguments.js";
import { ShapeError } from "../errors.js";
import { tidy } from "../memory.js";
import { formatShape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { commonBackend } from "./dispatch.js";
import { mul } from "./elementwise.js";
import { matmul } from "./matmul.js";
import { unsqueeze } from "./view.js";

function requireRank(operation: string, operand: string, x: Tensor, rank: number, form: string): void {
  use(operation, x);
  if (x.rank !== rank)
    throw new ShapeError(`${operation}: ${operand} must be ${form}, not ${formatShape(x.shape)}`);
}

/** Σ a·b of two vectors [n]. */
export function dot(a: Tensor, b: Tensor): Tensor {
  requireRank("dot", "a", a, 1, "a vector [n]");
  requireRank("dot", "b", b, 1, "a vector [n]");
  commonBackend("dot", [a, b]);
  if (a.shape[0] !== b.shape[0])
    throw new ShapeError(`dot: vectors differ in length (${a.shape[0]} ≠ ${b.shape[0]})`);
  return matmul(a, b);
}

/** Every product of an element of a [m] with one of b [n]: [m, n]. */
export function outer(a: Tensor, b: Tensor): Tensor {
  requireRank("outer", "a", a, 1, "a vector [m]");
  requireRank("outer", "b", b, 1, "a vector [n]");
  commonBackend("outer", [a, b]);
  return tidy(() => mul(unsqueeze(a, 1), b));
}

/** The product of each matrix of a [batch, m, k] with that of b [batch, k, n]: [batch, m, n]. */
export function bmm(a: Tensor, b: Tensor): Tensor {
  requireRank("bmm", "a", a, 3, "[batch, m, k]");
  requireRank("bmm", "b", b, 3, "[batch, k, n]");
  commonBackend("bmm", [a, b]);
  if (a.shape[0] !== b.shape[0])
    throw new ShapeError(`bmm: batches differ: ${formatShape(a.shape)} and ${formatShape(b.shape)}`);
  return matmul(a, b);
}
