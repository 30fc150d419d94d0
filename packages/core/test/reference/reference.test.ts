import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Operand, UnaryKind } from "../../src/backend/types.js";
import { BackendError } from "../../src/errors.js";
import { backend, expand, flip, operand, permute, valuesOf } from "./operands.js";

const { NaN: nan, POSITIVE_INFINITY: inf } = Number;

function unary(
  kind: UnaryKind,
  values: number[],
  dtype: "float64" | "float32" | "int32" = "float64",
): number[] {
  const out = operand(dtype, [values.length]);
  backend.unary(kind, operand(dtype, [values.length], values), out);
  return valuesOf(out);
}

describe("views", () => {
  const x = operand("int32", [2, 3], [1, 2, 3, 4, 5, 6]);

  test("permuted, reversed, expanded and offset views are read in their order", () => {
    expect(valuesOf(permute(x, [1, 0]))).toEqual([1, 4, 2, 5, 3, 6]);
    expect(valuesOf(flip(x, 1))).toEqual([3, 2, 1, 6, 5, 4]);
    expect(valuesOf(flip(flip(x, 0), 1))).toEqual([6, 5, 4, 3, 2, 1]);
    expect(valuesOf({ ...x, shape: [2], strides: [3], offset: 2 })).toEqual([3, 6]);
    const row = operand("int32", [3], [1, 2, 3]);
    expect(valuesOf(expand(row, [2, 2, 3]))).toEqual([1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3]);
  });

  test("rank 0 has one element, an axis of 0 none", () => {
    expect(valuesOf(operand("float32", [], [7]))).toEqual([7]);
    expect(valuesOf(operand("float32", [2, 0, 3]))).toEqual([]);
  });

  test("fill and copy write through strides", () => {
    const out = operand("float32", [2, 3], [0, 0, 0, 0, 0, 0]);
    backend.fill({ ...out, shape: [2], strides: [3], offset: 1 }, 9);
    expect(valuesOf(out)).toEqual([0, 9, 0, 0, 9, 0]);
    backend.copy(operand("float32", [3, 2], [1, 2, 3, 4, 5, 6]), permute(out, [1, 0]));
    expect(valuesOf(out)).toEqual([1, 3, 5, 2, 4, 6]);
  });

  test("a permuted copy read back through the inverse permutation is the original", () => {
    const shapes = fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 0, maxLength: 4 });
    fc.assert(
      fc.property(shapes, fc.infiniteStream(fc.nat()), (shape, keys) => {
        const size = shape.reduce((a, b) => a * b, 1);
        const t = operand(
          "int32",
          shape,
          Array.from({ length: size }, (_, i) => i),
        );
        const axes = shape
          .map((_, i) => [keys.next().value as number, i])
          .sort((a, b) => a[0] - b[0])
          .map(([, i]) => i);
        const moved = operand(
          "int32",
          axes.map((a) => shape[a]),
        );
        backend.copy(permute(t, axes), moved);
        const inverse = axes.map((_, i) => axes.indexOf(i));
        expect(valuesOf(permute(moved, inverse))).toEqual(valuesOf(t));
      }),
    );
  });

  test("copy keeps every bit of a NaN", () => {
    const signalling = operand("float32", [1]);
    backend.write(signalling.buffer, 0, new Uint8Array([1, 0, 0x80, 0x7f]));
    const out = operand("float32", [1]);
    backend.copy(signalling, out);
    expect(backend.readSync(out.buffer, 0, 4)).toEqual(new Uint8Array([1, 0, 0x80, 0x7f]));
  });
});

describe("cast", () => {
  test("to integers truncates, saturates, and maps NaN to 0", () => {
    const values = [1.9, -1.9, 300, -300, nan, inf, -inf, 3e9];
    expect(valuesOf(operand("int8", [8], values))).toEqual([1, -1, 127, -128, 0, 127, -128, 127]);
    expect(valuesOf(operand("uint8", [8], values))).toEqual([1, 0, 255, 0, 0, 255, 0, 255]);
    expect(valuesOf(operand("int32", [8], values))).toEqual([
      1, -1, 300, -300, 0, 2147483647, -2147483648, 2147483647,
    ]);
    expect(valuesOf(operand("bool", [4], [0, -0, 0.1, nan]))).toEqual([0, 0, 1, 1]);
  });

  test("fill stores as cast does", () => {
    const half = operand("float16", [2]);
    backend.fill(half, 1);
    expect(valuesOf(half)).toEqual([0x3c00, 0x3c00]);
    const byte = operand("uint8", [1]);
    backend.fill(byte, 300);
    expect(valuesOf(byte)).toEqual([255]);
  });

  test("float32 is rounded at the store", () => {
    const out = operand("float32", [1]);
    backend.binary("add", operand("float32", [1], [16777216]), operand("float32", [1], [1]), out);
    expect(valuesOf(out)).toEqual([16777216]);
  });
});

