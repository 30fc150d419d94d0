// Kernels of convolution and pooling against the compositions that define them, in float64: any geometry, and sizes at which the work
// is cut in blocks.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import * as nm from "../../src/index.js";
import { expectClose, rounding, values } from "../support/numbers.js";

const normal = (count: number, seed: number) => values(count, seed, (next) => next() * 2 - 1);

interface Convolution {
  readonly x: number[];
  readonly weight: number[];
  readonly bias?: boolean;
  readonly options: nm.ConvolutionArguments;
}

/** Output and gradients of x, weight and bias. */
function convolved({ x, weight, bias, options }: Convolution, device: "wasm" | "reference"): nm.Tensor[] {
  const dtype = device === "wasm" ? "float32" : "float64";
  const make = (shape: number[], seed: number) =>
    nm.tensor(normal(nm.zeros(shape).size, seed), { shape, device, dtype, requiresGrad: true });
  const inputs = [make(x, 1), make(weight, 2), ...(bias ? [make([weight[0]], 3)] : [])];
  const convolve = x.length === 3 ? nm.conv1d : nm.conv2d;
  const y = convolve(inputs[0], inputs[1], inputs[2] ?? null, options);
  const dy = make(y.shape as number[], 4).detach();
  y.backward(dy);
  return [y, ...inputs.map((input) => input.grad!)];
}

function compareConvolution(one: Convolution): void {
  nm.tidy(() => {
    const expected = convolved(one, "reference");
    for (const [i, got] of convolved(one, "wasm").entries()) {
      expect(got.shape).toEqual(expected[i].shape);
      expectClose(got.dataSync(), expected[i].dataSync(), rounding.float32, ["y", "dx", "dw", "db"][i]);
    }
  });
}

const extent = fc.integer({ min: 1, max: 11 });
const pair = (max: number, min = 1) => fc.tuple(fc.integer({ min, max }), fc.integer({ min, max }));

test("convolutions of any geometry", () => {
  const geometry = fc.record({
    images: fc.integer({ min: 1, max: 3 }),
    each: fc.integer({ min: 1, max: 3 }),
    out: fc.integer({ min: 1, max: 5 }),
    groups: fc.integer({ min: 1, max: 3 }),
    height: extent,
    width: extent,
    kernel: pair(4),
    stride: pair(3),
    padding: pair(3, 0),
    dilation: pair(3),
    bias: fc.boolean(),
  });
  fc.assert(
    fc.property(geometry, ({ images, each, out, groups, height, width, kernel, bias, ...options }) => {
      const { padding, dilation } = options;
      fc.pre([height, width].every((n, i) => dilation[i] * (kernel[i] - 1) + 1 <= n + 2 * padding[i]));
      compareConvolution({
        x: [images, each * groups, height, width],
        weight: [out * groups, each, ...kernel],
        bias,
        options: { ...options, groups },
      });
    }),
    { numRuns: 120 },
  );
});

describe("convolutions of larger images", () => {
  test.each<[string, Convolution]>([
    ["k of two blocks", { x: [2, 50, 9, 14], weight: [5, 50, 3, 3], options: { padding: 1 } }],
    [
      "channels of two blocks",
      { x: [1, 6, 5, 7], weight: [203, 6, 2, 2], bias: true, options: { stride: 2 } },
    ],
    [
      "many columns",
      { x: [1, 2, 37, 71], weight: [6, 2, 3, 3], options: { padding: [0, 2], stride: [1, 3] } },
    ],
    ["channel by channel", { x: [2, 5, 21, 23], weight: [10, 1, 5, 3], options: { groups: 5, padding: 2 } }],
    [
      "channel by channel, stride 2",
      { x: [2, 4, 40, 43], weight: [4, 1, 3, 3], options: { groups: 4, stride: 2 } },
    ],
    ["one by one", { x: [3, 33, 7, 7], weight: [65, 33, 1, 1], bias: true, options: {} }],
    ["a line", { x: [2, 20, 200], weight: [30, 20, 5], bias: true, options: { padding: 4, dilation: 2 } }],
  ])("%s", (_, one) => compareConvolution(one));
});

