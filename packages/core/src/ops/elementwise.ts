// Elementwise operations with broadcasting and promotion: arithmetic, functions, comparison, choice, cast.

import { describe, requireThat, use } from "../arguments.js";
import type { BinaryKind, BitwiseKind, CompareKind, UnaryKind } from "../backend/types.js";
import { scalarLike } from "../creation.js";
import { type DType, dtypeBeside, dtypes, isFloat, promote, requireDType } from "../dtype.js";
import { ArgumentError, DTypeError } from "../errors.js";
import { tidy } from "../memory.js";
import { Tensor } from "../tensor.js";
import { commonBackend, elementByElement, finish, hostValues, requireBackendDType } from "./dispatch.js";

/** `x` in `dtype`: itself when it has it already, else a temporary that the caller disposes. */
function asDType(x: Tensor, dtype: DType): Tensor {
  return x.dtype === dtype ? x : cast(x, dtype);
}

/** The dtype that arithmetic on `dtype` runs in: 16-bit floats go through float32, small integers through int32. */
function arithmeticDType(x: Tensor, dtype: DType): DType {
  if (x.storage.backend.arithmetic.has(dtype)) return dtype;
  return isFloat(dtype) ? "float32" : "int32";
}

function unary(kind: UnaryKind, x: Tensor): Tensor {
  const backend = commonBackend(kind, [x]);
  if (kind === "neg" && x.dtype === "bool")
    throw new DTypeError("neg: bool has no negative; use logicalNot, or cast to an integer");
  const dtype = isFloat(x.dtype) || integerUnary.has(kind) ? x.dtype : "float32";
  const work = arithmeticDType(x, dtype);
  if (work !== x.dtype) return tidy(() => narrowed(unary(kind, cast(x, work)), dtype));
  const out = elementByElement(kind, x.dtype, [x], (y, source) => backend.unary(kind, source, y));
  return finish(kind, [x], null, out);
}

const integerUnary: ReadonlySet<UnaryKind> = new Set([
  "neg",
  "abs",
  "sign",
  "square",
  "floor",
  "ceil",
  "round",
]);

type ArithmeticKind = Exclude<BinaryKind, BitwiseKind>;

/** Operands as tensors of one dtype and shape; numbers take the other's dtype. */
const binary = (kind: ArithmeticKind, left: Tensor | number, right: Tensor | number): Tensor =>
  withOperands(kind, left, right, arithmetic);

function arithmetic(kind: ArithmeticKind, a: Tensor, b: Tensor, dtype: DType): Tensor {
  if (kind === "pow" && !isFloat(dtype)) return integerPower(a, b, dtype);
  if (kind === "sub" && dtype === "bool")
    throw new DTypeError("sub: bool has no difference; use logicalXor, or cast to an integer");
  const wanted = kind === "div" && !isFloat(dtype) ? "float32" : dtype;
  const work = arithmeticDType(a, wanted);
  if (a.dtype !== work || b.dtype !== work)
    return tidy(() => narrowed(binary(kind, cast(a, work), cast(b, work)), wanted));
  return finish(kind, [a, b], null, pairwise(kind, a, b));
}

/** An int32 result as a smaller integer, modulo its width as in NumPy and PyTorch, where a cast would saturate. */
function narrowed(x: Tensor, dtype: DType): Tensor {
  if (x.dtype === "int32" && dtype === "uint8") return cast(bitwise("bitwiseAnd", x, 0xff), dtype);
  if (x.dtype === "int32" && dtype === "int8")
    return cast(bitwise("shiftRight", bitwise("shiftLeft", x, 24), 24), dtype);
  return cast(x, dtype);
}

/** a to the power of b by repeated squaring, modulo the width of `dtype`; bool as 0 and 1, in int32. */
function integerPower(a: Tensor, b: Tensor | number, dtype: DType): Tensor {
  if (dtype === "bool") return integerPower(a, b, "int32");
  const exponents = typeof b === "number" ? [b] : hostValues("pow", b);
  let highest = 0;
  for (const exponent of exponents) {
    if (exponent < 0)
      throw new ArgumentError(`pow: integers have no negative integer powers (${exponent}); cast to a float`);
    highest = Math.max(highest, exponent);
  }
  return tidy(() => {
    let square = cast(a, dtype);
    let product = add(mul(square, 0), 1);
    for (let rest = 1; rest <= highest; rest *= 2, square = mul(square, square)) {
      if (typeof b !== "number") {
        const odd = notEqual(bitwiseAnd(b, rest), 0);
        product = where(odd, mul(product, square), product);
      } else if (Math.floor(b / rest) % 2 === 1) product = mul(product, square);
    }
    return typeof b === "number" || b.size > 0 ? product : mul(product, cast(b, dtype));
  });
}

