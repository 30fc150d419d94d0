// The operations on elements as methods of every tensor, one line each; the others stand in tensor-operations.ts.

import type { DType } from "./dtype.js";
import * as ops from "./ops/index.js";
import type { Tensor } from "./tensor.js";

/** What {@link Tensor} inherits its operations on elements from. */
export abstract class TensorElementwise {
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

  cast(this: Tensor, dtype: DType): Tensor {
    return ops.cast(this, dtype);
  }
}
