// Quantized weights on the gpu backend, in the modes of gpu.js that Node always has: the wasm backend's numbers, from weights that
// stay packed on the device.

import { init, memoryStats, mul, noGrad, shutdown, type Tensor, tensor, tidy } from "@nomoat/core";
import { operand } from "@nomoat/core/extend";
import { createGpuBackend, gpuBackend } from "@nomoat/core/gpu";
import { Linear, Sequential } from "@nomoat/core/nn";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runtime } from "../../core/src/runtime.js";
import { nodeModes } from "../../core/test/gpu/node-modes.js";
import type { BlockFormat } from "../src/formats/format.js";
import { formatByName } from "../src/formats/index.js";
import {
  ActivationStatistics,
  calibrateActivations,
  collectStatistics,
  QuantizedLinear,
  QuantizedTensor,
  quantize,
  quantizedMatmul,
  quantizeModel,
  quantizeModelAsync,
} from "../src/index.js";
import { packedWeight } from "../src/kernels.js";
import { gpuErrors, shapeFor } from "./gpu-outcome.js";
import { allNames, bell, relativeError, rowMultiple } from "./helpers.js";

const decoded = (name: string) => (formatByName(name) as BlockFormat).element !== undefined;

describe.each(nodeModes)("on %s", (mode) => {
  beforeAll(() => init({ backend: "gpu", mode }));
  afterAll(shutdown);

  it.each(allNames)("%s gives what wasm gives", async (name) => {
    const { dense, products } = await gpuErrors(name);
    expect(dense).toBeLessThan(1e-6);
    expect(products).toBeLessThan(4e-6);
  });
});

