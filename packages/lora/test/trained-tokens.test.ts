// Rows of embeddings that are trained alone.

import { crossEntropy, gather, init, memoryStats, type Tensor, tensor, tidy } from "@nomoat/core";
import { Linear } from "@nomoat/core/nn";
import { AdamW } from "@nomoat/core/optim";
import { beforeAll, describe, expect, it } from "vitest";
import {
  applyLora,
  hotSwapAdapter,
  type LoraConfig,
  loadAdapter,
  mergeAndUnload,
  serializeAdapter,
} from "../src/index.js";
import { overwrite } from "../src/overwrite.js";
import { maxDifference, normalTensor, randomize, snapshot, TinyModel, tokens } from "./model.js";

beforeAll(() => init({ backend: "reference" }));

/** Its output layer shares the embedding's weight. */
function tiedModel(): TinyModel {
  const model = new TinyModel();
  model.lm_head.dispose();
  model.lm_head = new Linear(model.model.embed_tokens.weight);
  return model;
}

const key = (at: string) => `base_model.model.${at}.token_adapter.trainable_tokens_delta`;
const out = (model: TinyModel) => model.forward(tokens());

function train(model: TinyModel, parameters: Tensor[], steps = 3): void {
  const optimizer = new AdamW(parameters, { learningRate: 0.05 });
  for (let step = 0; step < steps; step++) {
    tidy(() => crossEntropy(out(model), tokens()).backward());
    optimizer.step();
    optimizer.zeroGrad();
  }
  optimizer.dispose();
}

const cases: [string, () => TinyModel, LoraConfig["trainableTokenIndices"], string[]][] = [
  ["a list", () => new TinyModel(), [3, 9, 4], ["model.embed_tokens"]],
  ["a list, tied", tiedModel, [3, 9, 4], ["model.embed_tokens"]],
  [
    "names",
    () => new TinyModel(),
    { embed_tokens: [1], lm_head: [0, 10] },
    ["model.embed_tokens", "lm_head"],
  ],
  ["equal indices, tied", tiedModel, { embed_tokens: [7, 3], lm_head: [7, 3] }, ["model.embed_tokens"]],
  ["other indices, tied", tiedModel, { embed_tokens: [7], lm_head: [3] }, ["model.embed_tokens", "lm_head"]],
];

describe.each(cases)("trainableTokenIndices as %s", (_, create, indices, keys) => {
  const config = { r: 2, targetModules: ["q_proj"], trainableTokenIndices: indices };

  it("trains these rows alone, and gives everything back", async () => {
    const model = create();
    const base = snapshot(model);
    const before = out(model);
    const adapter = applyLora(model, config);
    expect(maxDifference(out(model), before)).toBe(0);
    expect([...adapter.stateDict().keys()].filter((name) => name.includes("token"))).toEqual(keys.map(key));
    train(model, adapter.parameters());
    const trained = out(model);
    expect(maxDifference(trained, before)).toBeGreaterThan(0.01);
    expect(
      maxDifference(
        adapter.withDisabled(() => out(model)),
        before,
      ),
    ).toBe(0);

    const files = await serializeAdapter(adapter, { dtype: "float64" });
    const other = create();
    const loaded = await loadAdapter(other, files);
    expect(loaded.config.trainableTokenIndices).toEqual(indices);
    expect(maxDifference(out(other), trained)).toBe(0);
    expect([...(await serializeAdapter(loaded, { dtype: "float64" }))]).toEqual([...files]);
    const swapped = applyLora(create(), config);
    await hotSwapAdapter(swapped, files);
    expect(maxDifference(out(swapped.model as TinyModel), trained)).toBe(0);
    adapter.merge();
    expect(maxDifference(out(model), trained)).toBeLessThan(1e-12);
    adapter.remove();
    expect(snapshot(model)).toEqual(base);

    mergeAndUnload(other);
    expect(maxDifference(out(other), trained)).toBeLessThan(1e-12);
    expect([...other.stateDict().keys()]).toEqual([...base.keys()]);
    const untouched = Array.from({ length: 11 }, (_, row) => row).filter(
      (row) => !(Array.isArray(indices) ? indices : Object.values(indices ?? {}).flat()).includes(row),
    );
    const rows = (weight: Tensor) => [
      ...gather(weight, tensor(Int32Array.from(untouched), { dtype: "int32" })).dataSync(),
    ];
    const names = ["model.embed_tokens.weight", "lm_head.weight"];
    for (const name of names)
      expect(rows(other.stateDict().get(name) as Tensor)).toEqual(
        rows(create().stateDict().get(name) as Tensor),
      );
  });

  it("leaves no tensor behind", () => {
    const before = memoryStats().tensors;
    const model = create();
    const adapter = applyLora(model, config);
    tidy(() => void out(model));
    adapter.remove();
    applyLora(model, config);
    model.dispose();
    expect(memoryStats().tensors).toBe(before);
    const merged = create();
    applyLora(merged, config);
    mergeAndUnload(merged).dispose();
    expect(memoryStats().tensors).toBe(before);
  });
});

