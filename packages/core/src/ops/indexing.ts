// Rows by index: gather and its adjoint scatterAdd; the embedding look-up is a gather.

import { requireThat, use } from "../arguments.js";
import { isFloat, requireIntegers } from "../dtype.js";
import { ShapeError } from "../errors.js";
import { tidy } from "../memory.js";
import { checkShape, formatShape, sameShape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { commonBackend, contiguous, empty, filled, finish, operand } from "./dispatch.js";
import { cast } from "./elementwise.js";

function checkedIndices(operation: string, indices: Tensor): Tensor {
  requireIntegers(operation, "indices", indices.dtype);
  return indices.dtype === "int32" ? contiguous(indices) : cast(indices, "int32");
}

/**
 * Rows of x [n, rest…] at integer indices [indices…].
 * @returns [indices…, rest…]
 * @throws {ShapeError} naming the index that is not within 0 … n−1
 */
export function gather(x: Tensor, indices: Tensor): Tensor {
  return gatherRows("gather", x, indices);
}

function gatherRows(operation: string, x: Tensor, indices: Tensor): Tensor {
  return tidy(() => {
    const backend = commonBackend(operation, [x, indices]);
    if (x.rank === 0) throw new ShapeError(`${operation}: a scalar has no rows`);
    const rows = contiguous(x);
    const list = checkedIndices(operation, indices);
    const out = empty(backend, x.dtype, [...indices.shape, ...x.shape.slice(1)]);
    try {
      backend.gather(operand(rows), operand(list), operand(out));
    } catch (error) {
      throw error instanceof ShapeError ? new ShapeError(error.message.replace(/^gather/, operation)) : error;
    }
    return finish("gather", [rows, list], { rows: x.shape[0] }, out);
  });
}

/** Zeros [rows, rest…] plus source [indices…, rest…] at indices: equal indices add up, in their order. */
export function scatterAdd(rows: number, indices: Tensor, source: Tensor): Tensor {
  requireThat(typeof rows === "number", "scatterAdd", "rows", "a number", rows);
  return tidy(() => {
    const backend = commonBackend("scatterAdd", [source, indices]);
    const lead = indices.rank;
    if (!sameShape(source.shape.slice(0, lead), indices.shape)) {
      throw new ShapeError(
        `scatterAdd: source ${formatShape(source.shape)} does not begin with the indices' shape ${formatShape(indices.shape)}`,
      );
    }
    checkShape("scatterAdd", [rows]);
    if (isFloat(source.dtype) && !backend.arithmetic.has(source.dtype))
      return cast(scatterAdd(rows, indices, cast(source, "float32")), source.dtype);
    const list = checkedIndices("scatterAdd", indices);
    const values = contiguous(source);
    const out = filled(backend, source.dtype, [rows, ...source.shape.slice(lead)], 0);
    backend.scatterAdd(operand(values), operand(list), operand(out));
    return finish("scatterAdd", [values, list], null, out);
  });
}

/** The rows of `weight` [numEmbeddings, dim] for `indices`: [indices…, dim]. */
export function embedding(weight: Tensor, indices: Tensor): Tensor {
  use("embedding", weight);
  if (weight.rank !== 2)
    throw new ShapeError(`embedding: weight must be [numEmbeddings, dim], not ${formatShape(weight.shape)}`);
  return gatherRows("embedding", weight, indices);
}