describe("unary", () => {
  test("hand-written values", () => {
    expect(unary("neg", [1, -2])).toEqual([-1, 2]);
    expect(unary("sign", [-3, 0, 5, nan])).toEqual([-1, 0, 1, nan]);
    expect(unary("rsqrt", [4, 0])).toEqual([0.5, inf]);
    expect(unary("round", [0.5, 1.5, 2.5, -0.5, -1.5, 2.4999, 2 ** 52 + 1])).toEqual([
      0,
      2,
      2,
      -0,
      -2,
      2,
      2 ** 52 + 1,
    ]);
    expect(unary("relu", [-1, 2, nan])).toEqual([0, 2, nan]);
    expect(unary("floor", [-1.5])).toEqual([-2]);
    expect(unary("ceil", [-1.5])).toEqual([-1]);
    expect(unary("reciprocal", [4])).toEqual([0.25]);
    expect(unary("sigmoid", [0, 1000, -1000, -746])).toEqual([0.5, 1, 0, expect.any(Number)]);
    expect(unary("softplus", [1000, -1000])).toEqual([1000, 0]);
  });

  test("erf, gelu and geluTanh at published values", () => {
    // Abramowitz and Stegun, table 7.1; torch.nn.functional.gelu in float64.
    const [a, b, c] = unary("erf", [0.5, 1, 2]);
    expect(a).toBeCloseTo(0.5204998778130465, 15);
    expect(b).toBeCloseTo(0.8427007929497149, 15);
    expect(c).toBeCloseTo(0.9953222650189527, 15);
    expect(unary("erf", [0, inf, -inf, nan])).toEqual([0, 1, -1, nan]);
    expect(unary("gelu", [1])[0]).toBeCloseTo(0.8413447460685429, 15);
    // 0.5·10·erfc(10/√2) = 10·Φ(−10), where 1 + erf would give 0.
    expect(unary("gelu", [-10])[0] / -7.61985302416053e-23).toBeCloseTo(1, 12);
    expect(unary("geluTanh", [1])[0]).toBeCloseTo(0.8411919906082768, 15);
  });

  test("laws: odd, even and inverse functions", () => {
    const x = fc.double({ min: -30, max: 30, noNaN: true });
    fc.assert(
      fc.property(x, (v) => {
        expect(unary("erf", [-v])[0]).toBe(-unary("erf", [v])[0]);
        expect(unary("sigmoid", [v])[0] + unary("sigmoid", [-v])[0]).toBeCloseTo(1, 14);
        expect(unary("softplus", [v])[0] - unary("softplus", [-v])[0]).toBeCloseTo(v, 12);
        expect(unary("gelu", [v])[0] - unary("gelu", [-v])[0]).toBeCloseTo(v, 12);
        expect(unary("log1p", unary("expm1", [v]))[0]).toBeCloseTo(v, 3);
      }),
    );
  });

  test("the derivative of erf is 2/√π·exp(−x²)", () => {
    for (let v = -6.2; v < 6.2; v += 0.0137) {
      const h = 1e-5;
      const slope = (unary("erf", [v + h])[0] - unary("erf", [v - h])[0]) / (2 * h);
      expect(slope).toBeCloseTo((2 / Math.sqrt(Math.PI)) * Math.exp(-v * v), 8);
    }
  });

  test("integers wrap, in place", () => {
    expect(unary("square", [65537], "int32")).toEqual([131073]);
    expect(unary("abs", [-(2 ** 31), -5], "int32")).toEqual([-(2 ** 31), 5]);
    const x = operand("int32", [2], [1, -2]);
    backend.unary("neg", x, x);
    expect(valuesOf(x)).toEqual([-1, 2]);
  });

  test("halves are refused", () => {
    const x = operand("float16", [1], [1]);
    expect(() => backend.unary("neg", x, x)).toThrow(BackendError);
  });
});

