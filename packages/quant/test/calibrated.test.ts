// GPTQ, AWQ and HQQ against round-to-nearest, and their parts.

import {
  ArgumentError,
  Generator,
  init,
  matmul,
  memoryStats,
  randn,
  type Tensor,
  tensor,
  tidy,
} from "@nomoat/core";
import { Linear, Module } from "@nomoat/core/nn";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { inverseFactor } from "../src/calibrated/cholesky.js";
import { GridCoder } from "../src/calibrated/grid.js";
import { fitLine, lineError, searchLine, spanningLine } from "../src/calibrated/line.js";
import { formatByName } from "../src/formats/index.js";
import {
  ActivationStatistics,
  collectStatistics,
  outputError,
  QuantizedLinear,
  type QuantizedTensor,
  quantize,
  quantizeAwq,
  quantizeGptq,
  quantizeHqq,
  quantizeModel,
} from "../src/index.js";
import { bell, bellTensor, inputFeatures, inputs, uniform } from "./helpers.js";

beforeAll(() => init({ backend: "reference" }));
afterAll(() => init({ backend: "wasm" }));

const rows = 24;
const columns = inputFeatures;

/** Mean squared error of outputs on inputs that no method has seen. */
function unseenError(weight: Tensor, approximation: Tensor): number {
  return tidy(() =>
    matmul(inputs(300, 2), weight.sub(approximation), { transB: true }).square().mean().item(),
  );
}

function statistics(): ActivationStatistics {
  const found = new ActivationStatistics(columns);
  const x = inputs(500, 1);
  found.add(x);
  x.dispose();
  return found;
}

const formats = [
  "int4_g32",
  "int4_asym_g32",
  "int4_asym_g64",
  "int8",
  "q4_0",
  "q4_1",
  "q5_1",
  "q8_0",
] as const;

describe.each(formats)("%s", (format) => {
  const measure = (
    make: (weight: Tensor) => QuantizedTensor,
  ): [error: number, nearest: number, q: QuantizedTensor] => {
    const weight = bellTensor([rows, columns], 3, 0.1);
    const nearest = quantize(weight, { format });
    const made = make(weight);
    const errors = tidy(() => [made, nearest].map((each) => unseenError(weight, each.dequantize())));
    nearest.dispose();
    weight.dispose();
    return [errors[0], errors[1], made];
  };

  it.each([true, false])("GPTQ beats round-to-nearest, act-order %s", (actOrder) => {
    const [error, nearest, made] = measure((weight) =>
      quantizeGptq(weight, statistics(), { format, actOrder }),
    );
    expect(error).toBeLessThan(0.7 * nearest);
    expect(made.format.name).toBe(format);
    made.dispose();
  });

  it("AWQ beats round-to-nearest", () => {
    const weight = bellTensor([rows, columns], 3, 0.1);
    const nearest = quantize(weight, { format });
    const { weight: made, inputScales } = quantizeAwq(weight, statistics(), { format });
    const layer = new QuantizedLinear(made, null, { inputScales });
    const [error, base] = tidy(() => [
      unseenError(weight, layer.denseWeight()),
      unseenError(weight, nearest.dequantize()),
    ]);
    expect(error).toBeLessThan(0.9 * base);
    const x = inputs(3, 8);
    tidy(() => {
      const expected = matmul(x, layer.denseWeight(), { transB: true }).dataSync();
      for (const [i, y] of (layer.forward(x).dataSync() as Float32Array).entries()) {
        expect(Math.abs(y - Number(expected[i]))).toBeLessThan(1e-4);
      }
    });
    expect([...layer.stateDict().keys()]).toContain("inputScales");
    layer.dispose();
    for (const each of [weight, nearest, x]) each.dispose();
  });
});

describe("GPTQ's descent", () => {
  it.each(["int4_g32", "int4_asym_g64", "q4_0", "q4_1"] as const)("never adds to the error: %s", (format) => {
    const weight = bellTensor([rows, columns], 3, 0.1);
    const seen = statistics();
    const [without, with_] = [0, 8].map((passes) => {
      const made = quantizeGptq(weight, seen, { format, passes, damping: 1e-6 });
      const error = tidy(() => outputError(weight, made.dequantize(), seen));
      made.dispose();
      return error;
    });
    expect(with_).toBeLessThan(without);
    weight.dispose();
  });
});

