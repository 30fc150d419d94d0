// The operations as methods of every tensor, one line each; those on elements stand in tensor-elementwise.ts. Comments give what an
// editor is to show, with x, or a, for the tensor itself; all else is said at the functions of the same names in ops/. What only some programs need (convolutions, einsum, sorting by several keys) is a function alone.

import * as ops from "./ops/index.js";
import { sliceFor } from "./ops/view.js";
import type { Tensor } from "./tensor.js";
import { TensorElementwise } from "./tensor-elementwise.js";

/** Axes to reduce: one, several, or (left out) all. */
type Axes = number | readonly number[];

/** What {@link Tensor} inherits its operations from. */
export abstract class TensorOperations extends TensorElementwise {
  /** Sum; 0 over empty axes. */
  sum(this: Tensor, axes?: Axes, keepDims = false): Tensor {
    return ops.sum(this, axes, keepDims);
  }

  /** Arithmetic mean, in float32 for integers and for 16-bit floats, whose sums would overflow; NaN over empty axes. */
  mean(this: Tensor, axes?: Axes, keepDims = false): Tensor {
    return ops.mean(this, axes, keepDims);
  }

  /** Product; 1 over empty axes. */
  prod(this: Tensor, axes?: Axes, keepDims = false): Tensor {
    return ops.prod(this, axes, keepDims);
  }

  /** Largest element, NaN if there is one; equal ones share the gradient. */
  max(this: Tensor, axes?: Axes, keepDims = false): Tensor {
    return ops.max(this, axes, keepDims);
  }

  /** Smallest element, NaN if there is one; equal ones share the gradient. */
  min(this: Tensor, axes?: Axes, keepDims = false): Tensor {
    return ops.min(this, axes, keepDims);
  }

  /** Variance, Σ(x − mean)² / (n − correction); correction 1 is the unbiased estimate, as in PyTorch. */
  variance(this: Tensor, axes?: Axes, keepDims = false, correction = 1): Tensor {
    return ops.variance(this, axes, keepDims, correction);
  }

  /** log Σ e^x without overflow, in float32 for integers; −∞ over empty axes, as in PyTorch. */
  logsumexp(this: Tensor, axes?: Axes, keepDims = false): Tensor {
    return ops.logsumexp(this, axes, keepDims);
  }

  /** Position (int32) of the largest element along `axis`, or in the flattened tensor; the first of equals. */
  argmax(this: Tensor, axis?: number, keepDims = false): Tensor {
    return ops.argmax(this, axis, keepDims);
  }

  /** Position (int32) of the smallest element along `axis`, or in the flattened tensor; the first of equals. */
  argmin(this: Tensor, axis?: number, keepDims = false): Tensor {
    return ops.argmin(this, axis, keepDims);
  }

  /** Whether an element is not 0 (NaN is not 0); false over empty axes. */
  any(this: Tensor, axes?: Axes, keepDims = false): Tensor {
    return ops.any(this, axes, keepDims);
  }

  /** Whether no element is 0; true over empty axes. */
  all(this: Tensor, axes?: Axes, keepDims = false): Tensor {
    return ops.all(this, axes, keepDims);
  }

  /** Standard deviation, √variance; correction 1 is PyTorch's default, 0 NumPy's. */
  std(this: Tensor, axes?: Axes, keepDims = false, correction = 1): Tensor {
    return ops.std(this, axes, keepDims, correction);
  }

  /** The p-norm (Σ |x|^p)^(1/p) of all elements or along axes, as torch.linalg.vector_norm. */
  norm(this: Tensor, p = 2, axes?: Axes, keepDims = false): Tensor {
    return ops.norm(this, p, axes, keepDims);
  }

  /** Running sum along `axis`: element i is the sum of elements 0 … i. */
  cumsum(this: Tensor, axis: number): Tensor {
    return ops.cumsum(this, axis);
  }

  /** Running product along `axis`: element i is the product of elements 0 … i. */
  cumprod(this: Tensor, axis: number): Tensor {
    return ops.cumprod(this, axis);
  }

  /** A contiguous copy with storage of its own. */
  clone(this: Tensor): Tensor {
    return ops.clone(this);
  }

  /** The same elements in another shape; one extent may be −1. */
  reshape(this: Tensor, ...shape: readonly number[] | [readonly number[]]): Tensor {
    return ops.reshape(this, spread(shape));
  }

  /** Axis i of the result is axis `order[i]` of `x`. */
  permute(this: Tensor, ...order: readonly number[] | [readonly number[]]): Tensor {
    return ops.permute(this, spread(order));
  }

  /** `x` with two axes swapped; by default the last two. */
  transpose(this: Tensor, axis1 = -2, axis2 = -1): Tensor {
    return ops.transpose(this, axis1, axis2);
  }

