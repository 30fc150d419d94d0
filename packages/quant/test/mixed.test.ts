// Formats chosen for a budget of bits, and the chart of a report.

import { ArgumentError, init, noGrad, tensor, tidy } from "@nomoat/core";
import { Linear, Module } from "@nomoat/core/nn";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ActivationStatistics, quantizationReport, quantizeModel } from "../src/index.js";
import { bell } from "./helpers.js";

beforeAll(() => init({ backend: "reference" }));
afterAll(() => init({ backend: "wasm" }));

class Model extends Module {
  layers = Array.from({ length: 4 }, () => Linear.create(64, 32, { bias: false }));
  small = Linear.create(20, 32);
  override forward(): never {
    throw new Error("not run");
  }
}

/** Layer 2 has an outlier in every block, which makes it the hardest. */
function model(): Model {
  const made = new Model();
  noGrad(() => {
    for (const [i, { weight }] of made.layers.entries()) {
      const values = bell(weight.size, i + 1);
      if (i === 2) for (let at = 0; at < values.length; at += 32) values[at] = 40;
      weight.copyFrom(values);
    }
  });
  return made;
}

describe("bitsPerWeight", () => {
  it.each([4.6, 5, 6, 7, 9])("keeps to %d bits, and more bits give less error", (bitsPerWeight) => {
    const [a, b] = [model(), model()];
    const { total, layers } = quantizeModel(a, { bitsPerWeight });
    const bits = (8 * total.bytes) / total.parameters;
    expect(bits).toBeLessThanOrEqual(bitsPerWeight);
    const fewer = quantizeModel(b, { bitsPerWeight: 4.55 });
    expect(total.error?.noise).toBeLessThanOrEqual(fewer.total.error?.noise as number);
    expect(layers).toHaveLength(5);
    a.dispose();
    b.dispose();
  });

  it("spends the bits where they tell", () => {
    const mixed = model();
    const { layers } = quantizeModel(mixed, {
      bitsPerWeight: 5.5,
      candidates: ["nf4", "int8"],
      skip: ["small"],
    });
    const formats = layers.map(({ format }) => format);
    expect(formats[2]).toBe("int8");
    expect(formats.filter((format) => format === "nf4").length).toBeGreaterThanOrEqual(2);
    mixed.dispose();
  });

  it("weighs layers by what their outputs lose, where the inputs are known", () => {
    const mixed = model();
    // Inputs reach little but the outliers of layer 2, which are coded exactly: it loses next to nothing.
    const statistics = new Map(
      mixed.layers.map((_, layer) => {
        const seen = new ActivationStatistics(64);
        const heavy = (column: number) => layer !== 2 || column % 32 === 0;
        const values = Float32Array.from(
          { length: 100 * 64 },
          (__, i) => (heavy(i % 64) ? 1 : 1e-3) * ((i % 7) - 3),
        );
        tidy(() => seen.add(tensor(values, { shape: [100, 64] })));
        return [`layers.${layer}`, seen];
      }),
    );
    const options = { bitsPerWeight: 5.5, candidates: ["nf4", "int8"], skip: ["small"] } as const;
    const { layers } = quantizeModel(mixed, { ...options, statistics });
    const plain = model();
    const without = quantizeModel(plain, options).layers.map(({ format }) => format);
    expect(without[2]).toBe("int8");
    const formats = layers.map(({ format }) => format);
    expect(formats[2]).toBe("nf4");
    expect(formats.filter((format) => format === "int8")).toHaveLength(1);
    mixed.dispose();
    plain.dispose();
  });

  it("leaves layers with a pattern of their own their format", () => {
    const mixed = model();
    const perModule = [[/layers\.[01]/, "q8_0"]] as const;
    const { layers, total } = quantizeModel(mixed, { bitsPerWeight: 6.7, perModule });
    expect(layers.slice(0, 2).map(({ format }) => format)).toEqual(["q8_0", "q8_0"]);
    expect((8 * total.bytes) / total.parameters).toBeLessThanOrEqual(6.7);
    mixed.dispose();
  });

  it("refuses what cannot be, and leaves the model", () => {
    const mixed = model();
    expect(() => quantizeModel(mixed, { bitsPerWeight: 3 })).toThrow(
      /3 bits per weight are less than the 4\.\d+/,
    );
    expect(() => quantizeModel(mixed, { bitsPerWeight: Number.NaN })).toThrow(ArgumentError);
    expect(() => quantizeModel(mixed, {})).toThrow("either a format or bitsPerWeight");
    expect(() => quantizeModel(mixed, { format: "nf4", bitsPerWeight: 5 })).toThrow("either");
    expect(mixed.layers.every((layer) => layer instanceof Linear)).toBe(true);
    mixed.dispose();
  });
});

describe("toSVG", () => {
  it("has a bar for each layer, the longest for the best, and escapes names", () => {
    const mixed = model();
    const report = quantizeModel(mixed, { format: "nf4", perModule: [["layers.0", "int8"]] });
    const svg = report.toSVG();
    const bars = Array.from(svg.matchAll(/<rect x="\d+" y="[\d.]+" width="([\d.]+)"/g), ([, width]) =>
      Number(width),
    );
    expect(bars).toHaveLength(5);
    expect(bars[0]).toBe(360);
    expect(Math.max(...bars.slice(1))).toBeLessThan(360);
    expect(svg).toContain("nf4, 4.");
    mixed.dispose();
    const tensors = quantizationReport(model(), { format: "int8" });
    const odd = { ...tensors.layers[0], name: '<&"\u0007' };
    const chart = new (tensors.constructor as new (layers: object[]) => typeof tensors)([odd]).toSVG();
    expect(chart).toContain("&lt;&amp;&quot;�");
  });
});
