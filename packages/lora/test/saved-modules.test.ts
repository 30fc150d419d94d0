// Modules that an adapter trains as a whole.

import { crossEntropy, init, memoryStats, type Tensor, tidy } from "@nomoat/core";
import { AdamW } from "@nomoat/core/optim";
import { beforeAll, describe, expect, it } from "vitest";
import { applyLora, loadAdapter, mergeAndUnload, serializeAdapter } from "../src/index.js";
import { maxDifference, snapshot, TinyModel, tokens } from "./model.js";

beforeAll(() => init({ backend: "reference" }));

const config = { targetModules: ["q_proj", "lm_head"], modulesToSave: ["lm_head", "embed_tokens"] };
const out = (model: TinyModel) => model.forward(tokens());

function train(model: TinyModel, parameters: Tensor[]): void {
  const optimizer = new AdamW(parameters, { learningRate: 0.02 });
  for (let step = 0; step < 3; step++) {
    tidy(() => crossEntropy(out(model), tokens()).backward());
    optimizer.step();
    optimizer.zeroGrad();
  }
}

describe("modulesToSave", () => {
  it("trains copies, and gives the originals back when disabled and removed", async () => {
    const model = new TinyModel();
    const base = snapshot(model);
    const before = out(model);
    const tensors = memoryStats().tensors;
    const adapter = applyLora(model, config);
    expect(adapter.layers.has("lm_head")).toBe(false);
    expect(maxDifference(out(model), before)).toBe(0);
    expect([...adapter.stateDict().keys()].slice(-2)).toEqual([
      "base_model.model.lm_head.weight",
      "base_model.model.model.embed_tokens.weight",
    ]);
    train(model, adapter.parameters());
    const trained = out(model);
    expect(maxDifference(trained, before)).toBeGreaterThan(0.01);
    expect(
      maxDifference(
        adapter.withDisabled(() => out(model)),
        before,
      ),
    ).toBe(0);
    expect(maxDifference(out(model), trained)).toBe(0);

    const files = await serializeAdapter(adapter, { dtype: "float64" });
    const other = new TinyModel();
    const loaded = await loadAdapter(other, files);
    expect(maxDifference(out(other), trained)).toBe(0);
    expect([...(await serializeAdapter(loaded, { dtype: "float64" }))]).toEqual([...files]);

    adapter.merge();
    expect(maxDifference(out(model), trained)).toBeLessThan(1e-12);
    adapter.remove();
    expect(snapshot(model)).toEqual(base);
    expect(memoryStats().tensors).toBeGreaterThan(tensors);
    mergeAndUnload(other);
    expect(maxDifference(out(other), trained)).toBeLessThan(1e-12);
    expect([...other.stateDict().keys()]).toEqual([...base.keys()]);
  });

  it("lets one adapter at a time have a module", async () => {
    const model = new TinyModel();
    const a = applyLora(model, config, "a");
    train(model, a.parameters());
    const withA = out(model);
    const names = [...model.stateDict().keys()];
    expect(() => applyLora(model, { modulesToSave: ["lm_head"] }, "b")).toThrow(/another adapter's lm_head/);
    expect([...model.stateDict().keys()]).toEqual(names);
    await expect(loadAdapter(model, await serializeAdapter(a), "b")).rejects.toThrow(/another adapter's/);
    a.disable();
    const b = applyLora(model, { modulesToSave: ["lm_head"] }, "b");
    expect(() => a.enable()).toThrow(/another adapter's lm_head/);
    expect(a.active).toBe(false);
    a.setActive();
    expect(maxDifference(out(model), withA)).toBe(0);
    b.setActive();
    b.remove();
    a.enable();
    expect(maxDifference(out(model), withA)).toBe(0);
  });

  it("refuses names that match nothing, and files that lack the modules", async () => {
    const model = new TinyModel();
    expect(() => applyLora(model, { modulesToSave: ["head"] })).toThrow(/no module is called "head"/);
    const files = await serializeAdapter(applyLora(model, {}));
    const changed = new TextDecoder()
      .decode(files.get("adapter_config.json"))
      .replace(/"modules_to_save": null/, '"modules_to_save": ["lm_head"]');
    files.set("adapter_config.json", new TextEncoder().encode(changed));
    await expect(loadAdapter(new TinyModel(), files)).rejects.toThrow(
      /missing base_model\.model\.lm_head\.weight \[11, 6\]/,
    );
  });
});