  /** `x` repeated along new axes and those of length 1, without a copy. −1 keeps an extent. */
  expand(this: Tensor, ...shape: readonly number[] | [readonly number[]]): Tensor {
    return ops.expand(this, spread(shape));
  }

  /** Without the axes of length 1, or without those named. */
  squeeze(this: Tensor, axes?: Axes): Tensor {
    return ops.squeeze(this, axes);
  }

  /** With a new axis of length 1 at `axis`. */
  unsqueeze(this: Tensor, axis: number): Tensor {
    return ops.unsqueeze(this, axis);
  }

  /** Axes `startAxis` to `endAxis` (inclusive) made one. */
  flatten(this: Tensor, startAxis = 0, endAxis = -1): Tensor {
    return ops.flatten(this, startAxis, endAxis);
  }

  /** A part of `x`, one range for each axis from the front; axes without one are taken whole. A view. */
  slice(this: Tensor, ...ranges: readonly ops.Range[]): Tensor {
    return ops.slice(this, ...ranges);
  }

  /** The same elements in another shape, never copied; one extent may be −1. */
  view(this: Tensor, ...shape: readonly number[] | [readonly number[]]): Tensor {
    return ops.view(this, spread(shape));
  }

  /** `x` repeated to exactly `shape` by the rules of broadcasting, without a copy. */
  broadcastTo(this: Tensor, ...shape: readonly number[] | [readonly number[]]): Tensor {
    return ops.broadcastTo(this, spread(shape));
  }

  /** The elements of `axes` (left out: all) in reverse. */
  flip(this: Tensor, axes?: Axes): Tensor {
    return ops.flip(this, axes);
  }

  /** Each element `repeats` times along `axis` (left out: of the flattened tensor), as numpy.repeat: [a, b] twice is [a, a, b, b]. */
  repeat(this: Tensor, repeats: number, axis?: number): Tensor {
    return ops.repeat(this, repeats, axis);
  }

  /** The whole of `x` repeated `repetitions[i]` times along axis i, as numpy.tile. */
  tile(this: Tensor, repetitions: number | readonly number[]): Tensor {
    return ops.tile(this, repetitions);
  }

  /** The lower triangle of [..., rows, columns]: zeros where column − row > k. */
  tril(this: Tensor, k = 0): Tensor {
    return ops.tril(this, k);
  }

  /** The upper triangle of [..., rows, columns]: zeros where column − row < k. */
  triu(this: Tensor, k = 0): Tensor {
    return ops.triu(this, k);
  }

  /** The part at the given positions of the first axes; negative ones count from the end. A view. */
  at(this: Tensor, ...positions: readonly number[]): Tensor {
    return sliceFor("at", this, positions);
  }

  /** x[indices…] by NumPy's rules, one index for each axis from the front: ranges, integer tensors, bool masks. */
  index(this: Tensor, ...indices: readonly ops.Index[]): Tensor {
    return ops.index(this, ...indices);
  }

  /** The parts of `x` at positions `indices` along `axis`, as numpy.take and torch.index_select; without an axis, of the flattened tensor. */
  take(this: Tensor, indices: Tensor, axis?: number): Tensor {
    return ops.take(this, indices, axis);
  }

  /** The element of `x` at the index in each place: out[i, j] = x[i, indices[i, j]] for axis 1, as torch.gather. */
  takeAlongAxis(this: Tensor, indices: Tensor, axis: number): Tensor {
    return ops.takeAlongAxis(this, indices, axis);
  }

  /** `x` sorted along `axis`, NaN last (first when descending); `argsort` gives the order. */
  sort(this: Tensor, axis = -1, descending = false): Tensor {
    return ops.sort(this, axis, descending);
  }

  /** Positions (int32) that sort `x` along `axis`; equal elements keep their order. */
  argsort(this: Tensor, axis = -1, descending = false): Tensor {
    return ops.argsort(this, axis, descending);
  }

  /** alpha · a · b (+ beta · out) for a [batch…, m, k] and b [batch…, k, n]; batch axes broadcast. */
  matmul(this: Tensor, other: Tensor, options?: ops.MatmulArguments): Tensor {
    return ops.matmul(this, other, options);
  }

  /** e^x / Σ e^x along `axis`. */
  softmax(this: Tensor, axis = -1): Tensor {
    return ops.softmax(this, axis);
  }

  /** x − log Σ e^x along `axis`. */
  logSoftmax(this: Tensor, axis = -1): Tensor {
    return ops.logSoftmax(this, axis);
  }
}

/** `f(1, 2)` and `f([1, 2])` alike. */
function spread(list: readonly number[] | readonly [readonly number[]]): readonly number[] {
  return (Array.isArray(list[0]) ? list[0] : list) as readonly number[];
}
