// What differs between variants: DoRA, embeddings. Laws that hold for each are run over all of them.

import {
  embedding,
  Generator,
  gradientsOf,
  init,
  matmul,
  noGrad,
  sqrt,
  sum,
  type Tensor,
} from "@nomoat/core";
import { Embedding } from "@nomoat/core/nn";
import { beforeAll, describe, expect, it } from "vitest";
import { applyLora, type LoraConfig, type LoraLinear, loadAdapter, serializeAdapter } from "../src/index.js";
import { factorization } from "../src/variants/product.js";
import { maxDifference, normalTensor, randomize, snapshot, TinyModel, tokens } from "./model.js";

beforeAll(() => init({ backend: "reference" }));

const cases: [string, Partial<LoraConfig>][] = [
  ["LoRA", { targetModules: "all-linear" }],
  ["DoRA", { targetModules: "all-linear", useDora: true, loraAlpha: 5 }],
  ["orthogonal", { targetModules: "all-linear", r: 4, initLoraWeights: "orthogonal" }],
  [
    "PiSSA",
    { targetModules: "all-linear", r: 3, loraAlpha: 5, initLoraWeights: "pissa", rankPattern: { q_proj: 2 } },
  ],
  ["fast PiSSA", { targetModules: "all-linear", r: 3, useRslora: true, initLoraWeights: "pissa_niter_4" }],
  ["OLoRA", { targetModules: "all-linear", r: 3, initLoraWeights: "olora" }],
  ["(IA)³", { peftType: "IA3", targetModules: ["up_proj", "down_proj"] }],
  ["LoHa", { peftType: "LOHA", targetModules: "all-linear", r: 2 }],
  ["LoKr", { peftType: "LOKR", targetModules: "all-linear", r: 3 }],
  [
    "LoKr of low rank",
    { peftType: "LOKR", targetModules: "all-linear", r: 1, decomposeBoth: true, decomposeFactor: 3 },
  ],
  ["VeRA", { peftType: "VERA", targetModules: "all-linear", r: 5 }],
  ["embedding", { targetModules: ["embed_tokens", "q_proj"], loraAlpha: 3 }],
  ["DoRA of an embedding", { targetModules: ["embed_tokens", "q_proj"], useDora: true, loraAlpha: 3 }],
];

describe.each(cases)("%s", (_, config) => {
  it("is the identity when fresh", () => {
    const model = new TinyModel();
    const before = model.forward(tokens());
    applyLora(model, config);
    // Exact but where beginnings that are not zero cancel to rounding.
    const exact = !config.useDora && config.initLoraWeights === undefined;
    expect(maxDifference(model.forward(tokens()), before)).toBeLessThan(exact ? Number.MIN_VALUE : 1e-12);
  });

  it("merges to the same outputs, beside another adapter and in any order, and unmerges to the same bytes", () => {
    const outputs = [false, true].map((first) => {
      const model = new TinyModel();
      const base = snapshot(model);
      const other = () =>
        randomize(applyLora(model, { r: 2, targetModules: "all-linear" }, "other").parameters(), 3);
      if (first) other();
      const adapter = applyLora(model, config, "default", { generator: new Generator(6) });
      randomize(adapter.parameters(), 4);
      if (!first) other();
      adapter.weight = 0.7;
      const before = model.forward(tokens());
      const close = () => expect(maxDifference(model.forward(tokens()), before)).toBeLessThan(1e-11);
      adapter.merge();
      close();
      for (const [, layer] of adapter.layers) layer.slots.merge();
      close();
      adapter.unmerge();
      close();
      for (const [, layer] of adapter.layers) layer.slots.unmerge();
      expect([...model.forward(tokens()).dataSync()]).toEqual([...before.dataSync()]);
      for (const [at, layer] of adapter.layers) model.replaceModule(at, layer.slots.original);
      for (const [name, values] of snapshot(model))
        if (base.has(name)) expect(values).toEqual(base.get(name));
      return before;
    });
    expect(maxDifference(outputs[0], outputs[1])).toBeLessThan(1e-12);
  });

  it("saves, loads and saves the same", async () => {
    const model = new TinyModel();
    const adapter = applyLora(
      model,
      ["IA3", "VERA"].includes(config.peftType ?? "") ? config : { ...config, rankPattern: { q_proj: 2 } },
    );
    randomize(adapter.parameters(), 4);
    const files = await serializeAdapter(adapter, { dtype: "float64" });
    const other = new TinyModel();
    const loaded = await loadAdapter(other, files);
    const rounding = String(config.initLoraWeights).match(/pissa|olora/) ? 1e-11 : Number.MIN_VALUE;
    expect(maxDifference(other.forward(tokens()), model.forward(tokens()))).toBeLessThan(rounding);
    expect([...(await serializeAdapter(loaded, { dtype: "float64" }))]).toEqual([...files]);
  });

  it("has no effect with weight 0", () => {
    const model = new TinyModel();
    const before = model.forward(tokens());
    const adapter = applyLora(model, config);
    randomize(adapter.parameters());
    expect(maxDifference(model.forward(tokens()), before)).toBeGreaterThan(0);
    adapter.weight = 0;
    expect(maxDifference(model.forward(tokens()), before)).toBe(0);
  });
});

