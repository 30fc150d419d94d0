// Gradients of random compositions of operations: finite differences in float64, and float32 on wasm against them.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import * as nm from "../src/index.js";
import { gradientField } from "./support/check-op.js";
import { expectNoLeak } from "./support/numbers.js";

type Step = (a: nm.Tensor, b: nm.Tensor) => nm.Tensor;

/** `b` as an operand of the same shape as `a`, or one that broadcasts to it. */
function fit(a: nm.Tensor, b: nm.Tensor): nm.Tensor {
  const row = nm.mean(b, 0, true);
  return row.shape[1] === a.shape[1] ? row : nm.mean(row, 1, true);
}

const everySecond = (count: number): boolean[] => Array.from({ length: count }, (_, i) => i % 2 === 0);

/**
 * Smooth operations on matrices, kept within bounds so that finite differences mean something: what squares does so to tanh, for five
 * squarings in a row and a sine would lose every digit.
 */
const steps: Readonly<Record<string, Step>> = {
  tanh: (a) => nm.tanh(a),
  sin: (a) => nm.sin(a),
  cos: (a) => nm.cos(a),
  sigmoid: (a) => nm.sigmoid(a),
  silu: (a) => nm.silu(a),
  gelu: (a) => nm.gelu(a),
  geluTanh: (a) => nm.gelu(a, "tanh"),
  softplus: (a) => nm.softplus(a),
  erf: (a) => nm.erf(a),
  exp: (a) => nm.exp(nm.tanh(a)),
  expm1: (a) => nm.expm1(nm.sin(a)),
  log: (a) => nm.log(nm.add(nm.square(a), 0.5)),
  log1p: (a) => nm.log1p(nm.square(a)),
  sqrt: (a) => nm.sqrt(nm.add(nm.square(a), 0.5)),
  rsqrt: (a) => nm.rsqrt(nm.add(nm.square(a), 0.5)),
  pow: (a) => nm.pow(nm.add(nm.square(nm.tanh(a)), 0.5), 1.3),
  add: (a, b) => nm.add(a, fit(a, b)),
  sub: (a, b) => nm.sub(a, fit(a, b)),
  mul: (a, b) => nm.mul(a, nm.tanh(fit(a, b))),
  div: (a, b) => nm.div(a, nm.add(nm.square(fit(a, b)), 0.5)),
  where: (a, b) => nm.where(nm.tensor(everySecond(a.shape[1]), { device: a.device }), a, fit(a, b)),
  matmul: (a, b) => nm.tanh(nm.matmul(a, a.shape[1] === b.shape[0] ? b : nm.transpose(a))),
  matmulTransposed: (a, b) => nm.tanh(nm.matmul(a, b.shape[1] === a.shape[1] ? b : a, { transB: true })),
  linear: (a) => nm.tanh(nm.linear(a, a, nm.mean(a, 1))),
  softmax: (a) => nm.softmax(a),
  logSoftmax: (a) => nm.logSoftmax(a, 0),
  logsumexp: (a) => nm.logsumexp(a, 1, true),
  layerNorm: (a) => nm.layerNorm(a, null, null, 0.3),
  rmsNorm: (a) => nm.rmsNorm(a, nm.tanh(nm.mean(a, 0)), 0.3),
  swiglu: (a) => nm.swiglu(a, nm.sin(a)),
  sum: (a) => nm.tanh(nm.sum(a, 0, true)),
  mean: (a) => nm.mean(a, 1, true),
  variance: (a) => nm.variance(nm.tanh(a), [0, 1], true, 0),
  prod: (a) => nm.tanh(nm.prod(a, 1, true)),
  cumsum: (a) => nm.tanh(nm.cumsum(a, 1)),
  transpose: (a) => nm.transpose(a),
  flip: (a) => nm.flip(a, 1),
  slice: (a) => nm.slice(a, null, [null, null, 2]),
  reshape: (a) => nm.reshape(nm.transpose(a), [1, -1]),
  concat: (a, b) => nm.concat([a, a.shape[0] === b.shape[0] ? b : nm.sin(a)], 1).slice(null, [0, 4]),
  expand: (a) => nm.expand(nm.mean(a, 0, true), [2, a.shape[1]]),
  pad: (a) =>
    nm.slice(
      nm.pad(
        a,
        [
          [0, 0],
          [1, 1],
        ],
        "replicate",
      ),
      null,
      [0, 4],
    ),
  gather: (a) => nm.gather(a, nm.tensor([0, a.shape[0] - 1], { dtype: "int32", device: a.device })),
  einsum: (a, b) => nm.tanh(nm.einsum("ij,kj,il->kl", a, a, b.shape[0] === a.shape[0] ? b : a)),
  attention: (a) => {
    const heads = nm.reshape(a, [1, 1, ...a.shape]);
    return nm.reshape(nm.scaledDotProductAttention(heads, heads, heads, { causal: true }), a.shape);
  },
  groupNorm: (a) => nm.reshape(nm.groupNorm(nm.reshape(a, [1, ...a.shape]), 1, null, null, 0.3), a.shape),
  conv1d: (a) => {
    const rows = nm.reshape(a, [a.shape[0], 1, a.shape[1]]);
    const kernel = nm.slice(nm.tanh(rows), [0, 1], null, [0, 1]);
    return nm.tanh(
      nm.reshape(nm.conv1d(rows, kernel, null, { padding: 1 }), [a.shape[0], -1]).slice(null, [0, 4]),
    );
  },
  avgPool1d: (a) =>
    nm.reshape(nm.avgPool1d(nm.reshape(a, [1, ...a.shape]), 1, { stride: 2 }), [a.shape[0], -1]),
  std: (a) => nm.std(nm.add(a, nm.cumsum(nm.add(nm.mul(a, 0), 1), 1)), [0, 1], true, 0),
  norm: (a) => nm.norm(nm.add(nm.square(nm.tanh(a)), 0.5), 3, 1, true),
  cumprod: (a) => nm.tanh(nm.cumprod(a, 1)),
  roll: (a) => nm.roll(a, 1, 1),
  tril: (a) => nm.add(nm.tril(a), nm.triu(a, 1)),
  index: (a) => nm.index(a, null, nm.tensor([-1, 0], { dtype: "int32", device: a.device })),
  scatter: (a, b) =>
    nm.scatter(
      a,
      nm.zeros([a.shape[0], 1], { dtype: "int32", device: a.device }),
      nm.mean(fit(a, b), 1, true).expand([a.shape[0], 1]),
      1,
      {
        mode: "add",
      },
    ),
  mse: (a, b) => nm.reshape(nm.mse(nm.tanh(a), nm.tanh(nm.expand(fit(a, b), a.shape))), [1, 1]),
  crossEntropy: (a) =>
    nm.reshape(nm.crossEntropy(a, nm.zeros([a.shape[0]], { dtype: "int32", device: a.device })), [1, 1]),
  leakyRelu: (a) => nm.leakyRelu(nm.add(nm.square(nm.tanh(a)), 0.1), 0.2),
  clip: (a) => nm.clip(nm.tanh(a), -2, 2),
  checkpoint: (a, b) => nm.checkpoint((x, y) => nm.tidy(() => nm.mul(nm.tanh(x), fit(x, y))), a, b),
};

