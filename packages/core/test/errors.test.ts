// Wrong calls: every operation names itself, the operand and the numbers, and leaves nothing behind.

import { describe, expect, test } from "vitest";
import * as nm from "../src/index.js";
import * as exported from "../src/ops/index.js";
import { allCases, operationOf } from "./conformance/cases/index.js";
import { leafOf, type OpCase } from "./support/check-op.js";
import { expectNoLeak } from "./support/numbers.js";

/** Cases that do more than call their operation: what is disposed reaches something else first. */
const detours = new Set([
  "move there and back",
  "klDivergence",
  "klDivergence, a zero target",
  "index by a mask",
]);
const plain = allCases.filter(
  (each) => each.inputs.length > 0 && !detours.has(each.name) && !/^(\w+_|view)\b/.test(each.name),
);

function inputsOf(each: OpCase, device: nm.BackendName = "wasm"): nm.Tensor[] {
  return each.inputs.map((input) => leafOf(input, "contiguous", { device, dtype: "float32" }, false));
}

describe("every operation", () => {
  test.each(plain.map((each) => [each.name, each] as const))(
    "names itself for wrong operands: %s",
    (_, each) => {
      const name = operationOf(each);
      expectNoLeak(each.name, () =>
        each.inputs.forEach((input, i) => {
          nm.tidy(() => {
            const inputs = inputsOf(each);
            inputs[i].dispose();
            const run = () => each.fn(...inputs);
            expect(run, `operand ${i} disposed`).toThrow(nm.DisposedError);
            expect(run).toThrow(
              `${name}: a tensor of shape [${input.shape.join(", ")}] was used after it was disposed`,
            );
            if (each.inputs.length === 1) return;
            const mixed = inputsOf(each);
            mixed[i] = inputsOf(each, "reference")[i];
            const runMixed = () => each.fn(...mixed);
            expect(runMixed, `operand ${i} elsewhere`).toThrow(nm.BackendError);
            expect(runMixed).toThrow(
              new RegExp(`^${name}: tensors live on different backends .*move one with to\\(`),
            );
          });
        }),
      );
    },
  );
});

const f = (...shape: number[]) => nm.ones(shape);
const i32 = (...values: number[]) => nm.tensor(values, { dtype: "int32" });
const nan = Number.NaN;
const { POSITIVE_INFINITY: inf } = Number;

