// Cases of matrix products and of the operations that models are made of.

import { groupedMatmul } from "../../../src/extend.js";
import * as ops from "../../../src/index.js";
import { exactly, indices, nonzero, normal, type OpCase, op, positive } from "../../support/check-op.js";

const attention = (options: ops.AttentionArguments) => (q: ops.Tensor, k: ops.Tensor, v: ops.Tensor) =>
  ops.scaledDotProductAttention(q, k, v, options);

/** 0.5, 1, 1.5 ... for each row. */
const factorsLike = (x: ops.Tensor, axis = 0) =>
  ops.arange(0.5, 0.5 + 0.5 * x.shape[axis], 0.5, { dtype: x.dtype, device: x.device });

const labels = (...list: number[]) => ({ ...exactly([list.length], list), dtype: "int32" as const });

export const matmulCases: OpCase[] = [
  op("matmul", (a, b) => ops.matmul(a, b), [normal(3, 4), nonzero(4, 5)]),
  op("matmul, a transposed", (a, b) => ops.matmul(a, b, { transA: true }), [normal(4, 3), normal(4, 5)]),
  op("matmul, b transposed", (a, b) => ops.matmul(a, b, { transB: true }), [normal(3, 4), normal(5, 4)]),
  op("matmul, both transposed", (a, b) => ops.matmul(a, b, { transA: true, transB: true }), [
    normal(4, 3),
    normal(5, 4),
  ]),
  op("matmul, alpha", (a, b) => ops.matmul(a, b, { alpha: -0.5 }), [normal(2, 3), normal(3, 2)]),
  op("matmul of stacks", (a, b) => ops.matmul(a, b), [normal(2, 3, 4), nonzero(2, 4, 2)]),
  op("matmul, broadcast batches", (a, b) => ops.matmul(a, b), [normal(2, 1, 2, 3), normal(3, 3, 2)]),
  op("matmul of a stack and a matrix", (a, b) => ops.matmul(a, b, { transB: true }), [
    normal(2, 3, 4),
    normal(5, 4),
  ]),
  op("matmul of a transposed stack and a matrix", (a, b) => ops.matmul(a, b, { transA: true }), [
    normal(2, 4, 3),
    normal(4, 5),
  ]),
  op("matmul of a matrix and a stack", (a, b) => ops.matmul(a, b), [normal(3, 4), normal(2, 4, 2)]),
  op("matmul of vectors", (a, b) => ops.matmul(a, b), [normal(4), nonzero(4)]),
  op("matmul of a vector and a matrix", (a, b) => ops.matmul(a, b), [normal(4), normal(4, 3)]),
  op("matmul of a stack and a vector", (a, b) => ops.matmul(a, b), [normal(2, 3, 4), normal(4)]),
  op("matmul over nothing", (a, b) => ops.matmul(a, b), [normal(2, 0), normal(0, 3)]),
  op("matmul of stacks over nothing", (a, b) => ops.matmul(a, b), [normal(2, 3, 0), normal(0, 4)]),
  op("matmul of no rows", (a, b) => ops.matmul(a, b), [normal(0, 3), normal(3, 2)]),
  op("matmul with itself", (a) => ops.matmul(a, a, { transB: true }), [normal(3, 4)]),
  op(
    "groupedMatmul",
    (x, a, b) =>
      groupedMatmul(
        x,
        [a, b],
        [
          { start: 0, end: 2, index: 1 },
          { start: 3, end: 4, index: 0, alpha: -0.5 },
          { start: 4, end: 6, index: 1, alpha: 2 },
        ],
      ),
    [normal(7, 4), normal(4, 2), normal(3, 5)],
  ),
  op(
    "groupedMatmul, transposed",
    (x, a, b) =>
      groupedMatmul(
        x,
        [a, b],
        [
          { start: 0, end: 3, index: 0 },
          { start: 3, end: 3, index: 1 },
          { start: 3, end: 5, index: 1 },
        ],
        { transB: true },
      ),
    [normal(5, 4), normal(2, 4), normal(6, 3)],
  ),
  op("groupedMatmul of no group", (x, a) => groupedMatmul(x, [a], []), [normal(3, 2), normal(2, 2)]),
  op("linear, of a matrix", (x, w, b) => ops.linear(x, w, b), [normal(2, 3), normal(4, 3), normal(4)]),
  op("linear", (x, w, b) => ops.linear(x, w, b), [normal(2, 3, 4), normal(5, 4), normal(5)]),
  op("linear without bias", (x, w) => ops.linear(x, w), [normal(3, 4), normal(2, 4)]),
];

