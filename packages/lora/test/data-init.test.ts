// Beginnings that need more than the configuration: LoftQ a quantizer, EVA data.

import { Generator, init, type Tensor, tensor } from "@nomoat/core";
import { Linear, type LinearBase, Module } from "@nomoat/core/nn";
import { beforeAll, describe, expect, it } from "vitest";
import { applyEva, applyLora, initLoftq } from "../src/index.js";
import { fromTensor, multiply, svd } from "../src/linalg.js";
import { maxDifference, normalTensor, randomize, reference64, TinyModel, tokens } from "./model.js";

beforeAll(() => init({ backend: "reference" }));

/** Rounds to multiples of a step. */
function rounded(step: number) {
  return (weight: Tensor, layer: LinearBase) => {
    const values = Float64Array.from(weight.dataSync(), (value) => Math.round(Number(value) / step) * step);
    const { shape, dtype, device } = weight;
    return new Linear(tensor(values, { shape, dtype, device }), layer.bias?.clone().detach());
  };
}

describe("initLoftq", () => {
  it("splits a weight into a quantized one and its best correction", () => {
    const model = new TinyModel();
    const original = model.getModule("model.layers.0.mlp.up_proj") as Linear;
    const weight = fromTensor("test", original.weight);
    const adapter = applyLora(model, { r: 3, loraAlpha: 6, targetModules: ["up_proj"] });
    const [error] = initLoftq(adapter, { quantize: rounded(0.2) });
    const lost = { ...weight, data: weight.data.map((value) => value - Math.round(value / 0.2) * 0.2) };
    const { s } = svd(lost);
    const norm = Math.hypot(...weight.data);
    expect(error.name).toBe("model.layers.0.mlp.up_proj");
    expect(error.before).toBeCloseTo(Math.hypot(...s) / norm, 12);
    expect(error.after).toBeCloseTo(Math.hypot(...s.slice(3)) / norm, 12);
    const [a, b] = adapter.parameters().map((each) => fromTensor("test", each));
    const product = multiply(b, a).data.map((value) => value * 2);
    const rest = product.map((value, i) => value - lost.data[i]);
    expect(Math.hypot(...rest) / norm).toBeCloseTo(error.after, 12);
    const base = adapter.layers.get(error.name)?.base_layer as Linear;
    expect([...base.weight.dataSync()]).toEqual(
      [...weight.data].map((value) => Math.round(value / 0.2) * 0.2),
    );
    expect(original.weight.disposed).toBe(true);
    expect(model.trainableParameters()).toHaveLength(4);
    model.forward(tokens()).sum().backward();
    expect(adapter.parameters().every((parameter) => parameter.grad !== null)).toBe(true);
  });

  it("gets closer by turns, and takes the original weights from elsewhere", () => {
    const dense = new TinyModel({ width: 16 });
    const out = dense.forward(tokens());
    const distances = [0, 1, 8].map((iterations) => {
      const model = new TinyModel({ width: 16 });
      const adapter = applyLora(model, { r: 6, targetModules: "all-linear" });
      if (iterations > 0)
        initLoftq(adapter, {
          iterations,
          svdIterations: 8,
          quantize: rounded(0.1),
          weight: (name) => (dense.getModule(name) as Linear).weight,
        });
      else {
        initLoftq(adapter, { quantize: rounded(0.1) });
        adapter.disable();
      }
      return maxDifference(model.forward(tokens()), out);
    });
    expect(distances[1]).toBeLessThan(distances[0]);
    expect(distances[2]).toBeLessThan(distances[0]);
  });

  it("refuses what rests on the base", () => {
    const refuse = (config: object, message: RegExp) =>
      expect(() => initLoftq(applyLora(new TinyModel(), config))).toThrow(message);
    refuse({ useDora: true }, /rests on/);
    refuse({ bias: "all" }, /rests on/);
    refuse({ targetModules: ["embed_tokens"] }, /no plain low-rank/);
    refuse({ r: 7 }, /rank 7 exceeds/);
    expect(() => initLoftq(applyLora(new TinyModel(), { r: 2 }).merge())).toThrow(/is merged/);
    expect(() => initLoftq(applyLora(new TinyModel()), { iterations: 0 })).toThrow(/iterations/);
  });
});

class Two extends Module {
  first = Linear.create(5, 5, { ...reference64, generator: new Generator(1) });
  second = Linear.create(5, 5, { ...reference64, generator: new Generator(2) });

  override forward(x: Tensor, y: Tensor): Tensor {
    return this.first.forward(x).add(this.second.forward(y));
  }
}

describe("applyEva", () => {
  const scaled = (scales: number[], seed: number) =>
    normalTensor([400, 5], seed).mul(tensor(scales, { shape: [5], ...reference64 }));

  it("begins with the directions of most variance and gives ranks where they explain most", () => {
    const model = new Two();
    const [x, y] = [scaled([0, 0, 9, 0, 0.1], 1), scaled([2, 2.2, 1.9, 2.1, 2], 2)];
    const before = model.forward(x, y);
    const adapter = applyEva(
      model,
      { r: 2, loraAlpha: 4, targetModules: ["first", "second"] },
      () => model.forward(x.add(7), y),
      { rho: 1.5 },
    );
    expect(maxDifference(model.forward(x, y), before)).toBe(0);
    const shapes = adapter.parameters().map((parameter) => parameter.shape);
    expect(shapes).toEqual([
      [1, 5],
      [5, 1],
      [3, 5],
      [5, 3],
    ]);
    const [a] = adapter.parameters();
    expect([...a.dataSync()].map((value) => Math.abs(Math.round(Number(value) * 100) / 100))).toEqual([
      0, 0, 1, 0, 0,
    ]);
    expect([...adapter.branches().values()].map((branch) => branch.scaling)).toEqual([2, 2]);
    randomize(adapter.parameters());
    expect(Object.hasOwn(model.first, "forward")).toBe(false);
  });

  it("keeps ranks with rho 1, and refuses what it cannot", () => {
    const model = new TinyModel();
    const run = () => void model.forward(tokens());
    const adapter = applyEva(model, { r: 2 }, run, { rho: 1, name: "eva" });
    expect([...adapter.branches().values()].map((branch) => branch.r)).toEqual([2, 2, 2, 2]);
    expect(() => applyEva(new TinyModel(), { r: 7 }, run)).toThrow(/fewer inputs/);
    expect(() => applyEva(new TinyModel(), { peftType: "LOHA" }, run)).toThrow(/does not apply/);
    expect(() => applyEva(new TinyModel(), {}, () => {}, { rho: 0 })).toThrow(/rho/);
    expect(() => applyEva(new TinyModel(), { r: 2 }, () => {})).toThrow(/no inputs that vary/);
  });
});