describe("packed weights", () => {
  beforeAll(() => init({ backend: "gpu", mode: "webasm" }));
  afterAll(shutdown);

  it("all formats decode on the device", () => {
    expect(allNames.filter((name) => !decoded(name))).toEqual([]);
  });

  /** 5 rows through a weight of two blocks a row whose bytes are `code(i)`. */
  function productOfBytes(format: BlockFormat, device: "wasm" | "gpu", code: (i: number) => number): Tensor {
    const [{ shape: bytes }] = format.parts([6, 512]);
    const codes = Uint8Array.from({ length: bytes[0] * bytes[1] }, (_, i) => code(i));
    const data = tensor(codes, { shape: bytes, device });
    const w = new QuantizedTensor(format, [6, 512], new Map([["data", data]]));
    const x = tensor(bell(5 * 512, 2), { shape: [5, 512], device });
    const y = quantizedMatmul(x, w);
    for (const each of [w, x]) each.dispose();
    return y;
  }

  it.each(allNames.filter((name) => rowMultiple(name) === 256))(
    "%s decodes any bytes as the host does",
    async (name) => {
      const format = formatByName(name) as BlockFormat;
      // Upper bytes of float16 scales: all exponent bits could make infinity.
      const scales = { q2_K: [81, 83], q3_K: [109], q4_K: [1, 3], q5_K: [1, 3], q6_K: [209] }[name as "q2_K"];
      const byte = (i: number) => {
        const value = (i * 73 + (i >> 3) * 31) % 256;
        return scales.includes(i % format.bytesPerBlock) ? value & 0x8f : value;
      };
      const results = (["wasm", "gpu"] as const).map((device) => productOfBytes(format, device, byte));
      const [expected, actual] = await Promise.all(results.map((y) => y.data()));
      expect(relativeError(actual, expected)).toBeLessThan(4e-6);
      for (const y of results) y.dispose();
    },
  );

  it("a format that says nothing of its elements is decoded on the host", async () => {
    const format: BlockFormat = { ...(formatByName("q4_K") as BlockFormat), element: undefined };
    // Bytes below 59 make no float16 that is infinite.
    const results = (["wasm", "gpu"] as const).map((device) =>
      productOfBytes(format, device, (i) => (i * 7) % 59),
    );
    const [expected, actual] = await Promise.all(results.map((y) => y.data()));
    expect(relativeError(actual, expected)).toBeLessThan(4e-6);
    for (const y of results) y.dispose();
  });

  it.each([
    ["nf4", 0.75],
    ["int4_g32", 0.9],
    ["q4_0", 0.8],
    ["int8", 1.4],
  ])("%s stays packed: %f bytes a weight at most", async (format, most) => {
    const features = 256;
    const weight = tensor(bell(features * features, 1), { shape: [features, features] });
    const before = gpuBackend().memory().used;
    const w = quantize(weight, { format: formatByName(format) });
    const x = tensor(bell(8 * features, 2), { shape: [8, features] });
    const [few, many] = tidy(() => [quantizedMatmul(x.slice([0, 1]), w), quantizedMatmul(x, w)]);
    await Promise.all([few.data(), many.data()]);
    for (const each of [x, few, many]) each.dispose();
    expect((gpuBackend().memory().used - before) / features ** 2).toBeLessThan(most);
    w.dispose();
    expect(gpuBackend().memory().used).toBe(before);
    weight.dispose();
  });

  it("packed bytes can be read back, and used by any operation", async () => {
    const codes = Uint8Array.from({ length: 2 ** 20 + 5 }, (_, i) => (i * 7) % 256);
    const bytes = tensor(codes);
    const doubled = mul(bytes.cast("float32"), 2);
    expect((await doubled.data()).subarray(0, 5)).toEqual(Float32Array.of(0, 14, 28, 42, 56));
    expect(Buffer.compare((await bytes.data()) as Uint8Array, codes)).toBe(0);
    const end = bytes.slice([2 ** 20, 2 ** 20 + 5]);
    expect(await end.data()).toEqual(codes.slice(2 ** 20));
    for (const each of [bytes, doubled, end]) each.dispose();
  });

  it("quantizeModelAsync quantizes what the device computed; quantizeModel says why it cannot", async () => {
    const make = () => {
      const weight = tensor(bell(64 * 32, 5), { shape: [32, 64] });
      const layer = new Linear(noGrad(() => mul(weight, 1)));
      weight.dispose();
      return new Sequential(layer);
    };
    const [refused, model, budget] = [make(), make(), make()];
    expect(() => quantizeModel(refused, { format: "nf4" })).toThrow(
      /^quantize: the result depends on values, and the gpu backend gives those only later: use await quantizeModelAsync/,
    );
    const { total } = await quantizeModelAsync(model, { format: "nf4" });
    expect(total.error?.sqnr).toBeGreaterThan(15);
    const layer = model[0] as QuantizedLinear;
    expect(layer).toBeInstanceOf(QuantizedLinear);
    expect(layer.quantized.device).toBe("gpu");
    await quantizeModelAsync(budget, { bitsPerWeight: 6 });
    expect((budget[0] as QuantizedLinear).quantized.bitsPerWeight).toBeLessThanOrEqual(6);
    for (const each of [refused, model, budget]) each.dispose();
  });

  it("statistics and ranges of activations are waited for, and methods that need them quantize as on wasm", async () => {
    const results = [];
    for (const device of ["wasm", "gpu"] as const) {
      const weights = [5, 6].map((seed) => tensor(bell(32 * 32, seed), { shape: [32, 32], device }));
      const model = new Sequential(...weights.map((weight) => new Linear(noGrad(() => mul(weight, 1)))));
      for (const weight of weights) weight.dispose();
      const { storages } = memoryStats();
      const run = () => {
        for (const seed of [1, 2]) {
          tidy(() => {
            const x = tensor(bell(6 * 32, seed), { shape: [6, 32], device });
            model.forward(mul(x, 1));
          });
        }
      };
      const statistics = await collectStatistics(model, run);
      const ranges = await calibrateActivations(model, run, { method: "minmax" });
      expect(memoryStats().storages).toBe(storages);
      await quantizeModelAsync(model, { format: "int4_g32", method: "gptq", statistics });
      const x = tensor(bell(3 * 32, 3), { shape: [3, 32], device });
      const y = noGrad(() => tidy(() => model.forward(x)));
      const { products, magnitudes, count } = statistics.get("1")!;
      const { low, high } = ranges.get("1")!;
      results.push({ products, magnitudes, count, range: [low, high], outputs: await y.data() });
      if (device === "gpu") {
        const later = new ActivationStatistics(32);
        expect(() => later.add(y)).toThrow(/use await addLater\(x\)/);
      }
      for (const each of [x, y, model]) each.dispose();
    }
    const [expected, actual] = results;
    expect(actual.count).toBe(expected.count);
    for (const what of ["products", "magnitudes", "range", "outputs"] as const) {
      expect(relativeError(actual[what], expected[what])).toBeLessThan(4e-6);
    }
  });
});

describe("a device whose kernels read 7 arrays", () => {
  beforeAll(async () => {
    await init({ backend: "wasm" });
    runtime.backends.set("gpu", await createGpuBackend({ mode: "webasm", mostInputs: 7 }));
  });
  afterAll(shutdown);

  it.each(allNames)("%s adds its product to what is there", async (name) => {
    const format = formatByName(name) as BlockFormat;
    const shape = shapeFor(name);
    const weight = tensor(bell(shape[0] * shape[1], 1), { shape, device: "gpu" });
    const w = quantize(weight, { format });
    const x = tensor(bell(3 * shape[1], 2), { shape: [3, shape[1]], device: "gpu" });
    const product = noGrad(() => quantizedMatmul(x, w));
    const sum = noGrad(() => mul(tensor(bell(3 * shape[0], 4), { shape: [3, shape[0]], device: "gpu" }), 1));
    const before = await sum.data();
    const packed = packedWeight(format, shape, [...w.parts.values()])!;
    gpuBackend().fused.packedMatmul!(operand(x), packed, false, 1, operand(sum));
    const expected = (await product.data()).map((value, i) => Number(value) + Number(before[i]));
    expect(relativeError(await sum.data(), expected as Float32Array)).toBeLessThan(1e-6);
    for (const each of [weight, w, x, product, sum]) each.dispose();
  });
});
