// Models from and to Hugging Face folders.

import { type BackendName, FormatError, NomoatError } from "@nomoat/core";
import { openSource, parseJson, type SourceLike } from "@nomoat/core/io";
import {
  openSafetensors,
  type SafetensorsSource,
  serializeSafetensors,
  writeFilesAtomic,
} from "@nomoat/core/safetensors";
import { loadGguf } from "./gguf.js";
import { assembleLlama, type LoadQuantization } from "./model/assemble.js";
import { formatConfig, parseConfig, type RopeScaling } from "./model/config.js";
import type { LlamaForCausalLM } from "./model/model.js";
import { savedState, weightsOf } from "./safetensors-weights.js";
import { Tokenizer } from "./tokenizer.js";

/** A path (Node) of a folder or of a GGUF file, or a folder's files by name (Blobs, bytes, open files). */
export type LlamaSource = string | ReadonlyMap<string, SourceLike>;

export interface LoadLlamaOptions {
  /** Default: the active backend. */
  device?: BackendName;
  /** Dtype of the weights (default float32; float64 on the reference backend only). */
  dtype?: "float32" | "float64";
  /**
   * Quantize weights as they are read: `{ format: "nf4" }` and what else `quantizeModel` takes, but for methods that need data. One
   * weight at a time is in memory in float, so that models fit whose floats would not. Those that the file has quantized stay so.
   */
  quantize?: LoadQuantization;
  /** GGUF: linear layers whose weights are quantized compute with them as they are (default true). */
  keepQuantized?: boolean;
  /** GGUF: use this tokenizer instead of the file's. */
  tokenizer?: Tokenizer;
  /** GGUF: use this scaling of rotary frequencies instead of the file's. */
  ropeScaling?: RopeScaling | null;
}

/** JSON files of a model folder are far below this. */
const maxJsonBytes = 64 * 2 ** 20;

async function readFile(source: LlamaSource, name: string): Promise<Uint8Array | null> {
  let input: SourceLike;
  if (typeof source === "string") {
    const { existsSync } = process.getBuiltinModule("node:fs");
    const path = `${source.replace(/[/\\]+$/, "")}/${name}`;
    if (!existsSync(source)) throw new NomoatError(`${source}: there is no such folder`, "IO");
    if (!existsSync(path)) return null;
    input = path;
  } else {
    const given = source.get(name);
    if (given === undefined) return null;
    input = given;
  }
  const opened = await openSource(input, name);
  try {
    if (opened.size > maxJsonBytes)
      throw new FormatError(`${opened.size} bytes are too many`, { file: opened.name });
    return await opened.read(0, opened.size);
  } finally {
    await opened.close();
  }
}

async function requireFile(source: LlamaSource, name: string): Promise<Uint8Array> {
  const bytes = await readFile(source, name);
  if (!bytes) {
    const folder = typeof source === "string" ? `${source}: ` : "";
    throw new FormatError(
      `${folder}there is no ${name}: expected a Hugging Face folder with config.json, model.safetensors and tokenizer.json`,
    );
  }
  return bytes;
}

/** The tokenizer of a Hugging Face folder (tokenizer.json, tokenizer_config.json, chat_template.jinja). */
export async function loadTokenizer(source: LlamaSource): Promise<Tokenizer> {
  const [json, config] = [
    await requireFile(source, "tokenizer.json"),
    await readFile(source, "tokenizer_config.json"),
  ];
  const settings = config ? parseJson(config, { file: "tokenizer_config.json" }) : {};
  if (typeof settings !== "object" || settings === null || Array.isArray(settings)) {
    throw new FormatError("expected a JSON object", { file: "tokenizer_config.json" });
  }
  const template = await readFile(source, "chat_template.jinja");
  if (template) settings.chat_template = new TextDecoder().decode(template);
  return Tokenizer.fromJson(new TextDecoder().decode(json), settings);
}

/**
 * Loads a LLaMA-family model and its tokenizer from a Hugging Face folder: config.json, model.safetensors (or shards with an
 * index), tokenizer.json, tokenizer_config.json; or from a file whose name ends in `.gguf`. Linear layers in bitsandbytes' NF4 and FP4
 * become QuantizedLinear.
 *
 * @throws {FormatError} naming file, field and reason, before any weight is read where the header tells; nothing stays allocated then
 * @throws {ArgumentError} as `quantizeModel`, of `quantize`
 */
export async function loadLlama(
  source: LlamaSource,
  options: LoadLlamaOptions = {},
): Promise<{ model: LlamaForCausalLM; tokenizer: Tokenizer }> {
  if (typeof source === "string" && /\.gguf$/i.test(source)) return loadGguf(source, options);
  const config = parseConfig(await requireFile(source, "config.json"));
  const tokenizer = await loadTokenizer(source);
  if (tokenizer.vocabSize > config.vocabSize) {
    throw new FormatError(`names ${tokenizer.vocabSize} tokens, the model embeds ${config.vocabSize}`, {
      file: "tokenizer.json",
    });
  }
  const { dtype = "float32", device, quantize } = options;
  const file = await openSafetensors(source as SafetensorsSource);
  try {
    const model = await assembleLlama(config, weightsOf(file, config, { dtype, device }), {
      quantize,
      device,
    });
    return { model, tokenizer };
  } finally {
    await file.close();
  }
}

/**
 * Writes config.json and model.safetensors (a tied output layer once, under the embedding's name), all or nothing. Linear layers in
 * NF4 and FP4 are written as bitsandbytes has them.
 *
 * @throws {ArgumentError} naming the layers that neither have a place for: merge adapters and dequantize others before
 */
export async function saveLlama(
  model: LlamaForCausalLM,
  folder: string,
  options: { dtype?: "float32" | "float16" | "bfloat16" } = {},
): Promise<void> {
  const { dtype = "float32" } = options;
  const { tensors, quantization } = savedState(model, dtype);
  try {
    await writeFilesAtomic(folder, {
      "model.safetensors": await serializeSafetensors(tensors, { format: "pt" }),
      "config.json": new TextEncoder().encode(formatConfig(model.config, dtype, quantization)),
    });
  } finally {
    for (const tensor of tensors.values()) tensor.dispose();
  }
}