const names = Object.keys(steps);

interface Expression {
  readonly inputs: readonly (readonly number[])[];
  readonly steps: readonly { name: string; a: number; b: number }[];
}

const expressionsOf = (known: readonly string[]): fc.Arbitrary<Expression> =>
  fc.record({
    inputs: fc.array(
      fc.array(
        fc.integer({ min: -24, max: 24 }).map((i) => i / 16),
        { minLength: 6, maxLength: 6 },
      ),
      { minLength: 2, maxLength: 2 },
    ),
    steps: fc.array(fc.record({ name: fc.constantFrom(...known), a: fc.nat(7), b: fc.nat(7) }), {
      minLength: 1,
      maxLength: 7,
    }),
  });

const expressions = expressionsOf(names);
// A checkpoint has no gradient of its gradient, and says so.
const twice = expressionsOf(names.filter((name) => name !== "checkpoint"));

/** Each step takes two of the results so far, counted from the last; the sum of all results depends on every one. */
function evaluate(expression: Expression, inputs: readonly nm.Tensor[]): nm.Tensor {
  return nm.tidy(() => {
    const results = [...inputs];
    for (const { name, a, b } of expression.steps) {
      const at = (back: number) => results[results.length - 1 - (back % results.length)];
      results.push(steps[name](at(a), at(b)));
    }
    return results.reduce<nm.Tensor>(
      (total, each) => nm.add(total, nm.mean(each)),
      nm.sum(nm.mul(results[0], 0)),
    );
  });
}

function leaves({ inputs }: Expression, options: nm.CreationOptions): nm.Tensor[] {
  return inputs.map((values) => nm.tensor([...values], { ...options, shape: [2, 3], requiresGrad: true }));
}

const float64 = { device: "reference", dtype: "float64" } as const;
const float32 = { device: "wasm", dtype: "float32" } as const;

describe("a random composition of operations", () => {
  test("has the gradients of finite differences", () => {
    fc.assert(
      fc.property(expressions, (expression) => {
        expectNoLeak("composition", () =>
          nm.tidy(() => {
            nm.gradcheck((...x) => evaluate(expression, x), leaves(expression, float64), { absolute: 2e-6 });
          }),
        );
      }),
      { numRuns: 150 },
    );
  });

  test("has the gradients of gradients of finite differences", () => {
    fc.assert(
      fc.property(twice, (expression) => {
        nm.tidy(() => {
          const dy = nm.tensor(1.25, { ...float64, requiresGrad: true });
          const field = gradientField((...x) => evaluate(expression, x));
          nm.gradcheck(field, [dy, ...leaves(expression, float64)], { absolute: 2e-5, relative: 2e-5 });
        });
      }),
      { numRuns: 40 },
    );
  });

  test("has the same gradients in float32 on wasm, within the error of its roundings", () => {
    const gradients = (expression: Expression, options: nm.CreationOptions) =>
      nm.tidy(() => {
        const inputs = leaves(expression, options);
        const value = evaluate(expression, inputs);
        return [value, ...nm.gradientsOf(value, inputs)].flatMap((t) => [...t.dataSync()]);
      });
    fc.assert(
      fc.property(expressions, (expression) => {
        const exact = gradients(expression, float64);
        const scale = Math.max(1, ...exact.map(Math.abs));
        gradients(expression, float32).forEach((value, i) => {
          expect(Math.abs(value - exact[i])).toBeLessThan(2e-4 * scale);
        });
      }),
      { numRuns: 300 },
    );
  });
});
