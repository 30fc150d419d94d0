// The wasm kernels against the reference: the same bytes, the same floats, and products that differ by rounding alone.

import { noGrad, type Tensor, tensor, tidy } from "@nomoat/core";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { BlockFormat } from "../src/formats/format.js";
import { formats } from "../src/formats/index.js";
import { kernelsFor, withoutKernels } from "../src/kernels.js";
import { quantizedMatmul } from "../src/matmul.js";
import { activationBlock, hasIntegerProduct, type StaticActivations } from "../src/matmul-integers.js";
import { quantize } from "../src/quantize.js";
import { QuantizedTensor } from "../src/quantized-tensor.js";
import { bell, bellTensor, isCodebook, isGgml, names, relativeError, uniform } from "./helpers.js";

/** Float32 sums of k terms in another order. */
const sumTolerance = 1e-5;
/** The integers that stand for a codebook's values in integer products are off by 8·10⁻⁶ of absmax. */
const codebookTolerance = 1e-4;

function bytes(w: QuantizedTensor): Record<string, unknown> {
  return Object.fromEntries(Array.from(w.parts, ([name, part]) => [name, Array.from(part.dataSync())]));
}

/** Shapes that cross every edge: tiles, panels, blocks, strips. */
function shapes(name: string): [number, number][] {
  const any: [number, number][] = [
    [1, 32],
    [8, 64],
    [70, 96],
    [33, 288],
    [3, 1056],
    [129, 320],
    [300, 64],
  ];
  return isGgml(name) ? any : [...any, [5, 1], [7, 13], [64, 172], [9, 257], [40, 1031], [65, 44]];
}

