// Adapters on a whole model: the laws of low-rank adaptation, names, switching, merging.

import { inspect } from "node:util";
import { crossEntropy, Generator, init, memoryStats, type Tensor, tidy } from "@nomoat/core";
import { AdamW } from "@nomoat/core/optim";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import {
  adaptedLayers,
  applyLora,
  LoraLinear,
  merge,
  mergeAndUnload,
  setActiveAdapters,
  unmerge,
  withAdaptersDisabled,
} from "../src/index.js";
import { maxDifference, randomize, snapshot, TinyModel, tokens } from "./model.js";

beforeAll(() => init({ backend: "reference" }));

const configs = fc.record({
  r: fc.integer({ min: 1, max: 9 }),
  loraAlpha: fc.double({ min: 0.5, max: 32, noNaN: true }),
  useRslora: fc.boolean(),
  targetModules: fc.constantFrom("all-linear", ["q_proj", "v_proj"], ["lm_head", "mlp.up_proj"], ".*_proj"),
});

const runs = { numRuns: 12 };

describe("laws", () => {
  it("a fresh adapter changes nothing, exactly", () => {
    fc.assert(
      fc.property(
        configs,
        fc.constantFrom<true | "gaussian">(true, "gaussian"),
        (config, initLoraWeights) => {
          const model = new TinyModel();
          const before = model.forward(tokens());
          applyLora(model, { ...config, initLoraWeights });
          expect([...model.forward(tokens()).dataSync()]).toEqual([...before.dataSync()]);
        },
      ),
      runs,
    );
  });

  it("merged equals unmerged with non-zero B, and unmerge restores the bytes", () => {
    fc.assert(
      fc.property(configs, fc.integer(), (config, seed) => {
        const model = new TinyModel();
        const base = snapshot(model);
        const adapter = applyLora(model, config);
        randomize(adapter.parameters(), Math.abs(seed));
        const before = model.forward(tokens());
        adapter.merge();
        const largest = before.abs().max().item();
        expect(maxDifference(model.forward(tokens()), before)).toBeLessThan(1e-9 * largest);
        adapter.unmerge();
        expect([...model.forward(tokens()).dataSync()]).toEqual([...before.dataSync()]);
        adapter.remove();
        expect(snapshot(model)).toEqual(base);
      }),
      runs,
    );
  });

  it("disabled equals the base; the order of adapters does not matter", () => {
    const outputs = [
      ["a", "b"],
      ["b", "a"],
    ].map((names) => {
      const model = new TinyModel();
      const base = model.forward(tokens());
      for (const name of names) {
        const targetModules = name === "a" ? ["q_proj", "v_proj"] : "all-linear";
        const adapter = applyLora(model, { r: 3, targetModules }, name);
        randomize(adapter.parameters(), name.charCodeAt(0));
      }
      expect([...withAdaptersDisabled(model, () => model.forward(tokens())).dataSync()]).toEqual([
        ...base.dataSync(),
      ]);
      return model.forward(tokens());
    });
    expect(maxDifference(outputs[0], outputs[1])).toBeLessThan(1e-12);
  });

  it("training changes the adapter and not the base", () => {
    const model = new TinyModel();
    const base = snapshot(model);
    const adapter = applyLora(model, { r: 2, targetModules: "all-linear" }, "default", {
      generator: new Generator(4),
    });
    const optimizer = new AdamW(adapter.parameters(), { learningRate: 0.02 });
    const loss = () => crossEntropy(model.forward(tokens()), tokens());
    const losses: number[] = [];
    let flat = memoryStats();
    for (let step = 0; step < 30; step++) {
      tidy(() => {
        const value = loss();
        losses.push(value.item());
        value.backward();
      });
      optimizer.step();
      optimizer.zeroGrad();
      if (step === 2) flat = memoryStats();
    }
    expect(memoryStats().tensors).toBe(flat.tensors);
    expect(losses.at(-1)).toBeLessThan(losses[0] * 0.7);
    expect(model.trainableParameters()).toHaveLength(adapter.parameters().length);
    adapter.remove();
    expect(snapshot(model)).toEqual(base);
  });
});

