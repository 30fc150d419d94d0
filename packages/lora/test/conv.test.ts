// Adapters on convolutions.

import { conv2d, Generator, gradientsOf, init, memoryStats, noGrad, type Tensor, tensor } from "@nomoat/core";
import { Conv2d, Linear, Module } from "@nomoat/core/nn";
import { serializeSafetensors } from "@nomoat/core/safetensors";
import { beforeAll, describe, expect, it } from "vitest";
import {
  addWeightedAdapter,
  applyLora,
  type LoraConfig,
  loadAdapter,
  loadKohyaAdapter,
  mergeAndUnload,
  serializeAdapter,
  withAdapterRows,
} from "../src/index.js";
import { fromTensor, multiply, svd } from "../src/linalg.js";
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

  it.each([false, true])("(IA)³ scales channels, of the input %s", (feedforward) => {
    const own = { peftType: "IA3", targetModules: ["conv"] } as const;
    const model = new Net();
    const x = normalTensor([2, 3, 5, 6], 3);
    const l = normalTensor([1, feedforward ? 3 : 4, 1, 1], 4);
    const adapter = applyLora(model, { ...own, feedforwardModules: feedforward ? ["conv"] : null });
    adapter.loadStateDict(new Map([["base_model.model.conv.ia3_l", l]]));
    const base = new Net().conv;
    const expected = feedforward ? base.forward(x.mul(l)) : base.forward(x).mul(l);
    expect(maxDifference(model.conv.forward(x), expected)).toBeLessThan(1e-13);
    adapter.merge();
    expect(maxDifference(model.conv.forward(x), expected)).toBeLessThan(1e-13);
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

  it.each<[string, Partial<LoraConfig>]>([
    ["DoRA", { useDora: true }],
    ["loraBias", { loraBias: true }],
    ["PiSSA", { initLoraWeights: "pissa", useRslora: true }],
    ["fast PiSSA", { initLoraWeights: "pissa_niter_4" }],
    ["OLoRA", { initLoraWeights: "olora" }],
    ["gaussian", { initLoraWeights: "gaussian" }],
  ])("%s: fresh, merged, unmerged, saved", async (_, extra) => {
    const model = new Net();
    const x = normalTensor([2, 3, 5, 6], 3);
    const before = model.forward(x);
    const base = [...model.conv.weight.dataSync()];
    const adapter = applyLora(model, { ...config, ...extra }, "default", { generator: new Generator(3) });
    expect(maxDifference(model.forward(x), before)).toBeLessThan(1e-13);
    randomize(adapter.parameters());
    adapter.weight = 0.7;
    const out = model.forward(x);
    expect(maxDifference(out, before)).toBeGreaterThan(0.01);
    adapter.merge();
    expect(maxDifference(model.forward(x), out)).toBeLessThan(1e-12);
    adapter.unmerge();
    expect(maxDifference(model.forward(x), out)).toBe(0);
    adapter.weight = 1;
    const files = await serializeAdapter(adapter, { dtype: "float64" });
    const other = new Net();
    const loaded = await loadAdapter(other, files);
    expect(maxDifference(other.forward(x), model.forward(x))).toBeLessThan(1e-12);
    expect([...(await serializeAdapter(loaded, { dtype: "float64" }))]).toEqual([...files]);
    const tensors = memoryStats().tensors;
    adapter.remove();
    expect(memoryStats().tensors).toBeLessThan(tensors);
    expect([...model.conv.weight.dataSync()]).toEqual(base);
  });

  it("begins with the best approximation of the weight as a matrix (PiSSA)", () => {
    const model = new Net();
    const weight = fromTensor("test", model.conv.weight.detach().reshape([4, 18]));
    const adapter = applyLora(model, {
      r: 2,
      targetModules: ["conv"],
      initLoraWeights: "pissa",
      loraAlpha: 6,
    });
    const [a, b] = adapter.parameters().map((x) => fromTensor("test", x.detach().reshape([x.shape[0], -1])));
    const part = multiply(b, a).data.map((value) => 3 * value);
    const { s } = svd(weight);
    const rest = Math.hypot(...weight.data.map((value, i) => value - part[i]));
    expect(rest).toBeCloseTo(Math.hypot(s[2], s[3]), 10);
  });

  it("is DoRA's formula, forward and backward", () => {
    const { model, adapter, x } = trained({ useDora: true, targetModules: ["conv"] });
    const [a, b, m] = adapter.parameters();
    expect(m.shape).toEqual([1, 4, 1, 1]);
    const { weight, bias, options } = new Net().conv;
    const product = b
      .reshape([4, 2])
      .matmul(a.reshape([2, 18]))
      .mul(3)
      .reshape(weight.shape);
    const adapted = weight.detach().add(product);
    const norm = noGrad(() => adapted.square().sum([1, 2, 3]).sqrt().reshape([4, 1, 1, 1]));
    const expected = conv2d(x, adapted.mul(m.reshape([4, 1, 1, 1]).div(norm)), bias, options);
    const actual = model.conv.forward(x);
    expect(maxDifference(actual, expected)).toBeLessThan(1e-13);
    const weights = normalTensor([...expected.shape], 7);
    const wanted = gradientsOf(expected.mul(weights).sum(), [a, b, m]);
    actual.mul(weights).sum().backward();
    [a, b, m].forEach((parameter, i) => {
      expect(maxDifference(parameter.grad as Tensor, wanted[i])).toBeLessThan(1e-12);
    });
  });

  it("works in groups as PEFT: A sees all channels, B works group by group, and nothing merges", async () => {
    const model = () => {
      const net = new Net();
      net.conv = Conv2d.create(3, 6, 3, { ...place, generator: new Generator(4), groups: 3, padding: 1 });
      net.out = Linear.create(6, 2, { ...reference64, generator: new Generator(2) });
      return net;
    };
    const net = model();
    const x = normalTensor([2, 3, 5, 6], 3);
    const adapter = applyLora(net, { r: 6, loraAlpha: 12, loraBias: true, targetModules: ["conv"] });
    randomize(adapter.parameters());
    const [a, b, bias] = adapter.parameters();
    expect([a.shape, b.shape]).toEqual([
      [6, 3, 3, 3],
      [6, 2, 1, 1],
    ]);
    const u = conv2d(x, a, null, { padding: 1 });
    const expected = model()
      .conv.forward(x)
      .add(conv2d(u, b, bias, { groups: 3 }).mul(2));
    expect(maxDifference(net.conv.forward(x), expected)).toBeLessThan(1e-13);
    expect(() => adapter.merge()).toThrow(/grouped convolution reads all channels/);
    const other = model();
    await loadAdapter(other, await serializeAdapter(adapter, { dtype: "float64" }));
    expect(maxDifference(other.forward(x), net.forward(x))).toBe(0);
    const refuse = (extra: Partial<LoraConfig>, message: RegExp) =>
      expect(() => applyLora(model(), { r: 6, targetModules: ["conv"], ...extra })).toThrow(message);
    refuse({ r: 4 }, /of 3 groups, which needs a rank that they divide, not 4/);
    refuse({ useDora: true }, /DoRA does not support/);
    refuse({ initLoraWeights: "pissa" }, /cannot begin with pissa/);
  });

  it("refuses what is not covered", () => {
    expect(() => trained({ peftType: "VERA" })).toThrow(/conv is a convolution, which VERA does not support/);
    expect(() => trained({ initLoraWeights: "orthogonal" })).toThrow(/cannot begin orthogonal/);
    const { adapter } = trained();
    expect(() => addWeightedAdapter([adapter], [1], "sum", { combinationType: "cat" })).toThrow(/only plain/);
    expect([...applyLora(new Net(), { targetModules: "all-linear" }).layers.keys()]).toEqual(["out"]);
  });

  it("is read from sd-scripts' keys, a convolution of one pixel also as a matrix", async () => {
    const float32 = { dtype: "float32", device: "reference" } as const;
    const normal = (shape: number[], seed: number) => normalTensor(shape, seed, float32);
    const net = new Net();
    net.out = Linear.create(4, 2, { ...reference64, generator: new Generator(2) });
    const [down, up] = [normal([2, 3, 3, 2], 1), normal([4, 2, 1, 1], 2)];
    const bytes = await serializeSafetensors(
      new Map([
        ["lora_unet_conv.lora_down.weight", down],
        ["lora_unet_conv.lora_up.weight", up],
        ["lora_unet_conv.alpha", tensor([1], { shape: [], ...float32 })],
        ["lora_unet_out.lora_down.weight", normal([1, 4, 1, 1], 3)],
        ["lora_unet_out.lora_up.weight", normal([2, 1, 1, 1], 4)],
      ]),
    );
    const x = normalTensor([2, 3, 5, 6], 3);
    const plain = net.conv.forward(x);
    const { options } = net.conv;
    const adapter = await loadKohyaAdapter(net, bytes, "lora_unet");
    const [a, b] = [down, up].map((factor) => factor.cast("float64"));
    const expected = plain.add(conv2d(conv2d(x, a, null, options), b).mul(0.5));
    expect(maxDifference(net.conv.forward(x), expected)).toBeLessThan(1e-6);
    expect(adapter.config).toMatchObject({ r: 2, rankPattern: { "^out$": 1 } });
    const other = new Map([["lora_unet_conv.hada_w1_a", down]]);
    await expect(loadKohyaAdapter(new Net(), await serializeSafetensors(other), "lora_unet")).rejects.toThrow(
      /"lora_unet_conv.hada_w1_a" belongs to another kind of adapter/,
    );
  });
});