describe.each(names)("%s", (name) => {
  const format: BlockFormat = formats[name];

  it("has kernels here", () => {
    tidy(() => expect(kernelsFor(tensor([1]), format)).not.toBeNull());
  });

  it("quantizes to the reference's bytes and dequantizes to its floats", () => {
    for (const shape of shapes(name)) {
      for (const spread of [1, 0.02, 1e-7, 2e4]) {
        tidy(() => {
          const weight = bellTensor(shape, shape[0] * 1000 + shape[1], spread);
          using w = quantize(weight, { format: name });
          using expected = withoutKernels(() => quantize(weight, { format: name }));
          expect(bytes(w), `[${shape}] ${spread}`).toEqual(bytes(expected));
          expect(w.error?.noise).toBe(expected.error?.noise);
          const reference = withoutKernels(() => w.dequantize());
          expect(w.dequantize().dataSync()).toEqual(reference.dataSync());
        });
      }
    }
  });

  it("quantizes any values to the reference's bytes", () => {
    const value = fc.oneof(
      fc.float({ min: -4, max: 4, noNaN: true }),
      fc.float({ min: -65000, max: 65000, noNaN: true }),
      fc.constantFrom(0, -0, 1e-42, -1e-40, 2 ** -149, 1, -1, 0.5, 127, 63.5, 1e-38),
    );
    fc.assert(
      fc.property(fc.array(value, { minLength: 64, maxLength: 64 }), (values) => {
        tidy(() => {
          const weight = tensor(Float32Array.from(values), { shape: [2, 32] });
          using w = quantize(weight, { format: name });
          using expected = withoutKernels(() => quantize(weight, { format: name }));
          expect(bytes(w)).toEqual(bytes(expected));
          expect(Array.from(w.dequantize().dataSync())).toEqual(
            Array.from(withoutKernels(() => w.dequantize()).dataSync()),
          );
        });
      }),
      { numRuns: 200 },
    );
  });

  it("multiplies as the dequantized weight does, forward and backward", () => {
    for (const shape of shapes(name)) {
      for (const rows of [1, 2, 3, 4, 5, 8, 9, 260]) {
        tidy(() => {
          using w = quantize(bellTensor(shape, 5), { format: name });
          const values = bell(rows * shape[1], rows);
          const gradient = bellTensor([rows, shape[0]], 9);
          const run = () => {
            const x = tensor(values, { shape: [rows, shape[1]], requiresGrad: true });
            const y = quantizedMatmul(x, w);
            y.backward(gradient);
            return [y.dataSync(), x.grad?.dataSync() as Float32Array];
          };
          const [y, dx] = run();
          const [expectedY, expectedDx] = withoutKernels(run);
          expect(relativeError(y, expectedY), `${rows}×[${shape}]`).toBeLessThan(sumTolerance);
          expect(relativeError(dx, expectedDx), `${rows}×[${shape}] dx`).toBeLessThan(sumTolerance);
        });
      }
    }
  });

  it("takes stacks, views and empty batches", () => {
    tidy(() => {
      using w = quantize(bellTensor([40, 64], 3), { format: name });
      const x = bellTensor([64, 6, 5], 4).permute(2, 1, 0);
      const y = quantizedMatmul(x, w);
      expect(y.shape).toEqual([5, 6, 40]);
      const expected = x.clone().matmul(w.dequantize(), { transB: true });
      expect(relativeError(y.dataSync(), expected.dataSync())).toBeLessThan(sumTolerance);
      expect(quantizedMatmul(x.slice([0, 0]), w).shape).toEqual([0, 6, 40]);
      expect(quantizedMatmul(bellTensor([64], 1), w).shape).toEqual([40]);
    });
  });

  it("names tensor and index of what does not fit", () => {
    tidy(() => {
      const values = new Float32Array(300 * 64).fill(1);
      values[290 * 64 + 7] = Number.NaN;
      const weight = tensor(values, { shape: [300, 64] });
      expect(() => quantize(weight, { format: name, name: "q_proj.weight" })).toThrow(
        /q_proj\.weight: NaN at index \[290, 7\]/,
      );
    });
  });

  it("stays within the activations' rounding with integer products", () => {
    noGrad(() => {
      for (const shape of shapes(name)) {
        if (!hasIntegerProduct(format, shape, 1)) continue;
        const rowCounts = shape[0] === 70 || shape[1] === 44 ? [1, 2, 3, 4, 5, 6, 7, 8, 9] : [1, 4, 6];
        for (const rows of rowCounts) {
          tidy(() => {
            using w = quantize(bellTensor(shape, 5), { format: name });
            const x = bellTensor([rows, shape[1]], rows);
            const dense = w.dequantize();
            for (const range of ranges) {
              const y = quantizedMatmul(x, w, { activations: "int8", ...range }).dataSync();
              const expected = roundActivations(x, range, activationBlock(format, shape[1]))
                .matmul(dense, { transB: true })
                .dataSync();
              expect(relativeError(y, expected), `${rows}×[${shape}] ${range.activationScale}`).toBeLessThan(
                isCodebook(name) ? codebookTolerance : sumTolerance,
              );
            }
          });
        }
      }
    });
  });

  it("cuts many rows of activations into units", () => {
    noGrad(() =>
      tidy(() => {
        using w = quantize(bellTensor([70, 96], 5), { format: name });
        const x = bellTensor([261, 96], 6);
        const expected = roundActivations(x, {}, activationBlock(format, 96))
          .matmul(w.dequantize(), { transB: true })
          .dataSync();
        const y = quantizedMatmul(x, w, { activations: "int8" }).dataSync();
        expect(relativeError(y, expected)).toBeLessThan(isCodebook(name) ? codebookTolerance : sumTolerance);
      }),
    );
  });

  it("handles zero, tiny and non-finite activations", () => {
    noGrad(() =>
      tidy(() => {
        using w = quantize(bellTensor([9, 64], 5), { format: name });
        for (const rows of [1, 2, 5]) {
          const product = (values: Float32Array, range: StaticActivations = {}) =>
            Array.from(
              quantizedMatmul(tensor(values, { shape: [rows, 64] }), w, {
                activations: "int8",
                ...range,
              }).dataSync(),
            );
          const exact = (values: Float32Array) =>
            quantizedMatmul(tensor(values, { shape: [rows, 64] }), w).dataSync();
          const zeros = new Float32Array(rows * 64);
          expect(product(zeros).every((y) => y === 0)).toBe(true);
          const tiny = bell(rows * 64, 3, 1e-34);
          expect(relativeError(product(tiny), exact(tiny))).toBeLessThan(0.03);
          for (const wrong of [Number.NaN, Number.POSITIVE_INFINITY]) {
            const values = bell(rows * 64, 4);
            values[40] = wrong;
            const y = product(values);
            expect(y.slice(0, 9).every(Number.isNaN)).toBe(true);
            expect(y.slice(9).every(Number.isFinite)).toBe(true);
          }
          const values = bell(rows * 64, 4);
          values[40] = Number.NaN;
          const y = product(values, { activationScale: 0.02 });
          expect(y.slice(0, 9).every(Number.isNaN)).toBe(true);
          expect(y.slice(9).every(Number.isFinite)).toBe(true);
        }
      }),
    );
  });
});

