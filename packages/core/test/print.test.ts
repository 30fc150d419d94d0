// Printing against what numpy.array2string(a, separator=", ") gives for the same float32 values.

import { inspect } from "node:util";
import { describe, expect, test } from "vitest";
import { arange, type DType, type NestedValues, ones, tensor, tidy, zeros } from "../src/index.js";

const device = { device: "reference" } as const;
const { NaN: nan, POSITIVE_INFINITY: inf } = Number;

const show = (values: number | number[] | number[][] | boolean[], dtype?: DType) =>
  tidy(() => /^Tensor\((.*), shape=/s.exec(String(tensor(values, { ...device, dtype })))![1]);

describe("numbers as NumPy prints them", () => {
  test.each([
    [[1, 2, 3], "[1., 2., 3.]"],
    [[0.1, 1 / 3], "[0.1       , 0.33333334]"],
    [[1e10, 1], "[1.e+10, 1.e+00]"],
    [[1e-10, 0], "[1.e-10, 0.e+00]"],
    [[nan, inf, -1], "[nan, inf, -1.]"],
    [[123456.789, 0.5], "[1.2345679e+05, 5.0000000e-01]"],
    [[-0, 1], "[-0.,  1.]"],
    [3.25, "3.25"],
    [[1 / 3, 1e-5], "[3.3333334e-01, 9.9999997e-06]"],
    [[99999999, 1], "[1.e+08, 1.e+00]"],
    [[0.0001, 0.001], "[0.0001, 0.001 ]"],
    [[123.456, 7.5], "[123.456,   7.5  ]"],
    [[1.5e-5, nan, -inf], "[1.5e-05,     nan,    -inf]"],
    [[nan], "[nan]"],
    [[1234.5678, 0.001], "[1.2345677e+03, 1.0000000e-03]"],
  ])("%j", (values, text) => {
    expect(show(values)).toBe(text);
  });

  test("float64, 16-bit floats, integers, truth values", () => {
    expect(show([1 / 3, 2 / 3], "float64")).toBe("[0.33333333, 0.66666667]");
    expect(show([1e100, 1.5], "float64")).toBe("[1.0e+100, 1.5e+000]");
    expect(show([1e-300, 1], "float64")).toBe("[1.e-300, 1.e+000]");
    expect(show([0.1, 2], "float16")).toBe("[0.1, 2. ]");
    expect(show([3.140625, 1], "bfloat16")).toBe("[3.14, 1.  ]");
    expect(show([1, -20], "int32")).toBe("[  1, -20]");
    expect(show([true, false])).toBe("[ true, false]");
  });

  test("matrices: a blank line between them, long rows broken, long axes shortened", () => {
    tidy(() => {
      expect(String(zeros([2, 1, 2], device))).toBe(
        "Tensor([[[0., 0.]],\n\n        [[0., 0.]]], shape=[2, 1, 2], float32)",
      );
      expect(String(zeros([2, 0], device))).toBe("Tensor([], shape=[2, 0], float32)");
      const lines = String(arange(100, undefined, 1, device).cast("float32")).split("\n");
      expect(lines[0]).toBe("Tensor([ 0.,  1.,  2.,  3.,  4.,  5.,  6.,  7.,  8.,  9., 10., 11., 12.,");
      expect(Math.max(...lines.slice(0, -1).map((line) => line.length))).toBeLessThanOrEqual(75);
      expect(String(arange(2000, undefined, 1, device))).toBe(
        "Tensor([   0,    1,    2, ..., 1997, 1998, 1999], shape=[2000], int32)",
      );
    });
  });
});

const of = (values: NestedValues, dtype?: DType) => tensor(values, { ...device, dtype });

describe("printing tensors", () => {
  test("aligns columns and names shape and dtype", () => {
    expect(
      String(
        of([
          [1, -2.5],
          [10, 0],
        ]),
      ),
    ).toBe("Tensor([[ 1. , -2.5],\n        [10. ,  0. ]], shape=[2, 2], float32)");
    expect(String(of(3))).toBe("Tensor(3., shape=[], float32)");
    expect(String(of([1, -20], "int32"))).toBe("Tensor([  1, -20], shape=[2], int32)");
    expect(String(tensor([true, false]))).toBe("Tensor([ true, false], shape=[2], bool)");
    expect(String(zeros([2, 0]))).toBe("Tensor([], shape=[2, 0], float32)");
    expect(String(of([Number.NaN, Infinity, -Infinity]))).toContain("[ nan,  inf, -inf]");
    expect(String(ones([1], { requiresGrad: true }))).toContain("float32, requiresGrad)");
  });

  test("uses powers of ten for wide ranges, and shortens what is large", () => {
    expect(String(of([1e-9, 1]))).toContain("1.e-09, 1.e+00");
    expect(String(arange(2000))).toBe(
      "Tensor([   0,    1,    2, ..., 1997, 1998, 1999], shape=[2000], int32)",
    );
    expect(String(zeros([100, 100])).split("\n")).toHaveLength(7);
    expect(inspect(of([1]))).toBe("Tensor([1.], shape=[1], float32)");
  });
});
