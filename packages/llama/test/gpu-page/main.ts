// A page that fine-tunes a model on two backends: a tiny one, or one that it fetches.

import { Generator, init, mul, noGrad, shutdown, tidy } from "@nomoat/core";
import { gpuBackend } from "@nomoat/core/gpu";
import { applyLora } from "@nomoat/lora";
import { quantizeModelAsync } from "@nomoat/quant";
import { finetune, LlamaForCausalLM, loadLlama, Tokenizer } from "../../src/index.js";

const config = {
  ...{ vocabSize: 259, hiddenSize: 16, intermediateSize: 24, numLayers: 2, numHeads: 4, headDim: 4 },
  ...{
    numKeyValueHeads: 2,
    maxPositionEmbeddings: 64,
    rmsNormEps: 1e-5,
    ropeTheta: 10000,
    ropeScaling: null,
  },
  ...{ tieWordEmbeddings: false, attentionBias: false, mlpBias: false, bosTokenId: 0, eosTokenIds: [1] },
};

const data = Array.from({ length: 4 }, (_, row) => ({
  ids: Array.from({ length: 32 }, (_, i) => (i * (row + 3) + row) % 64),
}));

/** 4-bit weights, and an adapter that learns `steps` batches of one row of 32 tokens. */
async function finetuneQuantized(
  model: LlamaForCausalLM,
  tokenizer: Tokenizer,
  steps: number,
  learningRate: number,
): Promise<number[]> {
  await quantizeModelAsync(model, { format: "nf4" });
  const adapter = applyLora(model, { r: 2, loraAlpha: 4, targetModules: "all-linear" }, "default", {
    generator: new Generator(9),
  });
  const { losses } = await finetune({
    ...{ model, tokenizer, adapter, data, steps, batchSize: 1, length: 32, learningRate },
  });
  model.dispose();
  return [...losses];
}

async function trainTiny(tokenizer: Tokenizer, steps: number): Promise<number[]> {
  const model = LlamaForCausalLM.create(config, { generator: new Generator(1) });
  // Weights of deviation 0.3: large enough that the model prefers some tokens clearly.
  noGrad(() =>
    tidy(() => {
      for (const tensor of model.parameters()) if (tensor.rank > 1) tensor.copyFrom(mul(tensor, 15));
    }),
  );
  return finetuneQuantized(model, tokenizer, steps, 0.02);
}

const modelFiles = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];

/** Fine-tunes the model whose folder is served as `model/`. */
async function trainFetched(steps: number): Promise<number[]> {
  const files = await Promise.all(
    modelFiles.map(async (name) => {
      const response = await fetch(`model/${name}`);
      if (!response.ok) throw new Error(`model/${name}: ${response.status}`);
      return [name, new Uint8Array(await response.arrayBuffer())] as const;
    }),
  );
  const { model, tokenizer } = await loadLlama(new Map(files));
  return finetuneQuantized(model, tokenizer, steps, 1e-3);
}

/** Losses of `train` on the wasm backend and on the gpu backend, and the bytes that are left on the device. */
async function compare(
  mode: "webgl2" | "webgpu",
  train: () => Promise<number[]>,
): Promise<{ expected: number[]; actual: number[]; left: number }> {
  await init({ backend: "wasm", threads: 1 });
  const expected = await train();
  await init({ backend: "gpu", mode });
  const actual = await train();
  await gpuBackend().finish();
  const left = gpuBackend().memory().used;
  shutdown();
  return { expected, actual, left };
}

const page = {
  tiny(mode: "webgl2" | "webgpu", steps: number, files: { json: object; config: object }) {
    const tokenizer = Tokenizer.fromJson(files.json, files.config);
    return compare(mode, () => trainTiny(tokenizer, steps));
  },
  fetched(mode: "webgl2" | "webgpu", steps: number) {
    return compare(mode, () => trainFetched(steps));
  },
};

export type Page = typeof page;

(globalThis as unknown as { page: Page }).page = page;
