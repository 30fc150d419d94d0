// Values of the rarer arithmetic at the points where libraries differ; expected numbers are NumPy's.

import { describe, expect, test } from "vitest";
import * as ops from "../../src/index.js";
import { tensor, tidy } from "../../src/index.js";
import { backends, on } from "../support/backends.js";
import { expectClose } from "../support/numbers.js";

const { NaN: nan, POSITIVE_INFINITY: inf } = Number;

describe.each(backends)("$name", (subject) => {
  const float = (...values: number[]) => tensor(values, on(subject));
  const integer = (dtype: "int32" | "int8" | "uint8" | "bool", ...values: number[]) =>
    tensor(values, { device: subject.device, dtype });
  const list = (make: () => ops.Tensor) => tidy(() => [...make().dataSync()]);

  test("floor division and remainder of floats take the divisor's sign, exactly", () => {
    const a = [7, -7, 7, -7, 1, -1, 0, -0, 5, inf, 1];
    const b = [3, 3, -3, -3, inf, inf, 3, 3, 0, 2, nan];
    expect(list(() => ops.floorDivide(float(...a), float(...b)))).toEqual([
      2,
      -3,
      -3,
      2,
      0,
      -1,
      0,
      -0,
      inf,
      nan,
      nan,
    ]);
    expect(list(() => ops.remainder(float(...a), float(...b)))).toEqual([
      1,
      2,
      -2,
      -1,
      1,
      inf,
      0,
      0,
      nan,
      nan,
      nan,
    ]);
    const tenth = Math.fround(0.1);
    expect(list(() => ops.floorDivide(float(1), float(tenth)))).toEqual([Math.floor(1 / tenth - 1e-9)]);
  });

  test("floor division and remainder of integers: down, and 0 by 0", () => {
    const a = integer("int32", 7, -7, 7, -7, 5, -2147483648);
    const b = integer("int32", 3, 3, -3, -3, 0, -1);
    expect(list(() => ops.floorDivide(a, b))).toEqual([2, -3, -3, 2, 0, -2147483648]);
    expect(list(() => ops.remainder(a, b))).toEqual([1, 2, -2, -1, 0, 0]);
    a.dispose();
    b.dispose();
  });

  test("powers of integers are integers; negative ones are refused", () => {
    tidy(() => {
      const a = integer("int32", 3, -2, 0, 7, 46341);
      for (const [exponent, expected] of [
        [0, [1, 1, 1, 1, 1]],
        [1, [3, -2, 0, 7, 46341]],
        [2, [9, 4, 0, 49, -2147479015]],
        [5, [243, -32, 0, 16807, (46341n ** 5n) & 0xffffffffn]],
      ] as const) {
        const power = ops.pow(a, exponent);
        expect(power.dtype).toBe("int32");
        expect([...power.dataSync()]).toEqual(
          expected.map((value) => Number(BigInt.asIntN(32, BigInt(value)))),
        );
      }
      const mixed = ops.pow(integer("int32", 2, 3), integer("uint8", 10, 0, 3, 4).reshape(2, 2));
      expect([mixed.dtype, ...mixed.dataSync()]).toEqual(["int32", 1024, 1, 8, 81]);
      const small = ops.pow(integer("uint8", 2, 3, 16), 7);
      expect([small.dtype, ...small.dataSync()]).toEqual(["uint8", 128, 139, 0]);
      expect([...ops.pow(2, integer("int32", 0, 30)).dataSync()]).toEqual([1, 2 ** 30]);
      expect(ops.pow(integer("int32"), integer("int32")).shape).toEqual([0]);
      const root = ops.pow(integer("int32", 4, 9), 0.5);
      expect([root.dtype, ...root.dataSync()]).toEqual(["float32", 2, 3]);
      expect(() => ops.pow(a, -1)).toThrow(
        "pow: integers have no negative integer powers (-1); cast to a float",
      );
      expect(() => ops.pow(a, integer("int32", 1, 2, -3, 4, 5))).toThrow("negative integer powers (-3)");
    });
  });

  test("bool adds as or, multiplies as and, and has no difference", () => {
    tidy(() => {
      const [a, b] = [integer("bool", 0, 0, 1, 1), integer("bool", 0, 1, 0, 1)];
      expect([ops.add(a, b).dtype, ...ops.add(a, b).dataSync()]).toEqual(["bool", 0, 1, 1, 1]);
      expect([...ops.mul(a, b).dataSync()]).toEqual([0, 0, 0, 1]);
      expect(() => ops.sub(a, b)).toThrow("sub: bool has no difference");
      expect(ops.sum(a).dtype).toBe("int32");
      expect(ops.mean(a).item()).toBe(0.5);
    });
  });

  test("clip by one bound keeps integers", () => {
    tidy(() => {
      const x = integer("int32", -3, 5, 300);
      expect([x.clip(0).dtype, ...x.clip(0).dataSync()]).toEqual(["int32", 0, 5, 300]);
      expect(list(() => x.clip(null, 10))).toEqual([-3, 5, 10]);
      expect(list(() => x.clip())).toEqual([-3, 5, 300]);
      expect(list(() => ops.clip_(float(-1, 2), 0))).toEqual([0, 2]);
    });
  });

  test("logsumexp of integers and over nothing", () => {
    tidy(() => {
      expect(ops.logsumexp(integer("int32", 0, 0)).item()).toBeCloseTo(Math.LN2, 6);
      // The distance of the two is no int8.
      expect(ops.logsumexp(integer("int8", 100, -113)).item()).toBe(100);
      expect(ops.logsumexp(integer("uint8", 3, 250, 250), 0, true).toArray()).toEqual([
        expect.closeTo(250 + Math.LN2, 4),
      ]);
      expect(ops.logsumexp(ops.zeros([2, 0], on(subject)), 1).toArray()).toEqual([-inf, -inf]);
    });
  });

  test("small integers wrap, as in NumPy and PyTorch", () => {
    expect(list(() => ops.add(integer("uint8", 250, 3), integer("uint8", 10, 4)))).toEqual([4, 7]);
    expect(list(() => ops.mul(integer("int8", 100, -128), integer("int8", 2, 1)))).toEqual([-56, -128]);
    expect(list(() => ops.shiftLeft(integer("uint8", 129), 1))).toEqual([2]);
    expect(list(() => ops.bitwiseNot(integer("uint8", 0, 255, 7)))).toEqual([255, 0, 248]);
    expect(list(() => ops.bitwiseNot(integer("int8", 0, -128)))).toEqual([-1, 127]);
    expect(list(() => ops.neg(integer("uint8", 5)))).toEqual([251]);
    expect(list(() => ops.square(integer("int8", 16)))).toEqual([0]);
    expect(list(() => ops.abs(integer("int8", -128)))).toEqual([-128]);
  });

  test("bits of negative numbers and of bool", () => {
    const a = integer("int32", -1, -8, 6);
    expect(list(() => ops.bitwiseAnd(a, 5))).toEqual([5, 0, 4]);
    expect(list(() => ops.bitwiseOr(a, 1))).toEqual([-1, -7, 7]);
    expect(list(() => ops.bitwiseXor(a, -1))).toEqual([0, 7, -7]);
    expect(list(() => ops.shiftRight(a, 1))).toEqual([-1, -4, 3]);
    a.dispose();
    tidy(() => {
      const both = ops.bitwiseAnd(integer("bool", 1, 1, 0), integer("bool", 1, 0, 0));
      expect([both.dtype, ...both.dataSync()]).toEqual(["bool", 1, 0, 0]);
    });
    expect(() => tidy(() => ops.bitwiseAnd(float(1), 1))).toThrow(
      `bitwiseAnd: operands must be integers, not ${subject.dtype} and ${subject.dtype}`,
    );
  });

  test("trunc keeps the sign of zero", () => {
    expect(list(() => ops.trunc(float(1.7, -1.7, -0.3, nan, -inf)))).toEqual([1, -1, -0, nan, -inf]);
    expect(list(() => ops.trunc(integer("int32", -3)))).toEqual([-3]);
  });

  test("any and all over empty axes, and of NaN", () => {
    expect(list(() => ops.any(ops.zeros([0], on(subject))))).toEqual([0]);
    expect(list(() => ops.all(ops.zeros([2, 0], on(subject)), 1))).toEqual([1, 1]);
    expect(list(() => ops.any(float(nan)))).toEqual([1]);
    expect(tidy(() => ops.all(float(nan, 1)).dtype)).toBe("bool");
  });

  test("logical operations take any dtype as truth", () => {
    expect(list(() => ops.logicalAnd(float(0.5, 0, nan), integer("int32", 1, 1, -1)))).toEqual([1, 0, 1]);
    expect(list(() => ops.logicalXor(float(2, 0, 3), float(2, 1, 0)))).toEqual([0, 1, 1]);
  });

  test("running sums: small integers and bool in int32, a long one to float32's last bit", () => {
    tidy(() => {
      const sum = ops.cumsum(integer("uint8", 200, 100, 1), 0);
      expect([sum.dtype, ...sum.dataSync()]).toEqual(["int32", 200, 300, 301]);
      expect([...ops.cumsum(integer("bool", 1, 0, 1), 0).dataSync()]).toEqual([1, 1, 2]);
      const long = ops.cumsum(ops.full([100_000], Math.fround(0.1), on(subject)), 0).dataSync();
      expect(Math.abs(long[99_999] - 100_000 * Math.fround(0.1))).toBeLessThan(1e-3);
      expect([...ops.cumprod(integer("int32", 65536, 65536, 3), 0).dataSync()]).toEqual([65536, 0, 0]);
    });
    expect(() => tidy(() => ops.cumsum(float(1), 1))).toThrow("cumsum: axis 1 is out of range for rank 1");
    expect(() => tidy(() => ops.cumsum(tensor(1, on(subject)), 0))).toThrow("a scalar has no axes");
  });

  test("running sums of many lines, in every layout, whatever the threads", () => {
    tidy(() => {
      const generator = new ops.Generator(5);
      for (const shape of [
        [3, 700, 37],
        [2000, 5],
        [40, 3000],
      ]) {
        const data = ops.randn(shape, { device: "reference", dtype: "float64", generator });
        const rounded = data.cast("float32").cast("float64");
        const here = rounded.cast(subject.dtype).to(subject.device);
        for (let axis = 0; axis < shape.length; axis++) {
          const expected = ops.cumsum(rounded, axis).dataSync();
          expectClose(ops.cumsum(here, axis).dataSync(), expected, 1e-6);
          const turned = ops.cumsum(here.transpose(0, -1), shape.length - 1 - axis).transpose(0, -1);
          expectClose(turned.dataSync(), expected, 1e-6);
        }
      }
    });
  });

  test("variances of numbers far from 0 keep their digits, and of equal numbers are 0", () => {
    const far = Float64Array.from({ length: 1000 }, (_, i) => 8192 + ((i * 37) % 64) / 64);
    const average = far.reduce((a, b) => a + b) / far.length;
    const exact = far.reduce((total, value) => total + (value - average) ** 2, 0) / (far.length - 1);
    tidy(() => {
      const x = ops.cast(tensor(far, { ...on(subject), shape: [1000] }), subject.dtype);
      for (const axis of [undefined, -1]) {
        expect(Math.abs(ops.variance(x, axis).item() / exact - 1)).toBeLessThan(1e-6);
        expect(Math.abs(ops.std(x, axis).item() / Math.sqrt(exact) - 1)).toBeLessThan(1e-6);
      }
      const same = ops.full([3, 700], 0.1, on(subject));
      for (const value of [...ops.variance(same, 1).dataSync(), ...ops.std(same, 1, true).dataSync()])
        expect(value).toBeLessThan(1e-14);
      expect([...ops.logsumexp(float(-inf, -inf)).dataSync()]).toEqual([-inf]);
      expect(ops.logsumexp(float(1, inf)).item()).toBe(inf);
      expect(ops.logsumexp(float(1, nan)).item()).toBeNaN();
      expect(ops.variance(float(1, inf)).item()).toBeNaN();
    });
  });

  test("norm and std at 0 have the gradient 0", () => {
    for (const fn of [
      (x: ops.Tensor) => ops.norm(x),
      (x: ops.Tensor) => ops.std(x),
      (x: ops.Tensor) => ops.norm(x, 1.5),
    ]) {
      tidy(() => {
        const x = ops.zeros([3], on(subject, { requiresGrad: true }));
        fn(x).backward();
        expect([...x.grad!.dataSync()]).toEqual([0, 0, 0]);
      });
    }
    expect(tidy(() => ops.std(float(1)).item())).toBeNaN();
    expect(tidy(() => ops.norm(integer("int32", 3, 4)).item())).toBe(5);
    expect(() => tidy(() => ops.norm(float(1), nan))).toThrow("norm: p must be a number");
  });
});
