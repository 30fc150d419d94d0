// LoRA adapters as llama.cpp's GGUF files (convert_lora_to_gguf.py, llama-adapter.cpp), both ways: general.type "adapter", adapter.type
// "lora", one adapter.lora.alpha, and for each weight NAME of the base NAME.lora_a [r, in] and NAME.lora_b [out, r]; the update counts
// alpha / r times. An embedding's lora_a is [numEmbeddings, r]. Rows of query and key projections stand in llama.cpp's order.

import { ArgumentError, FormatError, type Tensor } from "@nomoat/core";
import { describe, requireOptions, requirePath } from "@nomoat/core/extend";
import type { SourceLike } from "@nomoat/core/io";
import {
  type Adapter,
  type LoadAdapterOptions,
  layerwiseConfig,
  loadAdapter,
  peftFiles,
  peftPrefix,
} from "@nomoat/lora";
import { type GgufFile, type GgufValue, readGguf, writeGguf } from "@nomoat/quant/gguf";
import { permuteRows } from "./gguf.js";
import { fromGgufName, Metadata, toGgufName } from "./gguf-config.js";
import type { LlamaConfig } from "./model/config.js";
import { LlamaForCausalLM } from "./model/model.js";
import { requireLlama } from "./options.js";

const rotated = /\.(?:q_proj|k_proj)$/;
const embedding = "model.embed_tokens";
const alphaKey = "adapter.lora.alpha";

/** PEFT's suffixes of the two factors. */
const suffixes = (module: string) =>
  module === embedding
    ? { a: "lora_embedding_A", b: "lora_embedding_B" }
    : { a: "lora_A.weight", b: "lora_B.weight" };

export interface SaveLoraGgufOptions {
  /** Type of the factors (default "f32"). */
  readonly type?: "f32" | "f16" | "bf16";
  /** `general.name` (default: the adapter's name). */
  readonly name?: string;
}

const dtypes = { f32: "float32", f16: "float16", bf16: "bfloat16" } as const;

/** Why llama.cpp's format does not hold an adapter; null when it does. */
function obstacle(adapter: Adapter): string | null {
  const { config, model } = adapter;
  if (!(model instanceof LlamaForCausalLM)) return "it is not on a model of this package";
  if (config.peftType !== "LORA") return `it is of kind ${config.peftType}, not LORA`;
  if (config.useDora) return "the format has no DoRA";
  if (config.loraBias) return "the format has no loraBias";
  if (adapter.replacesParts) return "modules to save, rows of tokens and trained biases have no place in it";
  if (adapter.layers.has("lm_head") && model.config.tieWordEmbeddings)
    return "lm_head is tied, and llama.cpp's models have no such tensor";
  return null;
}

/**
 * Writes an adapter on a LLaMA as a GGUF file for llama.cpp (`--lora`) and {@link loadLoraGguf}, whole or not at all. Layers whose scaling
 * is not alpha / r for the file's one alpha have theirs multiplied into B. `adapter.weight` is not part of it, as in PEFT's files.
 *
 * @throws {ArgumentError} for adapters that the format does not hold, and for values that are not finite
 */
