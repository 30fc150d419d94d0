// The shape of a LLaMA-family model, out of Hugging Face's config.json and back.

import { FormatError } from "@nomoat/core";
import { requireOptions } from "@nomoat/core/extend";
import { parseJson } from "@nomoat/core/io";

/** Scaling of rotary frequencies for longer contexts, as Hugging Face names its kinds. */
export type RopeScaling =
  | { readonly type: "linear"; readonly factor: number }
  | {
      readonly type: "llama3";
      readonly factor: number;
      readonly lowFreqFactor: number;
      readonly highFreqFactor: number;
      readonly originalMaxPositionEmbeddings: number;
    };

export interface LlamaConfig {
  vocabSize: number;
  hiddenSize: number;
  intermediateSize: number;
  numLayers: number;
  numHeads: number;
  numKeyValueHeads: number;
  headDim: number;
  maxPositionEmbeddings: number;
  rmsNormEps: number;
  ropeTheta: number;
  ropeScaling: RopeScaling | null;
  /** The output layer shares the embedding's weight. */
  tieWordEmbeddings: boolean;
  attentionBias: boolean;
  mlpBias: boolean;
  bosTokenId: number | null;
  /** Any of these ends a text. */
  eosTokenIds: readonly number[];
}

type Fields = { [key: string]: unknown };

class ConfigReader {
  readonly #fields: Fields;
  readonly #file: string;

  constructor(fields: Fields, file: string) {
    this.#fields = fields;
    this.#file = file;
  }

