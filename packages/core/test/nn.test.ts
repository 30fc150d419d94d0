// Modules: names, state, replacing, modes; the layers.

import { inspect } from "node:util";
import { beforeAll, describe, expect, test } from "vitest";
import * as nm from "../src/index.js";
import * as nn from "../src/nn/index.js";
import { backends, on } from "./support/backends.js";
import { expectClose, expectNoLeak } from "./support/numbers.js";

beforeAll(() => nm.init({ backend: "reference" }));

class Block extends nn.Module {
  readonly norm = nn.RMSNorm.create(3);
  readonly projections = [nn.Linear.create(3, 3), nn.Linear.create(3, 3, { bias: false })];
  readonly scale = nn.parameter(nm.ones([3]));
  readonly offset = nm.keep(nm.zeros([3]));
  protected override readonly buffers = new Set(["offset"]);
  readonly drop = new nn.Dropout(0.5);

  override forward(x: nm.Tensor): nm.Tensor {
    return nm.tidy(() => {
      let y = this.norm.forward(x);
      for (const layer of this.projections) y = layer.forward(y);
      return nm.add(nm.mul(this.drop.forward(y), this.scale), this.offset);
    });
  }
}

class Model extends nn.Module {
  readonly embed = nn.Embedding.create(5, 3);
  readonly layers = [new Block(), new Block()];
  readonly head: nn.Linear;

  constructor() {
    super();
    this.head = new nn.Linear(this.embed.weight); // tied
  }

  override forward(ids: nm.Tensor): nm.Tensor {
    return nm.tidy(() => {
      let x = this.embed.forward(ids);
      for (const layer of this.layers) x = layer.forward(x);
      return this.head.forward(x);
    });
  }
}

const blockNames = (i: number) =>
  ["scale", "norm.weight", "projections.0.weight", "projections.0.bias", "projections.1.weight"].map(
    (name) => `layers.${i}.${name}`,
  );

