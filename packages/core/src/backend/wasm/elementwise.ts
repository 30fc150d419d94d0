// Elementwise primitives on the wasm kernels: fill, copy, cast, unary, binary, compare, where.
//
// Kernels take operands whose innermost axis is contiguous or broadcast; those that are strided otherwise (a transposed view) are copied
// by the box as the kernel goes (strided.ts).

import { bytesPerElement, type DType, isFloat } from "../../dtype.js";
import { DTypeError } from "../../errors.js";
import { isContiguous } from "../../layout.js";
import { sizeOf } from "../../shape.js";
import type { BinaryKind, CompareKind, Operand, UnaryKind } from "../types.js";
import type { WasmRuntime } from "./runtime.js";
import {
  type Axes,
  axesOf,
  innerStride,
  launchElementwise,
  launchRows,
  launchWalk,
  mergeAxes,
  rowGrain,
  withTemporary,
} from "./strided.js";

/** Elements of a chunk where memory sets the pace, and where arithmetic does: some 10 to 30 µs each. */
const lightChunk = 16384;
const heavyChunk = 8192;

const light: ReadonlySet<UnaryKind> = new Set([
  "neg",
  "abs",
  "sign",
  "sqrt",
  "rsqrt",
  "relu",
  "square",
  "reciprocal",
  "floor",
  "ceil",
  "round",
]);

const names: Record<"" | "Int", Record<string, Record<string, string>>> = { "": {}, Int: {} };

/** `family_kind` or `familyInt_kind`, the same string each time: looking up one that was just made costs more than a small kernel. */
export function kernelName(family: string, kind: string, suffix: "" | "Int" = ""): string {
  const known = (names[suffix][family] ??= {});
  return (known[kind] ??= `${family}${suffix}_${kind}`);
}

/** Suffix of a kernel's name for the dtype that it computes in. */
export function arithmeticSuffix(operation: string, dtype: DType): "" | "Int" {
  if (dtype === "float32") return "";
  if (dtype === "int32") return "Int";
  throw new DTypeError(`${operation}: the wasm backend computes in float32 and int32, not ${dtype}`);
}

const floatBits = new DataView(new ArrayBuffer(4));

/** Bits of `value` as an element of `dtype`, repeated to 32 bits. */
function elementBits(runtime: WasmRuntime, dtype: DType, value: number): number {
  const bytes = bytesPerElement(dtype);
  let bits = 0;
  if (dtype === "float32") {
    floatBits.setFloat32(0, value);
    bits = floatBits.getInt32(0);
  } else if (dtype === "float16" || dtype === "bfloat16") {
    bits = withTemporary(runtime, "float32", [1], (source) =>
      withTemporary(runtime, dtype, [1], (target) => {
        runtime.views.f32()[runtime.address(source) / 4] = value;
        cast(runtime, source, target);
        return (
          runtime.views.u8()[runtime.address(target)] | (runtime.views.u8()[runtime.address(target) + 1] << 8)
        );
      }),
    );
  } else if (dtype === "bool") bits = value !== 0 ? 1 : 0;
  else if (!Number.isNaN(value)) {
    const [low, high] =
      dtype === "int32" ? [-(2 ** 31), 2 ** 31 - 1] : dtype === "int8" ? [-128, 127] : [0, 255];
    bits = Math.trunc(Math.min(Math.max(value, low), high));
  }
  if (bytes === 2) return (bits & 0xffff) * 0x10001;
  return bytes === 1 ? (bits & 0xff) * 0x1010101 : bits;
}

export function fill(runtime: WasmRuntime, out: Operand, value: number): void {
  const size = sizeOf(out.shape);
  if (size === 0) return;
  const bytes = bytesPerElement(out.dtype);
  const bits = elementBits(runtime, out.dtype, value);
  const address = runtime.address(out);
  if (size === 1 && bytes !== 2) {
    // The numbers of `x.mul(2)` come this way: a store costs less than a launch.
    if (bytes === 4) runtime.views.i32()[address / 4] = bits;
    else runtime.views.u8()[address] = bits;
    return;
  }
  launchRows(runtime, "fill", axesOf([out]), [address], [bytes], lightChunk, [bytes, bits]);
}

