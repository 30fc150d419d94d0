// Static quantization of activations: ranges, rounding to the grid, and layers that keep theirs.

import { ArgumentError, init, matmul, type Tensor, tensor, tidy } from "@nomoat/core";
import { Linear, Module } from "@nomoat/core/nn";
import { loadSafetensors, serializeSafetensors } from "@nomoat/core/safetensors";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  ActivationHistogram,
  activationGrid,
  calibrateActivations,
  QuantizedLinear,
  quantizeModel,
} from "../src/index.js";
import { bell, bellTensor, relativeError } from "./helpers.js";

beforeAll(() => init({ backend: "reference" }));
afterAll(() => init({ backend: "wasm" }));

/** scale · (clamp(round(x/scale) + zeroPoint) − zeroPoint), in plain numbers. */
function rounded(x: number, { scale, zeroPoint }: { scale: number; zeroPoint: number }): number {
  const place = Math.max(-128, Math.min(127, Math.fround(Math.fround(x / scale) + zeroPoint)));
  const floor = Math.floor(place);
  const rest = place - floor;
  const code = rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
  return Math.fround((code - zeroPoint) * scale);
}

describe("activationGrid", () => {
  it("covers the range and 0 exactly, each value within half a step (the ends: one)", () => {
    const finite = fc.float({ noNaN: true, noDefaultInfinity: true, min: -1000, max: 1000 });
    fc.assert(
      fc.property(finite, finite, (a, b) => {
        const [low, high] = [Math.min(a, b), Math.max(a, b)];
        const grid = activationGrid({ low, high });
        expect(grid.scale).toBeGreaterThan(0);
        expect(Number.isInteger(grid.zeroPoint)).toBe(true);
        expect(rounded(0, grid)).toBe(0);
        for (const x of [low, high, (low + high) / 2]) {
          expect(Math.abs(rounded(x, grid) - x)).toBeLessThanOrEqual(grid.scale * 1.001);
        }
      }),
    );
    expect(() => activationGrid({ low: 1, high: 0 })).toThrow("is no range");
    expect(() => activationGrid({ low: Number.NaN, high: 0 })).toThrow(ArgumentError);
  });
});

describe("ActivationHistogram", () => {
  const histogram = (...parts: ArrayLike<number>[]) => {
    const made = new ActivationHistogram();
    for (const part of parts) made.add(part);
    return made;
  };

  it("counts the same, whether its range grew or not", () => {
    const values = bell(5000, 3, 2);
    const first = histogram(values, [0, 0, 100]);
    const last = histogram([100], values, [0, 0]);
    expect(first.reach).toBe(128);
    expect(first.counts).toEqual(last.counts);
    expect(first.counts.reduce((a, b) => a + b)).toBe(5003);
    const zeros = histogram([0, 0], [3]);
    expect(zeros.counts).toEqual(histogram([3, 0, 0]).counts);
  });

  it("finds minimum and maximum, percentiles, and the range with the least error", () => {
    const values = bell(20000, 5);
    values[7] = 40;
    const seen = histogram(values);
    expect(seen.range({ method: "minmax" })).toEqual({ low: Math.min(...values), high: 40 });
    const sorted = values.slice().sort();
    const kept = seen.range({ method: "percentile", percentile: 99 });
    expect(Math.abs(kept.low - sorted[100])).toBeLessThan(0.05);
    expect(Math.abs(kept.high - sorted[19900])).toBeLessThan(0.05);
    const error = (range: { low: number; high: number }) => {
      const grid = activationGrid(range);
      return values.reduce((sum, x) => sum + (rounded(x, grid) - x) ** 2, 0);
    };
    const best = error(seen.range({ method: "mse" }));
    for (const method of ["minmax", "percentile"] as const) {
      expect(best).toBeLessThanOrEqual(error(seen.range({ method })) * 1.02);
    }
    // Without outliers nothing is worth cutting off.
    const even = histogram(Float32Array.from({ length: 1000 }, (_, i) => i / 100 - 5));
    expect(even.range().high).toBeGreaterThan(4.7);
  });

  it("refuses what has no range", () => {
    expect(() => histogram([1, Number.NaN])).toThrow("NaN at 1");
    expect(() => histogram().range()).toThrow("nothing was seen");
    expect(() => histogram([1]).range({ method: "best" as "mse" })).toThrow("unknown method best");
    expect(() => histogram([1]).range({ method: "percentile", percentile: 0 })).toThrow("percentile 0");
    expect(histogram([0, 0]).range()).toEqual({ low: 0, high: 0 });
  });
});

class Model extends Module {
  first: Linear | QuantizedLinear = new Linear(bellTensor([24, 64], 1, 0.2));
  second: Linear | QuantizedLinear = new Linear(bellTensor([8, 24], 2, 0.2), bellTensor([8], 3));
  override forward(x: Tensor): Tensor {
    return tidy(() => this.second.forward(this.first.forward(x).relu()));
  }
}

