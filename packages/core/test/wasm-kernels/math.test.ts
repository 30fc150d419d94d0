// Accuracy of the vector functions in units of the last place, over whole ranges of float32.

import fc from "fast-check";
import { expect, it } from "vitest";
import { sigmoid } from "../../src/backend/reference/math.js";
import type { BinaryKind, UnaryKind } from "../../src/backend/types.js";
import { contiguousView, operandOf, outputOf, reference, ulpError, wasm } from "./support.js";

/** Values of the kernel at `points`. */
function evaluate(kind: UnaryKind, points: Float32Array): Float32Array {
  const x = operandOf(wasm, "float32", contiguousView([points.length]), (i) => points[i]);
  const out = outputOf(wasm, "float32", [points.length]);
  wasm.unary(kind, x, out);
  const values = Float32Array.from(wasm.window(out) as Float32Array);
  wasm.free(x.buffer);
  wasm.free(out.buffer);
  return values;
}

const scratch = new DataView(new ArrayBuffer(4));

/** Every `step`-th float32 bit pattern with magnitude from `low` to `high`, of both signs unless `low` is negative. */
function floats(low: number, high: number, step: number, signs = [1, -1]): Float32Array {
  const bits = (x: number) => {
    scratch.setFloat32(0, x);
    return scratch.getUint32(0);
  };
  const list: number[] = [];
  for (let b = bits(low); b <= bits(high); b += step) {
    scratch.setUint32(0, b);
    for (const sign of signs) list.push(sign * scratch.getFloat32(0));
  }
  return Float32Array.from(list);
}

function worst(
  kind: UnaryKind,
  exact: (x: number) => number,
  points: Float32Array,
): { ulp: number; at: number } {
  const values = evaluate(kind, points);
  let [ulp, at] = [0, 0];
  for (let i = 0; i < points.length; i++) {
    const error = ulpError(values[i], exact(points[i]));
    if (error > ulp) [ulp, at] = [error, points[i]];
  }
  return { ulp, at };
}

const everywhere = floats(0, 3.4e38, 9973);

it.each<[UnaryKind, (x: number) => number, Float32Array, number]>([
  ["exp", Math.exp, everywhere, 1.5],
  ["exp", Math.exp, floats(1e-3, 105, 331), 1.5],
  ["expm1", Math.expm1, everywhere, 2],
  ["expm1", Math.expm1, floats(1e-3, 90, 331), 2],
  ["log", Math.log, floats(0, 3.4e38, 4999, [1]), 1],
  ["log", Math.log, floats(0.5, 2, 31, [1]), 1.5],
  ["log1p", Math.log1p, everywhere, 2.5],
  ["tanh", Math.tanh, everywhere, 2.5],
  ["tanh", Math.tanh, floats(1e-3, 10, 331), 2.5],
  ["sigmoid", sigmoid, everywhere, 2.5],
  ["sigmoid", sigmoid, floats(1e-2, 100, 331), 2.5],
  ["silu", (x) => x * sigmoid(x), floats(1e-30, 80, 2503), 2.5],
  ["sin", Math.sin, floats(0, 1e9, 2503), 1.5],
  ["cos", Math.cos, floats(0, 1e9, 2503), 1.5],
  ["sin", Math.sin, floats(1e9, 3.4e38, 99991), 1.5],
  ["softplus", (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))), floats(1e-6, 80, 2503), 2.5],
  ["sqrt", Math.sqrt, floats(0, 3.4e38, 99991, [1]), 0.5],
])("%s", (kind, exact, points, bound) => {
  const { ulp, at } = worst(kind, exact, points);
  expect(ulp, `at ${at}`).toBeLessThanOrEqual(bound);
});

it.each<[UnaryKind, number]>([
  ["erf", 4e-7],
  ["gelu", 2e-6],
  ["geluTanh", 2e-6],
])("%s is within %f of the reference, absolutely below 1 and relatively above", (kind, bound) => {
  const points = floats(1e-20, 100, 4999);
  const values = evaluate(kind, points);
  const x = operandOf(reference, "float32", contiguousView([points.length]), (i) => points[i]);
  reference.unary(kind, x, x);
  const exact = reference.window!(x);
  let highest = 0;
  for (let i = 0; i < points.length; i++) {
    highest = Math.max(highest, Math.abs(values[i] - exact[i]) / Math.max(1, Math.abs(exact[i])));
  }
  reference.free(x.buffer);
  expect(highest).toBeLessThan(bound);
});

/** Values of the binary kernel at `a` and `b`. */
function evaluateBinary(kind: BinaryKind, a: Float32Array, b: Float32Array): Float32Array {
  const operand = (values: Float32Array) =>
    operandOf(wasm, "float32", contiguousView([values.length]), (i) => values[i]);
  const [x, y] = [operand(a), operand(b)];
  wasm.binary(kind, x, y, x);
  const values = Float32Array.from(wasm.window(x) as Float32Array);
  wasm.free(x.buffer);
  wasm.free(y.buffer);
  return values;
}

const exponents = floats(1e-3, 200, 1_000_003);

it("pow is within an ulp", () => {
  const bases = floats(1e-38, 3e38, 400_009, [1]);
  for (const exponent of [...exponents, 2, -1, 0, 0.5, 1 / 3]) {
    const values = evaluateBinary("pow", bases, new Float32Array(bases.length).fill(exponent));
    for (let i = 0; i < bases.length; i++) {
      const error = ulpError(values[i], bases[i] ** Math.fround(exponent));
      if (error > 1) expect(error, `${bases[i]} ^ ${exponent}`).toBeLessThanOrEqual(1);
    }
  }
});

