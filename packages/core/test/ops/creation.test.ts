// Tensors made from ranges, bytes and random draws.

import { describe, expect, test } from "vitest";
import {
  arange,
  bernoulli,
  eye,
  fromBuffer,
  Generator,
  linspace,
  multinomial,
  onesLike,
  permutation,
  randint,
  tensor,
  tidy,
  toBuffer,
  zeros,
} from "../../src/index.js";
import { backends, on } from "../support/backends.js";

describe.each(backends)("$name", (subject) => {
  const device = { device: subject.device };
  const list = (make: () => { dataSync(): ArrayLike<number> }) => tidy(() => Array.from(make().dataSync()));

  test("linspace includes both ends exactly", () => {
    const third = subject.dtype === "float64" ? 1 / 3 : Math.fround(1 / 3);
    expect(list(() => linspace(0, 1, 4, on(subject)))[1]).toBe(third);
    expect(list(() => linspace(-1, 0.1, 5, on(subject))).at(-1)).toBe(
      subject.dtype === "float64" ? 0.1 : Math.fround(0.1),
    );
    expect(list(() => linspace(0, 1, 4, on(subject, { endpoint: false } as object)))).toEqual([
      0, 0.25, 0.5, 0.75,
    ]);
    expect(list(() => linspace(3, 5, 1, on(subject)))).toEqual([3]);
    expect(list(() => linspace(3, 5, 0, on(subject)))).toEqual([]);
    expect(() => linspace(0, Number.NaN)).toThrow("linspace: end must be a finite number, not NaN");
    expect(() => linspace(0, 1, -1)).toThrow("linspace: [-1] is no shape");
  });

  test("arange and eye take options after whatever numbers there are", () => {
    tidy(() => {
      const options = { ...device, dtype: "float32" } as const;
      expect([arange(3, options).dtype, ...arange(3, options).dataSync()]).toEqual(["float32", 0, 1, 2]);
      expect([...arange(1, 3, options).dataSync()]).toEqual([1, 2]);
      expect([...arange(3, 0, -2, device).dataSync()]).toEqual([3, 1]);
      expect([...arange(2, undefined, undefined, options).dataSync()]).toEqual([0, 1]);
      expect(eye(2, 3, device).toArray()).toEqual([
        [1, 0, 0],
        [0, 1, 0],
      ]);
      expect(eye(2, 1, device).toArray()).toEqual([[1], [0]]);
      expect(eye(2, { ...device, dtype: "int32" }).dtype).toBe("int32");
      expect(() => eye(2, [2] as never)).toThrow("eye: options must be an object, not an array of 1");
      expect(() => arange(2, [2] as never)).toThrow("arange: options must be an object, not an array of 1");
    });
  });

  test("buffers go in and out, half floats as their bits", async () => {
    const half = fromBuffer(new Uint16Array([0x3c00, 0xc000]), { ...device, dtype: "float16" });
    expect([...half.dataSync()]).toEqual([1, -2]);
    expect([...new Uint16Array(await toBuffer(half))]).toEqual([0x3c00, 0xc000]);
    half.dispose();
    const bytes = new Uint8Array([9, 1, 0, 0, 0, 2, 0, 0, 0]);
    const view = fromBuffer(bytes.subarray(1), { ...device, dtype: "int32", shape: [2, 1] });
    expect(view.toArray()).toEqual([[1], [2]]);
    const turned = view.transpose();
    expect([...new Int32Array(await toBuffer(turned))]).toEqual([1, 2]);
    turned.dispose();
    view.dispose();
    expect(() => fromBuffer(new ArrayBuffer(7), { ...device, shape: [2] })).toThrow(
      "fromBuffer: 7 bytes are not float32 [2] (8 bytes)",
    );
    expect(() => fromBuffer(new ArrayBuffer(7), device)).toThrow("fromBuffer: [1.75] is no shape");
  });

  test("onesLike keeps dtype and backend", () => {
    tidy(() => {
      const like = onesLike(zeros([2], { ...device, dtype: "int8" }));
      expect([like.dtype, like.device, ...like.dataSync()]).toEqual(["int8", subject.device, 1, 1]);
    });
  });

  test("random draws repeat with their generator and stay in range", () => {
    const make = (seed: number) => {
      const options = { ...device, generator: new Generator(seed) };
      return [
        ...list(() => randint(-3, 4, [200], options)),
        ...list(() => bernoulli([200], 0.25, options)),
        ...list(() => permutation(50, options)),
      ];
    };
    const numbers = make(1);
    expect(make(1)).toEqual(numbers);
    expect(make(2)).not.toEqual(numbers);
    expect(new Set(numbers.slice(0, 200))).toEqual(new Set([-3, -2, -1, 0, 1, 2, 3]));
    const heads = numbers.slice(200, 400).reduce((sum, value) => sum + value, 0);
    expect(Math.abs(heads - 50)).toBeLessThan(25);
    expect(numbers.slice(400).sort((a, b) => a - b)).toEqual(Array.from({ length: 50 }, (_, i) => i));
    expect(() => randint(2, 2, [1])).toThrow("randint: expected integers low < high, not 2 and 2");
    expect(() => bernoulli([1], 1.5)).toThrow("p must be within 0 … 1, not 1.5");
  });

  test("multinomial draws in proportion, with and without replacement", () => {
    tidy(() => {
      const weights = tensor(
        [
          [1, 0, 3],
          [0, 2, 0],
        ],
        on(subject),
      );
      const generator = new Generator(7);
      const again = multinomial(weights, 4000, { replacement: true, generator });
      const first = Array.from(again.dataSync().slice(0, 4000));
      expect(first.filter((i) => i === 1)).toEqual([]);
      expect(first.filter((i) => i === 2).length / 4000).toBeCloseTo(0.75, 1);
      expect(new Set(again.dataSync().slice(4000))).toEqual(new Set([1]));
      let before = 0;
      for (let i = 0; i < 400; i++) {
        const [a, b] = multinomial(tensor([1, 3], on(subject)), 2, { generator }).dataSync();
        expect(a + b).toBe(1);
        before += a;
      }
      expect(before / 400).toBeCloseTo(0.75, 1);
      expect(() => multinomial(weights, 2)).toThrow(
        "multinomial: cannot draw 2 samples without replacement from 1 classes of a weight above 0 in row 1",
      );
      expect(() => multinomial(tensor([-1], on(subject)), 1)).toThrow("weight -1 of class 0 in row 0");
    });
  });
});