describe("DoRA", () => {
  /** One layer with given factors, by the paper's formula; the norm is `detached` when not given anew. */
  function setUp(dropout = 0) {
    const model = new TinyModel();
    const adapter = applyLora(model, {
      r: 3,
      loraAlpha: 6,
      useDora: true,
      targetModules: ["q_proj"],
      loraDropout: dropout,
    });
    randomize(adapter.parameters(), 8);
    const layer = model.getModule("model.layers.0.self_attn.q_proj") as unknown as LoraLinear;
    const [a, b, m] = [...layer.adapters[0].tensors().values()];
    const weight = layer.original.denseWeight();
    const norm = noGrad(() => sqrt(sum(weight.add(matmul(b, a).mul(2)).square(), 1)));
    const formula = (x: Tensor, dropped = x) => {
      const w = weight.add(matmul(b, a).mul(2));
      const base = x.matmul(weight, { transB: true });
      const on = (input: Tensor, matrix: Tensor) => input.matmul(matrix, { transB: true });
      const scaled = on(dropped, w.mul(m.div(norm).unsqueeze(1)));
      return base.add(scaled.sub(on(dropped, weight))).add(layer.bias as Tensor);
    };
    return { layer, formula, parameters: [a, b, m] };
  }

  it.each([0, 0.5])("is the paper's formula, forward and backward (dropout %d)", (dropout) => {
    const { layer, formula, parameters } = setUp(dropout);
    const x = normalTensor([4, 6], 2);
    x.requiresGrad = true;
    const mask = noGrad(() => normalTensor([4, 6], 3).greater(0).cast("float64").mul(2));
    if (dropout > 0) layer.adapters[0].dropoutMask = () => mask;
    const y = layer.forward(x);
    const expected = formula(x, dropout > 0 ? x.mul(mask) : x);
    expect(maxDifference(y, expected)).toBeLessThan(1e-12);
    const weights = normalTensor([4, 6], 5);
    const gradients = [y, expected].map((output) => {
      output.mul(weights).sum().backward();
      return [x, ...parameters].map((tensor) => {
        const gradient = tensor.grad?.clone() as Tensor;
        tensor.zeroGrad();
        return gradient;
      });
    });
    gradients[0].forEach((gradient, i) => {
      expect(maxDifference(gradient, gradients[1][i])).toBeLessThan(1e-11);
    });
  });

  it("names its magnitude as PEFT", () => {
    const keys = [...applyLora(new TinyModel(), { useDora: true }).stateDict().keys()];
    expect(keys[2]).toBe("base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector");
  });
});

describe("embedding LoRA", () => {
  it("starts as PEFT's, and looks up rows of W + s·(B·A)ᵀ", () => {
    const model = new TinyModel();
    const adapter = applyLora(model, { r: 3, loraAlpha: 6, targetModules: ["embed_tokens"] }, "default", {
      generator: new Generator(1),
    });
    expect([...adapter.stateDict()].map(([key, value]) => [key, value.shape])).toEqual([
      ["base_model.model.model.embed_tokens.lora_embedding_A", [3, 11]],
      ["base_model.model.model.embed_tokens.lora_embedding_B", [6, 3]],
    ]);
    const [a, b] = adapter.parameters();
    expect(a.abs().sum().item()).toBe(0);
    randomize([a, b]);
    const rows = model.model.embed_tokens.weight.add(matmul(b, a).transpose().mul(2));
    const expected = new Embedding(rows.detach()).forward(tokens());
    expect(maxDifference(model.model.embed_tokens.forward(tokens()), expected)).toBeLessThan(1e-14);
    const formula = model.model.embed_tokens.weight.add(matmul(b, a).transpose().mul(2));
    const weights = normalTensor([2, 4, 6], 5);
    const wanted = gradientsOf(embedding(formula, tokens()).mul(weights).sum(), [a, b]);
    model.model.embed_tokens.forward(tokens()).mul(weights).sum().backward();
    expect(maxDifference(a.grad as Tensor, wanted[0])).toBeLessThan(1e-13);
    expect(maxDifference(b.grad as Tensor, wanted[1])).toBeLessThan(1e-13);
  });
});