it("pow is within an ulp where the exponent takes most digits, and where the result is denormal", () => {
  // x between ln of the least denormal number and ln of the largest one; bases around 1, where |b| is largest.
  const bases = floats(0.7, 1.45, 1009, [1]).map((a) => (a === 1 ? 2 : a));
  for (let x = -103.9; x < 88.72; x += 3.21) {
    const powers = bases.map((a) => x / Math.log(a));
    const values = evaluateBinary("pow", bases, powers);
    for (let i = 0; i < bases.length; i++) {
      const error = ulpError(values[i], bases[i] ** powers[i]);
      if (error > 1) expect(error, `${bases[i]} ^ ${powers[i]}`).toBeLessThanOrEqual(1);
    }
  }
});

it("pow of special numbers is C's, in every place of a vector", () => {
  const numbers = [0, 1, Infinity, 0.5, 1.5, 2, 3, 1e-40, 1e38, 16777215, 16777216, 33554432, 3.4e38, 0.99];
  const signed = [...numbers, ...numbers.map((x) => -x), Number.NaN].map(Math.fround);
  const pairs = signed.flatMap((a) => signed.map((b) => [a, b]));
  const exact = ([a, b]: number[]) => (a === 1 || (a === -1 && Math.abs(b) === Infinity) ? 1 : a ** b);
  const [a, b] = [0, 1].map((side) => Float32Array.from(pairs, (pair) => pair[side]));
  const values = evaluateBinary("pow", a, b);
  for (let i = 0; i < pairs.length; i++) {
    const error = ulpError(values[i], exact(pairs[i]));
    if (!(error <= 1)) expect(error, `${pairs[i]}: ${values[i]}`).toBeLessThanOrEqual(1);
    expect(Object.is(values[i], -0), `${pairs[i]}`).toBe(Object.is(Math.fround(exact(pairs[i])), -0));
  }
});

it("remainder and floorDivide are exact for numbers of every size", () => {
  // Integers scaled by powers of two, whose quotients BigInt can tell exactly; neighbours of multiples among them.
  const one = fc.tuple(fc.integer({ min: -16777215, max: 16777215 }), fc.integer({ min: 0, max: 24 }));
  fc.assert(
    fc.property(fc.array(fc.tuple(one, one), { minLength: 1, maxLength: 9 }), (pairs) => {
      const exact = pairs.map(([a, b]) => [a, b].map(([m, e]) => BigInt(m) << BigInt(e)) as [bigint, bigint]);
      if (exact.some(([, b]) => b === 0n)) return;
      const [a, b] = [0, 1].map((k) => Float32Array.from(exact, (pair) => Number(pair[k])));
      const floored = exact.map(([x, y]) => {
        const quotient = x / y;
        return x % y !== 0n && x < 0n !== y < 0n ? quotient - 1n : quotient;
      });
      const rests = exact.map(([x, y], i) => x - floored[i] * y);
      const whole = (values: readonly bigint[]) => values.map((value) => Math.fround(Number(value)));
      // Adding 0 makes a negative zero a positive one: integers have no sign there.
      const positive = (values: Float32Array) => Array.from(values, (value) => value + 0);
      expect(positive(evaluateBinary("floorDivide", a, b))).toEqual(whole(floored));
      expect(positive(evaluateBinary("remainder", a, b))).toEqual(whole(rests));
    }),
  );
});

const { NaN: nan, POSITIVE_INFINITY: infinity } = Number;

it.each<[UnaryKind, number[], number[]]>([
  ["exp", [nan, infinity, -infinity, 0, -0, 88.8, -104], [nan, infinity, 0, 1, 1, infinity, 0]],
  ["expm1", [nan, infinity, -infinity, 0, -0, 1e-42], [nan, infinity, -1, 0, -0, 1e-42]],
  ["log", [nan, infinity, -infinity, 0, -0, -1e-45, 1], [nan, infinity, nan, -infinity, -infinity, nan, 0]],
  [
    "log1p",
    [nan, infinity, -infinity, 0, -0, -1, -1.5, 1e-42],
    [nan, infinity, nan, 0, -0, -infinity, nan, 1e-42],
  ],
  ["tanh", [nan, infinity, -infinity, 0, -0, 1e-42], [nan, 1, -1, 0, -0, 1e-42]],
  ["sigmoid", [nan, infinity, -infinity, 0], [nan, 1, 0, 0.5]],
  ["silu", [nan, infinity, -infinity, -3e38, 0, -0], [nan, infinity, nan, -0, 0, -0]],
  ["gelu", [nan, infinity, -infinity, -3e38, 0], [nan, infinity, nan, -0, 0]],
  ["geluTanh", [nan, infinity, -infinity, -3e38, 0], [nan, infinity, nan, -0, 0]],
  ["softplus", [nan, infinity, -infinity, 0], [nan, infinity, 0, Math.fround(Math.LN2)]],
  ["erf", [nan, infinity, -infinity, 0, 5, -5], [nan, 1, -1, 0, 1, -1]],
  ["sin", [nan, infinity, -infinity, 0, -0], [nan, nan, nan, 0, -0]],
  ["cos", [nan, infinity, -infinity, 0, -0], [nan, nan, nan, 1, 1]],
  ["rsqrt", [nan, infinity, 0, -1, 4], [nan, 0, infinity, nan, 0.5]],
  ["sign", [nan, infinity, -infinity, 0, -0, 3], [nan, 1, -1, 0, -0, 1]],
  ["relu", [nan, infinity, -infinity, -2, 2], [nan, infinity, 0, 0, 2]],
])("%s at its edges", (kind, points, values) => {
  expect(Array.from(evaluate(kind, Float32Array.from(points)))).toEqual(
    Array.from(Float32Array.from(values)),
  );
});
