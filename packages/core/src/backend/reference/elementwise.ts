// Elementwise primitives: fill, copy, cast, unary, binary, compare, where. float32 is computed in float64 and rounded at the
// store; int32 wraps modulo 2³².

import { type DType, type DTypeArray, dtypes, isFloat } from "../../dtype.js";
import type { BinaryKind, CompareKind, Operand, UnaryKind } from "../types.js";
import { fromBfloat16Bits, fromFloat16Bits, toBfloat16Bits, toFloat16Bits } from "./half.js";
import {
  erf,
  floorDivide,
  gelu,
  geluTanh,
  pow,
  powInt32,
  remainder,
  roundHalfEven,
  sigmoid,
  softplus,
} from "./math.js";
import { elements, numbers, rawElements, walk } from "./strided.js";

/** How a value is stored as `dtype`: the rules of {@link Backend.cast}. Gives the typed array's element. */
export function encoder(dtype: DType): (value: number) => number {
  if (dtype === "float16") return toFloat16Bits;
  if (dtype === "bfloat16") return toBfloat16Bits;
  if (dtype === "bool") return (value) => (value !== 0 ? 1 : 0);
  const range = dtypes[dtype].range;
  if (!range) return (value) => value;
  const [low, high] = range;
  return (value) => (Number.isNaN(value) ? 0 : Math.trunc(Math.min(Math.max(value, low), high)));
}

function decoder(dtype: DType): (element: number) => number {
  if (dtype === "float16") return fromFloat16Bits;
  if (dtype === "bfloat16") return fromBfloat16Bits;
  return (element) => element;
}

export function fill(out: Operand, value: number): void {
  const y = elements(out);
  const element = encoder(out.dtype)(value);
  walk(out.shape, [out], (o) => {
    y[o] = element;
  });
}

export function copy(x: Operand, out: Operand): void {
  const source = rawElements(x);
  const y = rawElements(out);
  walk(out.shape, [out, x], (o, i) => {
    y[o] = source[i];
  });
}

export function cast(x: Operand, out: Operand): void {
  const source = elements(x);
  const y = elements(out);
  const decode = decoder(x.dtype);
  const encode = encoder(out.dtype);
  walk(out.shape, [out, x], (o, i) => {
    y[o] = encode(decode(source[i]));
  });
}

const unaryFunctions: Readonly<Record<UnaryKind, (x: number) => number>> = {
  neg: (x) => -x,
  abs: Math.abs,
  sign: Math.sign,
  sqrt: Math.sqrt,
  rsqrt: (x) => 1 / Math.sqrt(x),
  exp: Math.exp,
  expm1: Math.expm1,
  log: Math.log,
  log1p: Math.log1p,
  sin: Math.sin,
  cos: Math.cos,
  tanh: Math.tanh,
  erf,
  sigmoid,
  silu: (x) => x * sigmoid(x),
  gelu,
  geluTanh,
  softplus,
  relu: (x) => Math.max(x, 0),
  square: (x) => x * x,
  reciprocal: (x) => 1 / x,
  floor: Math.floor,
  ceil: Math.ceil,
  round: roundHalfEven,
};

export function unary(kind: UnaryKind, x: Operand, out: Operand): void {
  const source = numbers(x);
  const y = numbers(out);
  const f = kind === "square" && !isFloat(out.dtype) ? (v: number) => Math.imul(v, v) : unaryFunctions[kind];
  walk(out.shape, [out, x], (o, i) => {
    y[o] = f(source[i]);
  });
}

// Math.min and Math.max give NaN when either is NaN, as the contract demands.
const binaryFunctions: Readonly<Record<BinaryKind, (a: number, b: number) => number>> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => a / b,
  pow,
  minimum: Math.min,
  maximum: Math.max,
  floorDivide,
  remainder,
  bitwiseAnd: (a, b) => a & b,
  bitwiseOr: (a, b) => a | b,
  bitwiseXor: (a, b) => a ^ b,
  shiftLeft: (a, b) => a << b,
  shiftRight: (a, b) => a >> b,
};

// Typed arrays store integers modulo their width, so sums need nothing; products and powers would lose low bits in float64.
// Division truncates towards zero; by zero it gives 0, and so do its relatives.
const integerFunctions: Readonly<Record<BinaryKind, (a: number, b: number) => number>> = {
  ...binaryFunctions,
  mul: Math.imul,
  div: (a, b) => (b === 0 ? 0 : Math.trunc(a / b)),
  pow: powInt32,
  floorDivide: (a, b) => (b === 0 ? 0 : Math.floor(a / b)),
  remainder: (a, b) => (b === 0 ? 0 : remainder(a, b)),
};

export function binary(kind: BinaryKind, a: Operand, b: Operand, out: Operand): void {
  const left = numbers(a);
  const right = numbers(b);
  const y = numbers(out);
  const f = (isFloat(out.dtype) ? binaryFunctions : integerFunctions)[kind];
  walk(out.shape, [out, a, b], (o, i, j) => {
    y[o] = f(left[i], right[j]);
  });
}

const compareFunctions: Readonly<Record<CompareKind, (a: number, b: number) => boolean>> = {
  equal: (a, b) => a === b,
  notEqual: (a, b) => a !== b,
  less: (a, b) => a < b,
  lessEqual: (a, b) => a <= b,
  greater: (a, b) => a > b,
  greaterEqual: (a, b) => a >= b,
};

export function compare(kind: CompareKind, a: Operand, b: Operand, out: Operand): void {
  const left = numbers(a);
  const right = numbers(b);
  const y = elements(out);
  const f = compareFunctions[kind];
  walk(out.shape, [out, a, b], (o, i, j) => {
    y[o] = f(left[i], right[j]) ? 1 : 0;
  });
}

export function where(condition: Operand, a: Operand, b: Operand, out: Operand): void {
  const chosen: DTypeArray = elements(condition);
  const left = rawElements(a);
  const right = rawElements(b);
  const y = rawElements(out);
  walk(out.shape, [out, condition, a, b], (o, c, i, j) => {
    y[o] = chosen[c] ? left[i] : right[j];
  });
}
