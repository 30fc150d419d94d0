// A page that fine-tunes a tiny model on two backends.

import { Generator, init, mul, noGrad, shutdown, tidy } from "@nomoat/core";
import { gpuBackend } from "@nomoat/core/gpu";
import { applyLora } from "@nomoat/lora";
import { quantizeModelAsync } from "@nomoat/quant";
import { finetune, LlamaForCausalLM, Tokenizer } from "../../src/index.js";

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

async function train(tokenizer: Tokenizer, steps: number): Promise<number[]> {
  const model = LlamaForCausalLM.create(config, { generator: new Generator(1) });
  // Weights of deviation 0.3: large enough that the model prefers some tokens clearly.
  noGrad(() =>
    tidy(() => {
      for (const tensor of model.parameters()) if (tensor.rank > 1) tensor.copyFrom(mul(tensor, 15));
    }),
  );
  await quantizeModelAsync(model, { format: "nf4" });
  const adapter = applyLora(model, { r: 2, loraAlpha: 4, targetModules: "all-linear" }, "default", {
    generator: new Generator(9),
  });
  const { losses } = await finetune({
    model,
    tokenizer,
    adapter,
    data,
    steps,
    batchSize: 1,
    length: 32,
    learningRate: 0.02,
  });
  model.dispose();
  return [...losses];
}

const page = {
  async compare(
    mode: "webgl2" | "webgpu",
    steps: number,
    files: { json: object; config: object },
  ): Promise<{ expected: number[]; actual: number[]; left: number }> {
    const tokenizer = Tokenizer.fromJson(files.json, files.config);
    await init({ backend: "wasm", threads: 1 });
    const expected = await train(tokenizer, steps);
    await init({ backend: "gpu", mode });
    const actual = await train(tokenizer, steps);
    const left = gpuBackend().memory().used;
    shutdown();
    return { expected, actual, left };
  },
};

export type Page = typeof page;

(globalThis as unknown as { page: Page }).page = page;
