// The operations on elements as methods of every tensor, one line each; the others stand in tensor-operations.ts.

import type { DType } from "./dtype.js";
import * as ops from "./ops/index.js";
import type { Tensor } from "./tensor.js";

/** What {@link Tensor} inherits its operations on elements from. */
export abstract class TensorElementwise {
  /** −x. */
  neg(this: Tensor): Tensor {
    return ops.neg(this);
  }

  /** |x|. */
  abs(this: Tensor): Tensor {
    return ops.abs(this);
  }

  /** −1, 0 or 1; NaN for NaN, as in NumPy (PyTorch gives 0), and −0 for −0. */
  sign(this: Tensor): Tensor {
    return ops.sign(this);
  }

  /** √x; NaN below 0. */
  sqrt(this: Tensor): Tensor {
    return ops.sqrt(this);
  }

  /** 1 / √x. */
  rsqrt(this: Tensor): Tensor {
    return ops.rsqrt(this);
  }

  /** e^x. */
  exp(this: Tensor): Tensor {
    return ops.exp(this);
  }

  /** e^x − 1, exact near 0. */
  expm1(this: Tensor): Tensor {
    return ops.expm1(this);
  }

  /** Natural logarithm; −∞ at 0, NaN below. */
  log(this: Tensor): Tensor {
    return ops.log(this);
  }

  /** log(1 + x), exact near 0. */
  log1p(this: Tensor): Tensor {
    return ops.log1p(this);
  }

  /** Sine of x in radians. */
  sin(this: Tensor): Tensor {
    return ops.sin(this);
  }

  /** Cosine of x in radians. */
  cos(this: Tensor): Tensor {
    return ops.cos(this);
  }

  /** Hyperbolic tangent. */
  tanh(this: Tensor): Tensor {
    return ops.tanh(this);
  }

  /** The error function, 2/√π ∫₀ˣ e^−t² dt. */
  erf(this: Tensor): Tensor {
    return ops.erf(this);
  }

  /** 1 / (1 + e^−x). */
  sigmoid(this: Tensor): Tensor {
    return ops.sigmoid(this);
  }

  /** x · sigmoid(x). */
  silu(this: Tensor): Tensor {
    return ops.silu(this);
  }

  /** log(1 + e^x). */
  softplus(this: Tensor): Tensor {
    return ops.softplus(this);
  }

  /** max(x, 0), with a gradient of 0 at 0; integers stay what they are, as in PyTorch. */
  relu(this: Tensor): Tensor {
    return ops.relu(this);
  }

  /** x². */
  square(this: Tensor): Tensor {
    return ops.square(this);
  }

  /** 1 / x. */
  reciprocal(this: Tensor): Tensor {
    return ops.reciprocal(this);
  }

  /** The largest integer that is not above x. */
  floor(this: Tensor): Tensor {
    return ops.floor(this);
  }

  /** The smallest integer that is not below x. */
  ceil(this: Tensor): Tensor {
    return ops.ceil(this);
  }

  /** To the nearest integer, halves to even. */
  round(this: Tensor): Tensor {
    return ops.round(this);
  }

  /** True where x is zero. */
  logicalNot(this: Tensor): Tensor {
    return ops.logicalNot(this);
  }

  /** x · Φ(x); "tanh" is the approximation of Hendrycks and Gimpel (arXiv:1606.08415). */
  gelu(this: Tensor, approximate: "none" | "tanh" = "none"): Tensor {
    return ops.gelu(this, approximate);
  }

  /** a + b. */
  add(this: Tensor, other: Tensor | number): Tensor {
    return ops.add(this, other);
  }

  /** a − b. */
  sub(this: Tensor, other: Tensor | number): Tensor {
    return ops.sub(this, other);
  }

  /** a · b, element by element. */
  mul(this: Tensor, other: Tensor | number): Tensor {
    return ops.mul(this, other);
  }

  /** a / b; integers divide to float32. */
  div(this: Tensor, other: Tensor | number): Tensor {
    return ops.div(this, other);
  }

  /** a to the power of b. */
  pow(this: Tensor, other: Tensor | number): Tensor {
    return ops.pow(this, other);
  }

  /** The smaller of each pair; NaN when either is. */
  minimum(this: Tensor, other: Tensor | number): Tensor {
    return ops.minimum(this, other);
  }

  /** The larger of each pair; NaN when either is. */
  maximum(this: Tensor, other: Tensor | number): Tensor {
    return ops.maximum(this, other);
  }

  /** True where a and b are equal (NaN is not). */
  equal(this: Tensor, other: Tensor | number): Tensor {
    return ops.equal(this, other);
  }