describe("lines", () => {
  const values = bell(64, 7, 0.2);
  const random = uniform(3);
  const weights = Float64Array.from(values, () => 0.1 + random());

  it.each(["int4_g64", "int4_asym_g64", "int8_g64", "q4_0", "q4_1", "q5_0", "q8_0"] as const)(
    "of %s are searched to less weighted error than round-to-nearest's, and the fit beats its neighbours",
    (name) => {
      const format = formatByName(name);
      const values32 = values.subarray(0, Math.min(64, format.blockSize));
      const coder = new GridCoder("test", format, [1, values32.length], "w");
      const { grids } = coder;
      const nearest = coder.fit(values32);
      const found = searchLine(coder, values32, weights);
      const error = lineError(grids, values32, weights, found);
      expect(error).toBeLessThan(lineError(grids, values32, weights, nearest));
      expect(grids.nearest(found)).toEqual(found);
      // Whole numbers that lie on a line of the format are found again.
      const codes = Int16Array.from(values32, (_, i) => grids.least + (i % (grids.most - grids.least + 1)));
      const line = grids.nearest({ scale: 0.125, offset: grids.offsets === "none" ? 0 : -0.5 });
      const targets = Float64Array.from(codes, (code) => line.scale * code + line.offset);
      const again = fitLine(grids, codes, targets, weights);
      expect(again?.scale).toBeCloseTo(line.scale, 6);
      expect(again?.offset).toBeCloseTo(line.offset, 6);
      // Its whole range is within half a step, but for the end with a code less.
      const spanning = spanningLine(grids, values32);
      const widest = Math.max(...values32.map((x) => Math.abs(x)));
      for (const x of values32) {
        const loss = lineError(grids, [x], null, spanning) ** 0.5;
        if (Math.abs(x) < widest * 0.85) expect(loss).toBeLessThanOrEqual(Math.abs(spanning.scale) * 0.51);
      }
    },
  );

  it("keep a group of zeros, and its error at 0", () => {
    const coder = new GridCoder("test", formatByName("int4_asym_g64"), [1, 64], "w");
    const zeros = new Float32Array(64);
    expect(lineError(coder.grids, zeros, null, searchLine(coder, zeros, weights))).toBe(0);
  });
});

describe("HQQ", () => {
  it.each(["int4_g64", "int4_asym_g32", "int4_asym_g64", "int8_asym_g64", "q4_0", "q4_1", "q5_1"] as const)(
    "has less error than round-to-nearest in weights and outputs: %s",
    (format) => {
      const weight = bellTensor([4 * rows, columns], 3, 0.1);
      const nearest = quantize(weight, { format });
      const made = quantizeHqq(weight, { format });
      expect(made.error?.noise).toBeLessThan(nearest.error?.noise as number);
      const [error, base] = tidy(() =>
        [made, nearest].map((each) => {
          // Without calibration there is no knowing channels: inputs of one spread.
          const x = randn([2000, columns], { generator: new Generator(4) });
          return matmul(x, weight.sub(each.dequantize()), { transB: true }).square().mean().item();
        }),
      );
      expect(error).toBeLessThan(base);
      for (const each of [weight, nearest, made]) each.dispose();
    },
  );
});

describe("quantizeModel", () => {
  class Model extends Module {
    layer = new Linear(bellTensor([rows, columns], 3, 0.1));
    override forward(x: Tensor): Tensor {
      return this.layer.forward(x);
    }
  }

  it.each(["hqq", "gptq", "awq"] as const)("takes the method %s, and reports its error", async (method) => {
    const [model, nearest] = [new Model(), new Model()];
    const x = inputs(200, 1);
    const found = await collectStatistics(model, () => tidy(() => void model.forward(x)));
    const weight = bellTensor([rows, columns], 3, 0.1);
    const report = quantizeModel(model, { format: "int4_asym_g64", method, statistics: found });
    quantizeModel(nearest, { format: "int4_asym_g64" });
    const dense = [model, nearest].map(({ layer }) => layer.denseWeight());
    const [error, base] = dense.map((each) =>
      outputError(weight, each, found.get("layer") as ActivationStatistics),
    );
    if (method !== "hqq") expect(error).toBeLessThan(0.9 * base);
    const exact = tidy(() => weight.sub(dense[0]).square().sum().item());
    expect(report.total.error?.noise).toBeCloseTo(exact, 6);
    for (const each of [model, nearest, x, weight, ...dense]) each.dispose();
  });

  it("refuses a method without its statistics, and an unknown one; the model stays", () => {
    const model = new Model();
    expect(() => quantizeModel(model, { format: "int8", method: "gptq" })).toThrow(
      "gptq needs statistics of layer",
    );
    expect(() => quantizeModel(model, { format: "int8", method: "best" as "awq" })).toThrow(
      "unknown method best",
    );
    expect(model.layer).toBeInstanceOf(Linear);
    model.dispose();
  });
});

