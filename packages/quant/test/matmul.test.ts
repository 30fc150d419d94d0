// quantizedMatmul as a differentiable operation: gradients by finite differences, the adjoint identity, accumulation in
// place, ownership.

import { gradcheck, memoryStats, noGrad, type Tensor, tensor, tidy, withBackend } from "@nomoat/core";
import { wasmRuntime } from "@nomoat/core/extend";
import { afterEach, describe, expect, it } from "vitest";
import { formats } from "../src/formats/index.js";
import { withoutKernels } from "../src/kernels.js";
import { quantizedMatmul } from "../src/matmul.js";
import { quantize } from "../src/quantize.js";
import { QuantizedTensor } from "../src/quantized-tensor.js";
import { allNames, bell, bellTensor, names, relativeError, rowMultiple, uniform } from "./helpers.js";

function dot(a: Tensor, b: Tensor): number {
  const x = a.dataSync();
  const y = b.dataSync();
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += x[i] * y[i];
  return sum;
}

describe.each(allNames)("%s", (name) => {
  const columns = Math.max(32, rowMultiple(name));

  it("has the gradient that finite differences give, in float64", () => {
    withBackend("reference", () => {
      using w = quantize(bellTensor([6, columns], 1), { format: name });
      // The backward product does not ask for rank: one row of K-quants' 256 is enough.
      const shape = columns > 32 ? [1, columns] : [2, 3, columns];
      const x = tensor(
        Float64Array.from(
          bell(
            shape.reduce((a, b) => a * b),
            2,
          ),
        ),
        {
          ...{ shape, dtype: "float64", requiresGrad: true },
        },
      );
      gradcheck((x) => quantizedMatmul(x, w).square(), [x], { absolute: 1e-5 });
      x.dispose();
    });
  });

  it("is exact where no sum is rounded, in the float32 product of any number of rows, forward and backward", () => {
    tidy(() => {
      using w = quantize(bellTensor([40, columns], 1, 0.05), { format: name });
      const dense = w.dequantize().dataSync();
      for (const rows of [1, 3, 4, 5, 12, 13, 70]) {
        // A power of two in each row picks one value of each column: nothing to round.
        const place = (row: number, of: number) => (row * 37 + 11) % of;
        const oneOf = (of: number) => {
          const values = new Float32Array(rows * of);
          for (let row = 0; row < rows; row++) values[row * of + place(row, of)] = -(2 ** ((row % 5) - 2));
          return tensor(values, { shape: [rows, of] });
        };
        const x = oneOf(columns);
        x.requiresGrad = true;
        const y = quantizedMatmul(x, w);
        y.backward(oneOf(40));
        const [output, dx] = [y.dataSync(), (x.grad as Tensor).dataSync()];
        for (let row = 0; row < rows; row++) {
          const factor = -(2 ** ((row % 5) - 2));
          for (let i = 0; i < 40; i++) {
            const expected = factor * Number(dense[i * columns + place(row, columns)]);
            if (output[row * 40 + i] !== expected) expect(output[row * 40 + i]).toBe(expected);
          }
          for (let j = 0; j < columns; j++) {
            const expected = factor * Number(dense[place(row, 40) * columns + j]);
            if (dx[row * columns + j] !== expected) expect(dx[row * columns + j]).toBe(expected);
          }
        }
      }
    });
  });
});