describe("a layer with static activations", () => {
  it("computes with inputs rounded to its grid, and passes gradients within the range", () => {
    const grid = activationGrid({ low: -1, high: 2 });
    const weight = bellTensor([5, 64], 1);
    const layer = QuantizedLinear.from(weight, null, "int8", { activationGrid: grid });
    const values = bell(3 * 64, 4, 1.5);
    tidy(() => {
      const x = tensor(values, { shape: [3, 64], requiresGrad: true });
      const y = layer.forward(x);
      const inputs = tensor(
        values.map((value) => rounded(value, grid)),
        { shape: [3, 64] },
      );
      const expected = matmul(inputs, layer.denseWeight(), { transB: true });
      expect(relativeError(y.dataSync(), expected.dataSync())).toBeLessThan(1e-6);
      y.sum().backward();
      const columns = layer.denseWeight().sum(0).dataSync();
      const dx = x.grad?.dataSync() ?? [];
      for (const [i, value] of values.entries()) {
        const place = value / grid.scale + grid.zeroPoint;
        if (Math.abs(place + 128) < 1e-3 || Math.abs(place - 127) < 1e-3) continue;
        const inside = place > -128 && place < 127;
        expect(Math.abs(dx[i] - (inside ? Number(columns[i % 64]) : 0))).toBeLessThan(1e-5);
      }
    });
    layer.dispose();
    weight.dispose();
  });

  it("computes the same by integers, where there are kernels", async () => {
    const results: ArrayLike<number>[] = [];
    for (const backend of ["reference", "wasm"] as const) {
      await init({ backend });
      for (const rows of [1, 3, 40]) {
        tidy(() => {
          const activationGrid = { scale: 0.011, zeroPoint: -7 };
          const layer = QuantizedLinear.from(bellTensor([24, 96], 1), null, "int8", { activationGrid });
          results.push(layer.forward(bellTensor([rows, 96], rows)).dataSync());
          layer.dispose();
        });
      }
    }
    await init({ backend: "reference" });
    for (const i of [0, 1, 2]) expect(relativeError(results[i + 3], results[i])).toBeLessThan(1e-5);
  });

  it.each(["minmax", "percentile", "mse"] as const)(
    "comes from calibration (%s), is saved and loaded with the model",
    async (method) => {
      const [model, other] = [new Model(), new Model()];
      const x = bellTensor([100, 64], 6);
      const layers = [model.first, model.second];
      const ranges = await calibrateActivations(model, () => model.forward(x).dispose(), { method });
      expect([model.first, model.second]).toEqual(layers);
      expect([...ranges.keys()]).toEqual(["first", "second"]);
      expect(ranges.get("second")?.low).toBeGreaterThanOrEqual(0);
      const exact = model.forward(x);
      quantizeModel(model, { format: "int8", activations: ranges });
      const grid = (model.second as QuantizedLinear).activationGrid;
      expect(grid?.zeroPoint).toBe(-128);
      const y = model.forward(x);
      expect(relativeError(y.dataSync(), exact.dataSync())).toBeLessThan(0.05);

      const file = await serializeSafetensors(model.stateDict());
      const { tensors } = await loadSafetensors(file);
      const anything = new Map([...ranges.keys()].map((name) => [name, { low: -1, high: 1 }]));
      quantizeModel(other, { format: "int8", activations: anything });
      other.loadStateDict(tensors);
      expect((other.second as QuantizedLinear).activationGrid).toEqual(grid);
      const again = other.forward(x);
      expect(again.dataSync()).toEqual(y.dataSync());
      for (const each of [x, exact, y, again, model, other, ...tensors.values()]) each.dispose();
    },
  );

  it("is refused with the reason; the model stays", async () => {
    const model = new Model();
    const one = new Map([["first", { low: 0, high: 1 }]]);
    expect(() => quantizeModel(model, { format: "int8", activations: one })).toThrow(
      "there is no range of activations for second",
    );
    expect(model.first).toBeInstanceOf(Linear);
    const weight = bellTensor([5, 64], 1);
    const make = (scale: number, zeroPoint: number) => () =>
      QuantizedLinear.from(weight, null, "int8", { activationGrid: { scale, zeroPoint } });
    expect(make(0, 0)).toThrow("scale must be positive");
    expect(make(1, 128)).toThrow("zeroPoint from −128 to 127");
    const bad = tensor(new Float32Array(64).fill(Number.NaN), { shape: [1, 64] });
    await expect(calibrateActivations(model, () => model.forward(bad).dispose())).rejects.toThrow(
      "first: ActivationHistogram: NaN at 0",
    );
    for (const each of [model, weight, bad]) each.dispose();
  });
});