describe.each(["q2_K", "q3_K", "q4_K", "q5_K", "q6_K"] as const)("%s", (name) => {
  const format: BlockFormat = formats[name];

  /** Any bytes are codes; only the float16 scales must be finite. */
  function random(shape: [number, number]): QuantizedTensor {
    const next = uniform(shape[0]);
    const data = Uint8Array.from(
      { length: shape[0] * (shape[1] / 256) * format.bytesPerBlock },
      () => next() * 256,
    );
    const halves = { q2_K: [80, 82], q3_K: [108], q4_K: [0, 2], q5_K: [0, 2], q6_K: [208] }[name];
    for (let at = 0; at < data.length; at += format.bytesPerBlock) {
      for (const half of halves) data[at + half + 1] &= 0xbf;
    }
    return new QuantizedTensor(format, shape, new Map([["data", tensor(data)]]));
  }

  it("dequantizes to the reference's floats, and multiplies with them", () => {
    for (const shape of [
      [1, 256],
      [70, 512],
      [33, 1280],
    ] as [number, number][]) {
      tidy(() => {
        using w = random(shape);
        const dense = w.dequantize();
        expect(dense.dataSync()).toEqual(withoutKernels(() => w.dequantize()).dataSync());
        for (const rows of [1, 5, 9, 40]) {
          const x = bellTensor([rows, shape[1]], rows);
          x.requiresGrad = true;
          const y = quantizedMatmul(x, w);
          const dy = bellTensor(y.shape as number[], 3);
          y.backward(dy);
          const expected = x.detach().matmul(dense, { transB: true });
          expect(relativeError(y.dataSync(), expected.dataSync())).toBeLessThan(sumTolerance);
          const dx = dy.matmul(dense).dataSync();
          expect(relativeError(x.grad?.dataSync() ?? [], dx)).toBeLessThan(sumTolerance);
        }
      });
    }
  });

  it("stays within the activations' rounding with integer products", () => {
    noGrad(() => {
      for (const shape of [
        [1, 256],
        [70, 512],
        [33, 1280],
      ] as [number, number][]) {
        tidy(() => {
          using w = random(shape);
          const dense = w.dequantize();
          for (const rows of [1, 2, 3, 4, 5, 40]) {
            const x = bellTensor([rows, shape[1]], rows);
            const rounds = name !== "q2_K" || rows <= 4;
            expect(hasIntegerProduct(format, shape, rows)).toBe(rounds);
            for (const range of ranges) {
              const y = quantizedMatmul(x, w, { activations: "int8", ...range }).dataSync();
              const rounded = !rounds ? x : roundActivations(x, range, activationBlock(format, shape[1]));
              const expected = rounded.matmul(dense, { transB: true }).dataSync();
              expect(relativeError(y, expected), `${rows}×[${shape}]`).toBeLessThan(sumTolerance);
            }
          }
        });
      }
    });
  });

  it("is quantized to the same bytes on either side", () => {
    const next = uniform(7);
    const small = () => bell(1, Math.floor(next() * 2 ** 32))[0];
    const kinds: ((i: number) => number)[] = [
      small,
      () => 0,
      (i) => (i < 40 ? 0 : small()),
      () => 0.5,
      () => -0.25 - Math.abs(small()),
      () => Math.round(small() * 3) / 4,
      () => small() * 1e4,
      () => small() ** 3 * 1e-14,
      () => small() * 1e-40,
      (i) => (i % 37 === 0 ? 25e4 * (next() - 0.5) : small()),
    ];
    const values = kinds.flatMap((kind) => Array.from({ length: 512 }, (_, i) => kind(i)));
    tidy(() => {
      const weight = tensor(Float32Array.from(values), { shape: [kinds.length * 2, 256] });
      using w = quantize(weight, { format: name });
      expect(bytes(w)).toEqual(bytes(withoutKernels(() => quantize(weight, { format: name }))));
    });
  });
});

/** Dynamic rounding; a fixed scale, with some values beyond its ends; one with a zero point off the middle. */
const ranges: StaticActivations[] = [
  {},
  { activationScale: 0.02 },
  { activationScale: 0.021, activationZeroPoint: -100 },
];

/** Nearest integer, ties to even. */
function nearest(x: number): number {
  const floor = Math.floor(x);
  const up = x - floor > 0.5 || (x - floor === 0.5 && floor % 2 !== 0);
  return floor + (up ? 1 : 0);
}

it("lets as many activations share a scale as weights do, from 32 to 128", () => {
  const blocks = (
    ["q4_0", "nf4", "int4_g32", "int4_asym_g64", "int4_g128", "int8", "int8_tensor"] as const
  ).map((name) => activationBlock(formats[name], 4096));
  expect(blocks).toEqual([32, 32, 32, 64, 128, 128, 128]);
});

/** x as it is after int8 quantization: with one scale, or in blocks. */
function roundActivations(
  x: Tensor,
  { activationScale, activationZeroPoint = 0 }: StaticActivations,
  size: number,
): Tensor {
  const values = x.dataSync() as Float32Array;
  const columns = x.shape[1];
  if (activationScale !== undefined) {
    const scale = Math.fround(activationScale);
    values.forEach((v, i) => {
      const code = nearest(Math.fround(Math.fround(v / scale) + activationZeroPoint));
      values[i] = (Math.max(-128, Math.min(127, code)) - activationZeroPoint) * scale;
    });
    return tensor(values, { shape: x.shape });
  }
  for (let row = 0; row < x.shape[0]; row++) {
    for (let from = 0; from < columns; from += size) {
      const block = values.subarray(row * columns + from, row * columns + Math.min(from + size, columns));
      const absmax = block.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
      const scale = Math.fround(absmax / 127);
      const inverse = Math.fround(127 / absmax);
      block.forEach((v, i) => {
        block[i] = absmax === 0 ? 0 : nearest(Math.fround(v * inverse)) * scale;
      });
    }
  }
  return tensor(values, { shape: x.shape });
}
