// The dtype of every result, by function and dtype, after the array API standard and, where that is silent, PyTorch; and operations on
// 16-bit floats beside the same in float32.

import { describe, expect, test } from "vitest";
import * as nm from "../../src/index.js";
import { allCases } from "../conformance/cases/index.js";
import { leafOf } from "../support/check-op.js";

const dtypes = ["float64", "float32", "float16", "bfloat16", "int32", "int8", "uint8", "bool"] as const;
type Row = readonly (nm.DType | "refused")[];

const floats: Row = dtypes.slice(0, 4);
const refused: Row = ["refused", "refused", "refused", "refused"];
const all = (dtype: nm.DType): Row => dtypes.map(() => dtype);

/** Functions of the array API's and PyTorch's real numbers: integers become float32, the default float. */
const real: Row = [...floats, "float32", "float32", "float32", "float32"];
const kept: Row = dtypes;
/** Without truth values: they count as 0 and 1 in int32. */
const counted: Row = [...floats, "int32", "int8", "uint8", "int32"];
/** Sums of small integers in int32, where PyTorch takes int64. */
const summed: Row = [...floats, "int32", "int32", "int32", "int32"];
const floatsOnly: Row = [...floats, ...refused];

const table: Record<string, Row> = {
  ...Object.fromEntries(
    (
      "sqrt rsqrt exp expm1 log log1p log2 log10 sin cos tanh erf sigmoid silu softplus reciprocal gelu mean variance std norm " +
      "logsumexp"
    )
      .split(" ")
      .map((name) => [name, real]),
  ),
  ...Object.fromEntries(
    "abs sign floor ceil round trunc max min sort tril triu clone flatten"
      .split(" ")
      .map((name) => [name, kept]),
  ),
  neg: [...dtypes.slice(0, 7), "refused"],
  relu: counted,
  square: counted,
  ...{ sum: summed, prod: summed },
  ...{
    softmax: floatsOnly,
    logSoftmax: floatsOnly,
    leakyRelu: floatsOnly,
    dropout: floatsOnly,
    layerNorm: floatsOnly,
  },
  bitwiseNot: [...refused, "int32", "int8", "uint8", "bool"],
  ...Object.fromEntries(
    "logicalNot isnan isfinite isinf any all".split(" ").map((name) => [name, all("bool")]),
  ),
  ...Object.fromEntries("argmax argmin argsort nonzero".split(" ").map((name) => [name, all("int32")])),
};

/** Of a tensor and a number. */
const withNumber: Record<string, [number, Row]> = {
  ...Object.fromEntries(
    "add sub mul minimum maximum floorDivide remainder".split(" ").map((name) => [name, [1, counted]]),
  ),
  div: [2, real],
  pow: [2, counted],
  ...Object.fromEntries("equal less greaterEqual".split(" ").map((name) => [name, [1, all("bool")]])),
  cumsum: [0, summed],
  cumprod: [0, summed],
};

describe("the dtype of a result", () => {
  const of = (run: () => nm.Tensor): string => {
    try {
      return run().dtype;
    } catch (error) {
      expect(error).toBeInstanceOf(nm.DTypeError);
      return "refused";
    }
  };
  const functions = nm as unknown as Record<string, (...parameters: unknown[]) => nm.Tensor>;
  const rows: [string, (x: nm.Tensor) => nm.Tensor, Row][] = [
    ...Object.entries(table).map(([name, row]): [string, (x: nm.Tensor) => nm.Tensor, Row] => [
      name,
      (x) => functions[name](x),
      row,
    ]),
    ...Object.entries(withNumber).map(([name, [number, row]]): [string, (x: nm.Tensor) => nm.Tensor, Row] => [
      `${name} with ${number}`,
      (x) => functions[name](x, number),
      row,
    ]),
    ["add with 0.5", (x) => nm.add(x, 0.5), real],
    ["add with 300", (x) => nm.add(x, 300), summed],
    ["add with −1", (x) => nm.add(x, -1), [...floats, "int32", "int8", "int32", "int32"]],
    ["clip", (x) => nm.clip(x, 0, 1), counted],
    ["where with a number", (x) => nm.where(nm.tensor(true, { device: "reference" }), x, 0), counted],
  ];
  test.each(rows)("of %s", (_, run, row) => {
    nm.tidy(() => {
      const found = dtypes.map((dtype) =>
        of(() =>
          run(
            nm.tensor(
              [
                [1, 0],
                [1, 1],
              ],
              { dtype, device: "reference" },
            ),
          ),
        ),
      );
      expect(found).toEqual(row);
    });
  });
});

describe.each([
  ["float16", 2 ** -11],
  ["bfloat16", 2 ** -8],
] as const)("operations on %s", (dtype, half) => {
  // A group's product needs operands that kernels compute in.
  const cases = allCases.filter(({ name }) => !name.startsWith("groupedMatmul"));
  test.each(cases.map((each) => [each.name, each] as const))("%s", (_, each) => {
    nm.tidy(() => {
      const inputs = each.inputs.map((input) =>
        leafOf(input, "contiguous", { device: "wasm", dtype }, false),
      );
      const wide = inputs.map((x) => (nm.isFloat(x.dtype) ? nm.cast(x, "float32") : x));
      const [actual, expected] = [each.fn(...inputs), each.fn(...wide)];
      expect(actual.shape).toEqual(expected.shape);
      const floating = inputs.some((x) => nm.isFloat(x.dtype)) && nm.isFloat(expected.dtype);
      expect(actual.dtype).toBe(floating ? dtype : expected.dtype);
      const [a, b] = [actual.dataSync(), expected.dataSync()];
      const scale = Math.max(1, ...Array.from(b, (value) => (Number.isFinite(value) ? Math.abs(value) : 0)));
      // A step or two of rounding where an operation is made of others.
      a.forEach((value, i) => {
        const near = value === b[i] || Math.abs(value - b[i]) <= 4 * half * scale;
        expect(near || (Number.isNaN(value) && Number.isNaN(b[i])), `${value} instead of ${b[i]}`).toBe(true);
      });
    });
  });
});

test("squares of float16 that overflow it do not spoil what is made of them", () => {
  for (const device of ["reference", "wasm"] as const) {
    nm.tidy(() => {
      const x = nm.tensor([300, -300, 600, 0], { dtype: "float16", device });
      expect(nm.norm(x).item()).toBeCloseTo(735, 0);
      expect(nm.std(x, undefined, false, 0).item()).toBeCloseTo(335.5, 0);
      const weight = nm.ones([4], { dtype: "float16", device });
      for (const y of [nm.rmsNorm(x, weight), nm.layerNorm(x, weight), nm.groupNorm(x.reshape(1, 4), 1)]) {
        expect(y.dtype).toBe("float16");
        const magnitudes = Array.from(y.dataSync(), Math.abs);
        expect(Math.max(...magnitudes)).toBeGreaterThan(1);
        expect(Math.max(...magnitudes)).toBeLessThan(2);
      }
      const many = nm.softmax(nm.zeros([70_000], { dtype: "float16", device }));
      expect(many.dataSync()[0]).toBeGreaterThan(0);
      expect(nm.logsumexp(nm.zeros([70_000], { dtype: "float16", device })).item()).toBeCloseTo(11.16, 1);
    });
  }
});
