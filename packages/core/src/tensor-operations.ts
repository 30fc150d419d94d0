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

  variance(this: Tensor, axes?: Axes, keepDims = false): Tensor {
    return ops.variance(this, axes, keepDims);
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
