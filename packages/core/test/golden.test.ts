// Values and gradients that PyTorch computed (tools/golden), on every backend.

import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import * as nm from "../src/index.js";
import { type Subject, subjects } from "./support/backends.js";
import { expectClose, rounding } from "./support/numbers.js";

interface Fixture {
  shape: number[];
  dtype: "float64" | "int32" | "bool";
  data: (number | "NaN" | "Infinity" | "-Infinity")[];
}

interface Case {
  name: string;
  op: string;
  attrs: Record<string, unknown>;
  inputs: Record<string, Fixture>;
  output: Fixture;
  dy: Fixture | null;
  grads: Record<string, Fixture> | null;
}

const cases = ["ops", "layers"].flatMap((name) => {
  const file = new URL(`./fixtures/${name}.json`, import.meta.url);
  return (JSON.parse(readFileSync(file, "utf8")) as { cases: Case[] }).cases;
});

type Inputs = Record<string, nm.Tensor>;

// biome-ignore lint/suspicious/noExplicitAny: attributes are checked by what the operations make of them
type Attributes = any;

const unary =
  (fn: (x: nm.Tensor) => nm.Tensor) =>
  ({ x }: Inputs) =>
    fn(x);
const binary =
  (fn: (a: nm.Tensor, b: nm.Tensor) => nm.Tensor) =>
  ({ a, b }: Inputs) =>
    fn(a, b);
const reduction =
  (fn: (x: nm.Tensor, axes?: number | number[], keepDims?: boolean) => nm.Tensor) =>
  ({ x }: Inputs, { axis, keepDims }: Attributes) =>
    fn(x, axis ?? undefined, keepDims);

function ropeTables(x: nm.Tensor, { theta, offset }: Attributes): [nm.Tensor, nm.Tensor] {
  const [, , length, headDim] = x.shape;
  const angle = (i: number) =>
    (Math.floor(i / (headDim / 2)) + offset) * theta ** ((-2 * (i % (headDim / 2))) / headDim);
  const table = (f: (angle: number) => number) =>
    nm.tensor(
      Float64Array.from({ length: (length * headDim) / 2 }, (_, i) => f(angle(i))),
      { shape: [length, headDim / 2], dtype: x.dtype, device: x.device },
    );
  return [table(Math.cos), table(Math.sin)];
}

/** Lists among the attributes as tensors like `x`. */
function tensorsOf(
  x: nm.Tensor,
  lists: Record<string, nm.NestedValues | undefined>,
): Record<string, nm.Tensor> {
  const given = Object.entries(lists).filter(([, list]) => list !== undefined);
  return Object.fromEntries(
    given.map(([name, list]) => [name, nm.tensor(list!, { dtype: x.dtype, device: x.device })]),
  );
}

const pooling =
  (fn: (x: nm.Tensor, size: never, options: never) => nm.Tensor) =>
  ({ x }: Inputs, { size, ...options }: Attributes) =>
    fn(x, size as never, options as never);

