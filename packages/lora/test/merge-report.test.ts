// Merging into a base that rounds its weights, as quantized ones do.

import { concat, init, keep, matmul, type Tensor, tensor, tidy } from "@nomoat/core";
import { Linear, LinearBase, parameter } from "@nomoat/core/nn";
import { beforeAll, describe, expect, it } from "vitest";
import {
  type AdaptedLayer,
  type Adapter,
  applyLora,
  denseMerge,
  type InputMoments,
  layerInputs,
  merge,
  mergeAndUnload,
  mergeReport,
} from "../src/index.js";
import { maxDifference, normalTensor, randomize, reference64, TinyModel, tokens } from "./model.js";

beforeAll(() => init({ backend: "reference" }));

/** Keeps multiples of `step` only. */
class RoundedLinear extends LinearBase {
  readonly grid: Tensor;
  readonly step: number;
  readonly bias = null;

  constructor(weight: Tensor, step: number) {
    super();
    this.step = step;
    this.grid = parameter(
      tidy(() => weight.detach().div(step).round()),
      false,
    );
  }

  get inFeatures() {
    return this.grid.shape[1];
  }

  get outFeatures() {
    return this.grid.shape[0];
  }

  override forward(x: Tensor) {
    return tidy(() => matmul(x, this.denseWeight(), { transB: true }));
  }

  override denseWeight() {
    return this.grid.mul(this.step);
  }

  override withDenseWeight(weight: Tensor) {
    return new RoundedLinear(weight, this.step);
  }
}

/** As {@link setUp}, with an adapter on the rounding layers alone. */
function setUpRounded(size: number) {
  const { model, adapter } = setUp(size);
  adapter.remove();
  const other = applyLora(model, { r: 2, targetModules: ["up_proj"] });
  randomize(other.parameters(), 5, size);
  return { model, adapter: other };
}

function setUp(size: number): { model: TinyModel; adapter: Adapter } {
  const model = new TinyModel();
  for (const layer of model.model.layers)
    model.replaceModule(
      `model.layers.${model.model.layers.indexOf(layer)}.mlp.up_proj`,
      new RoundedLinear(normalTensor([12, 6], 4), 0.1),
    );
  const adapter = applyLora(model, { r: 2, targetModules: ["up_proj", "q_proj"] });
  randomize(adapter.parameters(), 5, size);
  return { model, adapter };
}

describe("mergeReport", () => {
  it("tells what rounding would leave, and changes nothing", () => {
    const { model, adapter } = setUp(0.5);
    const before = model.forward(tokens());
    const [dense, rounded] = mergeReport(adapter).layers;
    expect(dense).toMatchObject({ name: "model.layers.0.self_attn.q_proj" });
    expect(dense.relativeError).toBeLessThan(1e-12);
    expect(dense.cosine).toBeCloseTo(1, 12);
    expect(dense.kept).toBeCloseTo(1, 12);
    expect(rounded.kept).toBeCloseTo(rounded.normKept * rounded.cosine, 12);
    expect(rounded.relativeError).toBeGreaterThan(0.01);
    expect(rounded.cosine).toBeGreaterThan(0.9);
    expect(maxDifference(model.forward(tokens()), before)).toBe(0);
    const grid = (adapter.layers.get(rounded.name) as AdaptedLayer).slots.original
      .stateDict()
      .get("grid") as Tensor;
    const bytes = [...grid.dataSync()];
    adapter.merge();
    expect(maxDifference(model.forward(tokens()), before)).toBeGreaterThan(1e-3);
    adapter.unmerge();
    expect(maxDifference(model.forward(tokens()), before)).toBe(0);
    expect([...grid.dataSync()]).toEqual(bytes);
  });

  it("says when a small update would be lost, and takes fresh adapters for kept", () => {
    const [, lost] = mergeReport(setUp(0.01).adapter).layers;
    expect(lost).toMatchObject({ kept: 0, normKept: 0, cosine: 0, relativeError: 1 });
    for (const layer of mergeReport(applyLora(new TinyModel(), {})).layers)
      expect(layer).toMatchObject({ kept: 1, normKept: 1, cosine: 1, relativeError: 0 });
  });
});