describe("applyLora", () => {
  it("names tensors as PEFT", () => {
    const adapter = applyLora(new TinyModel(), { r: 3 });
    expect([...adapter.stateDict()].map(([key, tensor]) => `${key} ${tensor.shape}`).slice(0, 2)).toEqual([
      "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight 3,6",
      "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight 6,3",
    ]);
    expect(adapter.namedParameters()).toHaveLength(8);
    expect(adapter.parameterCount).toBe(4 * 36);
    expect(inspect(adapter)).toBe(
      `Adapter "default": LORA, rank ${adapter.config.r}, ${adapter.layers.size} layers, ${4 * 36} parameters`,
    );
  });

  it("is repeatable from a seed, and follows PEFT's initial distributions", () => {
    const state = (seed: number) =>
      applyLora(new TinyModel(), {}, "default", { generator: new Generator(seed) })
        .parameters()
        .map((t) => [...t.dataSync()]);
    expect(state(1)).toEqual(state(1));
    expect(state(1)).not.toEqual(state(2));
    const wide = () => new TinyModel({ width: 64, depth: 1 });
    const a = applyLora(wide(), { r: 32, targetModules: ["q_proj"] })
      .parameters()[0]
      .dataSync();
    expect(Math.max(...a)).toBeLessThanOrEqual(1 / 8);
    expect(Math.max(...a)).toBeGreaterThan(0.95 / 8);
    const g = applyLora(wide(), {
      r: 32,
      targetModules: ["q_proj"],
      initLoraWeights: "gaussian",
    }).parameters()[0];
    expect(Math.sqrt(g.square().mean().item())).toBeCloseTo(1 / 32, 2);
    const b = applyLora(wide(), { r: 32, targetModules: ["q_proj"], initLoraWeights: false }).parameters()[1];
    expect(b.square().sum().item()).toBeGreaterThan(0);
  });

  it("leaves the model alone when it fails", () => {
    const model = new TinyModel();
    const names = [...model.stateDict().keys()];
    const tensors = memoryStats().tensors;
    expect(() => applyLora(model, { targetModules: ["nothing"] })).toThrow(/match no layer/);
    expect(() => applyLora(model, { r: -1 })).toThrow(/r must be/);
    for (const name of ["", "__proto__", "a/b", ".a", "x".repeat(101)]) {
      expect(() => applyLora(model, {}, name)).toThrow(/adapter name/);
    }
    expect([...model.stateDict().keys()]).toEqual(names);
    expect(model.trainableParameters()).toHaveLength(names.length);
    expect(memoryStats().tensors).toBe(tensors);
    applyLora(model, {});
    expect(() => applyLora(model, {})).toThrow(/exists already/);
  });

  it("switches between adapters", async () => {
    const model = new TinyModel();
    const a = applyLora(model, { r: 2 }, "a");
    const b = applyLora(model, { r: 3, targetModules: "all-linear" }, "b");
    randomize(a.parameters(), 1);
    randomize(b.parameters(), 2);
    const out = () => [...model.forward(tokens()).dataSync()];
    const both = out();
    const onlyA = b.withDisabled(out);
    expect(out()).toEqual(both);
    a.setActive();
    expect([a.active, b.active]).toEqual([true, false]);
    expect(out()).toEqual(onlyA);
    setActiveAdapters(model, ["a", "b"]);
    expect(out()).toEqual(both);
    expect(() => setActiveAdapters(model, ["c"])).toThrow(/no adapter "c"/);
    expect(await b.withDisabled(async () => out())).toEqual(onlyA);
    expect(() =>
      b.withDisabled(() => {
        throw new Error("x");
      }),
    ).toThrow("x");
    expect(out()).toEqual(both);
    b.weight = 0;
    expect(out()).toEqual(onlyA);
    b.remove();
    b.remove();
    expect(out()).toEqual(onlyA);
    expect(() => b.parameters()).toThrow(/removed/);
    expect(adaptedLayers(model).size).toBe(4);
    a.remove();
    expect(adaptedLayers(model).size).toBe(0);
  });

  it("merges adapters alone and together, and for good", () => {
    const model = new TinyModel();
    const base = new TinyModel();
    const a = applyLora(model, { r: 2 }, "a");
    const b = applyLora(model, { r: 3, targetModules: "all-linear" }, "b");
    randomize(a.parameters(), 1);
    randomize(b.parameters(), 2);
    const out = () => model.forward(tokens());
    const both = out();
    a.merge();
    b.merge();
    expect([a.merged, b.merged]).toEqual([true, true]);
    expect(maxDifference(out(), both)).toBeLessThan(1e-12);
    a.unmerge();
    expect(maxDifference(out(), both)).toBeLessThan(1e-12);
    expect(() => b.loadStateDict(b.stateDict())).toThrow(/merged/);
    unmerge(model);
    expect(maxDifference(out(), both)).toBe(0);
    merge(model);
    expect(maxDifference(out(), both)).toBeLessThan(1e-12);
    const tensors = memoryStats().tensors;
    mergeAndUnload(model);
    expect(memoryStats().tensors).toBeLessThan(tensors);
    expect(maxDifference(out(), both)).toBeLessThan(1e-12);
    expect([...model.stateDict().keys()]).toEqual([...base.stateDict().keys()]);
    expect([...model.namedModules()].some(([, module]) => module instanceof LoraLinear)).toBe(false);
  });

  it("swaps weights in place, all or none", () => {
    const model = new TinyModel();
    const adapter = applyLora(model, {});
    const other = applyLora(new TinyModel(), {}, "other");
    randomize(other.parameters());
    adapter.loadStateDict(other.stateDict());
    expect([...adapter.parameters()[1].dataSync()]).toEqual([...other.parameters()[1].dataSync()]);
    const wrong: Map<string, Tensor> = new Map(
      applyLora(new TinyModel(), { r: 2, targetModules: ["q_proj", "o_proj"] }).stateDict(),
    );
    expect(() => adapter.loadStateDict(wrong)).toThrow(/missing .*v_proj.*unexpected .*o_proj/);
  });
});
