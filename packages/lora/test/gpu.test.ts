// Adapters on the gpu backend, in the mode of gpu.js that Node always has: wasm's numbers for each variant, and one clear sentence from
// everything that would have to read values in the middle of its work.

import {
  type BackendName,
  crossEntropy,
  Generator,
  init,
  manualSeed,
  memoryStats,
  mul,
  noGrad,
  shutdown,
  type Tensor,
  tidy,
} from "@nomoat/core";
import { Adafactor, AdamW, clipGradNorm, clipScale, readGradNorm } from "@nomoat/core/optim";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  addWeightedAdapter,
  applyEva,
  applyLora,
  compressAdapter,
  correctLoraFaGradients,
  initLoftq,
  type LoraConfig,
  layerInputs,
  loadAdapter,
  mergeReport,
  RankAllocator,
  serializeAdapter,
} from "../src/index.js";
import { randomize, TinyModel, tokens } from "./model.js";

beforeAll(async () => {
  await init({ backend: "wasm", threads: 1 });
  await init({ backend: "gpu", mode: "webasm" });
});
afterAll(shutdown);

const all = { r: 4, loraAlpha: 6, targetModules: "all-linear" } as const;

const place = (device: BackendName) => ({ dtype: "float32", device }) as const;

/** A model whose weights the device computed: the host does not know them. */
function computedModel(device: BackendName): TinyModel {
  const model = new TinyModel({ ...place(device), width: 8 });
  noGrad(() =>
    tidy(() => {
      for (const parameter of model.parameters()) parameter.copyFrom(mul(parameter, 1));
    }),
  );
  return model;
}

const lossOf = (model: TinyModel, device: BackendName): Tensor =>
  crossEntropy(model.forward(tokens(place(device))), tokens(place(device)));

async function logitsOf(model: TinyModel, device: BackendName): Promise<number[]> {
  const logits = noGrad(() => tidy(() => model.forward(tokens(place(device)))));
  const values = Array.from(await logits.data(), Number);
  logits.dispose();
  return values;
}

/** Losses of three clipped steps, the first gradient's norm, and the outputs afterwards. */
async function train(device: BackendName, config: Partial<LoraConfig>): Promise<number[]> {
  const model = computedModel(device);
  manualSeed(8);
  const adapter = applyLora(model, { ...all, ...config }, "default", { generator: new Generator(2) });
  if (config.peftType !== "VERA") randomize(adapter.parameters(), 3, 0.1);
  const optimizer = new AdamW(adapter.parameters(), { learningRate: 0.01 });
  const found: number[] = [];
  for (let step = 0; step < 3; step++) {
    const loss = tidy(() => {
      const value = lossOf(model, device);
      value.backward();
      return value.detach();
    });
    const norm = await readGradNorm(adapter.parameters());
    found.push(Number((await loss.data())[0]), step === 0 ? norm : 0);
    loss.dispose();
    optimizer.step({ gradientScale: clipScale(norm, 1) });
    optimizer.zeroGrad();
  }
  model.eval();
  found.push(...(await logitsOf(model, device)));
  optimizer.dispose();
  adapter.remove();
  model.dispose();
  return found;
}

function close(actual: readonly number[], expected: readonly number[], tolerance = 1e-4): void {
  expect(actual).toHaveLength(expected.length);
  const largest = Math.max(...expected.map(Math.abs));
  const worst = Math.max(...actual.map((value, i) => Math.abs(value - expected[i])));
  expect(worst / largest).toBeLessThan(tolerance);
}

describe("each variant trains as on wasm", () => {
  const cases: [string, Partial<LoraConfig>][] = [
    ["LoRA with dropout", { loraDropout: 0.3 }],
    ["rsLoRA", { useRslora: true, rankPattern: { q_proj: 7 } }],
    ["DoRA", { useDora: true }],
    ["orthogonal", { initLoraWeights: "orthogonal" }],
    ["(IA)³", { peftType: "IA3", r: undefined, loraAlpha: undefined, targetModules: ["up_proj", "v_proj"] }],
    ["LoHa", { peftType: "LOHA" }],
    ["LoKr", { peftType: "LOKR" }],
    ["VeRA", { peftType: "VERA", loraAlpha: undefined }],
    ["embedding", { targetModules: ["embed_tokens", "down_proj"] }],
  ];
  it.each(cases)("%s", async (_, config) => {
    const before = memoryStats();
    const [expected, actual] = [await train("wasm", config), await train("gpu", config)];
    close(actual, expected);
    const { storages, backend } = memoryStats();
    expect({ storages, used: backend.used }).toEqual({
      storages: before.storages,
      used: before.backend.used,
    });
  });
});