/** Integers alone; bool as 0 and 1. */
const bitwise = (kind: BitwiseKind, left: Tensor | number, right: Tensor | number): Tensor =>
  withOperands(kind, left, right, ofBits);

function ofBits(kind: BitwiseKind, a: Tensor, b: Tensor, dtype: DType): Tensor {
  if (isFloat(dtype))
    throw new DTypeError(`${kind}: operands must be integers, not ${a.dtype} and ${b.dtype}`);
  if (a.dtype !== "int32" || b.dtype !== "int32")
    return tidy(() => narrowed(bitwise(kind, cast(a, "int32"), cast(b, "int32")), dtype));
  return pairwise(kind, a, b);
}

/** The kernel of `kind` on operands of one dtype that it works on. */
function pairwise(kind: BinaryKind, a: Tensor, b: Tensor): Tensor {
  const backend = commonBackend(kind, [a, b]);
  return elementByElement(kind, a.dtype, [a, b], (out, left, right) =>
    backend.binary(kind, left, right, out),
  );
}

/** Runs `run` with both operands as tensors, and the dtype that they promote to. It makes no closure: most calls are of small tensors. */
function withOperands<K extends string>(
  operation: K,
  left: Tensor | number,
  right: Tensor | number,
  run: (operation: K, a: Tensor, b: Tensor, dtype: DType) => Tensor,
): Tensor {
  if (left instanceof Tensor && right instanceof Tensor) {
    use(operation, left);
    use(operation, right);
    if (left.dtype === right.dtype) return run(operation, left, right, left.dtype);
    commonBackend(operation, [left, right]);
    return run(operation, left, right, promote(left.dtype, right.dtype));
  }
  const like = left instanceof Tensor ? left : right;
  if (!(like instanceof Tensor))
    throw new ArgumentError(
      `${operation}: expected a tensor among the operands, not ${describe(left)} and ${describe(right)}`,
    );
  use(operation, like);
  const value = (left instanceof Tensor ? right : left) as number;
  const dtype = dtypeBeside(like.dtype, value);
  const scalar = scalarLike(operation, like, value, dtype, true);
  try {
    const common = promote(like.dtype, dtype);
    return left instanceof Tensor
      ? run(operation, left, scalar, common)
      : run(operation, scalar, like, common);
  } finally {
    scalar.dispose();
  }
}

const compare = (kind: CompareKind, left: Tensor | number, right: Tensor | number): Tensor =>
  withOperands(kind, left, right, comparison);

function comparison(kind: CompareKind, a: Tensor, b: Tensor, dtype: DType): Tensor {
  const work = arithmeticDType(a, dtype);
  if (a.dtype !== work || b.dtype !== work) return tidy(() => compare(kind, cast(a, work), cast(b, work)));
  const backend = commonBackend(kind, [a, b]);
  return elementByElement(kind, "bool", [a, b], (out, x, y) => backend.compare(kind, x, y, out));
}

/** a + b. Shapes broadcast, dtypes promote; so for all binary operations. */
export const add = (a: Tensor | number, b: Tensor | number): Tensor => binary("add", a, b);
/** a − b. */
export const sub = (a: Tensor | number, b: Tensor | number): Tensor => binary("sub", a, b);
/** a · b, element by element. */
export const mul = (a: Tensor | number, b: Tensor | number): Tensor => binary("mul", a, b);
/** a / b; integers divide to float32. */
export const div = (a: Tensor | number, b: Tensor | number): Tensor => binary("div", a, b);
/**
 * a to the power of b. Integers to integers stay integers, modulo the width of the dtype.
 * @throws {ArgumentError} for a negative integer power of an integer, as in NumPy
 */
export const pow = (a: Tensor | number, b: Tensor | number): Tensor =>
  a instanceof Tensor && typeof b === "number" && !isFloat(a.dtype) && Number.isSafeInteger(b)
    ? integerPower(a, b, a.dtype)
    : binary("pow", a, b);
/** The smaller of each pair; NaN when either is. The gradient of a tie is halved. */
export const minimum = (a: Tensor | number, b: Tensor | number): Tensor => binary("minimum", a, b);
/** The larger of each pair; NaN when either is. The gradient of a tie is halved. */
export const maximum = (a: Tensor | number, b: Tensor | number): Tensor => binary("maximum", a, b);

