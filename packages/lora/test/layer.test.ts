// The operation and the layer: gradients, dropout, sharing of memory, merging.

import {
  checkpoint,
  Generator,
  gradcheck,
  gradientsOf,
  init,
  keep,
  manualSeed,
  matmul,
  memoryStats,
  noGrad,
  type Tensor,
  tidy,
} from "@nomoat/core";
import { Linear, LinearBase } from "@nomoat/core/nn";
import { beforeAll, describe, expect, it } from "vitest";
import { resolveLoraConfig } from "../src/config.js";
import { LoraLinear } from "../src/index.js";
import { lowRankUpdate, replayableMask } from "../src/low-rank.js";
import { plainLora } from "../src/variants/lora.js";
import { maxDifference, normalTensor, randomize, reference64 } from "./model.js";

beforeAll(() => init({ backend: "reference" }));

function branchOn(layer: LinearBase, name = "default", r = 2, dropout = 0) {
  const config = resolveLoraConfig({ r, loraAlpha: 3, loraDropout: dropout });
  return plainLora.create(layer, {
    adapter: name,
    config,
    target: { name: "layer", r, alpha: 3, scaling: 3 / r },
    ...reference64,
    generator: new Generator(3),
    shared: new Map(),
  });
}

function adapted(options: { names?: string[]; dropout?: number } = {}) {
  const base = Linear.create(5, 4, { ...reference64, generator: new Generator(1) });
  base.requiresGrad(false);
  const layer = new LoraLinear(base);
  for (const [i, name] of (options.names ?? ["default"]).entries()) {
    const branch = branchOn(base, name, 2 + i, options.dropout);
    randomize(branch.parameters(), 7 + i);
    layer.slots.add(branch);
  }
  return { base, layer };
}

const grad = (tensor: Tensor) => {
  tensor.requiresGrad = true;
  return tensor;
};

describe("low-rank update", () => {
  it.each([[[5]], [[3, 5]], [[2, 3, 5]], [[0, 5]], [[2, 0, 5]]])(
    "has the gradients of finite differences for x %j",
    (shape) => {
      const out = [...shape.slice(0, -1), 4];
      const inputs = [
        normalTensor(shape, 1),
        normalTensor(out, 2),
        normalTensor([2, 5], 3),
        normalTensor([4, 2], 4),
      ].map(grad);
      gradcheck((x, y, a, b) => lowRankUpdate(x, y.mul(1), a, b, { scaling: 1.5 }), inputs);
      for (let only = 0; only < 4; only++) {
        for (const [i, input] of inputs.entries()) input.requiresGrad = i === only;
        gradcheck((x, y, a, b) => lowRankUpdate(x, y.mul(1), a, b, { scaling: 1.5 }), inputs);
      }
    },
  );

  it("has them with dropout, whose mask is drawn again in backward", () => {
    const inputs = [
      normalTensor([6, 5], 1),
      normalTensor([6, 4], 2),
      normalTensor([2, 5], 3),
      normalTensor([4, 2], 4),
    ].map(grad);
    gradcheck(
      (x, y, a, b) =>
        lowRankUpdate(x, y.mul(1), a, b, { scaling: 1.5, mask: replayableMask(0.4, new Generator(9)) }),
      inputs,
    );
  });

  it("has them for strided views and when x is used thrice", () => {
    const inputs = [
      normalTensor([5, 3], 1),
      normalTensor([4, 5], 2),
      normalTensor([2, 5], 3),
      normalTensor([4, 2], 4),
    ].map(grad);
    gradcheck((x, w, a, b) => {
      const xt = x.transpose();
      const y = lowRankUpdate(xt, matmul(xt, w, { transB: true }), a, b, { scaling: 2 });
      const z = lowRankUpdate(xt, matmul(xt, w, { transB: true }), a, b, { scaling: -1 });
      return y.mul(z).add(xt.sum());
    }, inputs);
  });

  it("writes into an output that nobody else sees, and leaves others alone", () => {
    const [x, a, b] = [normalTensor([3, 5], 1), normalTensor([2, 5], 3), normalTensor([4, 2], 4)];
    const y = normalTensor([3, 4], 2);
    const buffer = y.storage.buffer;
    expect(lowRankUpdate(x, y, a, b, { scaling: 1 }).storage.buffer).toBe(buffer);
    const seen = normalTensor([3, 4], 2);
    const view = seen.transpose();
    const before = [...view.dataSync()];
    expect(lowRankUpdate(x, seen, a, b, { scaling: 1 }).storage.buffer).not.toBe(seen.storage.buffer);
    expect([...view.dataSync()]).toEqual(before);
  });

  it("leaves alone what a base saved for its backward", () => {
    class Squashed extends LinearBase {
      readonly inner: Linear;
      readonly bias = null;
      constructor(inner: Linear) {
        super();
        this.inner = inner;
      }
      get inFeatures() {
        return this.inner.inFeatures;
      }
      get outFeatures() {
        return this.inner.outFeatures;
      }
      override forward(x: Tensor) {
        return tidy(() => this.inner.forward(x).tanh());
      }
      override denseWeight() {
        return this.inner.denseWeight();
      }
      override withDenseWeight(weight: Tensor) {
        return new Squashed(this.inner.withDenseWeight(weight));
      }
    }
    const layer = new LoraLinear(new Squashed(Linear.create(5, 4, reference64)));
    const branch = branchOn(layer);
    randomize(branch.parameters());
    layer.slots.add(branch);
    gradcheck((x) => layer.forward(x), [grad(normalTensor([3, 5], 1))]);
  });
});

