// Packed embeddings: rows as the whole table has them, tied weights, and their place in models and reports.

import { init, memoryStats, type Tensor, tensor, tidy } from "@nomoat/core";
import { Embedding, Linear, Module } from "@nomoat/core/nn";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  dequantizeRows,
  formats,
  type QuantizedEmbedding,
  QuantizedLinear,
  quantizationReport,
  quantize,
  quantizeModel,
} from "../src/index.js";
import { allNames, bellTensor, rowMultiple } from "./helpers.js";

const rowWise = allNames.filter((name) => formats[name].rowWise);

describe.each(["wasm", "reference"] as const)("on %s", (backend) => {
  beforeAll(() => init({ backend }));
  afterAll(() => init({ backend: "wasm" }));

  it.each(rowWise)("%s: rows are those of the whole", (name) => {
    tidy(() => {
      const columns = Math.max(40, rowMultiple(name));
      const length = rowMultiple(name) === 32 ? 96 : columns;
      using w = quantize(bellTensor([11, length], 1), { format: name });
      const whole = w.dequantize().toArray() as number[][];
      const indices = tensor(Int32Array.of(3, 0, 10, 3), { shape: [2, 2] });
      const rows = dequantizeRows(w, indices);
      expect(rows.shape).toEqual([2, 2, length]);
      expect(rows.toArray()).toEqual([
        [whole[3], whole[0]],
        [whole[10], whole[3]],
      ]);
      expect(() => dequantizeRows(w, tensor(Int32Array.of(11)))).toThrow("11");
      expect(dequantizeRows(w, tensor(new Int32Array(0), { shape: [0] })).shape).toEqual([0, length]);
    });
  });
});

class Model extends Module {
  embed_tokens: Embedding | QuantizedEmbedding = new Embedding(bellTensor([50, 64], 4));
  layer: Linear | QuantizedLinear = new Linear(bellTensor([64, 64], 1));
  lm_head: Linear | QuantizedLinear;

  constructor(tied: boolean) {
    super();
    const { weight } = this.embed_tokens as Embedding;
    this.lm_head = new Linear(tied ? weight : bellTensor([50, 64], 5));
  }

  override forward(ids: Tensor): Tensor {
    return tidy(() => this.lm_head.forward(this.layer.forward(this.embed_tokens.forward(ids))));
  }
}

describe("quantizeModel with embeddings", () => {
  it("keeps a tied output layer tied, and frees the float table", () => {
    const before = memoryStats().tensors;
    const model = new Model(true);
    const { weight } = model.embed_tokens as Embedding;
    const report = quantizeModel(model, { format: "q8_0", embeddings: true });
    expect(report.layers.map(({ name }) => name)).toEqual(["embed_tokens", "layer"]);
    expect(report.total.parameters).toBe(50 * 64 + 64 * 64);
    expect(quantizationReport(model).toJSON()).toEqual(report.toJSON());
    expect(weight.disposed).toBe(true);
    const head = model.lm_head as QuantizedLinear;
    const table = model.embed_tokens as QuantizedEmbedding;
    expect(head.quantized).toBe(table.quantized);
    const ids = tensor(Int32Array.of(1, 49), { shape: [1, 2] });
    const y = model.forward(ids);
    expect(y.shape).toEqual([1, 2, 50]);
    for (const each of [ids, y, model]) each.dispose();
    expect(memoryStats().tensors).toBe(before);
  });

  it("leaves an untied output layer, and takes formats by pattern and by budget", () => {
    const model = new Model(false);
    const perModule = [["layer", null]] as const;
    quantizeModel(model, {
      ...{ format: "nf4", embeddings: true, perModule, skip: ["embed_tokens"], outputLayer: true },
    });
    expect(model.embed_tokens).toBeInstanceOf(Embedding);
    expect(model.layer).toBeInstanceOf(Linear);
    expect(model.lm_head).toBeInstanceOf(QuantizedLinear);
    model.dispose();

    const budget = new Model(true);
    const { total, layers } = quantizeModel(budget, { bitsPerWeight: 6, embeddings: true });
    expect((8 * total.bytes) / total.parameters).toBeLessThanOrEqual(6);
    // The default candidates hold nf4, whose blocks cross rows: never the table's.
    expect(["q5_0", "q5_1", "int8"]).toContain(layers[0].format);
    expect((budget.lm_head as QuantizedLinear).quantized).toBe(
      (budget.embed_tokens as QuantizedEmbedding).quantized,
    );
    budget.dispose();
  });

  it("refuses formats whose blocks cross rows; the model stays", () => {
    const model = new Model(false);
    expect(() => quantizeModel(model, { format: "nf4", embeddings: true })).toThrow(
      "embed_tokens: nf4 has blocks that cross rows",
    );
    expect(model.embed_tokens).toBeInstanceOf(Embedding);
    quantizeModel(model, { format: "nf4", embeddings: true, perModule: [["embed_tokens", "int8"]] });
    expect((model.embed_tokens as QuantizedEmbedding).quantized.format.name).toBe("int8");
    expect([...model.embed_tokens.stateDict().keys()]).toEqual(["weight", "weight.scales"]);
    expect(model.parameters()).toHaveLength(1);
    model.dispose();
  });
});