describe("Module", () => {
  test("names follow properties and positions; tied weights are one parameter under two names", () => {
    const model = new Model();
    const names = Array.from(model.namedParameters(), ([name]) => name);
    expect(new Set(names)).toEqual(new Set(["embed.weight", ...blockNames(0), ...blockNames(1)]));
    expect(model.parameters()).toHaveLength(names.length);
    const state = model.stateDict();
    expect(state.get("head.weight")).toBe(state.get("embed.weight"));
    expect(state.has("layers.0.offset")).toBe(true);
    expect(Array.from(model.namedModules(), ([name]) => name)).toContain("layers.1.projections.0");
    model.dispose();
  });

  test("loads what it saved, converting dtypes", () => {
    const [a, b] = [new Model(), new Model()];
    b.loadStateDict(a.stateDict());
    const ids = nm.tensor([0, 4, 2], { dtype: "int32" });
    a.eval();
    b.eval();
    expect(b.forward(ids).toArray()).toEqual(a.forward(ids).toArray());
    expect(a.embed.weight.requiresGrad).toBe(true);
    const half = new Map(
      Array.from(a.stateDict(), ([name, tensor]) => [name, tensor.cast("float16").detach()]),
    );
    b.loadStateDict(half);
    expect(b.embed.weight.dtype).toBe("float32");
    expectClose(b.embed.weight.dataSync(), a.embed.weight.dataSync(), 2 ** -10);
  });

  test("lists all faults of a state at once, and changes nothing", () => {
    const model = new Model();
    const before = model.embed.weight.toArray();
    const state = new Map(model.stateDict());
    state.set("embed.weight", nm.zeros([5, 3]));
    state.set("layers.0.scale", nm.zeros([4]));
    state.set("layers.1.scale", nm.zeros([3], { device: "wasm" }));
    state.set("extra", nm.zeros([1]));
    state.delete("layers.1.norm.weight");
    const message = (() => {
      try {
        model.loadStateDict(state);
        return "";
      } catch (error) {
        expect(error).toBeInstanceOf(nm.ArgumentError);
        return (error as Error).message;
      }
    })();
    expect(message).toMatch(/^loadStateDict: /);
    expect(message).toContain('"layers.0.scale" is [4], expected [3]');
    expect(message).toContain('"layers.1.scale" is on wasm, expected reference');
    expect(message).toContain('missing "layers.1.norm.weight" [3]');
    expect(message).toContain('unexpected "extra"');
    expect(model.embed.weight.toArray()).toEqual(before);
    const some = new Map([
      ["embed.weight", nm.ones([5, 3])],
      ["extra", nm.zeros([1])],
    ]);
    model.loadStateDict(some, { strict: false });
    expect(model.embed.weight.dataSync()[0]).toBe(1);
  });

  test("replaces a module at its name, in lists too", () => {
    const model = new Model();
    const old = model.layers[1].projections[0];
    const fresh = nn.Linear.create(3, 3);
    expect(model.replaceModule("layers.1.projections.0", fresh)).toBe(old);
    expect(model.layers[1].projections[0]).toBe(fresh);
    expect(model.getModule("layers.1.projections.0")).toBe(fresh);
    expect(model.getModule("")).toBe(model);
  });

  test.each([
    "nothing",
    "layers",
    "layers.2",
    "layers.x",
    "layers.",
    "layers.0x1",
    "__proto__",
    "constructor",
    "embed.weight",
  ])('has no module "%s"', (name) => {
    const model = new Model();
    expect(() => model.getModule(name)).toThrow(nm.ArgumentError);
    expect(() => model.replaceModule(name, new Block())).toThrow(nm.ArgumentError);
  });

  test("arrays of tensors are parameters, or buffers, too", () => {
    class Mixture extends nn.Module {
      scales = [1, 2].map((value) => nn.parameter(nm.full([2], value)));
      means = [nm.keep(nm.zeros([2]))];
      protected override readonly buffers = new Set(["means"]);
      forward(): void {}
    }
    const model = new Mixture();
    expect(Array.from(model.namedParameters(), ([name]) => name)).toEqual(["scales.0", "scales.1"]);
    expect([...model.stateDict().keys()].sort()).toEqual(["means.0", "scales.0", "scales.1"]);
    const other = new Mixture();
    nm.noGrad(() => other.scales[1].fill_(7));
    model.loadStateDict(other.stateDict());
    expect(model.scales[1].toArray()).toEqual([7, 7]);
    expect(() => model.getModule("scales.0")).toThrow('getModule: no module "scales.0" (stopped at "0")');
    for (const each of [model, other]) each.dispose();
    expect(model.means[0].disposed && model.scales[0].disposed).toBe(true);
  });

  test("prints as the tree of its modules, each by its class", () => {
    class Mlp extends nn.Module {
      scale = nn.parameter(nm.ones([2]));
      hidden = nn.Linear.create(3, 4, { bias: false });
      blocks = [new nn.Dropout(), new nn.Sequential(nn.LayerNorm.create(4))];
      forward(): void {}
    }
    const expected = [
      "Mlp(scale [2]",
      "  (hidden): Linear(weight [4, 3])",
      "  (blocks.0): Dropout()",
      "  (blocks.1): Sequential(",
      "    (0): LayerNorm(weight [4], bias [4])",
      "  )",
      ")",
    ].join("\n");
    nm.tidy(() => {
      const model = new Mlp();
      expect(String(model)).toBe(expected);
      expect(inspect(model)).toBe(expected);
      model.dispose();
    });
  });

  test("train, eval and requiresGrad reach all below", () => {
    const model = new Model().eval();
    expect(model.layers[1].drop.training).toBe(false);
    model.train();
    expect(model.layers[1].drop.training).toBe(true);
    model.requiresGrad(false);
    expect(model.trainableParameters()).toEqual([]);
    model.layers[0].requiresGrad(true);
    expect(model.trainableParameters()).toHaveLength(5);
  });

  test("owns its parameters: tidy leaves them, dispose frees them with their gradients", () => {
    expectNoLeak("module", () => {
      const model = nm.tidy(() => ({ model: new Model() })).model;
      const ids = nm.tensor([1, 2], { dtype: "int32" });
      nm.tidy(() => nm.sum(model.forward(ids)).backward());
      expect(model.embed.weight.grad).not.toBeNull();
      model.zeroGrad();
      nm.tidy(() => nm.sum(model.forward(ids)).backward());
      model.dispose();
      ids.dispose();
    });
  });
});

