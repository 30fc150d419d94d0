// The configuration of a LLaMA between GGUF's `llama.*` metadata and ours. The tensors' names stand here too.

import { FormatError } from "@nomoat/core";
import type { GgufFile, GgufValue } from "@nomoat/quant/gguf";
import { type LlamaConfig, parseConfig, type RopeScaling } from "./model/config.js";

/** Metadata with messages that name the file and the key. */
export class Metadata {
  constructor(
    readonly values: ReadonlyMap<string, GgufValue>,
    readonly file: string,
  ) {}

  fail(key: string, reason: string): never {
    throw new FormatError(reason, { file: this.file, field: `metadata "${key}"` });
  }

  number(key: string): number | undefined {
    const found = this.values.get(key);
    if (found === undefined) return undefined;
    if (typeof found.value !== "number" && typeof found.value !== "bigint") {
      this.fail(key, `expected a number, not ${found.type}`);
    }
    return Number(found.value);
  }

  text(key: string): string | undefined {
    const found = this.values.get(key);
    if (found === undefined || found.type === "string") return found?.value;
    return this.fail(key, `expected a string, not ${found.type}`);
  }

  flag(key: string): boolean | undefined {
    const found = this.values.get(key);
    if (found === undefined || found.type === "bool") return found?.value;
    return this.fail(key, `expected a bool, not ${found.type}`);
  }

  strings(key: string): readonly string[] | undefined {
    const found = this.values.get(key);
    if (found === undefined) return undefined;
    if (found.type !== "array" || found.of !== "string") this.fail(key, "expected a list of strings");
    return (found as { value: readonly string[] }).value;
  }

  numbers(key: string): ArrayLike<number> | undefined {
    const found = this.values.get(key);
    if (found === undefined) return undefined;
    if (found.type !== "array" || !ArrayBuffer.isView(found.value) || typeof found.value[0] === "bigint") {
      this.fail(key, "expected a list of numbers");
    }
    return (found as { value: ArrayLike<number> }).value;
  }
}

const blockNames: Readonly<Record<string, string>> = {
  attn_norm: "input_layernorm",
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.o_proj",
  ffn_norm: "post_attention_layernorm",
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
};
const topNames: Readonly<Record<string, string>> = {
  token_embd: "model.embed_tokens",
  output_norm: "model.norm",
  output: "lm_head",
};
const backward = (names: Readonly<Record<string, string>>) =>
  new Map(Object.entries(names).map(([ours, theirs]) => [theirs, ours]));
const blockNamesBack = backward(blockNames);
const topNamesBack = backward(topNames);

/** Factors that divide the rotary frequencies; llama.cpp stores Llama 3's scaling so. */
export const ropeFactors = "rope_freqs.weight";

/** Hugging Face's name of a GGUF tensor of a LLaMA; undefined for one that has none. */
export function fromGgufName(name: string): string | undefined {
  const [, block, part, kind] = /^(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)$/.exec(name) ?? [];
  const names = block === undefined ? topNames : blockNames;
  if (part === undefined || !Object.hasOwn(names, part)) return undefined;
  return block === undefined ? `${names[part]}.${kind}` : `model.layers.${block}.${names[part]}.${kind}`;
}

/** The name that llama.cpp gives a tensor of Hugging Face's. */
export function toGgufName(name: string): string {
  const [, block, part, kind] = /^(?:model\.layers\.(\d+)\.)?(.+)\.(weight|bias)$/.exec(name) ?? [];
  return block === undefined
    ? `${topNamesBack.get(part)}.${kind}`
    : `blk.${block}.${blockNamesBack.get(part)}.${kind}`;
}

/** Llama 3's factors by which each of the headDim/2 rotary frequencies is divided, as llama.cpp computes them. */
export function llama3Factors(
  config: Pick<LlamaConfig, "headDim" | "ropeTheta">,
  scaling: RopeScaling & { type: "llama3" },
): Float32Array {
  const {
    factor,
    lowFreqFactor: low,
    highFreqFactor: high,
    originalMaxPositionEmbeddings: context,
  } = scaling;
  return Float32Array.from({ length: config.headDim / 2 }, (_, i) => {
    const wavelength = 2 * Math.PI * config.ropeTheta ** ((2 * i) / config.headDim);
    if (wavelength < context / high) return 1;
    if (wavelength > context / low) return factor;
    const smooth = (context / wavelength - low) / (high - low);
    return 1 / ((1 - smooth) / factor + smooth);
  });
}

/** The parameters behind stored factors: those of Meta's models, which is what exists. */
function llama3Scaling(meta: Metadata, config: LlamaConfig, factors: ArrayLike<number>): RopeScaling | null {
  const factor = Math.max(...Array.from(factors));
  if (factor === 1) return null;
  const candidate: RopeScaling & { type: "llama3" } = {
    ...{ type: "llama3" as const, factor: Math.round(factor), lowFreqFactor: 1, highFreqFactor: 4 },
    originalMaxPositionEmbeddings: 8192,
  };
  const expected = llama3Factors(config, candidate);
  const same =
    expected.length === factors.length && expected.every((x, i) => Math.abs(x / factors[i] - 1) < 1e-3);
  if (same) return candidate;
  throw new FormatError(
    "are not Llama 3's rotary factors; give loadLlama the option `ropeScaling` with the model's own",
    { file: meta.file, field: `tensor "${ropeFactors}"` },
  );
}

