// Merging into a base that rounds its weights, as quantized ones do.

import { init, matmul, type Tensor, tidy } from "@nomoat/core";
import { LinearBase, parameter } from "@nomoat/core/nn";
import { beforeAll, describe, expect, it } from "vitest";
import { type AdaptedLayer, type Adapter, applyLora, mergeReport } from "../src/index.js";
import { maxDifference, normalTensor, randomize, TinyModel, tokens } from "./model.js";

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
    const [dense, rounded] = mergeReport(adapter);
    expect(dense).toMatchObject({ name: "model.layers.0.self_attn.q_proj" });
    expect(dense.relativeError).toBeLessThan(1e-12);
    expect(dense.cosine).toBeCloseTo(1, 12);
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
    const [, lost] = mergeReport(setUp(0.01).adapter);
    expect(lost).toMatchObject({ normKept: 0, cosine: 0, relativeError: 1 });
    for (const layer of mergeReport(applyLora(new TinyModel(), {})))
      expect(layer).toMatchObject({ normKept: 1, cosine: 1, relativeError: 0 });
  });
});
