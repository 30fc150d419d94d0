// Quantized weights on the gpu backend, in the modes of gpu.js that Node always has: the wasm backend's numbers, from weights that
// stay packed on the device.

import { init, mul, noGrad, shutdown, type Tensor, tensor, tidy } from "@nomoat/core";
import { gpuBackend } from "@nomoat/core/gpu";
import { Linear, Sequential } from "@nomoat/core/nn";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { BlockFormat } from "../src/formats/format.js";
import { formatByName } from "../src/formats/index.js";
import {
  QuantizedLinear,
  QuantizedTensor,
  quantize,
  quantizedMatmul,
  quantizeModel,
  quantizeModelAsync,
} from "../src/index.js";
import { bell, names, relativeError } from "./helpers.js";

/** Rows of 96, so that blocks of 64 cross rows; the last count goes through the unpacked weight. */
const shape: [number, number] = [70, 96];
const rowCounts = [1, 3, 9];

interface Outcome {
  dense: ArrayLike<number>;
  outputs: ArrayLike<number>[];
  gradients: ArrayLike<number>[];
}

async function compute(device: "wasm" | "gpu", name: string): Promise<Outcome> {
  const weight = tensor(bell(shape[0] * shape[1], 1), { shape, device });
  const w = quantize(weight, { format: formatByName(name) });
  const dense = w.dequantize();
  const outcome: Outcome = { dense: await dense.data(), outputs: [], gradients: [] };
  for (const rows of rowCounts) {
    const x = tensor(bell(rows * shape[1], 2), { shape: [rows, shape[1]], device, requiresGrad: true });
    const y = quantizedMatmul(x, w);
    y.backward(tensor(bell(rows * shape[0], 3), { shape: [rows, shape[0]], device }));
    outcome.outputs.push(await y.data());
    outcome.gradients.push(await (x.grad as Tensor).data());
    for (const each of [x, y]) each.dispose();
  }
  for (const each of [weight, w, dense]) each.dispose();
  return outcome;
}

const decoded = (name: string) => (formatByName(name) as BlockFormat).element !== undefined;

describe.each(["webasm", "cpu"] as const)("on %s", (mode) => {
  beforeAll(() => init({ backend: "gpu", mode }));
  afterAll(shutdown);

  it.each(names)("%s gives what wasm gives", async (name) => {
    const [expected, actual] = [await compute("wasm", name), await compute("gpu", name)];
    expect(relativeError(actual.dense, expected.dense)).toBeLessThan(1e-6);
    for (const [i] of rowCounts.entries()) {
      expect(relativeError(actual.outputs[i], expected.outputs[i])).toBeLessThan(4e-6);
      expect(relativeError(actual.gradients[i], expected.gradients[i])).toBeLessThan(4e-6);
    }
  });
});

describe("packed weights", () => {
  beforeAll(() => init({ backend: "gpu", mode: "webasm" }));
  afterAll(shutdown);

  it("all formats that are written decode on the device", () => {
    expect(names.filter((name) => !decoded(name))).toEqual([]);
  });

  it("a format that is only read is decoded on the host", async () => {
    const format = formatByName("q4_K");
    const results = (["wasm", "gpu"] as const).map((device) => {
      const [{ shape: bytes }] = format.parts([6, 256]);
      // Bytes below 59 make no float16 that is infinite.
      const codes = Uint8Array.from({ length: bytes[0] * bytes[1] }, (_, i) => (i * 7) % 59);
      const data = tensor(codes, { shape: bytes, device });
      const w = new QuantizedTensor(format, [6, 256], new Map([["data", data]]));
      const x = tensor(bell(5 * 256, 2), { shape: [5, 256], device });
      const y = quantizedMatmul(x, w);
      for (const each of [w, x]) each.dispose();
      return y;
    });
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
    expect(() => quantizeModel(refused, { format: "nf4" })).toThrow(/reads what it computed asynchronously/);
    const { total } = await quantizeModelAsync(model, { format: "nf4" });
    expect(total.error?.sqnr).toBeGreaterThan(15);
    const layer = model[0] as QuantizedLinear;
    expect(layer).toBeInstanceOf(QuantizedLinear);
    expect(layer.quantized.device).toBe("gpu");
    await quantizeModelAsync(budget, { bitsPerWeight: 6 });
    expect((budget[0] as QuantizedLinear).quantized.bitsPerWeight).toBeLessThanOrEqual(6);
    for (const each of [refused, model, budget]) each.dispose();
  });
});