export async function saveLoraGguf(
  adapter: Adapter,
  path: string,
  options: SaveLoraGgufOptions = {},
): Promise<void> {
  if (typeof adapter?.branches !== "function")
    throw new ArgumentError(`saveLoraGguf: expected an adapter, not ${describe(adapter)}`);
  requirePath("saveLoraGguf", path);
  requireOptions("saveLoraGguf", options);
  const { type = "f32", name = adapter.name } = options;
  const refuse = (why: string): never => {
    throw new ArgumentError(`saveLoraGguf: adapter "${adapter.name}": ${why}`);
  };
  if (!Object.hasOwn(dtypes, type))
    refuse(`type must be "f32", "f16" or "bf16", not ${JSON.stringify(type)}`);
  const why = obstacle(adapter);
  if (why) refuse(why);
  const { config } = adapter.model as LlamaForCausalLM;
  const made = new Set<Tensor>();
  const tensors = new Map<string, Tensor>();
  const keep = (tensor: Tensor): Tensor => {
    made.add(tensor);
    return tensor;
  };
  try {
    let alpha: number | null = null;
    for (const [at, branch] of adapter.branches()) {
      const own = branch.tensors();
      const saved = branch.savedTensors();
      for (const tensor of saved.values()) if (![...own.values()].includes(tensor)) keep(tensor);
      const names = suffixes(at);
      const [a, b] = [saved.get(names.a), saved.get(names.b)].map((x) => keep((x as Tensor).detach()));
      const r = b.shape[1];
      alpha ??= Math.fround(branch.scaling * r);
      const factor = (branch.scaling * r) / alpha;
      // Where alpha is no float32, the rest is far below a rounding of B.
      const scaled = Math.abs(factor - 1) < 1e-7 ? b : keep(b.mul(factor));
      const placed = rotated.test(at) ? keep(permuteRows(scaled, config.headDim, false)) : scaled;
      const first = at === embedding ? keep(keep(a.transpose()).clone()) : a;
      for (const [part, tensor] of [
        ["lora_a", first],
        ["lora_b", placed],
      ] as const) {
        const cast = keep(tensor.cast(dtypes[type]));
        const values = keep(cast.cast("float32"));
        if (!(await values.data()).every(Number.isFinite))
          refuse(`${at}.${part} has values that are not finite as ${type}`);
        tensors.set(`${toGgufName(`${at}.weight`)}.${part}`, cast);
      }
    }
    const text = (value: string): GgufValue => ({ type: "string", value });
    const metadata = new Map<string, GgufValue>([
      ["general.architecture", text("llama")],
      ["general.type", text("adapter")],
      ["general.name", text(name)],
      ["adapter.type", text("lora")],
      [alphaKey, { type: "float32", value: alpha as number }],
    ]);
    await writeGguf(path, { metadata, tensors });
  } finally {
    for (const tensor of made) tensor.dispose();
  }
}

/** Runs `check` and notes what it finds wrong with the file; other errors pass. */
function noting<T>(found: string[], file: string, check: () => T): T | null {
  try {
    return check();
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    found.push(error.message.replace(`${file}: `, ""));
    return null;
  }
}

/** Checks what kind of file it is; the alpha, 0 where every update counts once. */
function readAlpha(meta: Metadata, found: string[]): number {
  const { file } = meta;
  for (const [key, wanted] of [
    ["general.type", "adapter"],
    ["general.architecture", "llama"],
    ["adapter.type", "lora"],
  ] as const)
    noting(found, file, () => {
      const value = meta.text(key);
      if (value !== wanted)
        meta.fail(key, `expected "${wanted}", not ${JSON.stringify(value?.slice(0, 60)) ?? "nothing"}`);
    });
  for (const key of meta.values.keys())
    if (key.startsWith("adapter.alora."))
      noting(found, file, () => meta.fail(key, "activated LoRA is not supported"));
  const read = noting(found, file, () => {
    const alpha = meta.number(alphaKey) ?? 0;
    if (!(Number.isFinite(alpha) && alpha >= 0))
      meta.fail(alphaKey, `expected a number of at least 0, not ${alpha}`);
    return alpha;
  });
  return read ?? 0;
}

/** Names of the factors in the file and the rank, by module. */
function matchFactors(
  gguf: GgufFile,
  model: LlamaForCausalLM,
  found: string[],
): Map<string, { a?: string; b?: string; r: number }> {
  const layers = new Map<string, { a?: string; b?: string; r: number }>();
  for (const [key, { shape }] of gguf.tensors) {
    const [, weight, part] = /^(.*\.weight)\.lora_([ab])$/.exec(key) ?? [];
    const ours = weight === undefined ? undefined : fromGgufName(weight);
    const module = ours?.replace(/\.weight$/, "");
    if (module === undefined) {
      found.push(`unexpected ${JSON.stringify(key.slice(0, 100))}`);
      continue;
    }
    const layer = { r: 1, ...layers.get(module), [part]: key };
    // B's columns; of A alone its rows.
    if (part === "b" || layer.b === undefined)
      layer.r = shape[part === "b" || module === embedding ? 1 : 0] ?? 1;
    layers.set(module, layer);
  }
  for (const [module, { b }] of layers) {
    const rows = b === undefined ? 0 : (gguf.tensors.get(b)?.shape[0] ?? 0);
    if (rotated.test(module) && rows % model.config.headDim !== 0)
      found.push(`${b} has ${rows} rows, which are no heads of ${model.config.headDim}`);
  }
  if (layers.size === 0) found.push("there are no adapter's tensors");
  return layers;
}