describe("other products", () => {
  it("factorizes as PEFT", () => {
    expect(
      ([[256], [128], [127], [128, 4], [12, 5], [1]] as [number, number?][]).map(([n, f]) =>
        factorization(n, f),
      ),
    ).toEqual([
      [16, 16],
      [8, 16],
      [1, 127],
      [4, 32],
      [3, 4],
      [1, 1],
    ]);
  });

  it("LoHa's thin factors are its whole update, forward and backward", () => {
    for (const width of [6, 24]) {
      // r² (in + out) is below in · out for the wider model alone.
      const model = new TinyModel({ width, depth: 1 });
      const adapter = applyLora(model, { peftType: "LOHA", r: 2, loraAlpha: 5, targetModules: ["up_proj"] });
      randomize(adapter.parameters());
      const layer = model.getModule("model.layers.0.mlp.up_proj") as unknown as LoraLinear;
      const [a1, b1, a2, b2] = adapter.parameters();
      const update = matmul(a1, b1).mul(matmul(a2, b2)).mul(2.5);
      const x = normalTensor([5, width], 2);
      const expected = x.matmul(layer.original.denseWeight().add(update), { transB: true });
      const actual = layer.forward(x);
      expect(maxDifference(actual, expected)).toBeLessThan(1e-12);
      const weights = normalTensor([5, 2 * width], 3);
      const wanted = gradientsOf(expected.mul(weights).sum(), adapter.parameters());
      actual.mul(weights).sum().backward();
      adapter.parameters().forEach((parameter, i) => {
        expect(maxDifference(parameter.grad as Tensor, wanted[i])).toBeLessThan(1e-12);
      });
    }
  });

  it("have PEFT's names and shapes", () => {
    const shapes = (config: Partial<LoraConfig>) =>
      [
        ...applyLora(new TinyModel(), {
          targetModules: ["layers.0.mlp.down_proj"],
          r: 2,
          ...config,
        }).stateDict(),
      ].map(([key, value]) => `${key.slice(key.indexOf("down_proj.") + 10)} ${value.shape}`);
    expect(shapes({ peftType: "IA3" })).toEqual(["ia3_l 1,12"]);
    expect(shapes({ peftType: "IA3", feedforwardModules: null })).toEqual(["ia3_l 6,1"]);
    expect(shapes({ peftType: "LOHA" })).toEqual([
      "hada_w1_a 6,2",
      "hada_w1_b 2,12",
      "hada_w2_a 6,2",
      "hada_w2_b 2,12",
    ]);
    const veraAdapter = applyLora(new TinyModel(), {
      peftType: "VERA",
      r: 3,
      targetModules: ["down_proj", "q_proj"],
    });
    const veraShapes = [...veraAdapter.savedStateDict()].map(([key, value]) => `${key} ${value.shape}`);
    expect(veraShapes.slice(-4)).toEqual([
      "base_model.model.model.layers.1.mlp.down_proj.vera_lambda_b 6",
      "base_model.model.model.layers.1.mlp.down_proj.vera_lambda_d 3",
      "base_model.vera_A 3,12",
      "base_model.vera_B 6,3",
    ]);
    expect(shapes({ peftType: "LOKR" })).toEqual(["lokr_w1 2,3", "lokr_w2 3,4"]);
    expect(shapes({ peftType: "LOKR", r: 1 })).toEqual(["lokr_w1 2,3", "lokr_w2_a 3,1", "lokr_w2_b 1,4"]);
    expect([...applyLora(new TinyModel(), { peftType: "IA3" }).layers.keys()]).toHaveLength(6);
    expect(() => applyLora(new TinyModel(), { peftType: "LOHA", useDora: true })).toThrow(
      /useDora does not apply to LOHA/,
    );
    expect(() => applyLora(new TinyModel(), { peftType: "VERA", rankPattern: { q_proj: 2 } })).toThrow(
      /rankPattern does not apply to VERA/,
    );
  });

  it("train to the gradients of their formulas", () => {
    for (const config of cases.map(([, c]) => c).filter((c) => c.peftType)) {
      const model = new TinyModel();
      const adapter = applyLora(model, config);
      randomize(adapter.parameters(), 4);
      const loss = () => model.forward(tokens()).square().mean();
      loss().backward();
      const parameter = adapter.parameters().at(-1) as Tensor;
      const direction = normalTensor([...parameter.shape], 9);
      const at = (step: number) =>
        noGrad(() => {
          parameter.copyFrom(parameter.add(direction.mul(step)));
          const value = loss().item();
          parameter.copyFrom(parameter.sub(direction.mul(step)));
          return value;
        });
      const slope = noGrad(() => (parameter.grad as Tensor).mul(direction).sum().item());
      const numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
      expect(Math.abs(numeric - slope)).toBeLessThan(1e-6 * Math.max(1, Math.abs(slope)));
    }
  });

  it("(IA)³ scales the bias of a layer's output, merged too, and gives it back", () => {
    const model = new TinyModel();
    const before = snapshot(model);
    const adapter = applyLora(model, { peftType: "IA3", targetModules: ["k_proj"] });
    randomize(adapter.parameters());
    const layer = model.getModule("model.layers.0.self_attn.k_proj") as unknown as LoraLinear;
    const [bias, l] = [layer.bias as Tensor, adapter.parameters()[0].reshape([-1])];
    const expected = noGrad(() => bias.mul(l));
    const apart = model.forward(tokens());
    adapter.merge();
    expect(maxDifference(layer.bias as Tensor, expected)).toBeLessThan(1e-14);
    expect(maxDifference(model.forward(tokens()), apart)).toBeLessThan(1e-12);
    adapter.remove();
    expect(snapshot(model)).toEqual(before);
  });
});
