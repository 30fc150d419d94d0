// The job that the ES-module and the CommonJS program share: a tiny LLaMA is quantized, adapted, fine-tuned, saved and
// loaded again, with nothing but the published packages.

const assert = require("node:assert");
const { mkdtempSync, rmSync } = require("node:fs");
const { tmpdir } = require("node:os");
const { join } = require("node:path");

/** A byte-level vocabulary without merges: 256 bytes and two marks. */
function tokenizerJson() {
  const printable = [...Array(256).keys()].filter(
    (byte) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174,
  );
  let next = 256;
  const letter = (byte) => String.fromCodePoint(printable.includes(byte) ? byte : next++);
  const vocab = { "<s>": 0, "</s>": 1 };
  for (let byte = 0; byte < 256; byte++) vocab[letter(byte)] = byte + 2;
  const mark = (id, content) => ({
    id,
    content,
    special: true,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
  });
  return {
    version: "1.0",
    added_tokens: [mark(0, "<s>"), mark(1, "</s>")],
    normalizer: null,
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: { type: "BPE", vocab, merges: [] },
  };
}

const config = {
  vocabSize: 258,
  hiddenSize: 64,
  intermediateSize: 128,
  numLayers: 2,
  numHeads: 4,
  numKeyValueHeads: 2,
  headDim: 16,
  maxPositionEmbeddings: 128,
  rmsNormEps: 1e-5,
  ropeTheta: 10000,
  ropeScaling: null,
  tieWordEmbeddings: true,
  attentionBias: false,
  mlpBias: false,
  bosTokenId: 0,
  eosTokenIds: [1],
};

module.exports = async function job({ core, extend, nn, optim, safetensors, quant, lora, llama }) {
  // Every entry shares one runtime and one Tensor.
  const layer = nn.Linear.create(4, 3);
  assert.ok(layer.weight instanceof core.Tensor);
  assert.ok(extend.wasmRuntime(layer.weight));
  const optimizer = new optim.AdamW(layer.parameters(), { learningRate: 0.1 });
  core.tidy(() =>
    layer
      .forward(core.ones([2, 4]))
      .sum()
      .backward(),
  );
  optimizer.step();
  const bytes = await safetensors.serializeSafetensors(layer.stateDict());
  const { tensors } = await safetensors.loadSafetensors(bytes);
  assert.deepStrictEqual(tensors.get("weight").dataSync(), layer.weight.dataSync());

  const tokenizer = llama.Tokenizer.fromJson(tokenizerJson(), { bos_token: "<s>", eos_token: "</s>" });
  core.manualSeed(1);
  const model = llama.LlamaForCausalLM.create(config);
  quant.quantizeModel(model, { format: "nf4" });
  const adapter = lora.applyLora(model, { r: 4, loraAlpha: 8, targetModules: "all-linear" });
  const text = "the quick brown fox jumps over the lazy dog. ".repeat(40);
  const { losses } = await llama.finetune({
    model,
    tokenizer,
    adapter,
    data: [{ text }],
    steps: 12,
    batchSize: 2,
    length: 64,
    learningRate: 0.02,
  });
  assert.ok(losses.at(-1) < losses[0], `the loss fell from ${losses[0]} to ${losses.at(-1)}`);

  const folder = mkdtempSync(join(tmpdir(), "nomoat-smoke-"));
  try {
    const measure = () => llama.perplexity({ model, tokenizer, text: text.slice(0, 400), length: 64 });
    const tuned = await measure();
    await lora.saveAdapter(adapter, folder);
    adapter.remove();
    const plain = await measure();
    await lora.loadAdapter(model, folder);
    const loaded = await measure();
    assert.ok(tuned.perplexity < plain.perplexity);
    assert.strictEqual(loaded.perplexity, tuned.perplexity);
    let generated = "";
    for await (const piece of llama.generate({ model, tokenizer, prompt: "the ", maxNewTokens: 8 }))
      generated += piece;
    console.log(
      `perplexity ${plain.perplexity.toFixed(1)} → ${loaded.perplexity.toFixed(1)}; "the ${generated}"`,
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
};
