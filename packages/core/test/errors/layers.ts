// Wrong calls of operations on matrices, indices and layers, and of creation, by operation.

import { groupedMatmul } from "../../src/extend.js";
import * as nm from "../../src/index.js";
import { disposed, f, i32, inf, nan, type WrongCall } from "./wrong.js";

export const layers: Record<string, WrongCall[]> = {
  matmul: [
    [
      () => nm.matmul(f(2, 3), f(4, 5)),
      nm.ShapeError,
      "matmul: inner dimensions differ: [2, 3] · [4, 5] (3 ≠ 4)",
    ],
    [
      () => nm.matmul(f(2, 2), f(2, 2), { transposeB: true } as never),
      nm.ArgumentError,
      'matmul: unknown option "transposeB" (known: transA, transB, alpha, beta, out)',
    ],
  ],
  groupedMatmul: [
    [
      () => groupedMatmul(f(2, 3), [f(4, 5)], [{ start: 0, end: 2, index: 0 }]),
      nm.ShapeError,
      "groupedMatmul: a matrix [4, 5] does not fit x [2, 3]",
    ],
    [
      () => groupedMatmul(f(2, 3), [f(3, 5)], [{ start: 1, end: 3, index: 0 }]),
      nm.ShapeError,
      "groupedMatmul: group of rows 1 to 3: groups must follow each other within 2 rows",
    ],
    [
      () => groupedMatmul(f(2, 3), [f(3, 5)], [{ start: 0, end: 1, index: 1 }]),
      nm.ShapeError,
      "groupedMatmul: group of rows 0 to 1: no matrix 1 of 1",
    ],
  ],
  linear: [
    [
      () => nm.linear(f(2, 3), f(5, 4)),
      nm.ShapeError,
      "linear: expected x [..., in], weight [out, in] and bias [out], not [2, 3], [5, 4]",
    ],
  ],
  dot: [[() => nm.dot(f(2), f(3)), nm.ShapeError, "dot: vectors differ in length (2 ≠ 3)"]],
  outer: [[() => nm.outer(f(2, 2), f(3)), nm.ShapeError, "outer: a must be a vector [m], not [2, 2]"]],
  bmm: [
    [() => nm.bmm(f(2, 2, 2), f(3, 2, 2)), nm.ShapeError, "bmm: batches differ: [2, 2, 2] and [3, 2, 2]"],
  ],
  einsum: [[() => nm.einsum("ij,jk", f(2, 3), f(4, 5)), nm.ShapeError, "einsum: "]],
  gather: [
    [() => nm.gather(f(3, 2), i32(0, 3)), nm.ShapeError, "gather: index 3"],
    [() => nm.gather(f(3), f(1)), nm.DTypeError, "gather: indices must be integers, not float32"],
  ],
  embedding: [
    [() => nm.embedding(f(3, 2), i32(-1)), nm.ShapeError, "embedding: index -1"],
    [
      () => nm.embedding(f(3), i32(0)),
      nm.ShapeError,
      "embedding: weight must be [numEmbeddings, dim], not [3]",
    ],
  ],
  diag: [[() => nm.diag(f(1, 2, 3)), nm.ShapeError, "diag: expected [n] or [rows, columns], not [1, 2, 3]"]],
  diagonal: [
    [() => nm.diagonal(f(3)), nm.ShapeError, "diagonal: expected two axes or more, not [3]"],
    [() => nm.diagonal(f(2, 3), 0, 1, -1), nm.ShapeError, "moveaxis: axis 1 is named twice"],
  ],
  trace: [[() => nm.trace(f(3)), nm.ShapeError, "diagonal: expected two axes or more, not [3]"]],
  moveaxis: [
    [() => nm.moveaxis(f(2, 3), [0, 0], [0, 1]), nm.ShapeError, "moveaxis: axis 0 is named twice"],
    [() => nm.moveaxis(f(2, 3), [0, 1], 0), nm.ArgumentError, "moveaxis: 2 axes for 1 places"],
  ],
  meshgrid: [
    [() => nm.meshgrid([f(2), f(2, 3)]), nm.ShapeError, "meshgrid: vector 1 must be [n], not [2, 3]"],
    [() => nm.meshgrid(f(2) as never), nm.ArgumentError, "meshgrid: vectors must be an array, not a tensor"],
    [
      () => nm.meshgrid([f(2)], "yx" as never),
      nm.ArgumentError,
      'meshgrid: unknown indexing "yx" (known: ij, xy)',
    ],
  ],
  unbind: [[() => nm.unbind(f()), nm.ShapeError, "unbind: axis 0 is out of range for rank 0"]],
  allclose: [
    [() => nm.allclose(f(2), f(3)), nm.ShapeError, "isclose: shapes [2] and [3] do not broadcast"],
    [() => nm.isclose(f(2), f(2), -1), nm.ArgumentError, "isclose: relative must be finite and not negative"],
  ],
  scatterAdd: [
    [() => nm.scatterAdd(2, i32(0, 2), f(2, 1)), nm.ShapeError, "scatterAdd: index 2"],
    [() => nm.scatterAdd(nan, i32(0), f(1)), nm.ShapeError, "scatterAdd: [NaN] is no shape"],
  ],
  take: [
    [() => nm.take(f(3), i32(3), 0), nm.ShapeError, "take: index 3 is out of range for axis 0 of length 3"],
  ],
  takeAlongAxis: [
    [
      () => nm.takeAlongAxis(f(2, 3), i32(0), 1),
      nm.ShapeError,
      "takeAlongAxis: indices [1] should have as many axes as x [2, 3]",
    ],
  ],
  scatter: [
    [
      () => nm.scatter(f(3), i32(3), f(1), 0),
      nm.ShapeError,
      "scatter: index 3 is out of range for axis 0 of length 3",
    ],
    [() => nm.scatter(f(3), i32(0), i32(1), 0), nm.DTypeError, "scatter: source is int32, x is float32"],
  ],
  index: [
    [() => nm.index(f(3), i32(3)), nm.ShapeError, "index: index 3 is out of range for axis 0 of length 3"],
    [
      () => nm.index(f(3), nm.greater(f(2), 0)),
      nm.ShapeError,
      "index: mask [2] does not fit axes [3] of x [3]",
    ],
    [
      () => nm.index(f(3), f(1)),
      nm.DTypeError,
      "index: indices other than masks must be integers, not float32",
    ],
  ],
  oneHot: [[() => nm.oneHot(i32(5), 3), nm.ShapeError, "oneHot: index 5 is not within 0 to 2"]],
  sort: [[() => nm.sort(f(3), 1), nm.ShapeError, "sort: axis 1 is out of range for rank 1"]],
  argsort: [[() => nm.argsort(f(3), 1), nm.ShapeError, "argsort: axis 1 is out of range"]],
  topk: [
    [() => nm.topk(f(3), 4), nm.ShapeError, "topk: k 4 exceeds axis 0 of [3] (4 > 3)"],
    [() => nm.topk(f(3), 1.5), nm.ArgumentError, "topk: k must be an integer of at least 0, not 1.5"],
  ],
  layerNorm: [
    [
      () => nm.layerNorm(f(2, 3), f(2)),
      nm.ShapeError,
      "layerNorm: weight [2] does not fit the last axes of x [2, 3]",
    ],
  ],
  rmsNorm: [
    [
      () => nm.rmsNorm(f(2, 3), f(2)),
      nm.ShapeError,
      "rmsNorm: weight [2] does not fit the last axis of x [2, 3]",
    ],
  ],
  groupNorm: [
    [
      () => nm.groupNorm(f(2, 3), 2),
      nm.ShapeError,
      "groupNorm: expected x [batch, channels, ...] with channels a multiple of groups, not [2, 3] and 2",
    ],
  ],
  dropout: [[() => nm.dropout(f(2), 1.5), nm.ArgumentError, "dropout: p must be within 0 … 1, not 1.5"]],
  rope: [[() => nm.rope(f(1, 2, 3, 4), f(2, 2), f(3, 2)), nm.ShapeError, "rope: "]],
  swiglu: [[() => nm.swiglu(f(2), f(3)), nm.ShapeError, "swiglu: gate [2] and up [3] differ"]],
  scaledDotProductAttention: [
    [
      () => nm.scaledDotProductAttention(f(1, 3, 2, 2), f(1, 2, 2, 2), f(1, 2, 2, 2)),
      nm.ShapeError,
      "with heads a multiple of kvHeads, not [1, 3, 2, 2], [1, 2, 2, 2], [1, 2, 2, 2]",
    ],
    [
      () => nm.scaledDotProductAttention(f(1, 1, 2, 2), f(1, 1, 2, 2), f(1, 1, 2, 2), { dropoutP: nan }),
      nm.ArgumentError,
      "scaledDotProductAttention: dropoutP must be within 0 … 1, not NaN",
    ],
    [
      () => nm.scaledDotProductAttention(f(1, 1, 2, 2), f(1, 1, 2, 2), f(1, 1, 2, 2), { mask: f(3, 3) }),
      nm.ShapeError,
      "scaledDotProductAttention: ",
    ],
  ],
  unfold: [
    [() => nm.unfold(f(3), 0, 4), nm.ShapeError, "unfold: a window of 4 does not fit axis 0 of [3] (4 > 3)"],
  ],
  conv1d: [
    [() => nm.conv1d(f(1, 2, 3), f(1, 3, 2)), nm.ShapeError, "conv1d: "],
    [
      () => nm.conv1d(f(1, 1, 3), f(1, 1, 2), null, { stride: 0 }),
      nm.ArgumentError,
      "conv1d: stride must be a positive integer, not 0",
    ],
  ],
  conv2d: [
    [
      () => nm.conv2d(f(1, 1, 3, 3), f(1, 1, 4, 2)),
      nm.ShapeError,
      "conv2d: a window of 4 does not fit axis 2 of the padded input [1, 1, 3, 3]",
    ],
  ],
  maxPool1d: [
    [
      () => nm.maxPool1d(f(1, 2), 2),
      nm.ShapeError,
      "maxPool1d: expected x [batch, channels, length], not [1, 2]",
    ],
  ],
  maxPool2d: [
    [
      () => nm.maxPool2d(f(1, 1, 3, 3), [2, 2, 2]),
      nm.ArgumentError,
      "maxPool2d: size [2, 2, 2] should have 2 entries",
    ],
  ],
  maxPool2dWithIndices: [
    [
      () => nm.maxPool2dWithIndices(f(1, 1, 2, 2), 3),
      nm.ShapeError,
      "maxPool2dWithIndices: a window of 3 does not fit axis 2",
    ],
  ],
  avgPool1d: [
    [
      () => nm.avgPool1d(f(1, 1, 4), 2, { padding: 2 }),
      nm.ArgumentError,
      "avgPool1d: padding 2 exceeds half of the window's size 2",
    ],
  ],
  adaptiveAvgPool2d: [
    [
      () => nm.adaptiveAvgPool2d(f(1, 1, 4, 4), -1),
      nm.ArgumentError,
      "adaptiveAvgPool2d: outputSize must be an integer of at least 0, not -1",
    ],
  ],
  crossEntropy: [
    [
      () => nm.crossEntropy(f(2, 3), i32(0, 3)),
      nm.ShapeError,
      "crossEntropy: target 3 at position 1 is not within 0 to 2",
    ],
    [
      () => nm.crossEntropy(f(2, 3), f(2)),
      nm.DTypeError,
      "crossEntropy: targets must be integers, not float32",
    ],
    [() => nm.crossEntropy(f(2, 3), i32(0)), nm.ShapeError, "crossEntropy: targets [1] should be [2]"],
    [
      () => nm.crossEntropy(f(1, 3, 8), nm.zeros([1, 8], { dtype: "int32" })),
      nm.ShapeError,
      "crossEntropy: targets [1, 8] should be [1, 3], one for each row of logits (classes are the last axis)",
    ],
    [
      () => nm.crossEntropy(f(2, 3), f(2, 3), { ignoreIndex: 0 }),
      nm.ArgumentError,
      "crossEntropy: ignoreIndex must be left out for targets that are probabilities, not 0",
    ],
    [
      () => nm.crossEntropy(f(2, 3), i32(0, 1), { weight: f(2) }),
      nm.ShapeError,
      "crossEntropy: weight should be floats [3] without gradient, not float32 [2]",
    ],
    [
      () => nm.crossEntropy(i32(0, 1), i32(0)),
      nm.DTypeError,
      "crossEntropy: logits must be a float tensor, not int32",
    ],
    [
      () => nm.crossEntropy(f(2, 3), i32(0, 1), { reduction: "max" as never }),
      nm.ArgumentError,
      'crossEntropy: unknown reduction "max"',
    ],
  ],
  linearCrossEntropy: [
    [
      () => nm.linearCrossEntropy(f(2, 3), f(4, 2), i32(0, 0)),
      nm.ShapeError,
      "linearCrossEntropy: x [2, 3] and weight [4, 2] should be",
    ],
    [
      () => nm.linearCrossEntropy(f(1, 2), f(4, 2), i32(4), { reduction: "none" }),
      nm.ShapeError,
      "target 4 at position 0",
    ],
    [
      () => nm.linearCrossEntropy(f(1, 2), f(4, 2), i32(0), { labelSmoothing: 2 }),
      nm.ArgumentError,
      "linearCrossEntropy: labelSmoothing must be within 0 … 1, not 2",
    ],
  ],
  weightedCrossEntropy: [
    [
      () => nm.weightedCrossEntropy(f(2, 3), i32(0, 1), f(3)),
      nm.ShapeError,
      "weightedCrossEntropy: factors and losses should be float32 [2]",
    ],
    [
      () => nm.weightedCrossEntropy(disposed(2, 3), i32(0, 1), f(2)),
      nm.DisposedError,
      "weightedCrossEntropy: a tensor of shape [2, 3] was used after it was disposed",
    ],
  ],
  weightedLinearCrossEntropy: [
    [
      () => nm.weightedLinearCrossEntropy(f(2, 3), f(4, 2), i32(0, 0), f(2)),
      nm.ShapeError,
      "weightedLinearCrossEntropy: x [2, 3] and weight [4, 2] should be",
    ],
    [
      () => nm.weightedLinearCrossEntropy(f(1, 2), f(4, 2), i32(4), f(1)),
      nm.ShapeError,
      "target 4 at position 0",
    ],
    [
      () => nm.weightedLinearCrossEntropy(f(1, 2), disposed(4, 2), i32(0), f(1)),
      nm.DisposedError,
      "weightedLinearCrossEntropy: a tensor of shape [4, 2] was used after it was disposed",
    ],
  ],
  mse: [[() => nm.mse(f(2), f(3)), nm.ShapeError, "mse: target [3] should be [2], as the input"]],
  bceWithLogits: [
    [() => nm.bceWithLogits(f(2), f(3)), nm.ShapeError, "bceWithLogits: target [3] should be [2]"],
  ],
  klDivergence: [
    [() => nm.klDivergence(f(2), f(3)), nm.ShapeError, "klDivergence: target [3] should be [2]"],
  ],
  add_: [
    [() => nm.add_(f(2), f(3)), nm.ShapeError, "add_: shapes [2] and [3] do not broadcast"],
    [() => nm.add_(f(1), f(2)), nm.ShapeError, "add_: [2] does not broadcast into [1]"],
  ],
  div_: [
    [() => nm.div_(i32(1), 2), nm.DTypeError, "div_: the result is float32 and cannot be kept as int32"],
  ],
  fill_: [
    [() => nm.fill_(i32(1), inf), nm.ArgumentError, "fill_: value must be a finite number, not Infinity"],
  ],
  // Not operations, but public as they are.
  zeros: [
    [() => nm.zeros([2], 3 as never), nm.ArgumentError, "zeros: options must be an object, not 3"],
    [() => nm.zeros([2, -1]), nm.ShapeError, "-1 is not a non-negative integer"],
    [() => nm.zeros([inf]), nm.ShapeError, "[Infinity] is no shape"],
    [() => nm.zeros([2 ** 40, 2 ** 40]), nm.ShapeError, "has too many elements"],
    [() => nm.zeros([2], { dtype: "float8" as never }), nm.DTypeError, 'unknown dtype "float8"'],
  ],
  ones: [
    [
      () => nm.ones(3 as never, 4 as never),
      nm.ShapeError,
      "ones: a shape must be an array of integers, not 3",
    ],
  ],
  full: [
    [
      () => nm.full([2], nan, { dtype: "int32" }),
      nm.ArgumentError,
      "full: value must be a finite number, not NaN",
    ],
    [() => nm.full([2], "1" as never), nm.ArgumentError, 'full: value must be a number, not "1"'],
    [() => nm.full([2], undefined as never), nm.ArgumentError, "full: value must be a number, not undefined"],
  ],
  eye: [[() => nm.eye(1.5), nm.ShapeError, "eye: [1.5, 1.5] is no shape"]],
  arange: [[() => nm.arange(0, 1, 0), nm.ArgumentError, "arange: step must be above or below 0, not 0"]],
  linspace: [
    [() => nm.linspace(0, inf), nm.ArgumentError, "linspace: end must be a finite number, not Infinity"],
  ],
  tensor: [
    [() => nm.tensor([[1, 2], [3]]), nm.ShapeError, "tensor: nested arrays are ragged at depth 1 (1 ≠ 2)"],
    [() => nm.tensor([1, 2, 3], { shape: [2] }), nm.ShapeError, "tensor: 3 values do not fit shape [2] (2)"],
    [
      () => nm.tensor([300], { dtype: "uint8" }),
      nm.DTypeError,
      "tensor: 300 at position 0 is not within uint8",
    ],
  ],
  randint: [
    [() => nm.randint(3, 3, [1]), nm.ArgumentError, "randint: expected integers low < high, not 3 and 3"],
  ],
  bernoulli: [[() => nm.bernoulli([2], 2), nm.ArgumentError, "not 2"]],
  multinomial: [
    [
      () => nm.multinomial(f(2), 3),
      nm.ArgumentError,
      "multinomial: cannot draw 3 samples without replacement from 2 classes",
    ],
  ],
  item: [[() => f(2).item(), nm.ShapeError, "item: expected one element, not 2 of shape [2]"]],
  backward: [
    [
      () => nm.ones([2], { requiresGrad: true }).mul(2).backward(),
      nm.ShapeError,
      "backward: a gradient is needed for a tensor of shape [2]",
    ],
  ],
};
