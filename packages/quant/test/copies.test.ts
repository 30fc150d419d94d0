// Two copies of the package in one process, as when an application loads the ES modules and a dependency the CommonJS build.

import { fileURLToPath } from "node:url";
import { randn, type Tensor, tidy } from "@nomoat/core";
import { Linear, Module, Sequential } from "@nomoat/core/nn";
import { build } from "esbuild";
import { expect, it } from "vitest";
import * as quant from "../src/index.js";

it("tells packed weights and layers of another copy by their classes, and works with them", async () => {
  const { outputFiles } = await build({
    stdin: {
      contents: 'export * from "./src/index.ts";',
      resolveDir: fileURLToPath(new URL("..", import.meta.url)),
    },
    ...{ bundle: true, format: "iife", globalName: "copy", platform: "node", target: "node20", write: false },
    conditions: ["@nomoat/source"],
  });
  const copy = new Function(`${outputFiles[0].text}; return copy;`)() as typeof quant;
  expect(copy.QuantizedTensor).not.toBe(quant.QuantizedTensor);

  const weight = randn([8, 64]);
  const theirs = copy.quantize(weight, { format: "q8_0" });
  const ours = quant.quantize(weight, { format: "q8_0" });
  expect(theirs).toBeInstanceOf(quant.QuantizedTensor);
  expect(ours).toBeInstanceOf(copy.QuantizedTensor);
  for (const each of [weight, {}, null, 1]) expect(each).not.toBeInstanceOf(quant.QuantizedTensor);
  tidy(() => {
    const x = randn([3, 64]);
    const product = (w: quant.QuantizedTensor, by: typeof quant) => by.quantizedMatmul(x, w).dataSync();
    expect(product(theirs, quant)).toEqual(product(ours, quant));
    expect(product(ours, copy)).toEqual(product(ours, quant));
  });
  expect(quant.quantizationReport(theirs).toJSON()).toEqual(quant.quantizationReport(ours).toJSON());

  class Model extends Module {
    layers = new Sequential(Linear.create(64, 32), Linear.create(32, 8));
    override forward(x: Tensor): Tensor {
      return this.layers.forward(x);
    }
  }
  const model = new Model();
  copy.quantizeModel(model, { format: "int8", skip: [/1$/] });
  expect(model.layers[0]).toBeInstanceOf(quant.QuantizedLinear);
  expect(model.layers[1]).not.toBeInstanceOf(quant.QuantizedLinear);
  // What the other copy has quantized is no float layer here, and stands in the report.
  const report = quant.quantizeModel(model, { format: "q8_0" });
  expect(report.layers.map(({ name }) => name)).toEqual(["layers.1"]);
  expect(quant.quantizationReport(model).layers.map(({ format }) => format)).toEqual(["int8", "q8_0"]);
  const table = new copy.QuantizedEmbedding(theirs);
  expect(table).toBeInstanceOf(quant.QuantizedEmbedding);
  expect(table).not.toBeInstanceOf(quant.QuantizedLinear);
  for (const each of [weight, ours, model, table]) each.dispose();
});
