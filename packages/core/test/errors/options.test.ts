// Options by a wrong name have no effect, so they are refused, by everything that takes options; so is what merely counts as true.

import { expect, test } from "vitest";
import * as nm from "../../src/index.js";
import * as nn from "../../src/nn/index.js";
import * as optim from "../../src/optim/index.js";
import { f, i32 } from "./wrong.js";

const image = () => f(1, 1, 3, 3);
const heads = () => f(1, 1, 2, 2);

test.each<[string, (options: never) => unknown]>([
  ["tensor", (options) => nm.tensor([1], options)],
  ["zeros", (options) => nm.zeros([1], options)],
  ["full", (options) => nm.full([1], 1, options)],
  ["eye", (options) => nm.eye(1, options)],
  ["arange", (options) => nm.arange(0, 1, 1, options)],
  ["linspace", (options) => nm.linspace(0, 1, 2, options)],
  ["fromBuffer", (options) => nm.fromBuffer(new Float32Array(1), options)],
  ["rand", (options) => nm.rand([1], options)],
  ["randn", (options) => nm.randn([1], options)],
  ["uniform", (options) => nm.uniform([1], 0, 1, options)],
  ["randint", (options) => nm.randint(0, 1, [1], options)],
  ["bernoulli", (options) => nm.bernoulli([1], 0.5, options)],
  ["permutation", (options) => nm.permutation(1, options)],
  ["multinomial", (options) => nm.multinomial(f(1), 1, options)],
  ["matmul", (options) => nm.matmul(f(2, 2), f(2, 2), options)],
  ["conv2d", (options) => nm.conv2d(image(), image(), null, options)],
  ["maxPool2d", (options) => nm.maxPool2d(image(), 2, options)],
  ["avgPool2d", (options) => nm.avgPool2d(image(), 2, options)],
  ["dropout", (options) => nm.dropout(f(1), 0.5, options)],
  ["scatter", (options) => nm.scatter(f(2), i32(0), f(1), 0, options)],
  ["oneHot", (options) => nm.oneHot(i32(0), 1, options)],
  ["crossEntropy", (options) => nm.crossEntropy(f(1, 2), i32(0), options)],
  ["linearCrossEntropy", (options) => nm.linearCrossEntropy(f(1, 2), f(2, 2), i32(0), options)],
  ["weightedCrossEntropy", (options) => nm.weightedCrossEntropy(f(1, 2), i32(0), f(1), options)],
  [
    "weightedLinearCrossEntropy",
    (options) => nm.weightedLinearCrossEntropy(f(1, 2), f(2, 2), i32(0), f(1), options),
  ],
  ["mse", (options) => nm.mse(f(1), f(1), options)],
  ["bceWithLogits", (options) => nm.bceWithLogits(f(1), f(1), options)],
  ["klDivergence", (options) => nm.klDivergence(f(1), f(1), options)],
  [
    "scaledDotProductAttention",
    (options) => nm.scaledDotProductAttention(heads(), heads(), heads(), options),
  ],
  ["gradcheck", (options) => nm.gradcheck((x) => x, [f(1)], options)],
  ["gradientsOf", (options) => nm.gradientsOf(f(1), [f(1)], options)],
  ["backward", (options) => nm.ones([], { requiresGrad: true }).mul(2).backward(undefined, options)],
  ["uniform", (options) => nn.Linear.create(1, 1, options)],
  ["randn", (options) => nn.Embedding.create(1, 1, options)],
  ["loadStateDict", (options) => nn.Linear.create(1, 1).loadStateDict(new Map(), options)],
  ["cosineSchedule", (options) => optim.cosineSchedule(options)],
  ["polynomialSchedule", (options) => optim.polynomialSchedule(options)],
  ["linearSchedule", (options) => optim.linearSchedule(options)],
  ["constantSchedule", (options) => optim.constantSchedule(options)],
  ["oneCycleSchedule", (options) => optim.oneCycleSchedule(options)],
])("%s refuses an unknown option", (name, call) => {
  nm.tidy(() => {
    expect(() => call({ nonsense: 1 } as never)).toThrow(nm.ArgumentError);
    expect(() => call({ nonsense: 1 } as never)).toThrow(`${name}: unknown option "nonsense" (known: `);
    if (!name.endsWith("Schedule") && name !== "loadStateDict") call({} as never);
  });
});

test.each<[string, (value: never) => unknown]>([
  ["sum: keepDims", (value) => f(2).sum(0, value)],
  ["max: keepDims", (value) => f(2).max(0, value)],
  ["mean: keepDims", (value) => f(2).mean(0, value)],
  ["argmax: keepDims", (value) => f(2).argmax(0, value)],
  ["any: keepDims", (value) => f(2).any(0, value)],
  ["variance: keepDims", (value) => f(2).variance(0, value)],
  ["std: keepDims", (value) => f(2).std(0, value)],
  ["norm: keepDims", (value) => f(2).norm(2, 0, value)],
  ["logsumexp: keepDims", (value) => f(2).logsumexp(0, value)],
  ["sort: descending", (value) => f(2).sort(0, value)],
  ["argsort: descending", (value) => f(2).argsort(0, value)],
  ["topk: largest", (value) => nm.topk(f(2), 1, 0, value)],
])("%s is true or false", (place, call) => {
  nm.tidy(() => {
    expect(() => call({ descending: false } as never)).toThrow(nm.ArgumentError);
    expect(() => call({ descending: false } as never)).toThrow(
      `${place} must be true or false, not an object`,
    );
    call(true as never);
  });
});
