// Other values in an adapter's place, other names, and adapters in several files.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { init, manualSeed, type Tensor } from "@nomoat/core";
import { loadSafetensors, serializeSafetensors } from "@nomoat/core/safetensors";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  adaptersOf,
  applyLora,
  hotSwapAdapter,
  type LoraConfig,
  loadAdapter,
  serializeAdapter,
  withAdapterRows,
} from "../src/index.js";
import { maxDifference, randomize, TinyModel, tokens } from "./model.js";

const folder = mkdtempSync(join(tmpdir(), "nomoat-swap-"));
beforeAll(() => init({ backend: "reference" }));
afterAll(() => rmSync(folder, { recursive: true }));

function trained(config: Partial<LoraConfig>, seed = 5) {
  const model = new TinyModel();
  const adapter = applyLora(model, config);
  randomize(adapter.parameters(), seed);
  return { model, adapter };
}

const bytes = (adapter: ReturnType<typeof applyLora>) => serializeAdapter(adapter, { dtype: "float64" });

describe("hotSwapAdapter", () => {
  it.each<Partial<LoraConfig>>([
    { targetModules: "all-linear", r: 2 },
    { useDora: true },
    { targetModules: ["embed_tokens", "q_proj"] },
    { peftType: "LOKR", targetModules: "all-linear" },
    { peftType: "VERA", r: 4 },
    { bias: "all" },
    { modulesToSave: ["lm_head"] },
  ])("takes over values, alpha and dropout: %j", async (config) => {
    const { model, adapter } = trained(config);
    const parameters = adapter.parameters();
    manualSeed(3);
    const plain = config.peftType === undefined;
    const other = trained({ ...config, ...(plain ? { loraAlpha: 3, loraDropout: 0.5 } : {}) }, 8);
    const files = await bytes(other.adapter);
    await hotSwapAdapter(adapter, files);
    model.eval();
    other.model.eval();
    expect(maxDifference(model.forward(tokens()), other.model.forward(tokens()))).toBe(0);
    expect(adapter.parameters()).toEqual(parameters);
    expect(parameters.every((parameter) => parameter.requiresGrad)).toBe(true);
    expect([...(await bytes(adapter))]).toEqual([...files]);
  });

  it("finds all that differs first, and changes nothing then", async () => {
    const { model, adapter } = trained({ r: 2 });
    const before = model.forward(tokens());
    const swap = async (config: Partial<LoraConfig>) =>
      hotSwapAdapter(adapter, await bytes(trained(config).adapter));
    await expect(swap({ r: 2, targetModules: ["k_proj", "q_proj"] })).rejects.toThrow(
      /k_proj is adapted, but not by.*v_proj is not adapted/,
    );
    await expect(swap({ r: 3 })).rejects.toThrow(/lora_A.weight has rank 3/);
    await expect(swap({ r: 2, useDora: true })).rejects.toThrow(/useDora is true/);
    await expect(swap({ r: 2, bias: "all" })).rejects.toThrow(/unexpected.*bias/);
    adapter.merge();
    await expect(swap({ r: 2 })).rejects.toThrow(/is merged/);
    adapter.unmerge();
    const pissa = trained({ r: 2, initLoraWeights: "pissa" }).adapter;
    await expect(hotSwapAdapter(pissa, await bytes(adapter))).rejects.toThrow(/began with pissa/);
    expect(maxDifference(model.forward(tokens()), before)).toBe(0);
  });
});

describe("rename", () => {
  it("changes the name everywhere and keeps the order", async () => {
    const { model, adapter } = trained({});
    const second = applyLora(model, {}, "second");
    const before = model.forward(tokens());
    expect(() => adapter.rename("second")).toThrow(/exists already/);
    expect(() => adapter.rename("a b")).toThrow(/adapter name/);
    adapter.rename("first").rename("first");
    expect([...adaptersOf(model).keys()]).toEqual(["first", "second"]);
    second.setActive();
    adapter.setActive();
    expect(maxDifference(model.forward(tokens()), before)).toBe(0);
    const rows = withAdapterRows(model, ["first", "first"], () => model.forward(tokens()));
    expect(maxDifference(rows, before)).toBeLessThan(1e-13);
    adapter.merge().unmerge().remove();
    expect(() => adapter.rename("again")).toThrow(/was removed/);
    expect([...adaptersOf(model).keys()]).toEqual(["second"]);
    applyLora(model, {}, "first");
  });
});

describe("adapters in shards", () => {
  it("are read from a folder and from given files", async () => {
    const { model, adapter } = trained({});
    const files = await bytes(adapter);
    const whole = await loadSafetensors(files.get("adapter_model.safetensors") as Uint8Array);
    const entries = [...whole.tensors];
    const names = ["adapter_model-00001-of-00002.safetensors", "adapter_model-00002-of-00002.safetensors"];
    const shards: [string, Tensor][][] = [entries.slice(0, 3), entries.slice(3)];
    const map = Object.fromEntries(shards.flatMap((part, i) => part.map(([key]) => [key, names[i]])));
    const sharded = new Map<string, Uint8Array>([
      ["adapter_config.json", files.get("adapter_config.json") as Uint8Array],
      [
        "adapter_model.safetensors.index.json",
        new TextEncoder().encode(JSON.stringify({ metadata: {}, weight_map: map })),
      ],
    ]);
    for (const [i, part] of shards.entries())
      sharded.set(names[i], await serializeSafetensors(new Map(part)));
    for (const [name, content] of sharded) writeFileSync(join(folder, name), content);
    for (const source of [folder, sharded]) {
      const other = new TinyModel();
      await loadAdapter(other, source);
      expect(maxDifference(other.forward(tokens()), model.forward(tokens()))).toBe(0);
    }
    sharded.delete(names[1]);
    await expect(loadAdapter(new TinyModel(), sharded)).rejects.toThrow(/00002-of-00002/);
  });
});