describe("binary, compare, where", () => {
  const pair = (dtype: "float64" | "int32", a: number[], b: number[]): [Operand, Operand, Operand] => [
    operand(dtype, [a.length], a),
    operand(dtype, [b.length], b),
    operand(dtype, [a.length]),
  ];

  test("broadcast axes have stride 0", () => {
    const a = expand(operand("float64", [2, 1], [10, 20]), [2, 3]);
    const b = expand(operand("float64", [3], [1, 2, 3]), [2, 3]);
    const out = operand("float64", [2, 3]);
    backend.binary("sub", a, b, out);
    expect(valuesOf(out)).toEqual([9, 8, 7, 19, 18, 17]);
  });

  test("minimum and maximum propagate NaN from either side", () => {
    const [a, b, out] = pair("float64", [nan, 1, 2], [1, nan, 3]);
    backend.binary("maximum", a, b, out);
    expect(valuesOf(out)).toEqual([nan, nan, 3]);
    backend.binary("minimum", a, b, out);
    expect(valuesOf(out)).toEqual([nan, nan, 2]);
  });

  test("pow follows IEEE 754", () => {
    const [a, b, out] = pair("float64", [1, -1, 2, nan, -8], [nan, inf, -1, 0, 1 / 3]);
    backend.binary("pow", a, b, out);
    expect(valuesOf(out)).toEqual([1, 1, 0.5, 1, nan]);
  });

  test("int32 keeps low bits, truncates quotients, and divides by zero to 0", () => {
    const [a, b, out] = pair("int32", [2147483647, -7, 5], [2147483647, 2, 0]);
    backend.binary("mul", a, b, out);
    expect(valuesOf(out)).toEqual([1, -14, 0]);
    backend.binary("div", a, b, out);
    expect(valuesOf(out)).toEqual([1, -3, 0]);
    const [c, d, power] = pair("int32", [3, -2, 2, -1, 7], [20, 31, -1, -3, 0]);
    backend.binary("pow", c, d, power);
    expect(valuesOf(power)).toEqual([-808182895, -(2 ** 31), 0, -1, 1]);
  });

  test("comparisons with NaN are false but for notEqual", () => {
    const [a, b] = pair("float64", [nan, 1, 2], [nan, 1, 1]);
    const out = operand("bool", [3]);
    backend.compare("equal", a, b, out);
    expect(valuesOf(out)).toEqual([0, 1, 0]);
    backend.compare("notEqual", a, b, out);
    expect(valuesOf(out)).toEqual([1, 0, 1]);
    backend.compare("greaterEqual", a, b, out);
    expect(valuesOf(out)).toEqual([0, 1, 1]);
    backend.compare("less", a, b, out);
    expect(valuesOf(out)).toEqual([0, 0, 0]);
  });

  test("where chooses elementwise, for stored dtypes too", () => {
    const out = operand("bfloat16", [3]);
    const [a, b] = [operand("bfloat16", [3], [1, 2, 3]), expand(operand("bfloat16", [], [0]), [3])];
    backend.where(operand("bool", [3], [1, 0, 1]), a, b, out);
    expect(valuesOf(out)).toEqual([0x3f80, 0, 0x4040]);
  });
});

