// Biases trained along with an adapter, and the bias of B.

import { init, type Tensor } from "@nomoat/core";
import { loadSafetensors } from "@nomoat/core/safetensors";
import { beforeAll, describe, expect, it, vi } from "vitest";
import {
  type Adapter,
  applyLora,
  type LoraConfig,
  loadAdapter,
  mergeAndUnload,
  serializeAdapter,
  withAdapterRows,
} from "../src/index.js";
import { maxDifference, randomize, snapshot, TinyModel, tokens } from "./model.js";

beforeAll(() => init({ backend: "reference" }));

const q = "model.layers.0.self_attn.q_proj";
const key = (rest: string) => `base_model.model.model.layers.${rest}`;
const biasKeys = (adapter: Adapter) =>
  [...adapter.stateDict().keys()].filter((name) => !name.includes("lora_"));
const bytes = (adapter: Adapter) => serializeAdapter(adapter, { dtype: "float64" });

function trained(config: Partial<LoraConfig>) {
  const model = new TinyModel();
  const before = model.forward(tokens());
  const base = snapshot(model);
  const adapter = applyLora(model, { targetModules: ["q_proj"], r: 2, ...config });
  expect(maxDifference(model.forward(tokens()), before)).toBe(0);
  randomize(adapter.parameters());
  return { model, adapter, before, base };
}

