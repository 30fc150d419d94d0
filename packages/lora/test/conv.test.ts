// Adapters on convolutions.

import { conv2d, Generator, init, type Tensor } from "@nomoat/core";
import { Conv2d, Linear, Module } from "@nomoat/core/nn";
import { beforeAll, describe, expect, it } from "vitest";
import {
  addWeightedAdapter,
  applyLora,
  type LoraConfig,
  loadAdapter,
  mergeAndUnload,
  serializeAdapter,
  withAdapterRows,
} from "../src/index.js";
import { maxDifference, normalTensor, randomize, reference64 } from "./model.js";

beforeAll(() => init({ backend: "reference" }));

const place = { ...reference64, generator: new Generator(1) };

class Net extends Module {
  conv = Conv2d.create(3, 4, [3, 2], { ...reference64, generator: new Generator(1), stride: 2, padding: 1 });
  out = Linear.create(4, 2, { ...reference64, generator: new Generator(2) });

  override forward(x: Tensor): Tensor {
    return this.out.forward(this.conv.forward(x).permute(0, 2, 3, 1));
  }
}

const config: Partial<LoraConfig> = { r: 2, loraAlpha: 6, targetModules: ["conv", "out"] };

function trained(extra: Partial<LoraConfig> = {}) {
  const model = new Net();
  const x = normalTensor([2, 3, 5, 6], 3);
  const before = model.forward(x);
  const adapter = applyLora(model, { ...config, ...extra });
  expect(maxDifference(model.forward(x), before)).toBe(0);
  randomize(adapter.parameters());
  return { model, adapter, x, before };
}

describe("convolution LoRA", () => {
  it("is PEFT's: A convolves, B mixes channels", () => {
    const { model, adapter, x } = trained();
    const [a, b] = adapter.parameters();
    expect([a.shape, b.shape]).toEqual([
      [2, 3, 3, 2],
      [4, 2, 1, 1],
    ]);
    const base = new Net().conv;
    const expected = base.forward(x).add(conv2d(conv2d(x, a, null, base.options), b).mul(3));
    expect(maxDifference(model.conv.forward(x), expected)).toBeLessThan(1e-13);
    model.forward(x).square().sum().backward();
    expect(adapter.parameters().every((parameter) => parameter.grad !== null)).toBe(true);
  });

  it("merges, unmerges, saves, and serves rows", async () => {
    const { model, adapter, x, before } = trained();
    const out = model.forward(x);
    adapter.merge();
    expect(maxDifference(model.forward(x), out)).toBeLessThan(1e-12);
    adapter.unmerge();
    expect(maxDifference(model.forward(x), out)).toBe(0);
    const mixed = withAdapterRows(model, ["default", null], () => model.forward(x));
    expect(maxDifference(mixed.slice([0, 1]), out.slice([0, 1]))).toBeLessThan(1e-13);
    expect(maxDifference(mixed.slice([1, 2]), before.slice([1, 2]))).toBeLessThan(1e-13);
    const files = await serializeAdapter(adapter, { dtype: "float64" });
    const other = new Net();
    const loaded = await loadAdapter(other, files);
    expect(maxDifference(other.forward(x), out)).toBe(0);
    expect([...(await serializeAdapter(loaded, { dtype: "float64" }))]).toEqual([...files]);
    mergeAndUnload(model);
    expect(model.conv).toBeInstanceOf(Conv2d);
    expect(maxDifference(model.forward(x), out)).toBeLessThan(1e-12);
  });

  it("refuses what is not covered", () => {
    expect(() => trained({ useDora: true })).toThrow(/takes plain LoRA/);
    expect(() => trained({ initLoraWeights: "pissa" })).toThrow(/takes plain LoRA/);
    const grouped = new Net();
    grouped.conv = Conv2d.create(3, 3, 1, { ...place, groups: 3 });
    expect(() => applyLora(grouped, config)).toThrow(/without groups/);
    const { adapter } = trained();
    expect(() => addWeightedAdapter([adapter], [1], "sum", { combinationType: "cat" })).toThrow(/only plain/);
    expect([...applyLora(new Net(), { targetModules: "all-linear" }).layers.keys()]).toEqual(["out"]);
  });
});
