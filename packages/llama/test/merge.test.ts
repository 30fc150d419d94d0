// Merging adapters into quantized bases: what is lost, and error compensation.

import { Generator, init, noGrad, type Tensor, tensor, tidy } from "@nomoat/core";
import { Linear } from "@nomoat/core/nn";
import {
  type Adapter,
  applyLora,
  denseMerge,
  type LoraLinear,
  layerInputs,
  merge,
  mergeReport,
  unmerge,
} from "@nomoat/lora";
import { QuantizedLinear, quantizeModel } from "@nomoat/quant";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { compensatedMerge, type LlamaForCausalLM } from "../src/index.js";
import { tinyModel } from "./support.js";

beforeAll(() => init({ backend: "wasm" }));
afterAll(() => init({ backend: "wasm" }));

const at = "model.layers.0.mlp.down_proj";

function setUp(format: "int4_asym_g64" | "nf4", size: number): { model: LlamaForCausalLM; adapter: Adapter } {
  const model = tinyModel({ device: "wasm", config: { hiddenSize: 32, intermediateSize: 96, headDim: 8 } });
  quantizeModel(model, { format });
  const adapter = applyLora(model, { r: 2, targetModules: "all-linear" }, "default", {
    generator: new Generator(5),
  });
  noGrad(() =>
    tidy(() => {
      for (const [key, parameter] of adapter.namedParameters())
        if (key.includes("lora_B")) {
          const values = Array.from({ length: parameter.size }, (_, i) => size * Math.sin(i + key.length));
          parameter.copyFrom(tensor(values, { shape: parameter.shape }));
        }
    }),
  );
  return { model, adapter };
}

const ids = (seed: number) =>
  tensor(
    Int32Array.from({ length: 4 * 48 }, (_, i) => 3 + ((i * i * 31 + seed * 17 * i) % 250)),
    {
      shape: [4, 48],
      dtype: "int32",
    },
  );
const run = (model: LlamaForCausalLM) => () => noGrad(() => tidy(() => void model.forward(ids(1))));
const logits = (model: LlamaForCausalLM): Tensor => noGrad(() => tidy(() => model.forward(ids(2))));
const distance = (a: Tensor, b: Tensor) => tidy(() => a.sub(b).square().mean().item());

describe("merging into 4 bits", () => {
  it("loses a small update, says so, and keeps it by the remedies", async () => {
    const { model, adapter } = setUp("int4_asym_g64", 0.02);
    const apart = logits(model);
    const heard: string[] = [];
    adapter.merge({ onWarning: (message) => heard.push(message) });
    expect(heard.join()).toMatch(/^merge: rounding would lose the update: \d+ % of it/);
    adapter.unmerge();
    const inputs = await layerInputs(model, run(model));
    expect(inputs.size).toBe(14);
    expect(mergeReport(adapter, { inputs }).warning).toMatch(/lose the update/);
    expect(
      mergeReport(adapter, { inputs, quantize: denseMerge("float16") }).total.outputSqnr,
    ).toBeGreaterThan(60);

    const layer = adapter.layers.get(at) as unknown as LoraLinear;
    const bytes = [...(layer.original as QuantizedLinear).quantized.parts.values()].map((part) => [
      ...part.dataSync(),
    ]);
    merge(adapter, { onWarning: () => {} });
    const rounded = distance(logits(model), apart);
    unmerge(adapter);
    merge(adapter, { quantize: denseMerge("float16"), onWarning: (message) => expect.fail(message) });
    expect(layer.base_layer).toBeInstanceOf(Linear);
    expect(distance(logits(model), apart)).toBeLessThan(1e-3 * rounded);
    unmerge(adapter);
    expect(distance(logits(model), apart)).toBe(0);
    expect(
      [...(layer.original as QuantizedLinear).quantized.parts.values()].map((part) => [...part.dataSync()]),
    ).toEqual(bytes);
    model.dispose();
  });

  it("keeps more of the outputs with error compensation", async () => {
    const { model, adapter } = setUp("int4_asym_g64", 0.3);
    const apart = logits(model);
    const inputs = await layerInputs(model, run(model));
    const quantize = compensatedMerge(inputs);
    const nearest = mergeReport(adapter, { inputs }).total;
    const compensated = mergeReport(adapter, { inputs, quantize }).total;
    expect(compensated.outputSqnr).toBeGreaterThan((nearest.outputSqnr as number) + 1);
    merge(adapter);
    const rounded = distance(logits(model), apart);
    unmerge(adapter);
    merge(adapter, { quantize });
    const layer = adapter.layers.get(at) as unknown as LoraLinear;
    expect(layer.base_layer).toBeInstanceOf(QuantizedLinear);
    expect((layer.base_layer as QuantizedLinear).quantized.format.name).toBe("int4_asym_g64");
    expect(distance(logits(model), apart)).toBeLessThan(rounded);
    model.dispose();
  });

  it("takes another format of integers for a base that has none, and says what it lacks", async () => {
    const { model, adapter } = setUp("nf4", 0.5);
    const inputs = await layerInputs(model, run(model));
    expect(() => adapter.merge({ quantize: compensatedMerge(inputs) })).toThrow(
      /nf4 is not a format of integers/,
    );
    expect(() => adapter.merge({ quantize: compensatedMerge(new Map(), { format: "int8" }) })).toThrow(
      /there are no inputs of model.layers.0/,
    );
    expect(adapter.merged).toBe(false);
    const before = logits(model);
    adapter.merge({ quantize: compensatedMerge(inputs, { format: "int8" }) });
    const variance = tidy(() => before.square().mean().item());
    expect(distance(logits(model), before)).toBeLessThan(0.01 * variance);
    model.dispose();
    const dense = tinyModel({ device: "wasm" });
    const other = applyLora(dense, {});
    const own = await layerInputs(dense, run(dense));
    expect(() => other.merge({ quantize: compensatedMerge(own) })).toThrow(/is not quantized: give a format/);
    dense.dispose();
  });
});