/** Wrong calls by operation: what is called, the class of its error, and what its message says. */
const wrong: Record<string, [() => unknown, new (...args: never[]) => Error, string][]> = {
  neg: [
    [() => nm.neg(nm.tensor([true])), nm.DTypeError, "neg: bool has no negative"],
    [() => nm.neg(3 as never), nm.ArgumentError, "neg: expected a tensor, not number"],
  ],
  add: [
    [
      () => nm.add(f(2, 3), f(4)),
      nm.ShapeError,
      "add: shapes [2, 3] and [4] do not broadcast (axis -1: 3 ≠ 4)",
    ],
    [() => nm.add(f(2), "1" as never), nm.ArgumentError, "add: expected a tensor or a number, not string"],
    [
      () => nm.add(1, 2),
      nm.ArgumentError,
      "add: expected a tensor among the operands, not number and number",
    ],
  ],
  less: [
    [() => nm.less(f(2), f(3)), nm.ShapeError, "less: shapes [2] and [3] do not broadcast (axis -1: 2 ≠ 3)"],
  ],
  where: [
    [
      () => nm.where(nm.greater(f(2), 0), f(3), 0),
      nm.ShapeError,
      "where: shapes [2] and [3] do not broadcast",
    ],
  ],
  logicalAnd: [
    [() => nm.logicalAnd(f(2), f(3)), nm.ShapeError, "logicalAnd: shapes [2] and [3] do not broadcast"],
  ],
  bitwiseAnd: [
    [() => nm.bitwiseAnd(f(2), 1), nm.DTypeError, "bitwiseAnd: operands must be integers, not float32"],
  ],
  bitwiseNot: [[() => nm.bitwiseNot(f(2)), nm.DTypeError, "bitwiseNot: x must be an integer, not float32"]],
  pow: [[() => nm.pow(i32(2), -2), nm.ArgumentError, "pow: integers have no negative integer powers (-2)"]],
  clip: [[() => nm.clip(f(2), nan, 1), nm.ArgumentError, "clip: low must be a number, not NaN"]],
  gelu: [
    [
      () => nm.gelu(f(2), "erf" as never),
      nm.ArgumentError,
      'gelu: approximate must be "none" or "tanh", not "erf"',
    ],
  ],
  cast: [[() => nm.cast(f(2), "int64" as never), nm.DTypeError, 'cast: unknown dtype "int64"']],
  sum: [
    [() => nm.sum(f(2, 3), 2), nm.ShapeError, "sum: axis 2 is out of range for rank 2 (expected -2 to 1)"],
    [() => nm.sum(f(2, 3), [0, -2]), nm.ShapeError, "sum: axis 0 is named twice"],
    [() => nm.sum(f(2), 0.5), nm.ShapeError, "sum: axis 0.5 is out of range"],
    [() => nm.sum(f(), 0), nm.ShapeError, "sum: axis 0 is out of range for rank 0 (a scalar has no axes)"],
  ],
  mean: [[() => nm.mean(f(2), nan), nm.ShapeError, "mean: axis NaN is out of range for rank 1"]],
  variance: [[() => nm.variance(f(2), 1), nm.ShapeError, "variance: axis 1 is out of range"]],
  std: [[() => nm.std(f(2), 1), nm.ShapeError, "std: axis 1 is out of range"]],
  norm: [
    [() => nm.norm(f(2), 2, 1), nm.ShapeError, "norm: axis 1 is out of range"],
    [() => nm.norm(f(2), nan), nm.ArgumentError, "norm: p must be a number, not NaN"],
  ],
  any: [[() => nm.any(f(2), 3), nm.ShapeError, "any: axis 3 is out of range"]],
  all: [[() => nm.all(f(2), 3), nm.ShapeError, "all: axis 3 is out of range"]],
  max: [[() => nm.max(nm.zeros([2, 0]), 1), nm.ShapeError, "max: axis 1 of [2, 0] is empty and has no max"]],
  argmin: [
    [
      () => nm.argmin(nm.zeros([0, 2]), 0),
      nm.ShapeError,
      "argmin: axis 0 of [0, 2] is empty and has no argmin",
    ],
    [
      () => nm.argmin(f(2), -2),
      nm.ShapeError,
      "argmin: axis -2 is out of range for rank 1 (expected -1 to 0)",
    ],
  ],
  logsumexp: [[() => nm.logsumexp(f(2), 1), nm.ShapeError, "logsumexp: axis 1 is out of range"]],
  cumsum: [[() => nm.cumsum(f(2), 1), nm.ShapeError, "cumsum: axis 1 is out of range for rank 1"]],
  softmax: [[() => nm.softmax(f(2), 1), nm.ShapeError, "softmax: axis 1 is out of range for rank 1"]],
  logSoftmax: [
    [() => nm.logSoftmax(i32(1), 0), nm.DTypeError, "logSoftmax: x must be a float tensor, not int32"],
  ],
  reshape: [
    [() => nm.reshape(f(2, 3), [4]), nm.ShapeError, "reshape: 6 elements do not fit shape [4] (4)"],
    [() => nm.reshape(f(2, 3), [-1, -1]), nm.ShapeError, "reshape: only one extent of [-1, -1] may be -1"],
    [
      () => nm.reshape(f(2, 3), [-1, 4]),
      nm.ShapeError,
      "reshape: 6 elements do not divide into shape [-1, 4]",
    ],
    [
      () => nm.reshape(f(2, 3), [1.5, 4]),
      nm.ShapeError,
      "reshape: [1.5, 4] is no shape: 1.5 is not a non-negative integer",
    ],
    [
      () => nm.reshape(f(2), 2 as never),
      nm.ShapeError,
      "reshape: a shape must be an array of integers, not 2",
    ],
  ],
  view: [
    [
      () => nm.view(f(2, 3).transpose(), [6]),
      nm.ShapeError,
      "view: [3, 2] with strides [1, 3] cannot be seen as [6]",
    ],
  ],
  permute: [
    [
      () => nm.permute(f(2, 3), [0, 0]),
      nm.ShapeError,
      "permute: [0, 0] does not name each of the 2 axes once",
    ],
  ],
  transpose: [[() => nm.transpose(f(2)), nm.ShapeError, "transpose: axis -2 is out of range for rank 1"]],
  expand: [[() => nm.expand(f(2), [3]), nm.ShapeError, "expand: [2] does not expand to [3]"]],
  squeeze: [[() => nm.squeeze(f(2), 0), nm.ShapeError, "squeeze: axis 0 of [2] is 2 long, not 1"]],
  unsqueeze: [[() => nm.unsqueeze(f(2), 3), nm.ShapeError, "unsqueeze: axis 3 is out of range for rank 2"]],
  flatten: [[() => nm.flatten(f(2, 2), 1, 0), nm.ShapeError, "flatten: startAxis 1 comes after endAxis 0"]],
  slice: [
    [() => nm.slice(f(2), 2), nm.ShapeError, "slice: index 2 is out of range for axis 0 of length 2"],
    [() => nm.slice(f(2), null, 0), nm.ShapeError, "slice: 2 ranges for 1 axes"],
    [() => nm.slice(f(2), [0, 2, 0]), nm.ShapeError, "slice: step must not be 0"],
  ],
  concat: [
    [() => nm.concat([]), nm.ShapeError, "concat: expected at least one tensor"],
    [
      () => nm.concat([f(2, 3), f(2)]),
      nm.ShapeError,
      "concat: tensor 1 of shape [2] does not fit [2, 3] along axis 0",
    ],
  ],
  stack: [
    [() => nm.stack([f(2), f(3)]), nm.ShapeError, "stack: tensor 1 of shape [3] should be [2], as tensor 0"],
  ],
  split: [[() => nm.split(f(4), [1, 2]), nm.ShapeError, "split: "]],
  chunk: [[() => nm.chunk(f(4), 0), nm.ArgumentError, "chunk: chunks must be a positive integer, not 0"]],
  flip: [[() => nm.flip(f(4), 1), nm.ShapeError, "flip: axis 1 is out of range"]],
  roll: [[() => nm.roll(f(4), 0.5), nm.ArgumentError, "roll: shift must be an integer, not 0.5"]],
  repeat: [[() => nm.repeat(f(4), inf), nm.ShapeError, "repeat: [Infinity] is no shape"]],
  tile: [[() => nm.tile(f(4), -1), nm.ShapeError, "tile: [-1] is no shape"]],
  pad: [
    [() => nm.pad(f(2), [[1, nan]]), nm.ShapeError, "pad: [1, NaN] is no shape"],
    [
      () =>
        nm.pad(f(2), [
          [1, 1],
          [1, 1],
        ]),
      nm.ShapeError,
      "pad: 2 pairs of widths for 1 axes",
    ],
    [
      () => nm.pad(f(3), [[3, 0]], "reflect"),
      nm.ShapeError,
      "pad: width 3 exceeds what reflect has at axis 0 of [3] (3 > 2)",
    ],
    [
      () => nm.pad(f(3), [[0, 4]], "circular"),
      nm.ShapeError,
      "pad: width 4 exceeds what circular has at axis 0 of [3] (4 > 3)",
    ],
    [
      () => nm.pad(f(0), [[1, 0]], "replicate"),
      nm.ShapeError,
      "pad: width 1 exceeds what replicate has at axis 0 of [0]",
    ],
    [() => nm.pad(f(3), [[1, 0]], "edge" as never), nm.ArgumentError, 'pad: unknown mode "edge"'],
  ],
  tril: [[() => nm.tril(f(2)), nm.ShapeError, "tril: expected [..., rows, columns], not [2]"]],
  triu: [[() => nm.triu(f(2, 2), 0.5), nm.ArgumentError, "triu: k must be an integer, not 0.5"]],
  matmul: [
    [
      () => nm.matmul(f(2, 3), f(4, 5)),
      nm.ShapeError,
      "matmul: inner dimensions differ: [2, 3] · [4, 5] (3 ≠ 4)",
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
    [() => nm.index(f(3), f(1)), nm.DTypeError, "index: indices must be integers or bool, not float32"],
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
      "conv1d: stride must be an integer of at least 1, not 0",
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
    [() => nm.crossEntropy(f(2, 3), f(2)), nm.DTypeError, "crossEntropy: targets must be int32, not float32"],
    [() => nm.crossEntropy(f(2, 3), i32(0)), nm.ShapeError, "crossEntropy: targets [1] should be [2]"],
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
    [() => nm.zeros([2, -1]), nm.ShapeError, "-1 is not a non-negative integer"],
    [() => nm.zeros([inf]), nm.ShapeError, "[Infinity] is no shape"],
    [() => nm.zeros([2 ** 40, 2 ** 40]), nm.ShapeError, "has too many elements"],
    [() => nm.zeros([2], { dtype: "float8" as never }), nm.DTypeError, 'unknown dtype "float8"'],
  ],
  full: [
    [
      () => nm.full([2], nan, { dtype: "int32" }),
      nm.ArgumentError,
      "full: value must be a finite number, not NaN",
    ],
  ],
  eye: [[() => nm.eye(1.5), nm.ShapeError, "eye: [1.5] is no shape"]],
  arange: [
    [
      () => nm.arange(0, 1, 0),
      nm.ArgumentError,
      "arange: start 0, end 1 and step 0 must be finite and step not 0",
    ],
  ],
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

describe("wrong arguments", () => {
  const list = Object.entries(wrong).flatMap(([name, each]) =>
    each.map((one, i) => [name, i, ...one] as const),
  );
  test.each(list)("of %s (%i)", (_, __, run, kind, message) => {
    nm.tidy(() => {
      expect(run).toThrow(kind);
      expect(run).toThrow(message);
    });
  });

  // These take any tensor: the first test is theirs.
  const anything =
    /^(neg|abs|sign|sqrt|rsqrt|exp|expm1|log|log1p|log2|log10|sin|cos|tanh|erf|sigmoid|silu|softplus|relu|leakyRelu|square|reciprocal|floor|ceil|round|trunc|logicalNot|is\w+|clone|alias|nonzero|unique)$/;
  test("are tried of every operation or of one that shares its checks", () => {
    const shared: Record<string, string> = {
      ...{
        sub: "add",
        mul: "add",
        div: "add",
        minimum: "add",
        maximum: "add",
        floorDivide: "add",
        remainder: "add",
      },
      ...{ equal: "less", notEqual: "less", lessEqual: "less", greater: "less", greaterEqual: "less" },
      ...{
        bitwiseOr: "bitwiseAnd",
        bitwiseXor: "bitwiseAnd",
        shiftLeft: "bitwiseAnd",
        shiftRight: "bitwiseAnd",
      },
      ...{ logicalOr: "logicalAnd", logicalXor: "logicalAnd", prod: "sum", min: "max", argmax: "argmin" },
      ...{
        cumprod: "cumsum",
        broadcastTo: "expand",
        sub_: "add_",
        mul_: "add_",
        clip_: "clip",
        avgPool2d: "avgPool1d",
      },
      ...{ maxPool1dWithIndices: "maxPool2dWithIndices", adaptiveAvgPool1d: "adaptiveAvgPool2d" },
      ...{ adaptiveMaxPool1d: "adaptiveAvgPool2d", adaptiveMaxPool2d: "adaptiveAvgPool2d" },
    };
    const untried = Object.keys(exported).filter(
      (name) => !(wrong[name] || wrong[shared[name]] || anything.test(name)),
    );
    expect(untried).toEqual([]);
  });
});
