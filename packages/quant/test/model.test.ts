// QuantizedLinear, quantizeModel and the report.

import { grad, memoryStats, noGrad, type Tensor, tensor, tidy, zeros } from "@nomoat/core";
import { Embedding, Linear, Module, parameter } from "@nomoat/core/nn";
import { describe, expect, it } from "vitest";
import {
  QuantizedLinear,
  quantizationReport,
  quantize,
  quantizeModel,
  quantizeModelAsync,
} from "../src/index.js";
import { bellTensor, relativeError } from "./helpers.js";

class Block extends Module {
  q_proj = new Linear(bellTensor([64, 64], 1));
  down_proj = new Linear(bellTensor([64, 96], 2), bellTensor([64], 3));

  override forward(x: Tensor): Tensor {
    return this.q_proj.forward(x);
  }
}

class Model extends Module {
  embed_tokens = new Embedding(bellTensor([50, 64], 4));
  layers = [new Block(), new Block()];
  lm_head: Linear;

  constructor(tied = false) {
    super();
    this.lm_head = new Linear(tied ? this.embed_tokens.weight : bellTensor([50, 64], 5));
  }

  override forward(x: Tensor): Tensor {
    return this.lm_head.forward(x);
  }
}

describe("QuantizedLinear", () => {
  it("stands in for a linear layer, its bias trained on", () => {
    tidy(() => {
      const weight = bellTensor([48, 64], 1);
      const bias = bellTensor([48], 2);
      using layer = QuantizedLinear.from(weight, parameter(bias), "q8_0");
      expect([layer.inFeatures, layer.outFeatures]).toEqual([64, 48]);
      const x = bellTensor([2, 5, 64], 3);
      const dense = new Linear(layer.denseWeight(), bias.clone().detach());
      const expected = dense.forward(x);
      expect(relativeError(layer.forward(x).dataSync(), expected.dataSync())).toBeLessThan(1e-5);
      layer.forward(x).square().sum().backward();
      dense.forward(x).square().sum().backward();
      expect(
        relativeError(layer.bias?.grad?.dataSync() ?? [], dense.bias?.grad?.dataSync() ?? []),
      ).toBeLessThan(1e-5);
      dense.dispose();
    });
  });

  it("has the gradient of its input, and none of its weight", () => {
    tidy(() => {
      using layer = QuantizedLinear.from(bellTensor([48, 64], 1), null, "nf4");
      const [dx] = grad((x) => layer.forward(x).sum())(bellTensor([3, 64], 3));
      const expected = layer.denseWeight().sum(0);
      for (const row of [0, 1, 2]) {
        expect(relativeError(dx.slice(row).dataSync(), expected.dataSync())).toBeLessThan(1e-5);
      }
      expect(layer.parameters()).toEqual([]);
    });
  });

  it("makes a layer of the same format from another weight", () => {
    tidy(() => {
      using layer = QuantizedLinear.from(bellTensor([48, 64], 1), parameter(bellTensor([48], 2)), "nf4");
      const other = bellTensor([48, 64], 9);
      using changed = layer.withDenseWeight(other);
      using expected = quantize(other, { format: "nf4" });
      expect(changed.quantized.format.name).toBe("nf4");
      expect(changed.denseWeight().dataSync()).toEqual(expected.dequantize().dataSync());
      expect(changed.bias?.dataSync()).toEqual(layer.bias?.dataSync());
      expect(changed.bias).not.toBe(layer.bias);
    });
  });

  it("and of the same input scales, which divide the weight before it is quantized", () => {
    tidy(() => {
      const scales = Array.from({ length: 64 }, (_, i) => 2 ** ((i % 9) - 4));
      const inputScales = tensor(scales);
      const scaled = bellTensor([48, 64], 1).div(inputScales);
      using layer = new QuantizedLinear(quantize(scaled, { format: "int8" }), null, { inputScales });
      const other = bellTensor([48, 64], 9);
      using changed = layer.withDenseWeight(other);
      using expected = quantize(other.div(inputScales), { format: "int8" });
      expect(changed.quantized.dequantize().dataSync()).toEqual(expected.dequantize().dataSync());
      expect(changed.inputScales).not.toBe(layer.inputScales);
      expect(changed.inputScales?.toArray()).toEqual(scales);
      const whole = expected.dequantize().mul(inputScales);
      expect(changed.denseWeight().dataSync()).toEqual(whole.dataSync());
    });
  });

  it("keeps its packed arrays as buffers that load and dispose with the module", () => {
    const before = memoryStats().tensors;
    const layer = tidy(() => QuantizedLinear.from(bellTensor([48, 64], 1), null, "nf4"));
    const other = tidy(() => QuantizedLinear.from(bellTensor([48, 64], 2), null, "nf4"));
    expect([...layer.stateDict().keys()]).toEqual([
      "weight",
      "weight.absmax",
      "weight.nestedAbsmax",
      "weight.offset",
    ]);
    layer.loadStateDict(other.stateDict());
    tidy(() => expect(layer.denseWeight().dataSync()).toEqual(other.denseWeight().dataSync()));
    layer.dispose();
    other.dispose();
    expect(memoryStats().tensors).toBe(before);
  });
});