/**
 * The configuration in a file's metadata, checked as config.json is.
 * @param factors - values of `rope_freqs.weight`, where there are some
 * @param ropeScaling - takes the place of what the file says
 * @throws {FormatError} for an architecture that is not LLaMA's, or a missing or bad value
 */
export function configFromGguf(
  meta: Metadata,
  tensors: GgufFile["tensors"],
  factors?: ArrayLike<number>,
  ropeScaling?: RopeScaling | null,
): LlamaConfig {
  const architecture = meta.text("general.architecture");
  if (architecture !== "llama") {
    meta.fail("general.architecture", `${JSON.stringify(architecture)} is not supported (known: llama)`);
  }
  const embedding = tensors.get("token_embd.weight");
  if (!embedding)
    throw new FormatError("is missing", { file: meta.file, field: 'tensor "token_embd.weight"' });
  const required = (key: string) => meta.number(key) ?? meta.fail(key, "is missing");
  if (meta.number("llama.expert_count")) meta.fail("llama.expert_count", "experts are not supported");
  const heads = required("llama.attention.head_count");
  const hidden = required("llama.embedding_length");
  const headDim = meta.number("llama.attention.key_length") ?? hidden / heads;
  for (const key of ["llama.attention.value_length", "llama.rope.dimension_count"]) {
    if ((meta.number(key) ?? headDim) !== headDim) {
      meta.fail(key, `${meta.number(key)} differs from the ${headDim} of attention keys: not supported`);
    }
  }
  const kind = meta.text("llama.rope.scaling.type") ?? "none";
  if (kind !== "none" && kind !== "linear") {
    meta.fail("llama.rope.scaling.type", `${JSON.stringify(kind)} is not supported (known: none, linear)`);
  }
  const ends = ["eos", "eot", "eom"].flatMap((name) => meta.number(`tokenizer.ggml.${name}_token_id`) ?? []);
  const fields = {
    vocab_size: embedding.shape[0],
    hidden_size: hidden,
    intermediate_size: required("llama.feed_forward_length"),
    num_hidden_layers: required("llama.block_count"),
    num_attention_heads: heads,
    num_key_value_heads: meta.number("llama.attention.head_count_kv") ?? heads,
    head_dim: headDim,
    max_position_embeddings: required("llama.context_length"),
    // Written as float32: 1e-5, not 0.000009999999747.
    rms_norm_eps: Number(required("llama.attention.layer_norm_rms_epsilon").toPrecision(7)),
    rope_theta: Number((meta.number("llama.rope.freq_base") ?? 10000).toPrecision(7)),
    rope_scaling:
      kind === "linear" ? { rope_type: kind, factor: required("llama.rope.scaling.factor") } : null,
    tie_word_embeddings: !tensors.has("output.weight"),
    attention_bias: tensors.has("blk.0.attn_output.bias"),
    mlp_bias: tensors.has("blk.0.ffn_down.bias"),
    bos_token_id: meta.number("tokenizer.ggml.bos_token_id"),
    eos_token_id: [...new Set(ends)],
  };
  const config = parseConfig(new TextEncoder().encode(JSON.stringify(fields)), meta.file);
  if (ropeScaling !== undefined) return { ...config, ropeScaling };
  return factors ? { ...config, ropeScaling: llama3Scaling(meta, config, factors) } : config;
}

/** The `llama.*` metadata of a configuration. */
export function configToGguf(config: LlamaConfig): Map<string, GgufValue> {
  const uint = (value: number): GgufValue => ({ type: "uint32", value });
  const float = (value: number): GgufValue => ({ type: "float32", value });
  const metadata = new Map<string, GgufValue>([
    ["general.architecture", { type: "string", value: "llama" }],
    ["llama.vocab_size", uint(config.vocabSize)],
    ["llama.context_length", uint(config.maxPositionEmbeddings)],
    ["llama.embedding_length", uint(config.hiddenSize)],
    ["llama.block_count", uint(config.numLayers)],
    ["llama.feed_forward_length", uint(config.intermediateSize)],
    ["llama.attention.head_count", uint(config.numHeads)],
    ["llama.attention.head_count_kv", uint(config.numKeyValueHeads)],
    ["llama.attention.key_length", uint(config.headDim)],
    ["llama.attention.value_length", uint(config.headDim)],
    ["llama.attention.layer_norm_rms_epsilon", float(config.rmsNormEps)],
    ["llama.rope.dimension_count", uint(config.headDim)],
    ["llama.rope.freq_base", float(config.ropeTheta)],
  ]);
  if (config.ropeScaling?.type === "linear") {
    metadata.set("llama.rope.scaling.type", { type: "string", value: "linear" });
    metadata.set("llama.rope.scaling.factor", float(config.ropeScaling.factor));
  }
  if (config.bosTokenId !== null) metadata.set("tokenizer.ggml.bos_token_id", uint(config.bosTokenId));
  const keys = ["eos", "eot", "eom"];
  for (const [i, id] of config.eosTokenIds.slice(0, 3).entries()) {
    metadata.set(`tokenizer.ggml.${keys[i]}_token_id`, uint(id));
  }
  return metadata;
}