describe("mergeReport with inputs", () => {
  it("compares the layers' outputs over a text, as the rows themselves would", async () => {
    const { model, adapter } = setUp(0.3);
    const rows = new Map<string, Tensor[]>();
    for (const [name, layer] of adapter.layers) {
      const forward = layer.forward.bind(layer) as (x: Tensor) => Tensor;
      rows.set(name, []);
      Object.assign(layer, {
        forward: (x: Tensor) => {
          rows.get(name)?.push(keep(x.detach().reshape(-1, 6)));
          return forward(x);
        },
      });
    }
    model.forward(tokens());
    for (const [, layer] of adapter.layers) Reflect.deleteProperty(layer, "forward");
    const inputs = await layerInputs(model, async () => {
      await Promise.resolve();
      model.forward(tokens());
    });
    expect([...inputs.keys()]).toEqual([...adapter.layers.keys()]);
    const report = mergeReport(adapter, { inputs });
    for (const layer of report.layers) {
      const { slots } = adapter.layers.get(layer.name) as AdaptedLayer;
      const base = (slots.original as LinearBase).denseWeight();
      const whole = slots.branch("default")?.updateWeight(base, base) as Tensor;
      const merged = (slots.original as LinearBase).withDenseWeight(whole).denseWeight();
      const x = concat(rows.get(layer.name) as Tensor[], 0);
      const energy = (weight: Tensor) => x.matmul(weight, { transB: true }).square().sum().item();
      const noise = energy(merged.sub(whole));
      if (layer.name.endsWith("q_proj")) expect(layer.outputSqnr).toBeGreaterThan(250);
      else {
        expect(layer.outputSqnr).toBeCloseTo(10 * Math.log10(energy(whole) / noise), 8);
        expect(layer.updateSqnr).toBeCloseTo(10 * Math.log10(energy(whole.sub(base)) / noise), 8);
      }
      const moments = inputs.get(layer.name) as InputMoments;
      const products = tensor(moments.products(), { shape: [6, 6], ...reference64 });
      expect(maxDifference(products, x.matmul(x, { transA: true }))).toBeLessThan(1e-12);
      expect(moments.magnitudes[2]).toBeCloseTo(x.abs().sum(0).dataSync()[2] as number, 12);
      expect(moments.count).toBe(8);
    }
    expect(String(report)).toMatch(
      /^layer +kept +norm kept.*output dB.*update dB\nmodel.layers.0.*\n.*all layers /s,
    );
    expect(report.total.relativeError).toBeGreaterThan(report.layers[0].relativeError);
  });
});

describe("merging into a base that rounds", () => {
  it("warns when the update would be lost, and only then", () => {
    const heard: string[] = [];
    const onWarning = (message: string) => heard.push(message);
    setUp(0.5).adapter.merge({ onWarning });
    merge(setUp(0.5).model, { onWarning });
    const dense = applyLora(new TinyModel(), {});
    randomize(dense.parameters(), 5, 1e-6);
    dense.merge({ onWarning });
    expect(heard).toEqual([]);
    const { model, adapter } = setUpRounded(0.01);
    expect(mergeReport(adapter).lost).toHaveLength(2);
    adapter.merge({ onWarning });
    adapter.unmerge();
    merge(model, { onWarning });
    mergeAndUnload(model, { onWarning });
    expect(heard).toHaveLength(2);
    for (const message of heard)
      expect(message).toMatch(
        /lose the update: 0 % of it would be left, less than half in 2 of 2 layers.*denseMerge.*compensation/,
      );
  });

  it("goes into float weights where asked, and back to the same bytes", () => {
    const { model, adapter } = setUp(0.01);
    const before = model.forward(tokens());
    expect(mergeReport(adapter).total.relativeError).toBeGreaterThan(0.8);
    expect(mergeReport(adapter, { quantize: denseMerge() }).total.relativeError).toBeLessThan(1e-3);
    adapter.merge({ quantize: denseMerge("float32"), onWarning: (message) => expect.fail(message) });
    expect(maxDifference(model.forward(tokens()), before)).toBeLessThan(1e-5);
    const layer = adapter.layers.get("model.layers.0.mlp.up_proj") as AdaptedLayer;
    expect(layer.base_layer).toBeInstanceOf(Linear);
    // A second adapter joins by the same way.
    const other = applyLora(model, { r: 2, targetModules: ["up_proj"] }, "other");
    randomize(other.parameters(), 6, 0.01);
    other.merge({ quantize: denseMerge("float16") });
    adapter.unmerge();
    expect((layer.base_layer as Linear).weight.dtype).toBe("float16");
    other.unmerge();
    other.remove();
    expect(layer.base_layer).toBeInstanceOf(RoundedLinear);
    expect(maxDifference(model.forward(tokens()), before)).toBe(0);
    mergeAndUnload(model, { quantize: denseMerge("float16") });
    expect(maxDifference(model.forward(tokens()), before)).toBeLessThan(0.01);
    expect(model.stateDict().get("model.layers.0.mlp.up_proj.weight")?.dtype).toBe("float16");
    expect(() => denseMerge("int8" as never)).toThrow(/dtype must be/);
  });

  it("refuses a quantizer's layer that does not fit, and changes nothing", () => {
    const { model, adapter } = setUp(0.1);
    const before = model.forward(tokens());
    const wrong = [
      (weight: Tensor) => new Linear(weight.slice([0, 2]).clone()),
      (weight: Tensor) => new Linear(weight.clone()),
      (_: Tensor, base: LinearBase) => base,
    ];
    for (const quantize of wrong) {
      expect(() => adapter.merge({ quantize })).toThrow(/options.quantize gave model.layers.0/);
      expect(adapter.merged).toBe(false);
      expect(maxDifference(model.forward(tokens()), before)).toBe(0);
    }
  });
});