describe("bias", () => {
  it.each(["all", "lora_only"] as const)("%s trains copies that come and go with the adapter", (bias) => {
    const { model, adapter, before, base } = trained({ bias });
    expect(biasKeys(adapter)).toEqual(
      bias === "all"
        ? [0, 1].flatMap((i) => [
            key(`${i}.self_attn.q_proj.base_layer.bias`),
            ...["k", "v", "o"].map((name) => key(`${i}.self_attn.${name}_proj.bias`)),
          ])
        : [0, 1].map((i) => key(`${i}.self_attn.q_proj.base_layer.bias`)),
    );
    const out = model.forward(tokens());
    out.square().sum().backward();
    expect(adapter.parameters().every((parameter) => parameter.grad !== null)).toBe(true);
    expect(model.trainableParameters()).toHaveLength(adapter.parameters().length);
    adapter.withDisabled(() => expect(maxDifference(model.forward(tokens()), before)).toBe(0));
    expect(maxDifference(model.forward(tokens()), out)).toBe(0);
    adapter.remove();
    expect(snapshot(model)).toEqual(base);
  });

  it.each(["all", "lora_only"] as const)(
    "%s survives files and merges, beside another adapter",
    async (bias) => {
      const { model, adapter, base } = trained({ bias });
      const files = await bytes(adapter);
      const other = new TinyModel();
      const second = applyLora(other, { targetModules: ["q_proj", "k_proj"] }, "second");
      randomize(second.parameters(), 9);
      const alone = other.forward(tokens());
      second.merge();
      const loaded = await loadAdapter(other, files);
      const sum = other.forward(tokens());
      second.disable();
      expect(maxDifference(other.forward(tokens()), model.forward(tokens()))).toBe(0);
      second.enable();
      loaded.disable();
      expect(maxDifference(other.forward(tokens()), alone)).toBeLessThan(1e-12);
      loaded.merge().enable();
      expect(maxDifference(other.forward(tokens()), sum)).toBeLessThan(1e-12);
      loaded.unmerge();
      expect([...(await bytes(loaded))]).toEqual([...files]);

      const out = model.forward(tokens());
      mergeAndUnload(model);
      expect(maxDifference(model.forward(tokens()), out)).toBeLessThan(1e-12);
      expect([...model.stateDict().keys()]).toEqual([...base.keys()]);
    },
  );

  it("reads what PEFT writes for lora_only, which leaves the biases out", async () => {
    const { adapter } = trained({ bias: "none" });
    const files = await bytes(adapter);
    const json = new TextDecoder().decode(files.get("adapter_config.json"));
    const bias = (value: string) =>
      new Map([
        ...files,
        [
          "adapter_config.json",
          new TextEncoder().encode(json.replace('"bias": "none"', `"bias": "${value}"`)),
        ],
      ]);
    const onWarning = vi.fn();
    await loadAdapter(new TinyModel(), bias("lora_only"), "a", { onWarning });
    expect(onWarning.mock.calls[0][0]).toMatch(/base's values are kept for .*q_proj.base_layer.bias/);
    await expect(loadAdapter(new TinyModel(), bias("all"))).rejects.toThrow(/missing .*base_layer.bias/);
  });

  it("belongs to one enabled adapter, and not to rows", () => {
    const { model, adapter } = trained({ bias: "all" });
    expect(() => applyLora(model, { bias: "lora_only" }, "second")).toThrow(/disable that adapter first/);
    expect(() => withAdapterRows(model, ["default", null], () => 0)).toThrow(/trained biases/);
    adapter.disable();
    const second = applyLora(model, { bias: "lora_only" }, "second");
    expect(() => adapter.enable()).toThrow(/in place/);
    adapter.setActive();
    expect(second.active).toBe(false);
  });
});

describe("loraBias", () => {
  it("adds scaling · bias, merges into the layer's bias and is saved as PEFT does", async () => {
    const { model, adapter } = trained({ loraBias: true, loraAlpha: 6 });
    const layer = adapter.layers.get(q) as unknown as {
      forward(x: Tensor): Tensor;
      original: { bias: Tensor };
    };
    const state = adapter.stateDict();
    const bias = state.get(key("0.self_attn.q_proj.lora_B.bias")) as Tensor;
    expect(bias.shape).toEqual([6]);
    const x = model.model.embed_tokens.forward(tokens());
    const y = layer.forward(x);
    const values = bias.clone().detach();
    bias.requiresGrad = false;
    bias.copyFrom(values.mul(0));
    bias.requiresGrad = true;
    expect(maxDifference(y, layer.forward(x).add(values.mul(3)))).toBeLessThan(1e-14);
    layer.forward(x).sum().backward();
    expect([...(bias.grad as Tensor).dataSync()].every((value) => Math.abs(value - 24) < 1e-12)).toBe(true);
    randomize([bias], 4);
    adapter.weight = 0.5;
    const out = model.forward(tokens());
    const original = [...layer.original.bias.dataSync()];
    adapter.merge();
    expect(maxDifference(model.forward(tokens()), out)).toBeLessThan(1e-12);
    adapter.unmerge();
    expect([...layer.original.bias.dataSync()]).toEqual(original);
    const mixed = withAdapterRows(model, ["default", null], () => model.forward(tokens()));
    expect(maxDifference(mixed.slice([0, 1]), out.slice([0, 1]))).toBeLessThan(1e-12);

    const files = await bytes(adapter);
    const { tensors } = await loadSafetensors(files.get("adapter_model.safetensors") as Uint8Array);
    expect([...tensors.keys()]).toContain(key("0.self_attn.q_proj.lora_B.bias"));
    expect(new TextDecoder().decode(files.get("adapter_config.json"))).toContain('"lora_bias": true');
    expect([...(await bytes(await loadAdapter(new TinyModel(), files)))]).toEqual([...files]);
  });

  it("refuses what PEFT refuses", () => {
    const on = (config: Partial<LoraConfig>) => () =>
      applyLora(new TinyModel(), { loraBias: true, ...config });
    expect(on({ useDora: true })).toThrow(/loraBias cannot be used with useDora/);
    expect(on({ initLoraWeights: "olora" })).toThrow(/loraBias needs initLoraWeights/);
    expect(on({ targetModules: ["embed_tokens"] })).toThrow(/an embedding, which loraBias/);
    const adapter = on({ targetModules: ["up_proj"] })();
    expect(() => adapter.merge()).toThrow(/no bias of the layer/);
  });
});