const poolings = { maxPool2d: nm.maxPool2d, avgPool2d: nm.avgPool2d };

test.each(Object.keys(poolings) as (keyof typeof poolings)[])("%s of any geometry", (kind) => {
  const geometry = fc.record({
    height: extent,
    width: fc.integer({ min: 1, max: 19 }),
    size: pair(5),
    stride: pair(4),
    dilation: kind === "maxPool2d" ? pair(3) : fc.constant(undefined),
    padding: pair(2, 0),
    ceilMode: fc.boolean(),
    countIncludePad: kind === "avgPool2d" ? fc.boolean() : fc.constant(undefined),
    // Few different values: equal elements are the rule.
    range: fc.constantFrom(2, 1000),
  });
  fc.assert(
    fc.property(geometry, ({ height, width, size, range, ...given }) => {
      const options = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
      const dilation = given.dilation ?? [1, 1];
      const fits = [height, width].every(
        (n, i) =>
          2 * given.padding[i] <= size[i] && dilation[i] * (size[i] - 1) + 1 <= n + 2 * given.padding[i],
      );
      fc.pre(fits);
      const shape = [2, 2, height, width];
      const numbers = values(4 * height * width, 5, (next) => Math.round(next() * range) / range);
      const pooled = (device: "wasm" | "reference") => {
        const dtype = device === "wasm" ? ("float32" as const) : ("float64" as const);
        const x = nm.tensor(numbers, { shape, device, dtype, requiresGrad: true });
        const y = poolings[kind](x, size, options);
        y.backward(nm.tensor(normal(y.size, 6), { shape: y.shape, device, dtype }));
        const found =
          kind === "maxPool2d" ? [nm.maxPool2dWithIndices(x.detach(), size, options).indices] : [];
        return [y, x.grad!, ...found];
      };
      nm.tidy(() => {
        const expected = pooled("reference");
        for (const [i, got] of pooled("wasm").entries()) {
          expect(got.shape).toEqual(expected[i].shape);
          expectClose(got.dataSync(), expected[i].dataSync(), rounding.float32, ["y", "dx", "indices"][i]);
        }
      });
    }),
    { numRuns: 150 },
  );
});

test.each(["wasm", "reference"] as const)(
  "the largest of windows with NaNs and zeros of both signs, %s",
  (device) => {
    nm.tidy(() => {
      const row = [Number.NaN, 1, 2, Number.NaN, -0, 0, Number.NEGATIVE_INFINITY, -3, 5, 5, 4, 5];
      for (const options of [{}, { stride: 1 }]) {
        const x = nm.tensor([row, row], { device, requiresGrad: true }).reshape([1, 2, 12]);
        const { values: largest, indices } = nm.maxPool1dWithIndices(x, 2, options);
        const stride = options.stride ?? 2;
        const windows = Array.from({ length: stride === 1 ? 11 : 6 }, (_, i) => i * stride);
        const expected = windows.map((i) => (Number.isNaN(row[i]) || row[i + 1] <= row[i] ? i : i + 1));
        expect([...indices.dataSync()]).toEqual([...expected, ...expected]);
        const found = [...largest.dataSync()].slice(0, expected.length);
        expect(found.map((v) => (Object.is(v, -0) ? "-0" : v))).toEqual(
          expected.map((i) => (Object.is(row[i], -0) ? "-0" : row[i])),
        );
      }
    });
  },
);

test("a window without an element has no index and no gradient", () => {
  nm.tidy(() => {
    for (const device of ["wasm", "reference"] as const) {
      const x = nm.tensor([[[7]]], { device, requiresGrad: true });
      const { values: largest, indices } = nm.maxPool1dWithIndices(x, 2, { padding: 1, dilation: 2 });
      expect([...largest.dataSync(), ...indices.dataSync()]).toEqual([Number.NEGATIVE_INFINITY, -1]);
      largest.backward(nm.ones([1, 1, 1], { device }));
      expect([...x.grad!.dataSync()]).toEqual([0]);
    }
  });
});