function descending(strides: readonly number[]): boolean {
  for (let i = 1; i < strides.length; i++) if (Math.abs(strides[i]) > Math.abs(strides[i - 1])) return false;
  return true;
}

/** Copies elements of one size between any two layouts of one shape. */
export function copy(runtime: WasmRuntime, x: Operand, out: Operand): void {
  if (sizeOf(out.shape) === 0) return;
  const bytes = bytesPerElement(out.dtype);
  const addresses = [runtime.address(out), runtime.address(x)];
  let axes = axesOf([out, x]);
  if (!descending(axes.strides[0])) {
    // Walk in the order of out's memory: whatever order the axes came in, neighbours then merge and writes are sequential.
    const order = axes.shape.map((_, i) => i);
    const [s] = axes.strides;
    order.sort((i, j) => Math.abs(s[j]) - Math.abs(s[i]) || i - j);
    const permuted = (list: readonly number[]) => order.map((i) => list[i]);
    axes = mergeAxes(permuted(axes.shape), axes.strides.map(permuted));
  }
  const last = axes.shape.length - 1;
  const dense = innerStride(axes, 0) === 1;
  const other = axes.strides[1].indexOf(1);
  if (dense && innerStride(axes, 1) === 1)
    launchWalk(runtime, "copyRows", axes, addresses, [bytes, bytes], lightChunk, [bytes, 0]);
  else if (dense && other >= 0 && axes.shape[other] >= 4 && axes.shape[last] >= 4 && last <= 9)
    transpose(runtime, axes, other, addresses, bytes);
  else launchRows(runtime, "copyStrided", axes, addresses, [bytes, bytes], heavyChunk, [bytes, 0]);
}

/** Side of the kernel's tile, in elements. */
const transposeTile = 128;

/** Copies where x is contiguous along axis p and out along the last. */
function transpose(
  runtime: WasmRuntime,
  axes: Axes,
  p: number,
  addresses: readonly number[],
  bytes: number,
): void {
  const { shape, strides } = axes;
  const q = shape.length - 1;
  const outer = shape.map((_, i) => i).filter((i) => i !== p && i !== q);
  const ints = [shape[p], shape[q], 0, outer.length, bytes, 0, 0, 0];
  for (let i = 0; i < 8; i++) ints.push(i < outer.length ? shape[outer[i]] : 1);
  for (let operand = 0; operand < 2; operand++) {
    ints.push(addresses[operand], strides[operand][operand === 0 ? p : q] * bytes);
    for (let i = 0; i < 8; i++) ints.push(i < outer.length ? strides[operand][outer[i]] * bytes : 0);
  }
  for (let i = 0; i < 20; i++) ints.push(0);
  const planes = outer.reduce((product, i) => product * shape[i], 1);
  const units = planes * Math.ceil(shape[p] / transposeTile) * Math.ceil(shape[q] / transposeTile);
  const tile = Math.min(transposeTile, shape[p]) * Math.min(transposeTile, shape[q]);
  runtime.core.launch("transpose", units, ints, undefined, {
    grain: rowGrain(tile, heavyChunk),
    scratchBytes: 2048,
  });
}

/** Runs `fn` with `x` itself when it is contiguous, else with a contiguous copy. */
export function withContiguous<T>(runtime: WasmRuntime, x: Operand, fn: (x: Operand) => T): T {
  if (isContiguous(x)) return fn(x);
  return withTemporary(runtime, x.dtype, x.shape, (temporary) => {
    copy(runtime, x, temporary);
    return fn(temporary);
  });
}

const castCodes: Partial<Record<DType, number>> = {
  float32: 0,
  float16: 1,
  bfloat16: 2,
  int32: 3,
  int8: 4,
  uint8: 5,
  bool: 6,
};