  fail(field: string, reason: string): never {
    throw new FormatError(reason, { file: this.#file, field });
  }

  has(field: string): boolean {
    return this.#fields[field] !== undefined && this.#fields[field] !== null;
  }

  raw(field: string): unknown {
    return this.#fields[field];
  }

  /** An integer from `low` to `high`. */
  integer(field: string, low: number, high: number, fallback?: number): number {
    if (!this.has(field) && fallback !== undefined) return fallback;
    const value = this.#fields[field];
    if (!Number.isInteger(value) || (value as number) < low || (value as number) > high) {
      this.fail(field, `expected an integer from ${low} to ${high}, not ${JSON.stringify(value)}`);
    }
    return value as number;
  }

  /** A finite number above 0. */
  positive(field: string, fallback?: number): number {
    if (!this.has(field) && fallback !== undefined) return fallback;
    const value = this.#fields[field];
    if (typeof value !== "number" || !Number.isFinite(value) || value <= 0) {
      this.fail(field, `expected a number above 0, not ${JSON.stringify(value)}`);
    }
    return value;
  }

  boolean(field: string, fallback: boolean): boolean {
    if (!this.has(field)) return fallback;
    const value = this.#fields[field];
    if (typeof value !== "boolean") this.fail(field, `expected true or false, not ${JSON.stringify(value)}`);
    return value;
  }

  /** A part of the configuration as a reader of its own. */
  part(field: string): ConfigReader {
    const value = this.#fields[field];
    if (typeof value !== "object" || value === null || Array.isArray(value))
      this.fail(field, "expected an object");
    return new ConfigReader(value as Fields, `${this.#file}: ${field}`);
  }
}

const maxExtent = 1 << 24;

function ropeScalingOf(reader: ConfigReader, field: string): RopeScaling | null {
  if (!reader.has(field)) return null;
  const part = reader.part(field);
  const type = part.raw("rope_type") ?? part.raw("type") ?? "default";
  if (type === "default") return null;
  if (type === "linear") return { type, factor: part.positive("factor") };
  if (type === "llama3") {
    return {
      type,
      factor: part.positive("factor"),
      lowFreqFactor: part.positive("low_freq_factor"),
      highFreqFactor: part.positive("high_freq_factor"),
      originalMaxPositionEmbeddings: part.integer("original_max_position_embeddings", 1, maxExtent),
    };
  }
  return part.fail(
    "rope_type",
    `rotary scaling ${JSON.stringify(type)} is not supported (known: default, linear, llama3)`,
  );
}

function eosOf(reader: ConfigReader, vocabSize: number): number[] {
  const value = reader.raw("eos_token_id");
  const list = value === undefined || value === null ? [] : Array.isArray(value) ? value : [value];
  for (const id of list) {
    if (!Number.isInteger(id) || id < 0 || id >= vocabSize)
      reader.fail("eos_token_id", `${JSON.stringify(id)} is no token id`);
  }
  return list as number[];
}

/** Of weights that are quantized already, bitsandbytes' 4 bits are read; their tensors say the rest. */
function checkQuantization(reader: ConfigReader): void {
  if (!reader.has("quantization_config")) return;
  const part = reader.part("quantization_config");
  const method = part.raw("quant_method");
  if (method !== "bitsandbytes") {
    const given = JSON.stringify(method) ?? "none";
    reader.fail("quantization_config", `quant_method ${given} is not supported (known: bitsandbytes)`);
  }
  if (!part.boolean("load_in_4bit", false))
    reader.fail("quantization_config", "of bitsandbytes only load_in_4bit is supported");
}

/**
 * Reads config.json, strictly: what the model cannot honour is refused by name.
 * @param json - the file's bytes
 * @throws {FormatError} naming file, field and reason
 */
export function parseConfig(json: Uint8Array, file = "config.json"): LlamaConfig {
  const fields = parseJson(json, { file });
  if (typeof fields !== "object" || fields === null || Array.isArray(fields)) {
    throw new FormatError("expected a JSON object", { file });
  }
  const reader = new ConfigReader(fields, file);
  const modelType = reader.raw("model_type") ?? "llama";
  if (modelType !== "llama" && modelType !== "mistral") {
    reader.fail("model_type", `${JSON.stringify(modelType)} is not supported (known: llama, mistral)`);
  }
  const activation = reader.raw("hidden_act") ?? "silu";
  if (activation !== "silu" && activation !== "swish") {
    reader.fail("hidden_act", `${JSON.stringify(activation)} is not supported (known: silu)`);
  }
  if (reader.has("sliding_window"))
    reader.fail("sliding_window", "sliding-window attention is not supported");
  checkQuantization(reader);
  const hiddenSize = reader.integer("hidden_size", 1, maxExtent);
  const numHeads = reader.integer("num_attention_heads", 1, 65536);
  const numKeyValueHeads = reader.integer("num_key_value_heads", 1, numHeads, numHeads);
  if (numHeads % numKeyValueHeads !== 0) {
    reader.fail("num_key_value_heads", `${numHeads} attention heads are no multiple of ${numKeyValueHeads}`);
  }
  if (!reader.has("head_dim") && hiddenSize % numHeads !== 0) {
    reader.fail("num_attention_heads", `hidden_size ${hiddenSize} is no multiple of ${numHeads}`);
  }
  const headDim = reader.integer("head_dim", 2, maxExtent, hiddenSize / numHeads);
  if (headDim % 2 !== 0) reader.fail("head_dim", `${headDim} is odd: rotary embedding needs pairs`);
  const vocabSize = reader.integer("vocab_size", 1, maxExtent);
  // Transformers 5 writes rope_theta into rope_parameters.
  const rope = reader.has("rope_parameters") ? reader.part("rope_parameters") : reader;
  return {
    vocabSize,
    hiddenSize,
    intermediateSize: reader.integer("intermediate_size", 1, maxExtent),
    numLayers: reader.integer("num_hidden_layers", 1, 4096),
    numHeads,
    numKeyValueHeads,
    headDim,
    maxPositionEmbeddings: reader.integer("max_position_embeddings", 1, maxExtent, 2048),
    rmsNormEps: reader.positive("rms_norm_eps", 1e-6),
    ropeTheta: rope.positive("rope_theta", reader.positive("rope_theta", 10000)),
    ropeScaling: ropeScalingOf(reader, reader.has("rope_scaling") ? "rope_scaling" : "rope_parameters"),
    tieWordEmbeddings: reader.boolean("tie_word_embeddings", false),
    attentionBias: reader.boolean("attention_bias", false),
    mlpBias: reader.boolean("mlp_bias", false),
    bosTokenId: reader.has("bos_token_id") ? reader.integer("bos_token_id", 0, vocabSize - 1) : null,
    eosTokenIds: eosOf(reader, vocabSize),
  };
}

function ropeScalingJson(scaling: RopeScaling | null): object | null {
  if (!scaling) return null;
  if (scaling.type === "linear") return { rope_type: "linear", factor: scaling.factor };
  return {
    rope_type: "llama3",
    factor: scaling.factor,
    low_freq_factor: scaling.lowFreqFactor,
    high_freq_factor: scaling.highFreqFactor,
    original_max_position_embeddings: scaling.originalMaxPositionEmbeddings,
  };
}

/**
 * config.json as Hugging Face Transformers reads it.
 *
 * @param dtype - of the weights beside it
 * @param quantization - the `quantization_config` of packed ones
 */
export function formatConfig(
  config: LlamaConfig,
  dtype = "float32",
  quantization: object | null = null,
): string {
  requireOptions("formatConfig", config);
  const eos = config.eosTokenIds;
  const fields = {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    vocab_size: config.vocabSize,
    hidden_size: config.hiddenSize,
    intermediate_size: config.intermediateSize,
    num_hidden_layers: config.numLayers,
    num_attention_heads: config.numHeads,
    num_key_value_heads: config.numKeyValueHeads,
    head_dim: config.headDim,
    max_position_embeddings: config.maxPositionEmbeddings,
    rms_norm_eps: config.rmsNormEps,
    rope_theta: config.ropeTheta,
    rope_scaling: ropeScalingJson(config.ropeScaling),
    hidden_act: "silu",
    tie_word_embeddings: config.tieWordEmbeddings,
    attention_bias: config.attentionBias,
    mlp_bias: config.mlpBias,
    bos_token_id: config.bosTokenId,
    eos_token_id: eos.length === 0 ? null : eos.length === 1 ? eos[0] : eos,
    torch_dtype: dtype,
    ...(quantization ? { quantization_config: quantization } : {}),
  };
  return `${JSON.stringify(fields, null, 2)}\n`;
}
