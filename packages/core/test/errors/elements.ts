// Wrong calls of operations on elements, axes and shapes, by operation.

import * as nm from "../../src/index.js";
import { f, i32, inf, nan, type WrongCall } from "./wrong.js";

export const elements: Record<string, WrongCall[]> = {
  neg: [
    [() => nm.neg(nm.tensor([true])), nm.DTypeError, "neg: bool has no negative"],
    [() => nm.neg(3 as never), nm.ArgumentError, "neg: expected a tensor, not 3"],
  ],
  add: [
    [
      () => nm.add(f(2, 3), f(4)),
      nm.ShapeError,
      "add: shapes [2, 3] and [4] do not broadcast (axis -1: 3 ≠ 4)",
    ],
    [() => nm.add(f(2), "1" as never), nm.ArgumentError, 'add: expected a tensor or a number, not "1"'],
    [() => nm.add(1, 2), nm.ArgumentError, "add: expected a tensor among the operands, not 1 and 2"],
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
  clip: [
    [
      () => nm.clip(f(2), nan, 1),
      nm.ArgumentError,
      "clip: low must be a number, a tensor, or null for no bound, not NaN",
    ],
    [() => nm.clip(f(2), { min: 0 } as never), nm.ArgumentError, "not an object with min"],
  ],
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
    [() => nm.sum(f(2, 3), [0, 1, 0]), nm.ShapeError, "sum: axis 0 is named twice"],
    [() => nm.sum(f(2), 0.5), nm.ShapeError, "sum: axis 0.5 is out of range"],
    [
      () => nm.sum(f(2), { axis: 0 } as never),
      nm.ArgumentError,
      "sum: axes must be an integer or an array of integers, not an object with axis",
    ],
    [
      () => nm.sum(f(2), 0, { keepDims: true } as never),
      nm.ArgumentError,
      "sum: keepDims must be true or false, not an object with keepDims",
    ],
    [() => nm.sum(f(), 0), nm.ShapeError, "sum: axis 0 is out of range for rank 0 (a scalar has no axes)"],
  ],
  mean: [
    [
      () => nm.mean(f(2), { axis: 1 } as never),
      nm.ArgumentError,
      "mean: axes must be an integer or an array of integers, not an object with axis",
    ],
    [() => nm.mean(f(2), nan), nm.ShapeError, "mean: axis NaN is out of range for rank 1"],
  ],
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
};