export function cast(runtime: WasmRuntime, x: Operand, out: Operand): void {
  const size = sizeOf(out.shape);
  if (size === 0) return;
  // bool and uint8 hold 0 and 1 alike, so bool → uint8 is a copy too.
  if (x.dtype === out.dtype || (x.dtype === "bool" && out.dtype === "uint8")) {
    copy(runtime, x, out);
    return;
  }
  const to = castCodes[out.dtype];
  const from = castCodes[x.dtype];
  if (to === undefined || from === undefined)
    throw new DTypeError(`cast: the wasm backend has no ${to === undefined ? out.dtype : x.dtype}`);
  onNumbersOnce(runtime, x, out, (source, place) =>
    launchElementwise(runtime, "cast", [place, source], lightChunk, [to, from]),
  );
}

/** Runs a kernel of one input that reads rows. What is repeated along them is computed once, and the results are repeated. */
function onNumbersOnce(
  runtime: WasmRuntime,
  x: Operand,
  out: Operand,
  run: (x: Operand, out: Operand) => void,
): void {
  if (isContiguous(x) || innerStride(axesOf([out, x]), 1) !== 0) {
    run(x, out);
    return;
  }
  const shape = x.shape.map((extent, axis) => (x.strides[axis] === 0 ? 1 : extent));
  withTemporary(runtime, out.dtype, shape, (once) => {
    run({ ...x, shape }, once);
    const strides = once.strides.map((each, axis) => (x.strides[axis] === 0 ? 0 : each));
    copy(runtime, { ...once, shape: x.shape, strides }, out);
  });
}

const integerUnary: ReadonlySet<UnaryKind> = new Set(["neg", "abs", "sign", "square"]);
const integerIdentity: ReadonlySet<UnaryKind> = new Set(["floor", "ceil", "round"]);

export function unary(runtime: WasmRuntime, kind: UnaryKind, x: Operand, out: Operand): void {
  const suffix = arithmeticSuffix(kind, x.dtype);
  if (suffix === "Int" && integerIdentity.has(kind)) {
    if (runtime.address(x) !== runtime.address(out) || !isContiguous(x)) copy(runtime, x, out);
    return;
  }
  if (suffix === "Int" && !integerUnary.has(kind))
    throw new DTypeError(`${kind}: the wasm backend takes float32, not int32`);
  const chunk = light.has(kind) ? lightChunk : heavyChunk;
  const kernel = kernelName("unary", kind, suffix);
  onNumbersOnce(runtime, x, out, (source, place) =>
    launchElementwise(runtime, kernel, [place, source], chunk),
  );
}

export function binary(runtime: WasmRuntime, kind: BinaryKind, a: Operand, b: Operand, out: Operand): void {
  const suffix = arithmeticSuffix(kind, out.dtype);
  const heavy = kind === "pow";
  if (heavy && b.strides.every((stride) => stride === 0)) {
    // x² and 1/x are exact to half an ulp, and ten times as fast.
    const exponent = runtime.views.f32()[runtime.address(b) / 4];
    if (exponent === 2 || exponent === -1) {
      unary(runtime, exponent === 2 ? "square" : "reciprocal", a, out);
      return;
    }
  }
  launchElementwise(runtime, kernelName("binary", kind, suffix), [out, a, b], heavy ? 1024 : lightChunk);
}

export function compare(runtime: WasmRuntime, kind: CompareKind, a: Operand, b: Operand, out: Operand): void {
  if (a.dtype === "float32" || a.dtype === "int32") {
    launchElementwise(
      runtime,
      kernelName(a.dtype === "float32" ? "compare" : "compareInt", kind),
      [out, a, b],
      lightChunk,
    );
    return;
  }
  const wide = isFloat(a.dtype) ? "float32" : "int32";
  withTemporary(runtime, wide, a.shape, (left) =>
    withTemporary(runtime, wide, b.shape, (right) => {
      cast(runtime, a, left);
      cast(runtime, b, right);
      compare(runtime, kind, left, right, out);
    }),
  );
}

export function where(runtime: WasmRuntime, condition: Operand, a: Operand, b: Operand, out: Operand): void {
  launchElementwise(runtime, `where${bytesPerElement(out.dtype)}`, [out, condition, a, b], lightChunk);
}