describe.each(backends)("layers ($name)", (subject) => {
  const options = on(subject);

  test("Linear is x·Wᵀ + b for any leading axes, and says what does not fit", () => {
    const weight = nm.tensor(
      [
        [1, 2, 3],
        [4, 5, 6],
      ],
      options,
    );
    const layer = new nn.Linear(weight, nm.tensor([10, 20], options));
    const x = nm.tensor([[[1, 0, -1]], [[0, 1, 0]]], options);
    expect(layer.forward(x).toArray()).toEqual([[[8, 18]], [[12, 25]]]);
    expect([layer.inFeatures, layer.outFeatures]).toEqual([3, 2]);
    expect(() => layer.forward(nm.ones([2, 2], options))).toThrow(
      /Linear: the last axis of \[2, 2\] should be 3/,
    );
    expect(() => new nn.Linear(nm.ones([2], options))).toThrow(nm.ArgumentError);
    expect(() => new nn.Linear(nm.ones([2, 3], options), nm.ones([3], options))).toThrow(
      "bias [3] should be [2]",
    );
    const twin = layer.withDenseWeight(layer.denseWeight());
    expect(twin.forward(x).toArray()).toEqual(layer.forward(x).toArray());
    expect(layer.denseWeight().requiresGrad).toBe(false);
  });

  test("Linear obeys the adjoint identity ⟨A·x, y⟩ = ⟨x, Aᵀ·y⟩", () => {
    const layer = nn.Linear.create(7, 5, { bias: false, ...options });
    const x = nm.randn([4, 7], { ...options, requiresGrad: true });
    const y = nm.randn([4, 5], options);
    const forward = nm.sum(nm.mul(layer.forward(x), y));
    forward.backward();
    const back = nm.sum(nm.mul(x.grad!, x.detach()));
    expectClose([forward.item()], [back.item()], subject.dtype === "float64" ? 1e-12 : 1e-5);
  });

  test("Dropout keeps the mean, is the identity in evaluation, and repeats with its generator", () => {
    const x = nm.ones([20_000], options);
    const drop = new nn.Dropout(0.25, new nm.Generator(5));
    const y = drop.forward(x).dataSync() as Float32Array;
    expect(new Set(Array.from(y, (value) => value.toFixed(5)))).toEqual(new Set(["0.00000", "1.33333"]));
    // Standard deviation of the mean: √(0.25/0.75/20000) ≈ 0.004.
    expect(Math.abs(y.reduce((a, b) => a + b, 0) / y.length - 1)).toBeLessThan(0.02);
    expect(new nn.Dropout(0.25, new nm.Generator(5)).forward(x).dataSync()).toEqual(y);
    drop.eval();
    expect(drop.forward(x).dataSync()).toEqual(x.dataSync());
    expect(new nn.Dropout(1).forward(x).abs().sum().item()).toBe(0);
    expect(() => new nn.Dropout(1.1)).toThrow("Dropout: p must be within 0 … 1, not 1.1");
  });

  test("constructors that are given sizes name what takes them, and empty layers are possible", () => {
    const sizes = (make: unknown) => () => (make as (...list: unknown[]) => unknown)(3, 4);
    expect(sizes((a: nm.Tensor, b: nm.Tensor) => new nn.Linear(a, b))).toThrow(
      "Linear: weight must be a tensor (Linear.create(inFeatures, outFeatures) makes one), not 3",
    );
    expect(sizes((a: nm.Tensor) => new nn.Embedding(a))).toThrow(
      "Embedding.create(numEmbeddings, embeddingDim)",
    );
    expect(sizes((a: nm.Tensor) => new nn.RMSNorm(a))).toThrow("RMSNorm.create(features)");
    expect(sizes((a: nm.Tensor) => new nn.LayerNorm(a))).toThrow("LayerNorm.create(shape)");
    expect(sizes((a: number, b: nm.Tensor) => new nn.GroupNorm(a, b))).toThrow(
      "GroupNorm.create(groups, channels)",
    );
    expect(sizes((a: nm.Tensor) => new nn.Conv2d(a))).toThrow(
      "Conv2d.create(inChannels, outChannels, kernelSize)",
    );
    expect(() => nn.Linear.create(3, undefined as never)).toThrow("Linear: [3, undefined] is no shape");
    const empty = nn.Linear.create(0, 2, on(subject));
    expect(empty.forward(nm.zeros([3, 0], on(subject))).shape).toEqual([3, 2]);
  });

  test("Embedding and RMSNorm are their operations; gradients of repeated rows add up", () => {
    const table = new nn.Embedding(
      nm.tensor(
        [
          [1, 2],
          [3, 4],
        ],
        options,
      ),
    );
    const rows = table.forward(nm.tensor([1, 0, 1], { device: subject.device, dtype: "int32" }));
    expect(rows.toArray()).toEqual([
      [3, 4],
      [1, 2],
      [3, 4],
    ]);
    nm.sum(rows).backward();
    expect(table.weight.grad!.toArray()).toEqual([
      [1, 1],
      [2, 2],
    ]);
    const norm = new nn.RMSNorm(nm.tensor([1, 2], options), 0);
    expectClose(
      norm.forward(nm.tensor([3, 4], options)).dataSync(),
      [3 / Math.sqrt(12.5), 8 / Math.sqrt(12.5)],
      1e-6,
    );
  });
});

test("initial values have the bounds and spreads of PyTorch's", () => {
  const w = nn.kaimingUniform([64, 100], Math.sqrt(5)).dataSync();
  expect(Math.max(...w.map(Math.abs))).toBeLessThanOrEqual(0.1);
  expect(Math.max(...w.map(Math.abs))).toBeGreaterThan(0.099);
  const n = nn.normal([100, 100], 0.02).dataSync() as Float32Array;
  const spread = Math.sqrt(n.reduce((sum, value) => sum + value * value, 0) / n.length);
  expect(spread).toBeCloseTo(0.02, 3);
});
