// AWQ's scales folded into the modules before: what a layer would multiply its inputs by costs nothing there.

import { concat, init, memoryStats, type Tensor, tensor, tidy } from "@nomoat/core";
import { Linear, Module, RMSNorm } from "@nomoat/core/nn";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { collectStatistics, type QuantizedLinear, quantizeModel } from "../src/index.js";
import { bellTensor, inputs } from "./helpers.js";

beforeAll(() => init({ backend: "reference" }));
afterAll(() => init({ backend: "wasm" }));

describe("AWQ's mappings", () => {
  /** norm → two layers; value → (each channel twice) out; up → down. All is linear between them. */
  class Model extends Module {
    norm = new RMSNorm(tensor(Float32Array.from({ length: 64 }, (_, i) => 1 + (i % 7) / 10)));
    value = new Linear(bellTensor([32, 64], 3, 0.1), bellTensor([32], 4));
    gate = new Linear(bellTensor([64, 64], 5, 0.1));
    out = new Linear(bellTensor([64, 64], 6, 0.1));
    override forward(x: Tensor): Tensor {
      return tidy(() => {
        const inner = this.norm.forward(x);
        const v = this.value.forward(inner);
        return this.out.forward(concat([v, v], -1)).mul(this.gate.forward(inner));
      });
    }
  }
  const mappings = [
    { smoothLayer: "norm", balanceLayers: ["value", "gate"] },
    {
      ...{ smoothLayer: "value", balanceLayers: ["out"] },
      channels: Array.from({ length: 64 }, (_, i) => i % 32),
    },
  ];

  it("fold scales into the modules before: the same function, and no more error than without", async () => {
    const [folded, own, reference] = [new Model(), new Model(), new Model()];
    const x = inputs(300, 1);
    const found = await collectStatistics(folded, () => tidy(() => void folded.forward(x)));
    const norm = Float32Array.from(folded.norm.weight.dataSync() as Float32Array);
    const options = { format: "int4_g32", method: "awq", statistics: found } as const;
    const report = quantizeModel(folded, { ...options, mappings });
    quantizeModel(own, options);
    for (const name of ["value", "gate", "out"] as const) {
      expect((folded[name] as unknown as QuantizedLinear).inputScales).toBeNull();
      expect((own[name] as unknown as QuantizedLinear).inputScales).not.toBeNull();
    }
    expect(folded.norm.weight.dataSync()).not.toEqual(norm);
    expect(report.layers.every(({ error }) => (error?.sqnr ?? 0) > 15)).toBe(true);
    const [a, b, c] = tidy(() => {
      const y = reference.forward(x);
      const plain = new Model();
      quantizeModel(plain, { format: "int4_g32" });
      const errors = [folded, own, plain].map((each) => each.forward(x).sub(y).square().mean().item());
      plain.dispose();
      return errors;
    });
    expect(a).toBeLessThan(0.7 * c);
    expect(b).toBeLessThan(0.7 * c);
    // In a fine format nothing is left but the folding itself.
    const fine = new Model();
    const statisticsOfFine = await collectStatistics(fine, () => tidy(() => void fine.forward(x)));
    quantizeModel(fine, { format: "int8_g32", method: "awq", statistics: statisticsOfFine, mappings });
    tidy(() => {
      const y = reference.forward(x);
      const error = fine.forward(x).sub(y).square().mean().item() / y.square().mean().item();
      expect(error).toBeLessThan(1e-3);
    });
    for (const each of [folded, own, reference, fine, x]) each.dispose();
  });

  it("leave layers that are skipped, and those around them, as they are", async () => {
    const model = new Model();
    const x = inputs(100, 1);
    const found = await collectStatistics(model, () => tidy(() => void model.forward(x)));
    const norm = Float32Array.from(model.norm.weight.dataSync() as Float32Array);
    quantizeModel(model, { format: "int4_g32", method: "awq", statistics: found, mappings, skip: ["gate"] });
    expect(model.norm.weight.dataSync()).toEqual(norm);
    expect((model.value as unknown as QuantizedLinear).inputScales).not.toBeNull();
    expect((model.out as unknown as QuantizedLinear).inputScales).toBeNull();
    model.dispose();
    x.dispose();
  });

  it("are refused where they do not fit, and the model stays", async () => {
    const model = new Model();
    const x = inputs(100, 1);
    const found = await collectStatistics(model, () => tidy(() => void model.forward(x)));
    const before = memoryStats().tensors;
    const work = (mapping: object, more: object = {}) => {
      const options = { format: "int4_g32", method: "awq", statistics: found, ...more } as const;
      return () => quantizeModel(model, { ...options, mappings: [mapping as never] });
    };
    const good = mappings[0];
    expect(work({ ...good, smoothLayer: "nrm" })).toThrow(/nrm/);
    expect(work({ ...good, balanceLayers: ["vlue"] })).toThrow(/vlue/);
    expect(work({ ...mappings[1], channels: undefined })).toThrow(/out have 64 inputs.*32 channels/);
    expect(work({ ...mappings[1], channels: new Array(64).fill(32) })).toThrow(/out have 64 inputs/);
    expect(work(good, { method: "gptq" })).toThrow("mappings are for the method awq");
    expect(work(good, { statistics: new Map() })).toThrow("awq needs statistics of value");
    expect(model.gate).toBeInstanceOf(Linear);
    expect(memoryStats().tensors).toBe(before);
    model.dispose();
    x.dispose();
  });
});