describe("trainableTokenIndices", () => {
  it("are the rows of the whole weight in the gradient: of the embedding and the tied output layer", () => {
    const tokenIndices = [3, 9, 4];
    const model = tiedModel();
    const adapter = applyLora(model, { targetModules: ["q_proj"], trainableTokenIndices: tokenIndices });
    const [delta] = adapter.parameters().slice(-1);
    randomize([delta], 3);
    crossEntropy(out(model), tokens()).backward();
    const whole = tiedModel();
    const { weight } = whole.model.embed_tokens;
    weight.requiresGrad = false;
    tokenIndices.forEach((row, i) => {
      weight.slice(row).copyFrom(delta.detach().slice(i));
    });
    weight.requiresGrad = true;
    const loss = crossEntropy(out(whole), tokens());
    loss.backward();
    const wanted = gather(weight.grad as Tensor, tensor([3, 9, 4], { dtype: "int32" }));
    expect(maxDifference(delta.grad as Tensor, wanted)).toBeLessThan(1e-14);
    expect(maxDifference(out(model), out(whole))).toBeLessThan(1e-14);
  });

  it("take the only embedding for a list, whatever it is called", () => {
    const model = new TinyModel();
    Object.assign(model.model, { embed_tokens: undefined, wte: model.model.embed_tokens });
    const adapter = applyLora(model, { targetModules: ["q_proj"], trainableTokenIndices: [1] });
    expect(adapter.stateDict().has(key("model.wte"))).toBe(true);
  });

  it("lets one adapter at a time have a module", () => {
    const model = new TinyModel();
    const base = { targetModules: ["q_proj"] };
    const a = applyLora(model, { ...base, trainableTokenIndices: [1] }, "a");
    for (const other of [
      { ...base, trainableTokenIndices: [2] },
      { targetModules: ["embed_tokens"] },
      { ...base, modulesToSave: ["embed_tokens"] },
    ])
      expect(() => applyLora(model, other, "b")).toThrow(/embed_tokens|trainableTokenIndices/);
    a.disable();
    const b = applyLora(model, { ...base, trainableTokenIndices: [2] }, "b");
    expect(() => a.enable()).toThrow(/another adapter is on model.embed_tokens/);
    a.setActive();
    b.remove();
    expect(a.active).toBe(true);
  });

  it("lists all that is wrong", async () => {
    const model = new TinyModel();
    const names = snapshot(model);
    const given = (config: Partial<LoraConfig>) => () =>
      applyLora(model, { targetModules: ["q_proj"], ...config });
    expect(given({ trainableTokenIndices: { head: [1], embed_tokens: [2, 11], k_proj: [1] } })).toThrow(
      /no module is called "head"; model.embed_tokens has 11 rows, not 11; model.layers.0.self_attn.k_proj \(Linear\) is no embedding/,
    );
    expect(given({ trainableTokenIndices: [1], modulesToSave: ["embed_tokens"] })).toThrow(/as a whole/);
    expect(given({ trainableTokenIndices: [1], targetModules: ["embed_tokens"] })).toThrow(
      /carries an adapter/,
    );
    for (const wrong of [[], [1, 1], [-1], [0.5], ["1"], { embed_tokens: [] }, 3])
      expect(given({ trainableTokenIndices: wrong as never })).toThrow(/trainableTokenIndices must/);
    expect(given({ peftType: "LOHA", trainableTokenIndices: [1] })).toThrow(/does not apply to LOHA/);
    expect(snapshot(model)).toEqual(names);
    const files = await serializeAdapter(applyLora(model, { trainableTokenIndices: [1] }));
    await expect(loadAdapter(new TinyModel({ vocabulary: 1 }), files)).rejects.toThrow(/has 1 rows, not 1/);
  });

  it("overwrite differentiates along both ends", () => {
    for (const axis of [0, -1] as const) {
      const x = normalTensor([4, 5], 1);
      const source = normalTensor(axis === 0 ? [3, 5] : [4, 3], 2);
      for (const each of [x, source]) each.requiresGrad = true;
      const weights = normalTensor([4, 5], 3);
      overwrite(x, source, [2, 3, 0], axis).mul(weights).sum().backward();
      const [w, dx, ds] = [weights, x.grad as Tensor, source.grad as Tensor].map((t) => [...t.dataSync()]);
      for (let i = 0; i < 4; i++)
        for (let j = 0; j < 5; j++) {
          const at = [2, 3, 0].indexOf(axis === 0 ? i : j);
          expect(dx[i * 5 + j]).toBe(at < 0 ? w[i * 5 + j] : 0);
          if (at >= 0) expect(ds[axis === 0 ? at * 5 + j : i * 3 + at]).toBe(w[i * 5 + j]);
        }
    }
  });
});