describe("quantizeModel", () => {
  it("replaces linear layers but the output layer, and frees the float weights", () => {
    const model = new Model();
    const weights = model.layers.map((block) => block.q_proj.weight);
    const bias = model.layers[0].down_proj.bias;
    const before = memoryStats().bytes;
    const report = quantizeModel(model, { format: "nf4" });
    expect(report.layers.map((layer) => layer.name)).toEqual([
      "layers.0.q_proj",
      "layers.0.down_proj",
      "layers.1.q_proj",
      "layers.1.down_proj",
    ]);
    expect(model.layers[1].down_proj).toBeInstanceOf(QuantizedLinear);
    expect(model.lm_head).toBeInstanceOf(Linear);
    expect(weights.every((weight) => weight.disposed)).toBe(true);
    expect(model.layers[0].down_proj.bias).toBe(bias);
    expect(before - memoryStats().bytes).toBe(2 * (64 * 160 * 4) - report.total.bytes);
    expect(() => quantizeModel(model, { format: "nf4" })).toThrow(/no float linear layer/);
    model.dispose();
  });

  it("follows skip, perModule and outputLayer", () => {
    const model = new Model();
    quantizeModel(model, {
      format: "q4_0",
      skip: ["1.q_proj"],
      perModule: [
        [/layers\.0\..*down/, "q8_0"],
        ["down_proj", null],
      ],
      outputLayer: true,
    });
    const formats = Array.from(model.namedModules())
      .filter(([, module]) => module instanceof QuantizedLinear)
      .map(([name, module]) => [name, (module as QuantizedLinear).quantized.format.name]);
    expect(formats).toEqual([
      ["layers.0.q_proj", "q4_0"],
      ["layers.0.down_proj", "q8_0"],
      ["lm_head", "q4_0"],
    ]);
    model.dispose();
  });

  it("leaves a weight that an embedding holds too", () => {
    const model = new Model(true);
    quantizeModel(model, { format: "int8", outputLayer: true });
    expect(model.lm_head).toBeInstanceOf(QuantizedLinear);
    expect(model.embed_tokens.weight.disposed).toBe(false);
    model.dispose();
  });

  it("changes nothing when a layer cannot be quantized", () => {
    const model = new Model();
    model.layers[1].down_proj.weight.detach().copyFrom(new Float32Array(64 * 96).fill(Number.NaN));
    const before = memoryStats().tensors;
    expect(() => quantizeModel(model, { format: "int8" })).toThrow(
      /layers\.1\.down_proj\.weight: NaN at index \[0, 0\]/,
    );
    expect(model.layers[0].q_proj).toBeInstanceOf(Linear);
    expect(memoryStats().tensors).toBe(before);
    model.lm_head = new Linear(zeros([4, 20]));
    expect(() => quantizeModel(model, { format: "q4_0", outputLayer: true })).toThrow(
      /quantizeModel: lm_head: q4_0 needs rows that are a multiple of 32 long, not 20/,
    );
    model.dispose();
  });
});

describe("quantizationReport", () => {
  it("reports on a quantized model, a tensor, and on what a format would do", () => {
    const model = new Model();
    const trial = quantizationReport(model, { format: "nf4" });
    expect(trial.layers).toHaveLength(5);
    expect(model.lm_head).toBeInstanceOf(Linear);
    const made = quantizeModel(model, { format: "nf4" });
    const report = quantizationReport(model);
    expect(report.toJSON()).toEqual(made.toJSON());
    expect(report.total.parameters).toBe(2 * 64 * 160);
    expect(report.total.error?.sqnr).toBeGreaterThan(18);
    const text = report.toString();
    expect(text.split("\n")).toHaveLength(8);
    expect(text).toMatch(/layers\.0\.down_proj +nf4 +64×96 +4\.1\d +\d+ +\d\.\d\de-\d/);
    model.dispose();
    tidy(() => {
      expect(
        quantizationReport(tensor(new Float32Array(64), { shape: [1, 64] }), { format: "q8_0" }).total.error,
      ).toMatchObject({ rms: 0, max: 0, sqnr: Number.POSITIVE_INFINITY });
      expect(() => quantizationReport(bellTensor([2, 64], 1))).toThrow(/needs a format/);
    });
  });
});

describe("quantizeModelAsync", () => {
  it("takes values from elsewhere, and disposes them", async () => {
    const before = memoryStats().tensors;
    const [here, there] = [new Model(), new Model()];
    const report = quantizeModel(here, { format: "nf4", measure: false });
    expect(report.layers.every(({ error }) => error === null)).toBe(true);
    const values = new Map(
      Array.from(there.parameters(), (weight) => [weight, tidy(() => weight.detach().clone())]),
    );
    noGrad(() =>
      tidy(() => {
        for (const weight of values.keys()) if (weight.rank === 2) weight.copyFrom(zeros(weight.shape));
      }),
    );
    const asked: Tensor[] = [];
    const valuesOf = async (weight: Tensor) => {
      asked.push(weight);
      return tidy(() => values.get(weight)!.clone());
    };
    await quantizeModelAsync(there, { format: "nf4", measure: false, valuesOf });
    expect(asked).toHaveLength(4);
    const state = there.stateDict();
    for (const [name, packed] of here.stateDict())
      if (name.startsWith("layers")) expect(state.get(name)!.dataSync(), name).toEqual(packed.dataSync());
    for (const each of [here, there, ...values.values()]) each.dispose();
    expect(memoryStats().tensors).toBe(before);
  });

  it("leaves the model as it was when values cannot be had", async () => {
    const model = new Model();
    const before = memoryStats().tensors;
    let asked = 0;
    const valuesOf = async (weight: Tensor) => {
      if (++asked === 3) throw new Error("the file ended");
      return tidy(() => weight.detach().clone());
    };
    await expect(quantizeModelAsync(model, { format: "nf4", valuesOf })).rejects.toThrow("the file ended");
    expect(model.layers[0].q_proj).toBeInstanceOf(Linear);
    expect(memoryStats().tensors).toBe(before);
    model.dispose();
  });
});