/** ⌊a / b⌋, rounded down as in Python, exact where a / b is not; floats divide by 0 as div does, integers to 0. */
export const floorDivide = (a: Tensor | number, b: Tensor | number): Tensor => binary("floorDivide", a, b);
/** a − b·⌊a / b⌋, with the sign of b as Python's %; NaN for a float b of 0, 0 for an integer one. */
export const remainder = (a: Tensor | number, b: Tensor | number): Tensor => binary("remainder", a, b);

/** Bit by bit, on integers and bool: set where both are. A negative integer counts as infinitely many leading ones. */
export const bitwiseAnd = (a: Tensor | number, b: Tensor | number): Tensor => bitwise("bitwiseAnd", a, b);
/** Bit by bit, on integers and bool: set where one at least is. */
export const bitwiseOr = (a: Tensor | number, b: Tensor | number): Tensor => bitwise("bitwiseOr", a, b);
/** Bit by bit, on integers and bool: set where exactly one is. */
export const bitwiseXor = (a: Tensor | number, b: Tensor | number): Tensor => bitwise("bitwiseXor", a, b);
/** a · 2^b modulo the width of the dtype; the count b is taken modulo 32. */
export const shiftLeft = (a: Tensor | number, b: Tensor | number): Tensor => bitwise("shiftLeft", a, b);
/** ⌊a / 2^b⌋: the sign stays; the count b is taken modulo 32. */
export const shiftRight = (a: Tensor | number, b: Tensor | number): Tensor => bitwise("shiftRight", a, b);
/** Every bit turned: −x − 1 for signed integers, 255 − x for uint8, the opposite for bool. */
export const bitwiseNot = (x: Tensor): Tensor => {
  use("bitwiseNot", x);
  if (isFloat(x.dtype)) throw new DTypeError(`bitwiseNot: x must be an integer, not ${x.dtype}`);
  return x.dtype === "bool" ? logicalNot(x) : bitwise("bitwiseXor", x, x.dtype === "uint8" ? 255 : -1);
};

/** True where a and b are equal (NaN is not). Comparisons give bool tensors and have no gradient. */
export const equal = (a: Tensor | number, b: Tensor | number): Tensor => compare("equal", a, b);
/** True where a and b differ; NaN differs from everything. */
export const notEqual = (a: Tensor | number, b: Tensor | number): Tensor => compare("notEqual", a, b);
/** True where a < b. */
export const less = (a: Tensor | number, b: Tensor | number): Tensor => compare("less", a, b);
/** True where a ≤ b. */
export const lessEqual = (a: Tensor | number, b: Tensor | number): Tensor => compare("lessEqual", a, b);
/** True where a > b. */
export const greater = (a: Tensor | number, b: Tensor | number): Tensor => compare("greater", a, b);
/** True where a ≥ b. */
export const greaterEqual = (a: Tensor | number, b: Tensor | number): Tensor => compare("greaterEqual", a, b);

