// Models from and to Hugging Face folders.

import { ArgumentError, type BackendName, FormatError, NomoatError } from "@nomoat/core";
import { describe, requireOptions, requirePath } from "@nomoat/core/extend";
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
import { requireLlama, requireTokenizer } from "./options.js";
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

const optionNames: readonly (keyof LoadLlamaOptions)[] = [
  ...(["device", "dtype", "quantize", "keepQuantized", "tokenizer", "ropeScaling"] as const),
];

/** JSON files of a model folder are far below this. */
const maxJsonBytes = 64 * 2 ** 20;

/** A model's file for messages: with its folder where that has a path. */
function placeIn(source: LlamaSource, name: string): string {
  return typeof source === "string" ? `${source.replace(/[/\\]+$/, "")}/${name}` : name;
}

/** Throws unless `source` is a folder that can be read here. */
function checkFolder(operation: string, source: LlamaSource): void {
  if (typeof source !== "string") {
    const wanted = "expected a path, or a Map of a folder's files by name";
    if (typeof source?.get !== "function")
      throw new ArgumentError(`${operation}: ${wanted}, not ${describe(source)}`);
    return;
  }
  const fs = globalThis.process?.getBuiltinModule?.("node:fs");
  if (!fs)
    throw new NomoatError(`${source}: there is no file system here; give the files by name, in a Map`, "IO");
  let found: ReturnType<typeof fs.statSync>;
  try {
    found = fs.statSync(source, { throwIfNoEntry: false });
  } catch (cause) {
    // A folder that may not be looked into, or a file in the place of one.
    throw new NomoatError(`${source}: cannot be opened: ${(cause as Error).message}`, "IO", { cause });
  }
  if (!found) {
    const hub = /^[\w.-]+\/[\w.-]+$/.test(source)
      ? "; models are not downloaded: give the folder of one that is"
      : "";
    throw new NomoatError(`${source}: there is no such folder${hub}`, "IO");
  }
  if (!found.isDirectory())
    throw new NomoatError(`${source}: is a file; expected a Hugging Face folder, or a .gguf file`, "IO");
}

async function readFile(source: LlamaSource, name: string): Promise<Uint8Array | null> {
  let input: SourceLike;
  if (typeof source === "string") {
    const { existsSync } = process.getBuiltinModule("node:fs");
    const path = placeIn(source, name);
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
  checkFolder("loadTokenizer", source);
  const [json, config] = [
    await requireFile(source, "tokenizer.json"),
    await readFile(source, "tokenizer_config.json"),
  ];
  const configFile = placeIn(source, "tokenizer_config.json");
  const settings = config ? parseJson(config, { file: configFile }) : {};
  if (typeof settings !== "object" || settings === null || Array.isArray(settings)) {
    throw new FormatError("expected a JSON object", { file: configFile });
  }
  const template = await readFile(source, "chat_template.jinja");
  if (template) settings.chat_template = new TextDecoder().decode(template);
  return Tokenizer.fromJson(new TextDecoder().decode(json), settings, placeIn(source, "tokenizer.json"));
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
  requireOptions("loadLlama", options, optionNames);
  if (typeof source === "string" && /\.gguf$/i.test(source)) return loadGguf(source, options);
  checkFolder("loadLlama", source);
  const config = parseConfig(await requireFile(source, "config.json"), placeIn(source, "config.json"));
  const tokenizer = await loadTokenizer(source);
  if (tokenizer.vocabSize > config.vocabSize) {
    throw new FormatError(`names ${tokenizer.vocabSize} tokens, the model embeds ${config.vocabSize}`, {
      file: placeIn(source, "tokenizer.json"),
    });
  }
  const { dtype = "float32", device, quantize } = options;
  const file = await openSafetensors(source as SafetensorsSource);
  try {
    const weights = weightsOf(file, config, { dtype, device, name: placeIn(source, "model.safetensors") });
    const model = await assembleLlama(config, weights, {
      quantize,
      device,
    });
    return { model, tokenizer };
  } finally {
    await file.close();
  }
}

export interface SaveLlamaOptions {
  /** Of the weights that are not packed (default float32). */
  dtype?: "float32" | "float16" | "bfloat16";
  /** Written as tokenizer.json and tokenizer_config.json. */
  tokenizer?: Tokenizer;
}

/**
 * Writes config.json and model.safetensors (a tied output layer once, under the embedding's name), all or nothing. Linear layers in
 * NF4 and FP4 are written as bitsandbytes has them. `loadLlama` and Transformers want the tokenizer's files beside them: give it.
 *
 * @throws {ArgumentError} naming the layers that neither have a place for: merge adapters and dequantize others before
 */
export async function saveLlama(
  model: LlamaForCausalLM,
  folder: string,
  options: SaveLlamaOptions = {},
): Promise<void> {
  requireLlama("saveLlama", model);
  requirePath("saveLlama", folder);
  requireOptions("saveLlama", options, ["dtype", "tokenizer"]);
  const { dtype = "float32", tokenizer } = options;
  if (tokenizer !== undefined) requireTokenizer("saveLlama", tokenizer);
  const text = (json: string | object) =>
    new TextEncoder().encode(typeof json === "string" ? json : JSON.stringify(json, null, 2));
  const { json, config = {} } = tokenizer?.files ?? {};
  const { tensors, quantization } = savedState(model, dtype);
  try {
    await writeFilesAtomic(folder, {
      "model.safetensors": await serializeSafetensors(tensors, { format: "pt" }),
      "config.json": text(formatConfig(model.config, dtype, quantization)),
      ...(json ? { "tokenizer.json": text(json), "tokenizer_config.json": text(config) } : {}),
    });
  } finally {
    for (const tensor of tensors.values()) tensor.dispose();
  }
}
