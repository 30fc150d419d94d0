// Tiny models, a tokenizer of bytes, and PyTorch's runs, for all tests of this package.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type BackendName, Generator, keep, mul, noGrad, type Tensor, tidy, withBackend } from "@nomoat/core";
import { loadSafetensors } from "@nomoat/core/safetensors";
import { type Adapter, applyLora, fromPeftJson } from "@nomoat/lora";
import {
  type LlamaConfig,
  LlamaForCausalLM,
  parseConfig,
  type TokenExample,
  Tokenizer,
} from "../src/index.js";

export const tinyConfig: LlamaConfig = {
  vocabSize: 259,
  hiddenSize: 16,
  intermediateSize: 24,
  numLayers: 2,
  numHeads: 4,
  numKeyValueHeads: 2,
  headDim: 4,
  maxPositionEmbeddings: 64,
  rmsNormEps: 1e-5,
  ropeTheta: 10000,
  ropeScaling: null,
  tieWordEmbeddings: false,
  attentionBias: false,
  mlpBias: false,
  bosTokenId: 0,
  eosTokenIds: [1],
};

/** A model with random weights of deviation 0.3: large enough that it prefers some tokens clearly. */
export function tinyModel(
  options: { config?: Partial<LlamaConfig>; seed?: number; device?: BackendName } = {},
): LlamaForCausalLM {
  const { config = {}, seed = 1, device = "reference" } = options;
  const model = withBackend(device, () =>
    LlamaForCausalLM.create({ ...tinyConfig, ...config }, { generator: new Generator(seed), device }),
  );
  noGrad(() =>
    tidy(() => {
      for (const tensor of model.parameters()) if (tensor.rank > 1) tensor.copyFrom(mul(tensor, 15));
    }),
  );
  return model;
}

/** GPT-2's bytes as printable characters. */
function byteCharacters(): string[] {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    return String.fromCharCode(printable ? byte : next++);
  });
}

export const specialTokens = ["<s>", "</s>", "<pad>"];

/** The files of a tokenizer with one token for each byte (3 + byte), after bos 0, eos 1 and pad 2. */
export function byteTokenizerFiles(config: object = {}): { json: object; config: object } {
  const tokens = [...specialTokens, ...byteCharacters()];
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  const json = {
    version: "1.0",
    added_tokens: specialTokens.map((content, id) => ({ id, content, ...flags })),
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: { type: "BPE", vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), merges: [] },
  };
  const names = { bos_token: "<s>", eos_token: "</s>", pad_token: "<pad>" };
  return { json, config: { ...names, add_bos_token: true, add_eos_token: false, ...config } };
}

export function byteTokenizer(config: object = {}): Tokenizer {
  const files = byteTokenizerFiles(config);
  return Tokenizer.fromJson(files.json, files.config);
}

/** How Hugging Face writes what SentencePiece does with spaces and bytes, as in Llama 2's file. */
export const sentencePieceSteps = {
  normalizer: {
    type: "Sequence",
    normalizers: [
      { type: "Prepend", prepend: "▁" },
      { type: "Replace", pattern: { String: " " }, content: "▁" },
    ],
  },
  decoder: {
    type: "Sequence",
    decoders: [
      { type: "Replace", pattern: { String: "▁" }, content: " " },
      { type: "ByteFallback" },
      { type: "Fuse" },
      { type: "Strip", content: " ", start: 1, stop: 0 },
    ],
  },
};

/** As Llama 2's in small: a space belongs to the word that follows, and decoding strips the one before the first. */
export function wordTokenizer(): Tokenizer {
  const tokens = ["<unk>", "<s>", "</s>", "▁", ..."cehnot", "▁t", "he", "▁the", "on", "ce", "▁on"];
  const special = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  return Tokenizer.fromJson(
    {
      added_tokens: tokens.slice(0, 3).map((content, id) => ({ id, content, ...special })),
      normalizer: sentencePieceSteps.normalizer,
      decoder: {
        type: "Sequence",
        decoders: [
          { type: "Replace", pattern: { String: "▁" }, content: " " },
          { type: "Fuse" },
          { type: "Strip", content: " ", start: 1, stop: 0 },
        ],
      },
      model: {
        type: "BPE",
        unk_token: "<unk>",
        vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
        merges: ["▁ t", "h e", "▁t he", "o n", "c e", "▁ on"],
      },
    },
    { bos_token: "<s>", eos_token: "</s>", add_bos_token: true, add_eos_token: false },
  );
}

