// Tensors as users meet them: creation, promotion, reading, printing, writing, and what errors say.

import { beforeAll, describe, expect, test } from "vitest";
import * as nm from "../src/index.js";
import { backends } from "./support/backends.js";

beforeAll(() => nm.init({ backend: "reference" }));

const of = (values: nm.NestedArray, dtype: nm.DType = "float32") => nm.tensor(values, { dtype });

describe("creation", () => {
  test("from nested arrays, booleans, typed arrays and numbers", () => {
    expect(
      of([
        [1, 2],
        [3, 4],
      ]).toArray(),
    ).toEqual([
      [1, 2],
      [3, 4],
    ]);
    expect(nm.tensor([true, false]).dtype).toBe("bool");
    expect(nm.tensor(Int32Array.of(1, 2)).dtype).toBe("int32");
    expect(nm.tensor(Float64Array.of(1, 2)).dtype).toBe("float32");
    expect(nm.tensor(5).shape).toEqual([]);
    expect(nm.tensor([[], []]).shape).toEqual([2, 0]);
    expect(nm.tensor(Float32Array.of(1, 2, 3, 4), { shape: [2, 2] }).shape).toEqual([2, 2]);
  });

  test("copies the values that it is given", () => {
    const values = Float32Array.of(1, 2);
    const x = nm.tensor(values);
    values[0] = 9;
    expect(x.toArray()).toEqual([1, 2]);
    x.dataSync()[1] = 7;
    expect(x.toArray()).toEqual([1, 2]);
  });

  test("arange and eye", () => {
    expect(nm.arange(3).toArray()).toEqual([0, 1, 2]);
    expect(nm.arange(3).dtype).toBe("int32");
    expect(nm.arange(5, 0, -2).toArray()).toEqual([5, 3, 1]);
    expect(nm.arange(0, 1, 0.25).toArray()).toEqual([0, 0.25, 0.5, 0.75]);
    expect(nm.arange(3, 1).shape).toEqual([0]);
    expect(nm.eye(2).toArray()).toEqual([
      [1, 0],
      [0, 1],
    ]);
  });

  test("random numbers repeat with the seed, on every backend alike", () => {
    const draw = (device: nm.BackendName) => {
      nm.manualSeed(3);
      return [...nm.randn([5], { device }).dataSync(), ...nm.uniform([5], -2, 3, { device }).dataSync()];
    };
    const first = draw("reference");
    for (const { device } of backends) expect(draw(device)).toEqual(first);
    expect(first.slice(5).every((value) => value >= -2 && value < 3)).toBe(true);
  });

  test.each([
    ["ragged", () => nm.tensor([[1, 2], [3]]), nm.ShapeError, /ragged at depth 1 \(1 ≠ 2\)/],
    ["too deep", () => nm.tensor([1, [2]]), nm.ShapeError, /ragged/],
    [
      "a shape that does not fit",
      () => nm.tensor([1, 2, 3], { shape: [2, 2] }),
      nm.ShapeError,
      /3 values do not fit shape \[2, 2\] \(4\)/,
    ],
    ["no shape", () => nm.zeros([2, -1]), nm.ShapeError, /\[2, -1\] is no shape: -1/],
    ["half an axis", () => nm.zeros([1.5]), nm.ShapeError, /1.5 is not a non-negative integer/],
    ["NaN", () => nm.zeros([Number.NaN]), nm.ShapeError, /NaN/],
    ["too many elements", () => nm.zeros([2 ** 40, 2 ** 40]), nm.ShapeError, /too many elements/],
    ["no array", () => nm.zeros(3 as never), nm.ShapeError, /shape must be an array/],
    [
      "an unknown dtype",
      () => nm.zeros([1], { dtype: "float8" as never }),
      nm.DTypeError,
      /unknown dtype "float8" \(known: float64/,
    ],
    [
      "a fraction in int32",
      () => of([1, 2.5], "int32"),
      nm.DTypeError,
      /2.5 at position 1 is not within int32/,
    ],
    ["too large for uint8", () => of([256], "uint8"), nm.DTypeError, /256 at position 0/],
    ["a string", () => nm.tensor(["1"] as never), nm.DTypeError, /"1" at position 0/],
    [
      "float64 where there is none",
      () => nm.zeros([1], { dtype: "float64", device: "wasm" }),
      nm.DTypeError,
      /wasm backend has no float64.*reference/,
    ],
    [
      "arange without end",
      () => nm.arange(0, Infinity),
      nm.ArgumentError,
      /end must be a finite number, not Infinity/,
    ],
    ["arange that stands", () => nm.arange(0, 3, 0), nm.ArgumentError, /step must be above or below 0/],
    [
      "an unknown backend",
      () => nm.zeros([1], { device: "cuda" as never }),
      nm.ArgumentError,
      /unknown backend "cuda" \(known: wasm, /,
    ],
  ])("%s is refused", (_, make, kind, message) => {
    expect(make).toThrow(kind);
    expect(make).toThrow(message);
  });
});

describe("as a value of JavaScript", () => {
  test("a tensor is its nested values in JSON", () => {
    nm.tidy(() => {
      const x = nm.tensor([
        [1, 2.5],
        [Number.NaN, -0],
      ]);
      expect(JSON.stringify({ x, loss: nm.tensor(3) })).toBe('{"x":[[1,2.5],[null,0]],"loss":3}');
      expect(nm.tensor(JSON.parse(JSON.stringify(x.slice(0)))).toArray()).toEqual([1, 2.5]);
      expect(JSON.stringify(nm.tensor([true, false]))).toBe("[1,0]");
      expect(JSON.stringify(nm.zeros([2, 0]))).toBe("[[],[]]");
      const gone = nm.ones([1]);
      gone.dispose();
      expect(() => JSON.stringify(gone)).toThrow(nm.DisposedError);
    });
  });

  test("one element compares and computes as its number, others say that operators are methods", () => {
    nm.tidy(() => {
      const [loss, x] = [nm.tensor(0.5), nm.ones([2])] as unknown as [number, number];
      expect([loss < 1, loss > 1, +loss, Number(loss), Math.max(loss, 0.25), loss * 2, loss + 1]).toEqual([
        ...[true, false, 0.5, 0.5, 0.5, 1, 1.5],
      ]);
      expect(`loss ${loss + 1}, ${"loss " + loss}`).toBe("loss 1.5, loss 0.5");
      for (const wrong of [() => x * 2, () => x + 1, () => x < loss, () => "x: " + x])
        expect(wrong).toThrow("operators work on one element, not on [2]: write a.add(b), a.mul(b) …");
      expect(`${loss} and ${loss}`).toBe("Tensor(0.5, shape=[], float32) and Tensor(0.5, shape=[], float32)");
      expect(`x: ${x}`).toBe(`x: ${String(x)}`);
    });
  });

  test("closeness of all elements is true or false", () => {
    nm.tidy(() => {
      const x = nm.tensor([1, Number.NaN, Number.POSITIVE_INFINITY]);
      expect(nm.allclose(x, x)).toBe(false);
      expect(nm.allclose(x, x, 0, 0, true)).toBe(true);
      expect(nm.allclose(nm.ones([2, 2]), nm.tensor([1, 1.000001]))).toBe(true);
      expect(nm.allclose(nm.ones([2, 2]), nm.tensor([1, 1.1]))).toBe(false);
      expect(nm.allclose(nm.zeros([0]), nm.zeros([0]))).toBe(true);
    });
  });

  test("pixels are uint8, tensors among values are not taken for numbers", () => {
    nm.tidy(() => {
      const pixels = nm.tensor(Uint8ClampedArray.of(0, 255, 7, 9).subarray(1), { shape: [3, 1] });
      expect([pixels.dtype, ...pixels.dataSync()]).toEqual(["uint8", 255, 7, 9]);
      expect(nm.tensor(Uint8ClampedArray.of(3), { dtype: "float32" }).toArray()).toEqual([3]);
      expect(() => nm.tensor([nm.ones([1])] as never)).toThrow("tensor: a tensor at position 0 is no number");
      expect(() => nm.tensor(new BigInt64Array(1) as never)).toThrow(
        "no dtype for a BigInt64Array (known: Float64",
      );
      const indices = nm.tensor([0, 1]);
      for (const run of [
        () => nm.embedding(nm.ones([2, 2]), indices),
        () => nm.crossEntropy(nm.ones([2, 2]), indices),
        () => nm.ones([2]).index(indices),
        () => nm.ones([2]).take(indices),
      ])
        expect(run).toThrow(/not float32; cast\("int32"\) makes them so$/);
    });
  });

  test("full takes booleans", () => {
    nm.tidy(() => {
      expect(nm.full([2], true).dtype).toBe("bool");
      expect(nm.full([2], true).toArray()).toEqual([1, 1]);
      expect(nm.full([1], true, { dtype: "float32" }).dtype).toBe("float32");
      expect(nm.full([1], false).toArray()).toEqual([0]);
    });
  });
});

describe("promotion", () => {
  const kinds: nm.DType[] = ["bool", "uint8", "int8", "int32", "float16", "bfloat16", "float32", "float64"];

  test("is symmetric, idempotent, and has the results of the array API standard", () => {
    for (const a of kinds) {
      expect(nm.promote(a, a)).toBe(a);
      for (const b of kinds) expect(nm.promote(a, b)).toBe(nm.promote(b, a));
    }
    const table = [
      ["uint8", "int8", "int32"],
      ["bool", "int8", "int8"],
      ["int32", "uint8", "int32"],
      ["float16", "bfloat16", "float32"],
      ["float16", "float32", "float32"],
      ["float32", "float64", "float64"],
      ["int32", "float16", "float16"],
    ] as const;
    for (const [a, b, result] of table) expect(nm.promote(a, b)).toBe(result);
  });

  test.each(["reference", "wasm"] as const)("operations have the promoted dtype (%s)", (device) => {
    for (const a of kinds) {
      for (const b of kinds) {
        if (device === "wasm" && (a === "float64" || b === "float64")) continue;
        nm.tidy(() => {
          const [x, y] = [nm.ones([2], { dtype: a, device }), nm.ones([2], { dtype: b, device })];
          const sum = nm.add(x, y);
          expect([a, b, sum.dtype]).toEqual([a, b, nm.promote(a, b)]);
          expect(sum.toArray()).toEqual(a === "bool" && b === "bool" ? [1, 1] : [2, 2]);
          expect(nm.equal(x, y).toArray()).toEqual([1, 1]);
        });
      }
    }
  });

  test.each(["reference", "wasm"] as const)(
    "numbers take the tensor's dtype where they fit (%s)",
    (device) => {
      const make = (values: number[], dtype: nm.DType) => nm.tensor(values, { dtype, device });
      expect(nm.add(make([1], "float16"), 1).dtype).toBe("float16");
      expect(nm.add(make([1], "int32"), 1).dtype).toBe("int32");
      expect(nm.add(make([1], "int32"), 0.5).toArray()).toEqual([1.5]);
      expect(nm.div(make([1], "int32"), 2).toArray()).toEqual([0.5]);
      expect(nm.add(make([1], "bool"), 1).toArray()).toEqual([2]);
      // Those that do not fit are not bent to what does.
      expect(nm.add(make([0, 5], "uint8"), -1).toArray()).toEqual([-1, 4]);
      expect(nm.greater(make([0, 5], "uint8"), -1).toArray()).toEqual([1, 1]);
      expect(nm.less(make([127], "int8"), 300).toArray()).toEqual([1]);
      expect(nm.less(make([2147483647], "int32"), 2 ** 40).toArray()).toEqual([1]);
    },
  );

  test("casts truncate and saturate to integers, round to even in 16 bits, and to bool are x ≠ 0", () => {
    const x = of([-1.9, 300.5, Number.NaN, 0, 2049]);
    expect(nm.cast(x, "uint8").toArray()).toEqual([0, 255, 0, 0, 255]);
    expect(nm.cast(x, "int8").toArray()).toEqual([-1, 127, 0, 0, 127]);
    expect(nm.cast(x, "bool").toArray()).toEqual([1, 1, 1, 0, 1]);
    expect(nm.cast(nm.cast(x, "float16"), "float32").toArray()[4 as never]).toBe(2048);
  });

  test("means of 16-bit floats do not overflow on the way", () => {
    expect(nm.mean(nm.full([4096], 100, { dtype: "float16" })).item()).toBe(100);
  });
});

describe.each(backends)("writing in place ($name)", ({ device }) => {
  test("copyFrom takes tensors of other dtypes, arrays, and what overlaps", () => {
    const x = nm.tensor(
      [
        [1, 2],
        [3, 4],
      ],
      { device },
    );
    x.copyFrom(x.transpose());
    expect(x.toArray()).toEqual([
      [1, 3],
      [2, 4],
    ]);
    x.slice(0).copyFrom(nm.tensor([7, 8], { device, dtype: "int32" }));
    expect(x.toArray()).toEqual([
      [7, 8],
      [2, 4],
    ]);
    x.slice(null, 1).copyFrom(Float32Array.of(0, 1));
    expect(x.toArray()).toEqual([
      [7, 0],
      [2, 1],
    ]);
  });

  test("copyFrom refuses wrong sizes, repeated elements, and what has a gradient to lose", () => {
    const x = nm.zeros([2], { device });
    expect(() => x.copyFrom(nm.ones([3], { device }))).toThrow("copyFrom: [3] does not fit [2]");
    expect(() => x.copyFrom(Float32Array.of(1))).toThrow("copyFrom: 1 values for 2 elements");
    expect(() => nm.zeros([1], { device }).expand(2).copyFrom(x)).toThrow(/copyFrom: .*share/);
    const w = nm.ones([2], { device, requiresGrad: true });
    expect(() => x.copyFrom(w)).toThrow(nm.AutogradError);
    nm.noGrad(() => x.copyFrom(w));
    expect(x.toArray()).toEqual([1, 1]);
  });

  test("axes of one element may have any stride in what is contiguous", () => {
    const x = nm.ones([2, 3], { device });
    const column = x.slice(null, [1, 2]);
    expect(column.isContiguous).toBe(false);
    expect(column.slice([1, 2]).isContiguous).toBe(true);
    expect(column.slice([1, 2]).transpose().isContiguous).toBe(true);
    expect(x.slice([0, 1]).transpose().isContiguous).toBe(true);
  });

  test("a product into out is refused where they share but one element with an operand, and not beside it", () => {
    const memory = nm.ones([7], { device });
    const part = (from: number) => memory.slice([from, from + 4]).reshape(2, 2);
    for (const [from, to] of [
      [0, 3],
      [3, 0],
    ]) {
      expect(() => nm.matmul(part(from), nm.ones([2, 2], { device }), { out: part(to) })).toThrow(
        "out shares memory with an operand",
      );
    }
    const wide = nm.ones([8], { device });
    const [left, right] = [wide.slice([0, 4]).reshape(2, 2), wide.slice([4, 8]).reshape(2, 2)];
    expect(nm.matmul(left, nm.ones([2, 2], { device }), { out: right }).toArray()).toEqual([
      [2, 2],
      [2, 2],
    ]);
  });

  test("data() and dataSync() of views are dense, in row-major order, and copies", async () => {
    const x = nm.tensor(
      [
        [1, 2, 3],
        [4, 5, 6],
      ],
      { device },
    );
    expect(Array.from(await x.transpose().data())).toEqual([1, 4, 2, 5, 3, 6]);
    expect(Array.from(x.slice(null, [null, null, -2]).dataSync())).toEqual([3, 1, 6, 4]);
    expect(x.cast("bfloat16").dataSync()).toEqual(Float32Array.of(1, 2, 3, 4, 5, 6));
  });
});
