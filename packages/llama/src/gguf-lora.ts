// LoRA adapters as llama.cpp's GGUF files (convert_lora_to_gguf.py, llama-adapter.cpp), both ways: general.type "adapter", adapter.type
// "lora", one adapter.lora.alpha, and for each weight NAME of the base NAME.lora_a [r, in] and NAME.lora_b [out, r]; the update counts
// alpha / r times. An embedding's lora_a is [numEmbeddings, r]. Rows of query and key projections stand in llama.cpp's order.

import { ArgumentError, FormatError, type Tensor } from "@nomoat/core";
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

/** Checks what kind of file it is; the alpha, 0 where every update counts once. */
function readAlpha(meta: Metadata): number {
  for (const [key, wanted] of [
    ["general.type", "adapter"],
    ["general.architecture", "llama"],
    ["adapter.type", "lora"],
  ] as const) {
    const value = meta.text(key);
    if (value !== wanted)
      meta.fail(key, `expected "${wanted}", not ${JSON.stringify(value?.slice(0, 60)) ?? "nothing"}`);
  }
  for (const key of meta.values.keys())
    if (key.startsWith("adapter.alora.")) meta.fail(key, "activated LoRA is not supported");
  const alpha = meta.number(alphaKey) ?? 0;
  if (!(Number.isFinite(alpha) && alpha >= 0))
    meta.fail(alphaKey, `expected a number of at least 0, not ${alpha}`);
  return alpha;
}

interface Factors {
  a?: string;
  b?: string;
}

/** Names of the factors in the file, by module; all faults of their names and shapes together. */
function matchFactors(
  gguf: GgufFile,
  model: LlamaForCausalLM,
  file: string,
): Map<string, { a: string; b: string; r: number }> {
  const faults: string[] = [];
  const found = new Map<string, Factors>();
  for (const key of gguf.tensors.keys()) {
    const [, weight, part] = /^(.*\.weight)\.lora_([ab])$/.exec(key) ?? [];
    const ours = weight === undefined ? undefined : fromGgufName(weight);
    const module = ours?.replace(/\.weight$/, "");
    if (module === undefined) faults.push(`unexpected ${JSON.stringify(key.slice(0, 100))}`);
    else found.set(module, { ...found.get(module), [part]: key });
  }
  const layers = new Map<string, { a: string; b: string; r: number }>();
  for (const [module, { a, b }] of found) {
    if (a === undefined || b === undefined) {
      faults.push(`${a ?? b} has no lora_${a === undefined ? "a" : "b"}`);
      continue;
    }
    const [left, right] = [a, b].map((key) => gguf.tensors.get(key)?.shape ?? []);
    const r = right[1];
    if (left.length !== 2 || right.length !== 2 || left[module === embedding ? 1 : 0] !== r)
      faults.push(`${a} [${left.join(", ")}] and ${b} [${right.join(", ")}] are no factors of one product`);
    else if (rotated.test(module) && right[0] % model.config.headDim !== 0)
      faults.push(`${b} has ${right[0]} rows, which are no heads of ${model.config.headDim}`);
    layers.set(module, { a, b, r });
  }
  if (found.size === 0) faults.push("there are no adapter's tensors");
  if (faults.length === 0) return layers;
  const more = faults.length > 8 ? `; and ${faults.length - 8} more` : "";
  throw new FormatError(`${faults.slice(0, 8).join("; ")}${more}`, { file });
}

/**
 * A GGUF adapter of llama.cpp as the files of a PEFT folder, for `loadAdapter`.
 *
 * @param config - of the model that it is for
 * @throws {FormatError} for other kinds of files, and listing every tensor that is unexpected, missing or misshapen
 */
export async function loraGgufToPeft(
  model: LlamaForCausalLM,
  source: SourceLike,
): Promise<Map<string, Uint8Array>> {
  const file = typeof source === "string" ? source : "adapter.gguf";
  const gguf = await readGguf(source);
  const tensors = new Map<string, Tensor>();
  try {
    const alpha = readAlpha(new Metadata(gguf.metadata, file));
    const layers = matchFactors(gguf, model, file);
    for (const [module, { a, b }] of layers) {
      const names = suffixes(module);
      const load = (name: string) => gguf.load(name, { dequantize: true });
      tensors.set(`${peftPrefix}${module}.${names.a}`, turned(await load(a), module, "a", model.config));
      tensors.set(`${peftPrefix}${module}.${names.b}`, turned(await load(b), module, "b", model.config));
    }
    const ranks = new Map(
      Array.from(layers, ([module, { r }]) => [module, { r, alpha: alpha === 0 ? r : alpha }]),
    );
    return await peftFiles(layerwiseConfig(ranks), tensors);
  } finally {
    for (const tensor of tensors.values()) tensor.dispose();
    await gguf.close();
  }
}

/** A factor in the place where PEFT has it; takes `tensor` over. */
function turned(tensor: Tensor, module: string, part: "a" | "b", config: LlamaConfig): Tensor {
  let out = tensor;
  if (part === "a" && module === embedding) {
    const view = tensor.transpose();
    out = view.clone();
    view.dispose();
  } else if (part === "b" && rotated.test(module)) out = permuteRows(tensor, config.headDim, true);
  if (out !== tensor) tensor.dispose();
  return out;
}

/**
 * Puts an adapter out of llama.cpp's GGUF file on a LLaMA; see {@link loraGgufToPeft} and `loadAdapter`, whose checks and errors apply too.
 */
export async function loadLoraGguf(
  model: LlamaForCausalLM,
  source: SourceLike,
  name = "default",
  options: LoadAdapterOptions = {},
): Promise<Adapter> {
  return loadAdapter(model, await loraGgufToPeft(model, source), name, options);
}