/** The files of a PEFT folder, and what is wrong with the file; null where that is too much. */
async function convert(
  model: LlamaForCausalLM,
  source: SourceLike,
): Promise<{ file: string; found: string[]; files: Map<string, Uint8Array> | null }> {
  requireLlama("loadLoraGguf", model);
  const file = typeof source === "string" ? source : "adapter.gguf";
  const gguf = await readGguf(source);
  const tensors = new Map<string, Tensor>();
  const found: string[] = [];
  try {
    const alpha = readAlpha(new Metadata(gguf.metadata, file), found);
    const layers = matchFactors(gguf, model, found);
    if (layers.size === 0) return { file, found, files: null };
    for (const [module, { a, b }] of layers) {
      const names = suffixes(module);
      for (const [part, name, key] of [
        ["a", names.a, a],
        ["b", names.b, b],
      ] as const) {
        if (key === undefined) continue;
        const tensor = await gguf.load(key, { dequantize: true });
        tensors.set(`${peftPrefix}${module}.${name}`, turned(tensor, module, part, model.config));
      }
    }
    // A rank out of range is one of a misshapen factor.
    const inRange = (r: number) => Math.min(Math.max(r, 1), 2 ** 20);
    const ranks = new Map(
      Array.from(layers, ([module, { r }]) => [module, { r: inRange(r), alpha: alpha || inRange(r) }]),
    );
    return { file, found, files: await peftFiles(layerwiseConfig(ranks), tensors) };
  } finally {
    for (const tensor of tensors.values()) tensor.dispose();
    await gguf.close();
  }
}

/**
 * A GGUF adapter of llama.cpp as the files of a PEFT folder, for `loadAdapter`, which finds factors that are missing or misshapen.
 *
 * @param model - that it is for
 * @throws {FormatError} for other kinds of files, and listing every tensor that is unexpected
 */
export async function loraGgufToPeft(
  model: LlamaForCausalLM,
  source: SourceLike,
): Promise<Map<string, Uint8Array>> {
  const { file, found, files } = await convert(model, source);
  if (found.length > 0 || !files) throw new FormatError(found.join("; "), { file });
  return files;
}

/** A factor in the place where PEFT has it; takes `tensor` over. */
function turned(tensor: Tensor, module: string, part: "a" | "b", config: LlamaConfig): Tensor {
  let out = tensor;
  // What has no such shape is left as it is, for `loadAdapter` to refuse.
  if (tensor.rank !== 2) return tensor;
  if (part === "a" && module === embedding) {
    const view = tensor.transpose();
    out = view.clone();
    view.dispose();
  } else if (part === "b" && rotated.test(module) && tensor.shape[0] % config.headDim === 0)
    out = permuteRows(tensor, config.headDim, true);
  if (out !== tensor) tensor.dispose();
  return out;
}

/**
 * Puts an adapter out of llama.cpp's GGUF file on a LLaMA; see {@link loraGgufToPeft} and `loadAdapter`, whose checks and errors apply too.
 * All faults are reported together.
 */
export async function loadLoraGguf(
  model: LlamaForCausalLM,
  source: SourceLike,
  name = "default",
  options: LoadAdapterOptions = {},
): Promise<Adapter> {
  const { file, found, files } = await convert(model, source);
  if (!files) throw new FormatError(found.join("; "), { file });
  const faults = new Map(found.length > 0 ? [[file, found]] : []);
  return loadAdapter(model, files, name, { ...options, faults });
}