describe.each(names)("%s", (name) => {
  it("is adjoint: ⟨x·ŵᵀ, y⟩ = ⟨x, y·ŵ⟩", () => {
    tidy(() => {
      using w = quantize(bellTensor([70, 96], 1), { format: name });
      for (const rows of [1, 4, 5, 33]) {
        const x = bellTensor([rows, 96], 3);
        x.requiresGrad = true;
        const y = bellTensor([rows, 70], 4);
        const output = quantizedMatmul(x, w);
        output.backward(y);
        const [left, right] = [dot(output, y), dot(x, x.grad as Tensor)];
        expect(Math.abs(left - right)).toBeLessThan(1e-4 * Math.abs(left) + 1e-3);
      }
    });
  });

  it("adds to the gradient that is there", () => {
    tidy(() => {
      using q = quantize(bellTensor([40, 64], 1), { format: name });
      using v = quantize(bellTensor([72, 64], 2), { format: name });
      const run = () => {
        const x = bellTensor([2, 9, 64], 3);
        x.requiresGrad = true;
        const hidden = x.mul(2);
        const loss = quantizedMatmul(hidden, q)
          .square()
          .sum()
          .add(quantizedMatmul(hidden, v).square().sum())
          .add(hidden.sum());
        loss.backward();
        return (x.grad as Tensor).dataSync();
      };
      expect(relativeError(run(), withoutKernels(run))).toBeLessThan(1e-5);
    });
  });

  it("leaves the packed bytes as they are, and nothing behind", () => {
    using w = quantize(bellTensor([48, 64], 1), { format: name });
    const before = Array.from(w.parts.values(), (part) => Array.from(part.dataSync()));
    const step = () =>
      tidy(() => {
        const x = bellTensor([7, 64], 2);
        x.requiresGrad = true;
        quantizedMatmul(x, w).square().sum().backward();
        noGrad(() => quantizedMatmul(bellTensor([1, 64], 2), w, { activations: "int8" }));
      });
    step();
    const { tensors, bytes } = memoryStats();
    for (let i = 0; i < 20; i++) step();
    expect(memoryStats()).toMatchObject({ tensors, bytes });
    expect(Array.from(w.parts.values(), (part) => Array.from(part.dataSync()))).toEqual(before);
  });

  it("gives the same bits for every thread count", () => {
    tidy(() => {
      using w = quantize(bellTensor([515, 352], 1), { format: name });
      const run = () =>
        [1, 2, 4, 12, 70].map((rows) =>
          tidy(() => {
            const x = bellTensor([rows, 352], rows);
            x.requiresGrad = true;
            const y = quantizedMatmul(x, w);
            y.backward(bellTensor([rows, 515], 7));
            const integers = noGrad(() => quantizedMatmul(x, w, { activations: "int8" }));
            return [y, x.grad as Tensor, integers].map((t) => Array.from(t.dataSync()));
          }),
        );
      const runtime = wasmRuntime(w.partList("test")[0]);
      const threads = runtime?.threads ?? 1;
      runtime?.setThreads(1);
      const one = run();
      for (const count of [2, 3]) {
        runtime?.setThreads(count);
        runtime?.waitForWorkers();
        expect(run()).toEqual(one);
      }
      runtime?.setThreads(threads);
    });
  });
});

describe.each(["int4_g32", "int4_g64", "int4_g128"] as const)("%s of a calibrated method", (name) => {
  it("has −8 among its codes, and scales of either sign, in all products", () => {
    tidy(() => {
      const format = formats[name];
      const random = uniform(5);
      const [rows, columns] = [40, 256];
      const data = Uint8Array.from({ length: (rows * columns) / 2 }, () => 256 * random());
      const scales = bell((rows * columns) / format.blockSize, 3, 0.1);
      const parts = {
        data: tensor(data, { shape: [rows, columns / 2] }),
        scales: tensor(scales),
      };
      using w = new QuantizedTensor(format, [rows, columns], new Map(Object.entries(parts)));
      const dense = w.dequantize();
      expect(data.some((byte) => (byte & 15) === 0)).toBe(true);
      expect(dense.dataSync()).toEqual(withoutKernels(() => w.dequantize()).dataSync());
      for (const count of [1, 3, 24]) {
        const x = bellTensor([count, columns], 3);
        const expected = x.matmul(dense, { transB: true }).dataSync();
        expect(relativeError(quantizedMatmul(x, w).dataSync(), expected)).toBeLessThan(1e-5);
        const integers = noGrad(() => quantizedMatmul(x, w, { activations: "int8" }));
        expect(relativeError(integers.dataSync(), expected)).toBeLessThan(0.02);
      }
    });
  });
});