export const neuralCases: OpCase[] = [
  op("softmax", (x) => ops.softmax(x), [normal(3, 5)]),
  op("softmax over the first axis", (x) => ops.softmax(x, 0), [normal(3, 2, 2)]),
  op("logSoftmax", (x) => ops.logSoftmax(x), [normal(3, 5)]),
  op("logSoftmax over a middle axis", (x) => ops.logSoftmax(x, 1), [normal(2, 4, 3)]),
  op("rmsNorm", (x, w) => ops.rmsNorm(x, w, 1e-5), [normal(2, 3, 4), positive(4)]),
  op("rmsNorm of a vector", (x, w) => ops.rmsNorm(x, w, 0.1), [normal(5), normal(5)]),
  op("rope", (x, c, s) => ops.rope(x, c, s), [normal(2, 2, 3, 4), normal(3, 2), nonzero(3, 2)]),
  op("rope, inverse", (x, c, s) => ops.rope(x, c, s, true), [
    normal(1, 2, 2, 6),
    normal(2, 3),
    nonzero(2, 3),
  ]),
  op("attention", attention({}), [normal(2, 2, 2, 3), nonzero(2, 2, 2, 3), positive(2, 2, 2, 3)]),
  op("attention, causal", attention({ causal: true, scale: 0.7 }), [
    normal(1, 2, 4, 2),
    nonzero(1, 2, 4, 2),
    normal(1, 2, 4, 2),
  ]),
  op("attention, grouped heads", attention({ causal: true }), [
    normal(1, 4, 2, 2),
    nonzero(1, 2, 3, 2),
    normal(1, 2, 3, 2),
  ]),
  op("crossEntropy", (x, t) => ops.crossEntropy(x, t), [normal(4, 5), indices(5, 4)]),
  op("crossEntropy, some ignored", (x, t) => ops.crossEntropy(x, t, { ignoreIndex: 1 }), [
    normal(4, 3),
    labels(0, 1, 2, 1),
  ]),
  op("crossEntropy, each", (x, t) => ops.crossEntropy(x, t, { reduction: "none" }), [
    normal(2, 3, 4),
    indices(4, 2, 3),
  ]),
  op(
    "crossEntropy, sum, smoothed",
    (x, t) => ops.crossEntropy(x, t, { reduction: "sum", labelSmoothing: 0.1 }),
    [normal(4, 5), indices(5, 4)],
  ),
  op("crossEntropy of probabilities", (x, p) => ops.crossEntropy(x, p, { labelSmoothing: 0.1 }), [
    normal(4, 5),
    positive(4, 5),
  ]),
  op(
    "crossEntropy, weighted",
    (x, t) => ops.tidy(() => ops.crossEntropy(x, t, { weight: factorsLike(x, 1) })),
    [normal(4, 5), indices(5, 4)],
  ),
  op("linearCrossEntropy", (x, w, t) => ops.linearCrossEntropy(x, w, t), [
    normal(4, 3),
    normal(5, 3),
    indices(5, 4),
  ]),
  op(
    "weightedLinearCrossEntropy",
    (x, w, t) => ops.tidy(() => ops.weightedLinearCrossEntropy(x, w, t, factorsLike(x))),
    [normal(4, 3), normal(5, 3), indices(5, 4)],
  ),
  op(
    "weightedCrossEntropy, some ignored",
    (x, t) => ops.tidy(() => ops.weightedCrossEntropy(x, t, factorsLike(x), { ignoreIndex: 2 })),
    [normal(4, 3), labels(0, 2, 2, 1)],
  ),
  op(
    "linearCrossEntropy, sum, some ignored",
    (x, w, t) => ops.linearCrossEntropy(x, w, t, { reduction: "sum", ignoreIndex: 2 }),
    [normal(4, 3), normal(3, 3), labels(2, 0, 2, 1)],
  ),
  op("linearCrossEntropy, each", (x, w, t) => ops.linearCrossEntropy(x, w, t, { reduction: "none" }), [
    normal(4, 3),
    normal(5, 3),
    indices(5, 4),
  ]),
  op(
    "linearCrossEntropy, smoothed, some ignored",
    (x, w, t) => ops.linearCrossEntropy(x, w, t, { labelSmoothing: 0.2, ignoreIndex: 1 }),
    [normal(4, 3), normal(3, 3), labels(0, 1, 2, 1)],
  ),
  op(
    "linearCrossEntropy, each, smoothed",
    (x, w, t) => ops.linearCrossEntropy(x, w, t, { labelSmoothing: 1, ignoreIndex: -7, reduction: "none" }),
    [normal(4, 3), normal(3, 3), labels(2, -7, 2, 1)],
  ),
];