describe("what reads values on its way says so, and changes nothing", () => {
  const later = /the result depends on values, and the gpu backend gives those only later: /;
  const onWasm = /with the model on the wasm backend; saveAdapter and loadAdapter bring the adapter here/;

  function refused(fn: () => unknown, operation: string, advice: RegExp = onWasm): void {
    let thrown: unknown;
    try {
      fn();
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toMatchObject({ name: "BackendError" });
    const { message } = thrown as Error;
    expect(message.startsWith(`${operation}: `), message).toBe(true);
    expect(message).toMatch(later);
    expect(message).toMatch(advice);
  }

  /** Runs `fn` with a model, and looks that neither its modules nor what lies in memory are others afterwards. */
  async function unchanged(fn: (model: TinyModel) => unknown): Promise<void> {
    const model = computedModel("gpu");
    const state = [...model.stateDict()];
    const modules = Array.from(model.namedModules(), ([, module]) => module);
    const { storages, tensors } = memoryStats();
    await fn(model);
    expect([...model.stateDict()]).toEqual(state);
    Array.from(model.namedModules(), ([, module]) => module).forEach((module, i) => {
      expect(module).toBe(modules[i]);
    });
    expect(memoryStats()).toMatchObject({ storages, tensors });
    model.dispose();
  }

  it.each(["pissa", "pissa_niter_4", "olora"] as const)("%s", (initLoraWeights) =>
    unchanged((model) => {
      refused(() => applyLora(model, { ...all, initLoraWeights }), `applyLora: ${initLoraWeights}`);
    }),
  );

  it.each(["pissa", "olora"] as const)(
    "%s of weights that no kernel has used yet runs: the host knows them",
    async (initLoraWeights) => {
      const outputs = [];
      for (const device of ["wasm", "gpu"] as const) {
        const model = new TinyModel({ ...place(device), width: 8 });
        applyLora(model, { ...all, initLoraWeights }, "default", { generator: new Generator(2) });
        outputs.push(await logitsOf(model, device));
        model.dispose();
      }
      close(outputs[1], outputs[0]);
    },
  );

  it("EVA", () =>
    unchanged((model) => {
      const run = () => tidy(() => void model.forward(tokens(place("gpu"))));
      refused(() => applyEva(model, all, run), "layerInputs");
    }));

  it("AdaLoRA's allocation of ranks; its layers train", async () => {
    const config = {
      ...all,
      peftType: "ADALORA",
      r: undefined,
      initR: 4,
      targetR: 2,
      totalStep: 10,
    } as const;
    const losses = await Promise.all(
      (["wasm", "gpu"] as const).map(async (device) => {
        const model = computedModel(device);
        const adapter = applyLora(model, config, "default", { generator: new Generator(2) });
        randomize(adapter.parameters(), 3, 0.1);
        if (device === "gpu") {
          refused(() => new RankAllocator(adapter), "RankAllocator", /train AdaLoRA on the wasm backend/);
        }
        const loss = tidy(() => lossOf(model, device).detach());
        const [value] = await loss.data();
        for (const each of [loss, model]) each.dispose();
        return Number(value);
      }),
    );
    close([losses[1]], [losses[0]]);
  });

  it("merges and reports of them, combinations, LoftQ, LoRA-FA's correction", async () => {
    const model = computedModel("gpu");
    const adapter = applyLora(model, all, "default", { generator: new Generator(2) });
    const optimizer = new AdamW(adapter.parameters(), { learningRate: 0.01 });
    tidy(() => lossOf(model, "gpu").backward());
    optimizer.step();
    refused(() => adapter.merge(), "merge");
    refused(() => mergeReport(adapter), "merge");
    refused(() => addWeightedAdapter([adapter], [1], "sum"), "addWeightedAdapter");
    refused(() => compressAdapter(adapter, 1, "small"), "compressAdapter");
    refused(() => correctLoraFaGradients(adapter), "correctLoraFaGradients");
    refused(() => initLoftq(adapter), "initLoftq");
    await layerInputs(model, () => {
      refused(() => model.forward(tokens(place("gpu"))), "layerInputs");
    });
    refused(() => clipGradNorm(adapter.parameters(), 1), "clipGradNorm", /readGradNorm/);
    const adafactor = new Adafactor(adapter.parameters());
    refused(() => adafactor.step(), "Adafactor", /another optimizer/);
    for (const each of [optimizer, adafactor, model]) each.dispose();
  });
});

describe("from wasm to the gpu backend", () => {
  it.each([{ initLoraWeights: "pissa" }, { initLoraWeights: "olora" }, { useDora: true }] as const)(
    "%o: a saved adapter gives what it gave",
    async (config) => {
      const onWasm = computedModel("wasm");
      const adapter = applyLora(onWasm, { ...all, ...config }, "default", { generator: new Generator(2) });
      const optimizer = new AdamW(adapter.parameters(), { learningRate: 0.05 });
      tidy(() => lossOf(onWasm, "wasm").backward());
      optimizer.step();
      const expected = await logitsOf(onWasm, "wasm");
      const onGpu = computedModel("gpu");
      await loadAdapter(onGpu, await serializeAdapter(adapter));
      close(await logitsOf(onGpu, "gpu"), expected);
      for (const each of [optimizer, onWasm, onGpu]) each.dispose();
    },
  );
});
