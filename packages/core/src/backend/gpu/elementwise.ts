// Elementwise primitives: each output element from the elements at its place.

import type { DType } from "../../dtype.js";
import { isFloat } from "../../dtype.js";
import { sizeOf } from "../../size.js";
import type { BinaryKind, CompareKind, Operand, UnaryKind } from "../types.js";
import { bufferOf, constantOf, extentOf, setArray } from "./buffer.js";
import { commit, commitConstant, KernelBuilder, outputIndices, planOutput, termsOf } from "./builder.js";
import type { Device } from "./device.js";

/** Functions in gpu.js's JavaScript by kind. */
const unaryCalls: Readonly<Record<UnaryKind, string>> = {
  neg: "neg",
  abs: "absolute",
  sign: "signOf",
  sqrt: "Math.sqrt",
  rsqrt: "rsqrt",
  exp: "Math.exp",
  expm1: "expMinusOne",
  log: "Math.log",
  log1p: "logOnePlus",
  sin: "sine",
  cos: "cosine",
  tanh: "boundedTanh",
  erf: "erf",
  sigmoid: "sigmoid",
  silu: "silu",
  gelu: "gelu",
  geluTanh: "geluTanh",
  softplus: "softplus",
  relu: "relu",
  square: "squareOf",
  reciprocal: "reciprocal",
  floor: "Math.floor",
  ceil: "Math.ceil",
  round: "roundHalfEven",
};

type Join = (a: string, b: string) => string;

const called =
  (name: string): Join =>
  (a, b) =>
    `${name}(${a}, ${b})`;

const floatJoins: Readonly<Record<BinaryKind, Join>> = {
  add: (a, b) => `${a} + ${b}`,
  sub: (a, b) => `${a} - ${b}`,
  mul: (a, b) => `${a} * ${b}`,
  div: (a, b) => `${a} / ${b}`,
  pow: called("power"),
  minimum: called("minimum"),
  maximum: called("maximum"),
  floorDivide: called("floorDivide"),
  remainder: called("remainder"),
  bitwiseAnd: called("bitwiseAnd"),
  bitwiseOr: called("bitwiseOr"),
  bitwiseXor: called("bitwiseXor"),
  shiftLeft: called("shiftLeft"),
  shiftRight: called("shiftRight"),
};

const integerJoins: Readonly<Record<BinaryKind, Join>> = {
  ...floatJoins,
  div: called("integerDivide"),
  pow: called("integerPower"),
  floorDivide: called("integerFloorDivide"),
  remainder: called("integerRemainder"),
};

/** out = value(elements of the inputs, output indices by axis); the inputs' strides are those of out's axes. */
export function compute(
  device: Device,
  out: Operand,
  inputs: readonly Operand[],
  value: (elements: string[], kernel: KernelBuilder) => string,
): void {
  const size = sizeOf(out.shape);
  if (size === 0) return;
  const [merged, views] = mergeAxes(out, inputs);
  const plan = planOutput(merged);
  const kernel = new KernelBuilder(device, [merged, ...views]);
  const readers = views.map((view) => kernel.operand(view));
  const indices = outputIndices(kernel, merged, plan);
  const elements = views.map((view, i) => {
    const name = kernel.name("x");
    kernel.line(`const ${name} = ${readers[i](termsOf(indices, view.strides))};`);
    return name;
  });
  kernel.line(`return ${value(elements, kernel)};`);
  commit(device, merged, kernel.run(size), plan);
}

/** The same elements with neighbouring axes joined where all operands step through them evenly. */
function mergeAxes(out: Operand, inputs: readonly Operand[]): [Operand, Operand[]] {
  const all = [out, ...inputs];
  const shape: number[] = [];
  const strides: number[][] = all.map(() => []);
  out.shape.forEach((extent, axis) => {
    if (extent === 1) return;
    const last = shape.length - 1;
    const joins = last >= 0 && all.every((each, k) => strides[k][last] === each.strides[axis] * extent);
    if (joins) {
      shape[last] *= extent;
      all.forEach((each, k) => {
        strides[k][last] = each.strides[axis];
      });
    } else {
      shape.push(extent);
      all.forEach((each, k) => {
        strides[k].push(each.strides[axis]);
      });
    }
  });
  const [first, ...rest] = all.map((each, k): Operand => ({ ...each, shape, strides: strides[k] }));
  return [first, rest];
}

export function fill(device: Device, out: Operand, value: number): void {
  commitConstant(device, out, value);
}

/** A copy of a whole block shares the array, which nobody changes. */
export function copy(device: Device, x: Operand, out: Operand): void {
  if (sizeOf(out.shape) === 0) return;
  const constant = constantOf(x);
  if (constant !== null) {
    commitConstant(device, out, constant);
    return;
  }
  const source = bufferOf(x.buffer);
  if (source.array && sameWhole(x, out)) {
    setArray(device, bufferOf(out.buffer), device.retain(source.array), out.dtype);
    return;
  }
  compute(device, out, [x], ([value]) => value);
}

/** True when both operands are their whole blocks, in the same order. */
function sameWhole(x: Operand, out: Operand): boolean {
  const plan = planOutput(out);
  return (
    plan.whole &&
    x.offset === out.offset &&
    extentOf(x) === extentOf(out) &&
    plan.axes.every((axis) => x.strides[axis] === out.strides[axis])
  );
}

const integerLimits: Partial<Record<DType, readonly [number, number]>> = {
  int32: [-2147483648, 2147483648],
  int8: [-128, 127],
  uint8: [0, 255],
};

export function cast(device: Device, x: Operand, out: Operand): void {
  const limits = integerLimits[out.dtype];
  if (x.dtype === out.dtype || out.dtype === "float32" || (limits && x.dtype === "bool")) {
    compute(device, out, [x], ([value]) => value);
  } else if (out.dtype === "bool") {
    compute(device, out, [x], ([value]) => `isNotEqual(${value}, 0.0)`);
  } else if (limits) {
    compute(device, out, [x], ([value], kernel) => {
      return `saturate(${value}, ${kernel.number(limits[0])}, ${kernel.number(limits[1])})`;
    });
  } else {
    // Bits of mantissa, distance of the least numbers, and where rounding leads to infinity.
    const [bits, least, most] =
      out.dtype === "float16" ? [2 ** -10, 2 ** -24, 65520] : [2 ** -7, 2 ** -133, 2 ** 127 * (2 - 2 ** -8)];
    compute(device, out, [x], ([value], kernel) => {
      const numbers = [bits, least, most, Number.POSITIVE_INFINITY].map((number) => kernel.number(number));
      return `roundToHalf(${[value, ...numbers].join(", ")})`;
    });
  }
}

export function unary(device: Device, kind: UnaryKind, x: Operand, out: Operand): void {
  compute(device, out, [x], ([value]) => `${unaryCalls[kind]}(${value})`);
}

export function binary(device: Device, kind: BinaryKind, a: Operand, b: Operand, out: Operand): void {
  const joins = isFloat(out.dtype) ? floatJoins : integerJoins;
  compute(device, out, [a, b], ([left, right]) => joins[kind](left, right));
}

/** With names that GLSL and WGSL do not have themselves. */
const comparisons: Readonly<Record<CompareKind, string>> = {
  equal: "isEqual",
  notEqual: "isNotEqual",
  less: "isLess",
  lessEqual: "isLessEqual",
  greater: "isGreater",
  greaterEqual: "isGreaterEqual",
};

export function compare(device: Device, kind: CompareKind, a: Operand, b: Operand, out: Operand): void {
  compute(device, out, [a, b], ([left, right]) => `${comparisons[kind]}(${left}, ${right})`);
}