describe("quantizedMatmul", () => {
  afterEach(() => expect(memoryStats().leaked).toBe(0));

  it("says which shapes do not fit", () => {
    tidy(() => {
      using w = quantize(bellTensor([8, 64], 1), { format: "nf4" });
      expect(() => quantizedMatmul(bellTensor([2, 32], 1), w)).toThrow(
        "quantizedMatmul: the last axis of x [2, 32] should be 64, that of the weight [8, 64]",
      );
      expect(() => quantizedMatmul(bellTensor([2, 64], 1, 1, "reference"), w)).toThrow(
        /x is on reference, the weight on wasm/,
      );
      const refused = (options: object) => () => quantizedMatmul(bellTensor([2, 64], 1), w, options);
      expect(refused({ activations: "int4" })).toThrow(/activations must be/);
      expect(refused({ activationScale: 0.1 })).toThrow(/activationScale needs activations: "int8"/);
      for (const activationScale of [0, -1, Number.NaN, 1e39, 1e-46]) {
        expect(refused({ activations: "int8", activationScale })).toThrow(
          /activationScale must be a positive/,
        );
      }
      for (const activationZeroPoint of [-129, 128, 0.5]) {
        expect(refused({ activations: "int8", activationScale: 1, activationZeroPoint })).toThrow(
          /activationZeroPoint must be an integer from −128 to 127/,
        );
      }
      expect(refused({ activations: "int8", activationZeroPoint: 3 })).toThrow(/needs an activationScale/);
    });
  });

  it("runs backward after the weight was disposed: the graph holds what it needs", () => {
    tidy(() => {
      const w = quantize(bellTensor([8, 64], 1), { format: "nf4" });
      const x = bellTensor([2, 64], 1);
      x.requiresGrad = true;
      const y = quantizedMatmul(x, w).sum();
      w.dispose();
      y.backward();
      expect(x.grad?.shape).toEqual([2, 64]);
      expect(() => quantizedMatmul(x, w)).toThrow(/nf4 weight \[8, 64\] was used after it was disposed/);
    });
  });

  it("keeps exact activations while a gradient is recorded", () => {
    tidy(() => {
      using w = quantize(bellTensor([8, 64], 1), { format: "q8_0" });
      const x = bellTensor([1, 64], 1);
      const exact = quantizedMatmul(x, w).dataSync();
      expect(noGrad(() => quantizedMatmul(x, w, { activations: "int8" })).dataSync()).not.toEqual(exact);
      x.requiresGrad = true;
      expect(quantizedMatmul(x, w, { activations: "int8" }).dataSync()).toEqual(exact);
    });
  });

  it("computes 16-bit floats in float32", () => {
    tidy(() => {
      using w = quantize(bellTensor([8, 64], 1), { format: "q8_0" });
      const x = bellTensor([3, 64], 1).cast("bfloat16");
      const y = quantizedMatmul(x, w);
      expect(y.dtype).toBe("float32");
      expect(y.dataSync()).toEqual(quantizedMatmul(x.cast("float32"), w).dataSync());
    });
  });
});

describe("quantize", () => {
  it("takes views and 16-bit floats", () => {
    tidy(() => {
      const weight = bellTensor([64, 48], 1);
      using view = quantize(weight.transpose(), { format: "nf4" });
      using copy = quantize(weight.transpose().clone(), { format: "nf4" });
      expect(view.shape).toEqual([48, 64]);
      expect(view.dequantize().dataSync()).toEqual(copy.dequantize().dataSync());
      using half = quantize(weight.cast("float16"), { format: "int8" });
      expect(half.error?.sqnr).toBeGreaterThan(35);
    });
  });

  it("refuses what is no weight", () => {
    tidy(() => {
      expect(() => quantize(bellTensor([4, 4, 4], 1), { format: "nf4" })).toThrow(/not \[4, 4, 4\]/);
      expect(() => quantize(bellTensor([4, 4], 1), { format: "nf5" as never })).toThrow(
        /unknown format "nf5" \(known: nf4/,
      );
      expect(() => quantize(bellTensor([4, 172], 1), { format: "q4_0", name: "down" })).toThrow(
        /down: q4_0 needs rows that are a multiple of 32 long, not 172/,
      );
    });
  });

  it("knows integer formats of any group size by name", () => {
    tidy(() => {
      using w = quantize(bellTensor([4, 600], 1), { format: "int4_asym_g256" });
      expect(Array.from(w.parts, ([name, part]) => [name, part.size])).toEqual([
        ["data", 1200],
        ["scales", 12],
        ["zeroPoints", 12],
      ]);
      expect(() => quantize(bellTensor([4, 64], 1), { format: "int4_g33" })).toThrow(/multiple of 32/);
    });
  });

  it("measures the error", () => {
    tidy(() => {
      const weight = bellTensor([300, 64], 1);
      using w = quantize(weight, { format: "q4_0" });
      const x = weight.dataSync();
      const back = w.dequantize().dataSync();
      let noise = 0;
      let signal = 0;
      let max = 0;
      x.forEach((value, i) => {
        noise += (value - back[i]) ** 2;
        signal += value ** 2;
        max = Math.max(max, Math.abs(value - back[i]));
      });
      expect(w.error?.rms).toBeCloseTo(Math.sqrt(noise / x.length), 6);
      expect(w.error?.sqnr).toBeCloseTo(10 * Math.log10(signal / noise), 3);
      expect(w.error?.max).toBeCloseTo(max, 6);
      expect(w.bitsPerWeight).toBe(4.5);
    });
  });
});
