// The operations as methods of every tensor, one line each. Their documentation stands at the functions of the same names in
// ops/. What only some programs need (convolutions, einsum, sorting by several keys) is a function alone.

import type { DType } from "./dtype.js";
import * as ops from "./ops/index.js";
import type { Tensor } from "./tensor.js";

/** Axes to reduce: one, several, or (left out) all. */
type Axes = number | readonly number[];

/** What {@link Tensor} inherits its operations from. */
export abstract class TensorOperations {
  neg(this: Tensor): Tensor {
    return ops.neg(this);
  }

  abs(this: Tensor): Tensor {
    return ops.abs(this);
  }

  sign(this: Tensor): Tensor {
    return ops.sign(this);
  }

  sqrt(this: Tensor): Tensor {
    return ops.sqrt(this);
  }

  rsqrt(this: Tensor): Tensor {
    return ops.rsqrt(this);
  }

  exp(this: Tensor): Tensor {
    return ops.exp(this);
  }

  expm1(this: Tensor): Tensor {
    return ops.expm1(this);
  }

  log(this: Tensor): Tensor {
    return ops.log(this);
  }

  log1p(this: Tensor): Tensor {
    return ops.log1p(this);
  }

  sin(this: Tensor): Tensor {
    return ops.sin(this);
  }

  cos(this: Tensor): Tensor {
    return ops.cos(this);
  }

  tanh(this: Tensor): Tensor {
    return ops.tanh(this);
  }

  erf(this: Tensor): Tensor {
    return ops.erf(this);
  }

  sigmoid(this: Tensor): Tensor {
    return ops.sigmoid(this);
  }

  silu(this: Tensor): Tensor {
    return ops.silu(this);
  }

  softplus(this: Tensor): Tensor {
    return ops.softplus(this);
  }

  relu(this: Tensor): Tensor {
    return ops.relu(this);
  }

  square(this: Tensor): Tensor {
    return ops.square(this);
  }

  reciprocal(this: Tensor): Tensor {
    return ops.reciprocal(this);
  }

  floor(this: Tensor): Tensor {
    return ops.floor(this);
  }

  ceil(this: Tensor): Tensor {
    return ops.ceil(this);
  }

  round(this: Tensor): Tensor {
    return ops.round(this);
  }

  logicalNot(this: Tensor): Tensor {
    return ops.logicalNot(this);
  }

  gelu(this: Tensor, approximate: "none" | "tanh" = "none"): Tensor {
    return ops.gelu(this, approximate);
  }

  add(this: Tensor, other: Tensor | number): Tensor {
    return ops.add(this, other);
  }

  sub(this: Tensor, other: Tensor | number): Tensor {
    return ops.sub(this, other);
  }

  mul(this: Tensor, other: Tensor | number): Tensor {
    return ops.mul(this, other);
  }

  div(this: Tensor, other: Tensor | number): Tensor {
    return ops.div(this, other);
  }

  pow(this: Tensor, other: Tensor | number): Tensor {
    return ops.pow(this, other);
  }

  minimum(this: Tensor, other: Tensor | number): Tensor {
    return ops.minimum(this, other);
  }

  maximum(this: Tensor, other: Tensor | number): Tensor {
    return ops.maximum(this, other);
  }

  equal(this: Tensor, other: Tensor | number): Tensor {
    return ops.equal(this, other);
  }

  notEqual(this: Tensor, other: Tensor | number): Tensor {
    return ops.notEqual(this, other);
  }

  less(this: Tensor, other: Tensor | number): Tensor {
    return ops.less(this, other);
  }

  lessEqual(this: Tensor, other: Tensor | number): Tensor {
    return ops.lessEqual(this, other);
  }

  greater(this: Tensor, other: Tensor | number): Tensor {
    return ops.greater(this, other);
  }

  greaterEqual(this: Tensor, other: Tensor | number): Tensor {
    return ops.greaterEqual(this, other);
  }

  add_(this: Tensor, other: Tensor | number): Tensor {
    return ops.add_(this, other);
  }

  sub_(this: Tensor, other: Tensor | number): Tensor {
    return ops.sub_(this, other);
  }

  mul_(this: Tensor, other: Tensor | number): Tensor {
    return ops.mul_(this, other);
  }

  div_(this: Tensor, other: Tensor | number): Tensor {
    return ops.div_(this, other);
  }

  fill_(this: Tensor, value: number): Tensor {
    return ops.fill_(this, value);
  }

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

  trunc(this: Tensor): Tensor {
    return ops.trunc(this);
  }

  log2(this: Tensor): Tensor {
    return ops.log2(this);
  }

  log10(this: Tensor): Tensor {
    return ops.log10(this);
  }

  bitwiseNot(this: Tensor): Tensor {
    return ops.bitwiseNot(this);
  }

  isnan(this: Tensor): Tensor {
    return ops.isnan(this);
  }

  isfinite(this: Tensor): Tensor {
    return ops.isfinite(this);
  }

  floorDivide(this: Tensor, other: Tensor | number): Tensor {
    return ops.floorDivide(this, other);
  }

  remainder(this: Tensor, other: Tensor | number): Tensor {
    return ops.remainder(this, other);
  }

  bitwiseAnd(this: Tensor, other: Tensor | number): Tensor {
    return ops.bitwiseAnd(this, other);
  }

  bitwiseOr(this: Tensor, other: Tensor | number): Tensor {
    return ops.bitwiseOr(this, other);
  }

  bitwiseXor(this: Tensor, other: Tensor | number): Tensor {
    return ops.bitwiseXor(this, other);
  }

  shiftLeft(this: Tensor, other: Tensor | number): Tensor {
    return ops.shiftLeft(this, other);
  }

  shiftRight(this: Tensor, other: Tensor | number): Tensor {
    return ops.shiftRight(this, other);
  }

  logicalAnd(this: Tensor, other: Tensor): Tensor {
    return ops.logicalAnd(this, other);
  }

  logicalOr(this: Tensor, other: Tensor): Tensor {
    return ops.logicalOr(this, other);
  }

  logicalXor(this: Tensor, other: Tensor): Tensor {
    return ops.logicalXor(this, other);
  }

  clip(this: Tensor, low: number, high: number): Tensor {
    return ops.clip(this, low, high);
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

  cast(this: Tensor, dtype: DType): Tensor {
    return ops.cast(this, dtype);
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