describe("LoraLinear", () => {
  it("is base + scaling · B·A, the base's weight without gradient", () => {
    const { base, layer } = adapted();
    const x = grad(normalTensor([2, 3, 5], 1));
    const y = layer.forward(x);
    const [a, b] = [...layer.adapters[0].tensors().values()];
    const expected = base.forward(x).add(x.matmul(a, { transB: true }).matmul(b, { transB: true }).mul(1.5));
    expect(maxDifference(y, expected)).toBeLessThan(1e-14);
    y.square().sum().backward();
    expect(base.weight.grad).toBeNull();
    const mine = [x.grad, a.grad, b.grad] as Tensor[];
    const theirs = gradientsOf(expected.square().sum(), [x, a, b]);
    for (let i = 0; i < 3; i++) expect(maxDifference(mine[i], theirs[i])).toBeLessThan(1e-12);
  });

  it("draws dropout in training only, unbiased, and replays given masks", () => {
    const { layer } = adapted({ dropout: 0.5 });
    const x = normalTensor([400, 5], 1);
    const still = layer.eval().forward(x);
    expect(maxDifference(still, layer.forward(x))).toBe(0);
    layer.train();
    const noisy = layer.forward(x);
    expect(maxDifference(still, noisy)).toBeGreaterThan(0.01);
    layer.adapters[0].dropoutMask = (input) => input.mul(0).add(2);
    const [a, b] = [...layer.adapters[0].tensors().values()];
    const doubled = still.add(x.matmul(a, { transB: true }).matmul(b, { transB: true }).mul(1.5));
    expect(maxDifference(layer.forward(x), doubled)).toBeLessThan(1e-12);
    layer.adapters[0].dropoutMask = null;
    gradcheck(
      (input) => {
        const fresh = adapted({ dropout: 0.5 }).layer;
        manualSeed(4);
        return fresh.forward(input);
      },
      [grad(normalTensor([3, 5], 2))],
    );
  });

  it("drops the same elements again within a checkpoint", () => {
    const gradients = [false, true].map((checkpointed) => {
      const { layer } = adapted({ dropout: 0.5 });
      const x = grad(normalTensor([8, 5], 1));
      manualSeed(3);
      const run = (input: Tensor) => layer.forward(input);
      const y = checkpointed ? checkpoint(run, x) : run(x);
      y.square().sum().backward();
      return [x, ...layer.adapters[0].parameters()].map((tensor) => [...(tensor.grad?.dataSync() ?? [])]);
    });
    expect(gradients[1]).toEqual(gradients[0]);
  });

  it("merges and unmerges any subset, the base's bytes unharmed", () => {
    const { base, layer } = adapted({ names: ["a", "b", "c"] });
    const x = normalTensor([3, 5], 1);
    const bytes = [...base.weight.dataSync()];
    const all = layer.forward(x);
    for (const names of [["a"], ["c", "a"], ["a", "b", "c"]]) {
      layer.merge(names);
      expect(maxDifference(layer.forward(x), all)).toBeLessThan(1e-13);
      expect(layer.mergedAdapters.sort()).toEqual([...names].sort());
      layer.unmerge(["a"]);
      expect(maxDifference(layer.forward(x), all)).toBeLessThan(1e-13);
      layer.unmerge();
      expect(layer.base_layer).toBe(base);
      expect([...base.weight.dataSync()]).toEqual(bytes);
    }
    expect(maxDifference(layer.denseWeight(), layer.original.denseWeight())).toBeGreaterThan(0.1);
  });

  it("runs without a merged adapter that is disabled or reweighted, without unmerging", () => {
    const { base, layer } = adapted({ names: ["a", "b"] });
    const x = normalTensor([3, 5], 1);
    layer.merge();
    for (const branch of layer.adapters) branch.enabled = false;
    expect(maxDifference(layer.forward(x), base.forward(x))).toBe(0);
    layer.adapters[0].enabled = true;
    layer.adapters[0].weight = 0.5;
    const merged = layer.forward(x);
    expect(layer.mergedAdapters).toEqual(["a", "b"]);
    layer.unmerge();
    expect(maxDifference(layer.forward(x), merged)).toBe(0);
  });

  it("gives merged adapters no gradients, loudly", () => {
    const { layer } = adapted();
    layer.merge();
    const x = normalTensor([3, 5], 1);
    expect(() => layer.forward(x).sum().backward()).toThrow(/does not depend/);
    layer.unmerge();
    layer.forward(x).sum().backward();
    for (const tensor of layer.adapters[0].parameters()) expect(tensor.grad).not.toBeNull();
  });

  it("refuses to merge what is not finite, and changes nothing", () => {
    const { base, layer } = adapted();
    noGrad(() => layer.adapters[0].parameters()[0].copyFrom(new Float64Array(10).fill(Number.NaN)));
    expect(() => layer.merge()).toThrow(/lora_A\.weight has values that are not finite/);
    expect(layer.base_layer).toBe(base);
  });

  it("leaks nothing", () => {
    const { layer } = adapted({ names: ["a", "b"], dropout: 0.2 });
    const x = keep(grad(normalTensor([3, 5], 1)));
    const step = () => {
      tidy(() => layer.forward(x).square().sum().backward());
      layer.zeroGrad();
      x.zeroGrad();
      layer.merge(["a"]);
      layer.unmerge();
    };
    step();
    const before = memoryStats();
    for (let i = 0; i < 3; i++) step();
    expect(memoryStats().tensors).toBe(before.tensors);
    expect(memoryStats().storages).toBe(before.storages);
  });
});