  /** True where a and b differ; NaN differs from everything. */
  notEqual(this: Tensor, other: Tensor | number): Tensor {
    return ops.notEqual(this, other);
  }

  /** True where a < b. */
  less(this: Tensor, other: Tensor | number): Tensor {
    return ops.less(this, other);
  }

  /** True where a ≤ b. */
  lessEqual(this: Tensor, other: Tensor | number): Tensor {
    return ops.lessEqual(this, other);
  }

  /** True where a > b. */
  greater(this: Tensor, other: Tensor | number): Tensor {
    return ops.greater(this, other);
  }

  /** True where a ≥ b. */
  greaterEqual(this: Tensor, other: Tensor | number): Tensor {
    return ops.greaterEqual(this, other);
  }

  /** x += other, which broadcasts to x's shape; returns x. */
  add_(this: Tensor, other: Tensor | number): Tensor {
    return ops.add_(this, other);
  }

  /** x −= other. */
  sub_(this: Tensor, other: Tensor | number): Tensor {
    return ops.sub_(this, other);
  }

  /** x *= other. */
  mul_(this: Tensor, other: Tensor | number): Tensor {
    return ops.mul_(this, other);
  }

  /** x /= other; for float tensors. */
  div_(this: Tensor, other: Tensor | number): Tensor {
    return ops.div_(this, other);
  }

  /** Every element of x `value`, converted as cast does. */
  fill_(this: Tensor, value: number): Tensor {
    return ops.fill_(this, value);
  }

  /** Cut towards zero. */
  trunc(this: Tensor): Tensor {
    return ops.trunc(this);
  }

  /** Logarithm to base 2. */
  log2(this: Tensor): Tensor {
    return ops.log2(this);
  }

  /** Logarithm to base 10. */
  log10(this: Tensor): Tensor {
    return ops.log10(this);
  }

  /** Every bit turned: −x − 1 for signed integers, 255 − x for uint8, the opposite for bool. */
  bitwiseNot(this: Tensor): Tensor {
    return ops.bitwiseNot(this);
  }

  /** True where x is NaN. */
  isnan(this: Tensor): Tensor {
    return ops.isnan(this);
  }

  /** True where x is neither NaN nor infinite. */
  isfinite(this: Tensor): Tensor {
    return ops.isfinite(this);
  }

  /** ⌊a / b⌋, rounded down as in Python, exact where a / b is not; floats divide by 0 as div does, integers to 0. */
  floorDivide(this: Tensor, other: Tensor | number): Tensor {
    return ops.floorDivide(this, other);
  }

  /** a − b·⌊a / b⌋, with the sign of b as Python's %; NaN for a float b of 0, 0 for an integer one. */
  remainder(this: Tensor, other: Tensor | number): Tensor {
    return ops.remainder(this, other);
  }

  /** Bit by bit, on integers and bool: set where both are. */
  bitwiseAnd(this: Tensor, other: Tensor | number): Tensor {
    return ops.bitwiseAnd(this, other);
  }

  /** Bit by bit, on integers and bool: set where one at least is. */
  bitwiseOr(this: Tensor, other: Tensor | number): Tensor {
    return ops.bitwiseOr(this, other);
  }

  /** Bit by bit, on integers and bool: set where exactly one is. */
  bitwiseXor(this: Tensor, other: Tensor | number): Tensor {
    return ops.bitwiseXor(this, other);
  }

  /** a · 2^b modulo the width of the dtype; the count b is taken modulo 32. */
  shiftLeft(this: Tensor, other: Tensor | number): Tensor {
    return ops.shiftLeft(this, other);
  }

  /** ⌊a / 2^b⌋: the sign stays; the count b is taken modulo 32. */
  shiftRight(this: Tensor, other: Tensor | number): Tensor {
    return ops.shiftRight(this, other);
  }

  /** True where both are not 0 (NaN is not 0). */
  logicalAnd(this: Tensor, other: Tensor): Tensor {
    return ops.logicalAnd(this, other);
  }

  /** True where one at least is not 0. */
  logicalOr(this: Tensor, other: Tensor): Tensor {
    return ops.logicalOr(this, other);
  }

  /** True where exactly one is not 0. */
  logicalXor(this: Tensor, other: Tensor): Tensor {
    return ops.logicalXor(this, other);
  }

  /** `x` with every element within [low, high] (NaN stays, `high` wins over `low`); null for no bound. */
  clip(this: Tensor, low: Tensor | number | null = null, high: Tensor | number | null = null): Tensor {
    return ops.clip(this, low, high);
  }

  /** `x` as another dtype: to nearest even for 16-bit floats, truncated and saturated to integers, `x ≠ 0` to bool. */
  cast(this: Tensor, dtype: DType): Tensor {
    return ops.cast(this, dtype);
  }
}