/** −x. */
export const neg = (x: Tensor): Tensor => unary("neg", x);
/** |x|. */
export const abs = (x: Tensor): Tensor => unary("abs", x);
/** −1, 0 or 1; NaN for NaN, as in NumPy (PyTorch gives 0), and −0 for −0. */
export const sign = (x: Tensor): Tensor => unary("sign", x);
/** √x; NaN below 0. */
export const sqrt = (x: Tensor): Tensor => unary("sqrt", x);
/** 1 / √x. */
export const rsqrt = (x: Tensor): Tensor => unary("rsqrt", x);
/** e^x. */
export const exp = (x: Tensor): Tensor => unary("exp", x);
/** e^x − 1, exact near 0. */
export const expm1 = (x: Tensor): Tensor => unary("expm1", x);
/** Natural logarithm; −∞ at 0, NaN below. */
export const log = (x: Tensor): Tensor => unary("log", x);
/** log(1 + x), exact near 0. */
export const log1p = (x: Tensor): Tensor => unary("log1p", x);
/** Sine of x in radians. */
export const sin = (x: Tensor): Tensor => unary("sin", x);
/** Cosine of x in radians. */
export const cos = (x: Tensor): Tensor => unary("cos", x);
/** Hyperbolic tangent. */
export const tanh = (x: Tensor): Tensor => unary("tanh", x);
/** The error function, 2/√π ∫₀ˣ e^−t² dt. */
export const erf = (x: Tensor): Tensor => unary("erf", x);
/** 1 / (1 + e^−x). */
export const sigmoid = (x: Tensor): Tensor => unary("sigmoid", x);
/** x · sigmoid(x). */
export const silu = (x: Tensor): Tensor => unary("silu", x);
/** log(1 + e^x). */
export const softplus = (x: Tensor): Tensor => unary("softplus", x);
/** max(x, 0), with a gradient of 0 at 0; integers stay what they are, as in PyTorch. */
export const relu = (x: Tensor): Tensor => {
  use("relu", x);
  return isFloat(x.dtype) ? unary("relu", x) : maximum(x, 0);
};
/** x²; int32 for bool, as all its arithmetic. */
export const square = (x: Tensor): Tensor => (x?.dtype === "bool" ? cast(x, "int32") : unary("square", x));
/** 1 / x. */
export const reciprocal = (x: Tensor): Tensor => unary("reciprocal", x);
/** The largest integer that is not above x. */
export const floor = (x: Tensor): Tensor => unary("floor", x);
/** The smallest integer that is not below x. */
export const ceil = (x: Tensor): Tensor => unary("ceil", x);
/** To the nearest integer, halves to even. */
export const round = (x: Tensor): Tensor => unary("round", x);
/** Cut towards zero. */
export const trunc = (x: Tensor): Tensor => {
  use("trunc", x);
  return isFloat(x.dtype) ? tidy(() => mul(sign(x), floor(abs(x)))) : alias(x);
};
/** Logarithm to base 2. */
export const log2 = (x: Tensor): Tensor => {
  use("log2", x);
  return tidy(() => div(log(x), Math.LN2));
};
/** Logarithm to base 10. */
export const log10 = (x: Tensor): Tensor => {
  use("log10", x);
  return tidy(() => div(log(x), Math.LN10));
};
/** True where x is zero. */
export const logicalNot = (x: Tensor): Tensor => {
  use("logicalNot", x);
  return equal(x, 0);
};

/** x · Φ(x); "tanh" is the approximation of Hendrycks and Gimpel (arXiv:1606.08415). */
export function gelu(x: Tensor, approximate: "none" | "tanh" = "none"): Tensor {
  use("gelu", x);
  requireThat(
    approximate === "none" || approximate === "tanh",
    "gelu",
    "approximate",
    '"none" or "tanh"',
    approximate,
  );
  return unary(approximate === "tanh" ? "geluTanh" : "gelu", x);
}

/**
 * `left` where `condition` holds, else `right`; all three broadcast.
 * @param condition - bool; of another dtype, it holds where it is not 0 (NaN is not 0)
 */
export function where(condition: Tensor, left: Tensor | number, right: Tensor | number): Tensor {
  use("where", condition);
  if (typeof left === "number" && typeof right === "number") {
    const scalar = scalarLike("where", condition, left, "float32");
    try {
      return where(condition, scalar, right);
    } finally {
      scalar.dispose();
    }
  }
  return withOperands("where", left, right, (_, a, b, dtype) => {
    if (condition.dtype !== "bool" || a.dtype !== dtype || b.dtype !== dtype) {
      return tidy(() => where(asDType(condition, "bool"), asDType(a, dtype), asDType(b, dtype)));
    }
    const backend = commonBackend("where", [condition, a, b]);
    const out = elementByElement("where", dtype, [condition, a, b], (place, c, x, y) =>
      backend.where(c, x, y, place),
    );
    return finish("where", [condition, a, b], null, out);
  });
}

/**
 * `x` as another dtype: to nearest even for 16-bit floats, truncated and saturated to integers (NumPy and PyTorch
 * wrap whole numbers, and leave floats out of range undefined), `x ≠ 0` to bool.
 * With its own dtype it returns another handle of the same values.
 */
export function cast(x: Tensor, dtype: DType): Tensor {
  const backend = commonBackend("cast", [x]);
  requireDType("cast", dtype);
  if (dtype === x.dtype) return alias(x);
  requireBackendDType("cast", backend, dtype);
  const out = elementByElement("cast", dtype, [x], (y, source) => backend.cast(source, y));
  return finish("cast", [x], { from: x.dtype }, out);
}

/** Another handle of the same values at the same place in the graph. */
export function alias(x: Tensor): Tensor {
  const out = new Tensor(use("alias", x).retain(), x.dtype, x.layout);
  return dtypes[x.dtype].kind === "float" ? finish("alias", [x], null, out) : out;
}
