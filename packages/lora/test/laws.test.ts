// What holds for every kind of adapter and any configuration.

import { concat, crossEntropy, Generator, init, type Tensor, tidy } from "@nomoat/core";
import { AdamW } from "@nomoat/core/optim";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import {
  type Adapter,
  applyLora,
  type LoraConfig,
  loadAdapter,
  serializeAdapter,
  withAdapterRows,
} from "../src/index.js";
import { maxDifference, randomize, snapshot, TinyModel, tokens } from "./model.js";

beforeAll(() => init({ backend: "reference" }));

/** Kinds of adapters; `exact`: begins with nothing, to the bit. */
const kinds: readonly [name: string, config: Partial<LoraConfig>, exact: boolean][] = [
  ["LoRA", {}, true],
  ["rank-stabilized LoRA", { useRslora: true, initLoraWeights: "gaussian" }, true],
  ["DoRA", { useDora: true }, false],
  ["loraBias", { loraBias: true, targetModules: ["q_proj", "k_proj"] }, true],
  ["an embedding", { targetModules: ["embed_tokens", "o_proj"] }, true],
  ["DoRA of an embedding", { targetModules: ["embed_tokens"], useDora: true }, false],
  ["PiSSA", { initLoraWeights: "pissa" }, false],
  ["OLoRA", { initLoraWeights: "olora" }, false],
  ["tokens", { trainableTokenIndices: [0, 4] }, true],
  ["modules to save", { modulesToSave: ["lm_head"] }, true],
  ["biases", { bias: "lora_only" }, true],
  ["(IA)³", { peftType: "IA3", targetModules: ["up_proj", "down_proj"] }, true],
  ["LoHa", { peftType: "LOHA" }, true],
  ["LoKr", { peftType: "LOKR" }, true],
  ["VeRA", { peftType: "VERA" }, true],
  ["AdaLoRA", { peftType: "ADALORA", initR: 3, totalStep: 10 }, true],
];

const anyConfig = (kind: Partial<LoraConfig>) =>
  fc
    .record({
      r: fc.integer({ min: 1, max: 4 }),
      other: fc.integer({ min: 1, max: 4 }),
      alpha: fc.constantFrom(3, 5, 7),
    })
    .map(({ r, other, alpha }): Partial<LoraConfig> => {
      const patterns = ["IA3", "VERA", "ADALORA"].includes(kind.peftType ?? "")
        ? {}
        : { rankPattern: { q_proj: other }, alphaPattern: { up_proj: alpha + 1 } };
      return { targetModules: "all-linear", r, loraAlpha: alpha, ...patterns, ...kind };
    });

const out = (model: TinyModel): Tensor => tidy(() => model.forward(tokens()));
const fresh = (seed: number) => new TinyModel({ seed: 1 + (seed % 3), depth: 1 });
const apply = (model: TinyModel, config: Partial<LoraConfig>, name = "default"): Adapter =>
  applyLora(model, config, name, { generator: new Generator(7) });

function trainOnce(model: TinyModel, adapter: Adapter): void {
  const optimizer = new AdamW(adapter.parameters(), { learningRate: 0.05 });
  tidy(() => crossEntropy(out(model), tokens()).backward());
  optimizer.step();
  optimizer.zeroGrad();
  optimizer.dispose();
}

describe.each(kinds)("%s", (_, kind, exact) => {
  it("obeys the laws of adapters", async () => {
    const property = fc.asyncProperty(anyConfig(kind), fc.nat(99), async (config, seed) => {
      const model = fresh(seed);
      const base = snapshot(model);
      const before = out(model);
      const adapter = apply(model, config);
      // A fresh adapter is the identity.
      if (exact) expect(maxDifference(out(model), before)).toBe(0);
      else expect(maxDifference(out(model), before)).toBeLessThan(1e-12);
      trainOnce(model, adapter);
      randomize(adapter.parameters(), seed);
      const trained = out(model);
      expect(maxDifference(trained, before)).toBeGreaterThan(1e-6);

      // Save, load, save: the same bytes, and the same outputs.
      const files = await serializeAdapter(adapter, { dtype: "float64" });
      const second = fresh(seed);
      const loaded = await loadAdapter(second, files);
      expect(maxDifference(out(second), trained)).toBeLessThan(exact ? 1e-13 : 1e-11);
      expect([...(await serializeAdapter(loaded, { dtype: "float64" }))]).toEqual([...files]);

      // The order of adapters does not matter.
      const plain = { r: 2, targetModules: ["v_proj", "down_proj"] };
      const third = fresh(seed);
      const others = [model, third].map((each) => {
        const other = apply(each, plain, "other");
        randomize(other.parameters(), 3);
        return other;
      });
      const last = apply(third, config);
      last.loadStateDict(new Map([...adapter.stateDict()].map(([key, value]) => [key, value.detach()])));
      expect(maxDifference(out(model), out(third))).toBeLessThan(1e-12);

      // A batch of mixed rows is that of separate batches.
      if (!adapter.replacesParts) {
        const mixed = withAdapterRows(model, ["other", "default"], () => out(model));
        const rows = ["other", "default"].map((name, row) =>
          withAdapterRows(model, [name, name], () => out(model)).slice([row, row + 1]),
        );
        expect(maxDifference(mixed, concat(rows, 0))).toBeLessThan(1e-12);
      }

      // Merged equals unmerged, and unmerging gives the same bytes.
      if (!kind.loraBias) {
        const apart = out(model);
        adapter.merge();
        expect(maxDifference(out(model), apart)).toBeLessThan(1e-11);
        adapter.unmerge();
        expect(maxDifference(out(model), apart)).toBe(0);
      }
      others[0].remove();
      adapter.remove();
      expect(snapshot(model)).toEqual(base);
      for (const each of [model, second, third]) each.dispose();
    });
    await fc.assert(property, { numRuns: 4 });
  });
});
