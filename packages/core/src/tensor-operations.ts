// The operations as methods of every tensor, one line each; those on elements stand in tensor-elementwise.ts. Their documentation
// stands at the functions of the same names in ops/. What only some programs need (convolutions, einsum, sorting by several keys) is a function alone.

import * as ops from "./ops/index.js";
import type { Tensor } from "./tensor.js";
import { TensorElementwise } from "./tensor-elementwise.js";

/** Axes to reduce: one, several, or (left out) all. */
type Axes = number | readonly number[];

/** What {@link Tensor} inherits its operations from. */
export abstract class TensorOperations extends TensorElementwise {
  sum(this: Tensor, axes?: Axes, keepDims = false): Tensor {
    return ops.sum(this, axes, keepDims);
  }

  mean(this: Tensor, axes?: Axes, keepDims = false): Tensor {
    return ops.mean(this, axes, keepDims);
  }

  prod(this: Tensor, axes?: Axes, keepDims = false): Tensor {
    return ops.prod(this, axes, keepDims);
  }

  max(this: Tensor, axes?: Axes, keepDims = false): Tensor {
    return ops.max(this, axes, keepDims);
  }

  min(this: Tensor, axes?: Axes, keepDims = false): Tensor {
    return ops.min(this, axes, keepDims);
  }

  variance(this: Tensor, axes?: Axes, keepDims = false, correction = 1): Tensor {
    return ops.variance(this, axes, keepDims, correction);
  }

  logsumexp(this: Tensor, axes?: Axes, keepDims = false): Tensor {
    return ops.logsumexp(this, axes, keepDims);
  }

  argmax(this: Tensor, axis?: number, keepDims = false): Tensor {
    return ops.argmax(this, axis, keepDims);
  }

  argmin(this: Tensor, axis?: number, keepDims = false): Tensor {
    return ops.argmin(this, axis, keepDims);
  }

  any(this: Tensor, axes?: Axes, keepDims = false): Tensor {
    return ops.any(this, axes, keepDims);
  }

  all(this: Tensor, axes?: Axes, keepDims = false): Tensor {
    return ops.all(this, axes, keepDims);
  }

  std(this: Tensor, axes?: Axes, keepDims = false, correction = 1): Tensor {
    return ops.std(this, axes, keepDims, correction);
  }

  norm(this: Tensor, p = 2, axes?: Axes, keepDims = false): Tensor {
    return ops.norm(this, p, axes, keepDims);
  }

  cumsum(this: Tensor, axis: number): Tensor {
    return ops.cumsum(this, axis);
  }

  cumprod(this: Tensor, axis: number): Tensor {
    return ops.cumprod(this, axis);
  }

  clone(this: Tensor): Tensor {
    return ops.clone(this);
  }

  reshape(this: Tensor, ...shape: readonly number[] | [readonly number[]]): Tensor {
    return ops.reshape(this, spread(shape));
  }

  permute(this: Tensor, ...order: readonly number[] | [readonly number[]]): Tensor {
    return ops.permute(this, spread(order));
  }

  transpose(this: Tensor, axis1 = -2, axis2 = -1): Tensor {
    return ops.transpose(this, axis1, axis2);
  }

  expand(this: Tensor, ...shape: readonly number[] | [readonly number[]]): Tensor {
    return ops.expand(this, spread(shape));
  }

  squeeze(this: Tensor, axes?: Axes): Tensor {
    return ops.squeeze(this, axes);
  }

  unsqueeze(this: Tensor, axis: number): Tensor {
    return ops.unsqueeze(this, axis);
  }

  flatten(this: Tensor, startAxis = 0, endAxis = -1): Tensor {
    return ops.flatten(this, startAxis, endAxis);
  }

  slice(this: Tensor, ...ranges: readonly ops.Range[]): Tensor {
    return ops.slice(this, ...ranges);
  }

  view(this: Tensor, ...shape: readonly number[] | [readonly number[]]): Tensor {
    return ops.view(this, spread(shape));
  }

  broadcastTo(this: Tensor, ...shape: readonly number[] | [readonly number[]]): Tensor {
    return ops.broadcastTo(this, spread(shape));
  }

  flip(this: Tensor, axes?: Axes): Tensor {
    return ops.flip(this, axes);
  }

  repeat(this: Tensor, repeats: number, axis?: number): Tensor {
    return ops.repeat(this, repeats, axis);
  }

  tile(this: Tensor, repetitions: number | readonly number[]): Tensor {
    return ops.tile(this, repetitions);
  }

  tril(this: Tensor, k = 0): Tensor {
    return ops.tril(this, k);
  }

  triu(this: Tensor, k = 0): Tensor {
    return ops.triu(this, k);
  }

  /** The part at the given positions of the first axes; negative ones count from the end. A view. */
  at(this: Tensor, ...positions: readonly number[]): Tensor {
    return ops.slice(this, ...positions);
  }

  index(this: Tensor, ...indices: readonly ops.Index[]): Tensor {
    return ops.index(this, ...indices);
  }

  take(this: Tensor, indices: Tensor, axis?: number): Tensor {
    return ops.take(this, indices, axis);
  }

  takeAlongAxis(this: Tensor, indices: Tensor, axis: number): Tensor {
    return ops.takeAlongAxis(this, indices, axis);
  }

  sort(this: Tensor, axis = -1, descending = false): Tensor {
    return ops.sort(this, axis, descending);
  }

  argsort(this: Tensor, axis = -1, descending = false): Tensor {
    return ops.argsort(this, axis, descending);
  }

  matmul(this: Tensor, other: Tensor, options?: ops.MatmulArguments): Tensor {
    return ops.matmul(this, other, options);
  }

  softmax(this: Tensor, axis = -1): Tensor {
    return ops.softmax(this, axis);
  }

  logSoftmax(this: Tensor, axis = -1): Tensor {
    return ops.logSoftmax(this, axis);
  }
}

/** `f(1, 2)` and `f([1, 2])` alike. */
function spread(list: readonly number[] | readonly [readonly number[]]): readonly number[] {
  return (Array.isArray(list[0]) ? list[0] : list) as readonly number[];
}
