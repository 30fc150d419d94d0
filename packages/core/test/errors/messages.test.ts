// What operations say of operands that do not fit: the operation, the operands and the numbers, and nothing is left behind.

import { beforeAll, describe, expect, test } from "vitest";
import * as nm from "../../src/index.js";

beforeAll(() => nm.init({ backend: "reference" }));

const of = (values: nm.NestedArray, dtype: nm.DType = "float32") => nm.tensor(values, { dtype });

describe("errors of operations name the operation, the operands and the numbers", () => {
  const [a, b] = [() => nm.ones([2, 3]), () => nm.ones([4, 5])];
  const ids = (...list: number[]) => of(list, "int32");
  const overlapping = () => {
    const x = nm.eye(3);
    return nm.matmul(x.slice([0, 2]), nm.ones([3, 3]), { out: x.slice([1, 3]) });
  };
  test.each([
    [
      "broadcast",
      () => nm.add(a(), b()),
      nm.ShapeError,
      "add: shapes [2, 3] and [4, 5] do not broadcast (axis -1: 3 ≠ 5)",
    ],
    [
      "matmul",
      () => nm.matmul(a(), b()),
      nm.ShapeError,
      "matmul: inner dimensions differ: [2, 3] · [4, 5] (3 ≠ 4)",
    ],
    ["matmul, scalar", () => nm.matmul(a(), of(1)), nm.ShapeError, "scalars have no matrix product; use mul"],
    [
      "matmul, out",
      () => nm.matmul(a(), nm.ones([3, 2]), { out: nm.ones([3, 3]) }),
      nm.ShapeError,
      "out [3, 3] should be [2, 2]",
    ],
    ["matmul, out that is read", overlapping, nm.ShapeError, "out shares memory with an operand"],
    ["matmul, beta", () => nm.matmul(a(), nm.ones([3, 2]), { beta: 1 }), nm.ShapeError, "beta needs out"],
    [
      "axis",
      () => nm.sum(a(), 2),
      nm.ShapeError,
      "sum: axis 2 is out of range for rank 2 (expected -2 to 1)",
    ],
    ["axis twice", () => nm.sum(a(), [0, -2]), nm.ShapeError, "sum: axis 0 is named twice"],
    ["empty", () => nm.max(nm.ones([2, 0]), 1), nm.ShapeError, "max: axis 1 of [2, 0] is empty"],
    ["argmax of nothing", () => nm.argmax(nm.ones([0])), nm.ShapeError, "argmax: axis 0 of [0] is empty"],
    ["reshape", () => nm.reshape(a(), [4]), nm.ShapeError, "reshape: 6 elements do not fit shape [4] (4)"],
    [
      "reshape, two unknown",
      () => nm.reshape(a(), [-1, -1]),
      nm.ShapeError,
      "only one extent of [-1, -1] may be -1",
    ],
    ["permute", () => nm.permute(a(), [0, 0]), nm.ShapeError, "[0, 0] does not name each of the 2 axes once"],
    ["expand", () => nm.expand(a(), [4, 3]), nm.ShapeError, "expand: [2, 3] does not expand to [4, 3]"],
    ["squeeze", () => nm.squeeze(a(), 0), nm.ShapeError, "squeeze: axis 0 of [2, 3] is 2 long, not 1"],
    ["slice", () => nm.slice(a(), 2), nm.ShapeError, "slice: index 2 is out of range for axis 0 of length 2"],
    ["slice, too many", () => nm.slice(a(), 0, 0, 0), nm.ShapeError, "slice: 3 ranges for 2 axes"],
    ["slice, step 0", () => nm.slice(a(), [0, 1, 0]), nm.ShapeError, "step must not be 0"],
    [
      "concat",
      () => nm.concat([a(), b()]),
      nm.ShapeError,
      "concat: tensor 1 of shape [4, 5] does not fit [2, 3] along axis 0",
    ],
    ["concat of nothing", () => nm.concat([]), nm.ShapeError, "expected at least one tensor"],
    ["split", () => nm.split(a(), [1, 3], 1), nm.ShapeError, undefined],
    ["gather", () => nm.gather(a(), ids(0, 2)), nm.ShapeError, /gather.*2/],
    ["gather, negative", () => nm.gather(a(), ids(-1)), nm.ShapeError, /gather.*-1/],
    [
      "gather, floats",
      () => nm.gather(a(), of([0])),
      nm.DTypeError,
      "gather: indices must be integers, not float32",
    ],
    ["scatterAdd", () => nm.scatterAdd(2, ids(0, 5), a()), nm.ShapeError, /scatterAdd: index 5/],
    [
      "scatterAdd, as torch's",
      () => nm.scatterAdd(a() as never, ids(0, 0), a()),
      nm.ArgumentError,
      "rows must be a number, not a tensor",
    ],
    [
      "float64, made",
      () => nm.zeros([1], { dtype: "float64", device: "wasm" }),
      nm.DTypeError,
      'zeros: the wasm backend has no float64; make it with { device: "reference" }',
    ],
    [
      "float64, cast",
      () => nm.ones([1], { device: "wasm" }).cast("float64"),
      nm.DTypeError,
      "cast: the wasm backend has no float64",
    ],
    [
      "float64 with float32",
      () => nm.ones([1], { device: "wasm" }).add(nm.zeros([1], { dtype: "float64", device: "reference" })),
      nm.BackendError,
      "add: tensors live on different backends",
    ],
    [
      "to a dtype",
      () => a().to("float16" as never),
      nm.ArgumentError,
      'to: float16 is a dtype, not a backend; use cast("float16")',
    ],
    ["tensor of tensors", () => nm.tensor([a()] as never), nm.DTypeError, "stack joins tensors"],
    [
      "tensor of bigints",
      () => nm.tensor([1n] as never),
      nm.DTypeError,
      "tensor: 1n at position 0 is no number",
    ],
    [
      "uniform, swapped",
      () => nm.uniform([1], 1, 0),
      nm.ArgumentError,
      "uniform: low must be at most high, 0, not 1",
    ],
    ["at", () => a().at(7), nm.ShapeError, "at: index 7 is out of range for axis 0"],
    [
      "index",
      () => nm.index(a(), "..." as never),
      nm.ArgumentError,
      'index: each range must be null, an integer or [start, end, step], not "..."',
    ],
    [
      "pad, as torch's",
      () => nm.pad(a(), [1, 1] as never),
      nm.ArgumentError,
      "pad: each of widths must be [before, after] of an axis, not 1",
    ],
    [
      "where",
      () => nm.where(true as never, a(), a()),
      nm.ArgumentError,
      "where: expected a tensor, not true",
    ],
    [
      "conv2d, padding",
      () => nm.conv2d(nm.ones([1, 1, 3, 3]), nm.ones([1, 1, 1, 1]), null, { padding: "same" as never }),
      nm.ArgumentError,
      'conv2d: padding must be a number or 2 of them, not "same"',
    ],
    [
      "backward of a number",
      () =>
        nm
          .ones([2], { requiresGrad: true })
          .mul(2)
          .backward(1 as never),
      nm.ArgumentError,
      "backward: expected a tensor, not 1",
    ],
    [
      "grad of a number",
      () => nm.grad((x) => x)(2 as never),
      nm.ArgumentError,
      "grad: expected a tensor, not 2",
    ],
    [
      "grad of no tensor",
      () => nm.grad(() => 5 as never)(a()),
      nm.ArgumentError,
      "grad: what the function returns must be a tensor, not 5",
    ],
    ["scatterAdd, rows", () => nm.scatterAdd(-1, ids(0, 0), a()), nm.ShapeError, /scatterAdd.*-1/],
    [
      "embedding",
      () => nm.embedding(of([1]), ids(0)),
      nm.ShapeError,
      "weight must be [numEmbeddings, dim], not [1]",
    ],
    [
      "rmsNorm",
      () => nm.rmsNorm(a(), nm.ones([2])),
      nm.ShapeError,
      "rmsNorm: weight [2] does not fit the last axis of x [2, 3]",
    ],
    ["swiglu", () => nm.swiglu(a(), b()), nm.ShapeError, "gate [2, 3] and up [4, 5] differ"],
    [
      "rope",
      () => nm.rope(nm.ones([1, 1, 2, 4]), nm.ones([2, 1]), nm.ones([2, 2])),
      nm.ShapeError,
      "rope: cos [2, 1] should be [2, 2]",
    ],
    [
      "crossEntropy",
      () => nm.crossEntropy(a(), ids(0, 3)),
      nm.ShapeError,
      "crossEntropy: target 3 at position 1 is not within 0 to 2",
    ],
    ["crossEntropy, shape", () => nm.crossEntropy(a(), ids(0)), nm.ShapeError, "targets [1] should be [2]"],
    [
      "crossEntropy, dtype",
      () => nm.crossEntropy(a(), of([0, 1])),
      nm.DTypeError,
      "targets must be integers, not float32",
    ],
    [
      "crossEntropy, reduction",
      () => nm.crossEntropy(a(), ids(0, 0), { reduction: "average" as never }),
      nm.ArgumentError,
      /reduction.*average/,
    ],
    [
      "crossEntropy, smoothing",
      () => nm.crossEntropy(a(), ids(0, 0), { labelSmoothing: 2 }),
      nm.ArgumentError,
      /labelSmoothing.*2/,
    ],
    [
      "softmax of integers",
      () => nm.softmax(ids(1)),
      nm.DTypeError,
      "softmax: x must be a float tensor, not int32",
    ],
    ["two numbers", () => nm.add(1, 2), nm.ArgumentError, /add: expected a tensor/],
    ["a string", () => nm.add(a(), "1" as never), nm.ArgumentError, 'expected a tensor or a number, not "1"'],
    ["item", () => a().item(), nm.ShapeError, "item: expected one element, not 6 of shape [2, 3]"],
  ])("%s", (_, run, kind, message) => {
    expect(run).toThrow(kind);
    if (message) expect(run).toThrow(message);
  });

  test("attention", () => {
    const q = nm.ones([1, 3, 2, 4]);
    const k = nm.ones([1, 2, 2, 4]);
    expect(() => nm.scaledDotProductAttention(q, k, k)).toThrow(
      /multiple of kvHeads, not \[1, 3, 2, 4\], \[1, 2, 2, 4\]/,
    );
    const long = nm.ones([1, 2, 3, 4]);
    expect(() => nm.scaledDotProductAttention(long, k, k, { causal: true })).toThrow("(3 > 2)");
  });

  test("two backends in one operation say how to move", () => {
    const x = nm.ones([2], { device: "wasm" });
    for (const run of [
      () => nm.add(a(), x),
      () => nm.concat([x, nm.ones([2])]),
      () => nm.where(x, x, nm.ones([2])),
    ]) {
      expect(run).toThrow(nm.BackendError);
    }
    expect(() => nm.add(x, nm.ones([2]))).toThrow(
      'add: tensors live on different backends (wasm, reference); move one with to("wasm")',
    );
    expect(nm.add(x, nm.ones([2]).to("wasm")).toArray()).toEqual([2, 2]);
  });

  test("an operation that fails leaves nothing behind", () => {
    const [x, y] = [a(), b()];
    const { tensors } = nm.memoryStats();
    expect(() => nm.add(x, y)).toThrow();
    expect(() => nm.matmul(x, y)).toThrow();
    expect(() => nm.add(x, "1" as never)).toThrow();
    expect(() => nm.softmax(x, 7)).toThrow();
    expect(nm.memoryStats().tensors).toBe(tensors);
  });
});