export async function collect<T, R>(iterator: AsyncGenerator<T, R>): Promise<{ values: T[]; result: R }> {
  const values: T[] = [];
  for (;;) {
    const next = await iterator.next();
    if (next.done) return { values, result: next.value };
    values.push(next.value);
  }
}

export const goldenFolder = fileURLToPath(new URL("./fixtures/lora-steps", import.meta.url));

interface GoldenRun {
  base: string;
  config: object;
  lora: object;
  optimizer: { lr: number; betas: [number, number]; eps: number; weight_decay: number };
  max_grad_norm: number;
  loraplus?: { lr_ratio: number; lr_embedding: number };
  gradient_accumulation_steps: number;
  accumulation: "tokens" | "means";
  mask_sets?: number;
  input_ids: number[][][];
  labels: number[][][];
  losses_f64: number[];
  losses_f32: number[];
  grad_norms_f64: number[];
  grad_norms_f32: number[];
}

export interface GoldenCase {
  run: GoldenRun;
  model: LlamaForCausalLM;
  adapter: Adapter;
  /** The rows of all batches, in order. */
  data: TokenExample[];
  /** Gradients, weights after steps and final ones, as the tools' README names them. */
  tensors: Map<string, Tensor>;
  /** Makes the adapter use the masks of this step; no-op without dropout. */
  useMasks(step: number): void;
  dispose(): void;
}

/** One of PyTorch's runs with its model and adapter, in float64 on the reference backend or in float32. */
export async function loadGolden(name: string, device: BackendName): Promise<GoldenCase> {
  const dtype = device === "reference" ? "float64" : "float32";
  const run = JSON.parse(readFileSync(`${goldenFolder}/${name}.json`, "utf8")) as GoldenRun;
  const base = await loadSafetensors(`${goldenFolder}/${run.base}`, { dtype, device });
  const config = parseConfig(new TextEncoder().encode(JSON.stringify(run.config)));
  const model = withBackend(device, () => LlamaForCausalLM.fromTensors(config, base.tensors));
  const adapter = withBackend(device, () => applyLora(model, fromPeftJson(run.lora as never)));
  const { tensors } = await loadSafetensors(`${goldenFolder}/${name}.safetensors`, { dtype, device });
  const initial = [...tensors].filter(([key]) => key.startsWith("init."));
  adapter.loadStateDict(new Map(initial.map(([key, tensor]) => [key.slice(5), tensor])));
  for (const tensor of tensors.values()) keep(tensor);
  const data = run.input_ids.flatMap((batch, b) =>
    batch.map((ids, i) => ({ ids, labels: run.labels[b][i] })),
  );
  return {
    ...{ run, model, adapter, data, tensors },
    useMasks(step) {
      if (!run.mask_sets) return;
      const set = `mask${step % run.mask_sets}.`;
      adapter.setDropoutMasks((layer) => () => tensors.get(set + layer)!);
    },
    dispose() {
      model.dispose();
      for (const tensor of tensors.values()) tensor.dispose();
    },
  };
}

/** Greatest difference between two lists, relative to the greatest value of the second. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY;
  let difference = 0;
  let size = 0;
  for (let i = 0; i < expected.length; i++) {
    difference = Math.max(difference, Math.abs(actual[i] - expected[i]));
    size = Math.max(size, Math.abs(expected[i]));
    if (Number.isNaN(actual[i])) return Number.POSITIVE_INFINITY;
  }
  return size === 0 ? difference : difference / size;
}