const operations: Record<string, (inputs: Inputs, attributes: Attributes) => nm.Tensor> = {
  matmul: ({ a, b }, attrs) => nm.matmul(a, b, attrs),
  add: binary(nm.add),
  sub: binary(nm.sub),
  mul: binary(nm.mul),
  div: binary(nm.div),
  maximum: binary(nm.maximum),
  minimum: binary(nm.minimum),
  pow: ({ a, x, b }, { exponent }) => nm.pow(a ?? x, b ?? exponent),
  eq: binary(nm.equal),
  ne: binary(nm.notEqual),
  lt: binary(nm.less),
  le: binary(nm.lessEqual),
  gt: binary(nm.greater),
  ge: binary(nm.greaterEqual),
  geluTanh: unary((x) => nm.gelu(x, "tanh")),
  gelu: unary((x) => nm.gelu(x)),
  clamp: ({ x }, { min, max }) => nm.clip(x, min, max),
  var: ({ x }, { axis, keepDims, correction }) => nm.variance(x, axis ?? undefined, keepDims, correction),
  std: ({ x }, { axis, keepDims, correction }) => nm.std(x, axis ?? undefined, keepDims, correction),
  cumsum: ({ x }, { axis }) => nm.cumsum(x, axis),
  gather: ({ x, indices }, { axis }) => nm.takeAlongAxis(x, indices, axis),
  indexSelect: ({ x, indices }, { axis }) => nm.take(x, indices, axis),
  argmax: ({ x }, { axis }) => nm.argmax(x, axis),
  argmin: ({ x }, { axis }) => nm.argmin(x, axis),
  softmax: ({ x }, { axis }) => nm.softmax(x, axis),
  logSoftmax: ({ x }, { axis }) => nm.logSoftmax(x, axis),
  rmsNorm: ({ x, weight }, { eps }) => nm.rmsNorm(x, weight, eps),
  layerNorm: ({ x, weight, bias }, { eps }) => nm.layerNorm(x, weight, bias, eps),
  rope: ({ x }, attrs) => nm.rope(x, ...ropeTables(x, attrs)),
  scaledDotProductAttention: ({ q, k, v }, attrs) => nm.scaledDotProductAttention(q, k, v, attrs),
  swiglu: ({ gate, up }) => nm.swiglu(gate, up),
  embedding: ({ weight, indices }) => nm.embedding(weight, indices),
  linear: ({ x, weight, bias }) => nm.linear(x, weight, bias),
  crossEntropy: ({ logits, labels }, attrs) => nm.crossEntropy(logits, labels, attrs),
  linearCrossEntropy: ({ x, weight, labels }, attrs) => nm.linearCrossEntropy(x, weight, labels, attrs),
  where: ({ condition, a, b }) => nm.where(condition, a, b),
  concat: ({ a, b }, { axis }) => nm.concat([a, b], axis),
  neg: unary(nm.neg),
  exp: unary(nm.exp),
  tanh: unary(nm.tanh),
  sigmoid: unary(nm.sigmoid),
  silu: unary(nm.silu),
  relu: unary(nm.relu),
  erf: unary(nm.erf),
  sin: unary(nm.sin),
  cos: unary(nm.cos),
  abs: unary(nm.abs),
  square: unary(nm.square),
  log: unary(nm.log),
  sqrt: unary(nm.sqrt),
  rsqrt: unary(nm.rsqrt),
  reciprocal: unary(nm.reciprocal),
  round: unary(nm.round),
  floor: unary(nm.floor),
  ceil: unary(nm.ceil),
  sign: unary(nm.sign),
  sum: reduction(nm.sum),
  mean: reduction(nm.mean),
  max: reduction(nm.max),
  min: reduction(nm.min),
  prod: reduction(nm.prod),
  logsumexp: reduction(nm.logsumexp),
  conv1d: ({ x, weight, bias }, attrs) => nm.conv1d(x, weight, bias, attrs),
  conv2d: ({ x, weight, bias }, attrs) => nm.conv2d(x, weight, bias, attrs),
  maxPool1d: pooling(nm.maxPool1d),
  maxPool2d: pooling(nm.maxPool2d),
  avgPool1d: pooling(nm.avgPool1d),
  avgPool2d: pooling(nm.avgPool2d),
  maxPool1dIndices: pooling((x, size, options) => nm.maxPool1dWithIndices(x, size, options).indices),
  maxPool2dIndices: pooling((x, size, options) => nm.maxPool2dWithIndices(x, size, options).indices),
  adaptiveAvgPool1d: pooling((x, size) => nm.adaptiveAvgPool1d(x, size)),
  adaptiveAvgPool2d: pooling((x, size) => nm.adaptiveAvgPool2d(x, size)),
  adaptiveMaxPool1d: pooling((x, size) => nm.adaptiveMaxPool1d(x, size)),
  adaptiveMaxPool2d: pooling((x, size) => nm.adaptiveMaxPool2d(x, size)),
  pad: ({ x }, { widths, filling }) => nm.pad(x, widths, filling),
  groupNorm: ({ x, weight, bias }, { groups, eps }) => nm.groupNorm(x, groups, weight, bias, eps),
  mse: ({ a, b }, attrs) => nm.mse(a, b, attrs),
  bceWithLogits: ({ a, b }, { reduction, weight, posWeight }) =>
    nm.bceWithLogits(a, b, { reduction, ...tensorsOf(a, { weight, posWeight }) }),
  klDivergence: ({ a, b }, { target, ...attrs }) =>
    nm.klDivergence(a, b ?? tensorsOf(a, { target }).target, attrs),
};

function numbers(fixture: Fixture): Float64Array {
  return Float64Array.from(fixture.data, Number);
}

function make(fixture: Fixture, subject: Subject, requiresGrad = false): nm.Tensor {
  const isFloat = fixture.dtype === "float64";
  return nm.tensor(numbers(fixture), {
    device: subject.device,
    dtype: isFloat ? subject.dtype : fixture.dtype,
    shape: fixture.shape,
    requiresGrad: isFloat && requiresGrad,
  });
}

/**
 * Relative to the largest entry. PyTorch's own float64 functions are good to about 1e-15; the logarithm of a sum and softmax over
 * wide ranges lose a digit or two.
 */
const tolerance = { float64: 1e-12, float32: rounding.float32 };

describe.each(subjects)("$name equals PyTorch", (subject) => {
  test.each(cases.map((each) => [each.name, each] as const))("%s", (_, each) => {
    nm.tidy(() => {
      const inputs = Object.fromEntries(
        Object.entries(each.inputs).map(([name, fixture]) => [
          name,
          make(fixture, subject, each.grads !== null),
        ]),
      );
      const output = operations[each.op](inputs, each.attrs);
      expect(output.shape).toEqual(each.output.shape);
      if (each.output.dtype !== "float64") expect(output.dtype).toBe(each.output.dtype);
      expectClose(output.dataSync(), numbers(each.output), tolerance[subject.dtype]);
      if (!each.dy || !each.grads) return;
      if (output.requiresGrad) output.backward(make(each.dy, subject));
      for (const [name, expected] of Object.entries(each.grads)) {
        const gradient = inputs[name].grad?.dataSync() ?? new Float64Array(inputs[name].size);
        expectClose(gradient, numbers(expected), tolerance[subject.dtype], `gradient of ${name}`);
      }
      for (const input of Object.values(inputs)) input.zeroGrad();
    });
  });
});

test("every fixture is of an operation that is tested", () => {
  const unknown = cases.map((each) => each.op).filter((op) => !operations[op]);
  expect([...new Set(unknown)]).toEqual([]);
});