describe("reductions", () => {
  const x = operand("float64", [2, 3], [1, 5, 3, 4, 2, 6]);

  test("over any axes", () => {
    for (const [axes, shape, expected] of [
      [[0], [1, 3], [5, 7, 9]],
      [[1], [2, 1], [9, 12]],
      [[0, 1], [1, 1], [21]],
      [[], [2, 3], [1, 5, 3, 4, 2, 6]],
    ] as const) {
      const out = operand("float64", shape);
      backend.reduce("sum", x, axes, out);
      expect(valuesOf(out)).toEqual(expected);
    }
    const transposed = operand("float64", [1, 2]);
    backend.reduce("max", permute(x, [1, 0]), [0], transposed);
    expect(valuesOf(transposed)).toEqual([5, 6]);
  });

  test("empty axes give the neutral element", () => {
    const empty = operand("float64", [0, 2]);
    const expected = { sum: 0, prod: 1, max: -inf, min: inf };
    for (const [kind, value] of Object.entries(expected)) {
      const out = operand("float64", [1, 2]);
      backend.reduce(kind as keyof typeof expected, empty, [0], out);
      expect(valuesOf(out)).toEqual([value, value]);
    }
    const integers = operand("int32", [1]);
    backend.reduce("max", operand("int32", [0]), [0], integers);
    expect(valuesOf(integers)).toEqual([-(2 ** 31)]);
  });

  test("NaN wins maxima, minima and their indices", () => {
    const y = operand("float64", [4], [3, nan, 9, nan]);
    const out = operand("float64", [1]);
    backend.reduce("max", y, [0], out);
    expect(valuesOf(out)).toEqual([nan]);
    const index = operand("int32", [1]);
    backend.argReduce("argmin", y, 0, index);
    expect(valuesOf(index)).toEqual([1]);
  });

  test("the first of equals wins", () => {
    const y = operand("int32", [2, 4], [1, 7, 7, 0, 2, 2, 2, 2]);
    const index = operand("int32", [2, 1]);
    backend.argReduce("argmax", y, 1, index);
    expect(valuesOf(index)).toEqual([1, 0]);
    backend.argReduce("argmin", flip(y, 1), 1, index);
    expect(valuesOf(index)).toEqual([0, 0]);
  });
});

describe("matmul", () => {
  const plain = { alpha: 1, beta: 0 };
  const a = operand("float64", [2, 3], [1, 2, 3, 4, 5, 6]);
  const b = operand("float64", [3, 2], [7, 8, 9, 10, 11, 12]);

  test("all four transposes", () => {
    for (const left of [a, permute(operand("float64", [3, 2], [1, 4, 2, 5, 3, 6]), [1, 0])]) {
      for (const right of [b, permute(operand("float64", [2, 3], [7, 9, 11, 8, 10, 12]), [1, 0])]) {
        const out = operand("float64", [2, 2]);
        backend.matmul(left, right, plain, out);
        expect(valuesOf(out)).toEqual([58, 64, 139, 154]);
      }
    }
  });

  test("alpha, beta and k = 0; beta = 0 does not read out", () => {
    const out = operand("float64", [2, 2], [1, 1, 1, 1]);
    backend.matmul(a, b, { alpha: 2, beta: 10 }, out);
    expect(valuesOf(out)).toEqual([126, 138, 288, 318]);
    const spoiled = operand("float64", [1, 1], [nan]);
    backend.matmul(operand("float64", [1, 0]), operand("float64", [0, 1]), plain, spoiled);
    expect(valuesOf(spoiled)).toEqual([0]);
  });

  test("batches broadcast by stride 0, and out may be a window", () => {
    const batch = operand("float64", [2, 1, 2], [1, 2, 3, 4]);
    const shared = expand(operand("float64", [1, 2, 1], [10, 1]), [2, 2, 1]);
    const wide = operand("float64", [2, 1, 3], [0, 0, 0, 0, 0, 0]);
    backend.matmul(batch, shared, plain, { ...wide, shape: [2, 1, 1], offset: 2 });
    expect(valuesOf(wide)).toEqual([0, 0, 12, 0, 0, 34]);
  });

  test("transposed product: (A·B)ᵀ = Bᵀ·Aᵀ", () => {
    const size = fc.integer({ min: 0, max: 5 });
    fc.assert(
      fc.property(size, size, size, (m, k, n) => {
        const left = operand(
          "float64",
          [m, k],
          Array.from({ length: m * k }, (_, i) => i - 3),
        );
        const right = operand(
          "float64",
          [k, n],
          Array.from({ length: k * n }, (_, i) => 2 * i - 5),
        );
        const product = operand("float64", [m, n]);
        const transposed = operand("float64", [n, m]);
        backend.matmul(left, right, plain, product);
        backend.matmul(permute(right, [1, 0]), permute(left, [1, 0]), plain, transposed);
        expect(valuesOf(permute(transposed, [1, 0]))).toEqual(valuesOf(product));
      }),
    );
  });
});