describe("calibration", () => {
  it("gathers the inputs of the layers, and leaves the model as it was", async () => {
    class Model extends Module {
      first = Linear.create(6, 5);
      second = Linear.create(5, 4);
      override forward(x: Tensor): Tensor {
        return tidy(() => this.second.forward(this.first.forward(x).relu()));
      }
    }
    const model = new Model();
    const { first, second } = model;
    const x = tensor(bell(2 * 3 * 6, 1), { shape: [2, 3, 6] });
    const found = await collectStatistics(model, async () => model.forward(x).dispose());
    expect([model.first, model.second]).toEqual([first, second]);
    expect([...found.keys()]).toEqual(["first", "second"]);
    const seen = found.get("first") as ActivationStatistics;
    expect(seen.count).toBe(6);
    const data = x.dataSync() as Float32Array;
    let sum = 0;
    for (let row = 0; row < 6; row++) sum += data[row * 6 + 1] * data[row * 6 + 4];
    expect(seen.products[1 * 6 + 4]).toBeCloseTo(sum, 5);
    await expect(
      collectStatistics(model, () => {
        throw new Error("stop");
      }),
    ).rejects.toThrow("stop");
    expect(model.first).toBe(first);
    await expect(
      collectStatistics(
        model,
        () => {},
        () => false,
      ),
    ).rejects.toThrow(ArgumentError);
    x.dispose();
    model.dispose();
  });

  it("factors the inverse", () => {
    const n = 7;
    const b = bell(n * n, 2);
    const a = new Float64Array(n * n);
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) {
        for (let k = 0; k < n; k++) a[i * n + j] += b[i * n + k] * b[j * n + k];
        if (i === j) a[i * n + j] += 0.5;
      }
    }
    const u = inverseFactor(a.slice(), n);
    // (Uᵀ·U)·A = 1.
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) {
        let sum = 0;
        for (let k = 0; k < n; k++) {
          for (let l = 0; l < n; l++) sum += u[k * n + i] * u[k * n + l] * a[l * n + j];
        }
        expect(sum).toBeCloseTo(i === j ? 1 : 0, 9);
        if (j < i) expect(u[i * n + j]).toBe(0);
      }
    }
    expect(() => inverseFactor(new Float64Array(4), 2)).toThrow("positive definite");
    // Singular by its last pivot alone.
    expect(() => inverseFactor(Float64Array.of(1, 1, 1, 1), 2)).toThrow("positive definite");
  });

  it("refuses what it cannot do, and leaves nothing behind", () => {
    const weight = bellTensor([rows, columns], 3);
    const bad = tensor(Float32Array.of(1, Number.NaN), { shape: [1, 2] });
    const seen = statistics();
    const bytes = memoryStats().bytes;
    expect(() => quantizeGptq(weight, seen, { format: "nf4" })).toThrow("nf4 is not a format of integers");
    expect(() => quantizeHqq(weight, { format: "q4_K" })).toThrow("not a format of integers");
    expect(() => quantizeHqq(bad, { format: "int4_g32", name: "w" })).toThrow("w: NaN at index [0, 1]");
    const infinite = tensor(
      Float32Array.from({ length: 128 }, (_, i) => (i === 70 ? -Infinity : 1)),
      {
        shape: [2, 64],
      },
    );
    const place = "w: -Infinity at index [1, 6]";
    expect(() => quantizeGptq(infinite, seen, { format: "q4_0", name: "w" })).toThrow(place);
    for (const format of ["q4_0", "nf4"] as const) {
      expect(() => quantizeAwq(infinite, seen, { format, name: "w" })).toThrow(place);
    }
    infinite.dispose();
    const wrong = (options: object) => () =>
      quantizeAwq(weight, seen, { format: "int8", ...options }).weight.dispose();
    expect(wrong({ scales: [1] })).toThrow("1 scales for a weight of 64");
    expect(wrong({ scales: new Float32Array(64) })).toThrow("scales must be positive");
    expect(wrong({ steps: 0 })).toThrow("steps 0 is no count");
    expect(() => quantizeGptq(weight, seen, { format: "int8", passes: -1 })).toThrow("passes -1 is no count");
    expect(() => quantizeGptq(weight, new ActivationStatistics(columns), { format: "int8" })).toThrow(
      "no inputs",
    );
    expect(() => quantizeAwq(bad, seen, { format: "int8" })).toThrow("statistics of 64 features");
    expect(memoryStats().bytes).toBe(bytes);
    const same = quantizeHqq(weight, { format: "int4_g32" });
    const error = tidy(() => outputError(weight, same.dequantize(), seen));
    expect(error).toBeGreaterThan(0);
    for (const each of [weight, bad, same]) each.dispose();
  });
});
