// LLaMA models from and to GGUF files, as llama.cpp writes them.

import { ArgumentError, FormatError, type Tensor, tensor, tidy } from "@nomoat/core";
import { describe, requireOptions, requirePath } from "@nomoat/core/extend";
import { adaptersOf } from "@nomoat/lora";
import {
  type FormatName,
  QuantizedEmbedding,
  QuantizedLinear,
  QuantizedTensor,
  quantize,
} from "@nomoat/quant";
import { type GgufFile, readGguf, writeGguf } from "@nomoat/quant/gguf";
import {
  configFromGguf,
  configToGguf,
  fromGgufName,
  llama3Factors,
  Metadata,
  ropeFactors,
  toGgufName,
} from "./gguf-config.js";
import { tokenizerFromGguf, tokenizerToGguf } from "./gguf-tokenizer.js";
import type { LoadLlamaOptions } from "./load.js";
import { assembleLlama, embeddingWeight, type Weight, type WeightSource } from "./model/assemble.js";
import { type LlamaForCausalLM, llamaShapes } from "./model/model.js";
import { requireLlama } from "./options.js";
import { Tokenizer, type TokenizerFiles } from "./tokenizer.js";

/**
 * llama.cpp turns rotary pairs that lie half a head apart (Hugging Face's) into neighbours: row h·d + 2i + j of its query and
 * key projections is row h·d + j·d/2 + i here. `undo` gives the rows their old places.
 */
export function permuteRows(x: Tensor, headDim: number, undo: boolean): Tensor {
  const rows = x.shape[0];
  const width = x.size / Math.max(1, rows);
  const [first, second] = undo ? [headDim / 2, 2] : [2, headDim / 2];
  return tidy(() => {
    const heads = x.detach().reshape(rows / headDim, first, second, width);
    return heads.permute(0, 2, 1, 3).clone().reshape(x.shape);
  });
}

function permute(weight: Weight, headDim: number, undo: boolean): Weight {
  if (!(weight instanceof QuantizedTensor)) return permuteRows(weight, headDim, undo);
  const { format, shape } = weight;
  return tidy(() => {
    // ggml's rows are whole blocks, so rows of bytes are rows of weights.
    const bytes = (weight.parts.get("data") as Tensor).reshape(shape[0], -1);
    const moved = permuteRows(bytes, headDim, undo).reshape(-1);
    return new QuantizedTensor(format, shape, new Map([["data", moved]]));
  });
}

const rotated = /\.(?:q_proj|k_proj)\.(?:weight|bias)$/;
const floatType = /^B?F\d+$/;
/** Weights that are computed with as they are packed. */
const packable = /(?:_proj|lm_head|embed_tokens)\.weight$/;

/** Our names → those of the file; its other tensors under names that no model has. */
function ourNames(gguf: GgufFile): Map<string, string> {
  const names = [...gguf.tensors.keys()].filter((name) => name !== ropeFactors);
  return new Map(names.map((name) => [fromGgufName(name) ?? `gguf ${name}`, name]));
}

/**
 * Loads a LLaMA and its tokenizer from a GGUF file. Linear layers of quantized types become QuantizedLinear and the embedding a
 * QuantizedEmbedding, unless `keepQuantized` is false; the rest becomes float32 (or `dtype`), or what `quantize` makes of it.
 *
 * @throws {FormatError} naming file, field and reason; nothing stays allocated then
 */
export async function loadGguf(
  path: string,
  options: LoadLlamaOptions = {},
): Promise<{ model: LlamaForCausalLM; tokenizer: Tokenizer }> {
  const { device, dtype = "float32", keepQuantized = true, quantize } = options;
  const gguf = await readGguf(path);
  try {
    const meta = new Metadata(gguf.metadata, path);
    const config = configFromGguf(meta, gguf.tensors, await readFactors(gguf), options.ropeScaling);
    const names = ourNames(gguf);
    const tokenizer = options.tokenizer ?? tokenizerFromGguf(meta);
    if (tokenizer.vocabSize > config.vocabSize) {
      meta.fail(
        "tokenizer.ggml.tokens",
        `${tokenizer.vocabSize} tokens, the model embeds ${config.vocabSize}`,
      );
    }
    const infoOf = (ours: string) => gguf.tensors.get(names.get(ours)!)!;
    const staysPacked = (ours: string): boolean => {
      // Rows that are looked up come in float32.
      const fits = packable.test(ours) && (ours !== embeddingWeight || dtype === "float32");
      return keepQuantized && fits && !floatType.test(infoOf(ours).type);
    };
    const packed = new Set([...names.keys()].filter(staysPacked));
    const source: WeightSource = {
      file: path,
      nameOf: (ours) => names.get(ours) ?? toGgufName(ours),
      shapes: new Map(Array.from(names.keys(), (ours) => [ours, infoOf(ours).shape])),
      packed,
      async load(ours) {
        const dequantize = packed.has(ours) ? {} : { dequantize: true };
        const stored = await gguf.load(names.get(ours)!, { device, ...dequantize });
        let placed: Weight = stored;
        try {
          if (rotated.test(ours)) placed = permute(stored, config.headDim, true);
        } finally {
          if (placed !== stored) stored.dispose();
        }
        return placed instanceof QuantizedTensor ? placed : castTo(placed, dtype);
      },
    };
    return { model: await assembleLlama(config, source, { quantize, device }), tokenizer };
  } finally {
    await gguf.close();
  }
}

function castTo(x: Tensor, dtype: "float32" | "float64"): Tensor {
  if (x.dtype === dtype) return x;
  const cast = x.cast(dtype);
  x.dispose();
  return cast;
}

async function readFactors(gguf: GgufFile): Promise<Float32Array | undefined> {
  if (!gguf.tensors.has(ropeFactors)) return undefined;
  const factors = await gguf.load(ropeFactors, { dequantize: true });
  const values = tidy(() => factors.cast("float32").dataSync() as Float32Array);
  factors.dispose();
  return values;
}

export interface SaveGgufOptions {
  /**
   * Type of the linear layers' weights (default "f16"); norms and biases are always float32. Layers that are quantized to one
   * of ggml's formats already keep their bytes. As by llama.cpp, weights whose rows are no multiple of 256 take q4_0, q5_0, q5_1 or
   * q8_0 instead of a K-quant, and those whose rows are no multiple of 32 f16.
   */
  readonly type?:
    | ("f32" | "f16" | "bf16")
    | ("q4_0" | "q4_1" | "q5_0" | "q5_1" | "q8_0" | "q2_K" | "q3_K" | "q4_K" | "q5_K" | "q6_K");
  /** Type of the embedding and the output layer; default: `type`, but q8_0 for those of 4 and 5 bits and q6_K for K-quants. */
  readonly outputType?: SaveGgufOptions["type"];
}

type WrittenType = NonNullable<SaveGgufOptions["type"]>;

const floats = { f32: "float32", f16: "float16", bf16: "bfloat16" } as const;
const writtenTypes: readonly string[] = [
  ...Object.keys(floats),
  ...["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_K", "q3_K", "q4_K", "q5_K", "q6_K"],
];

function checkType(option: string, type: unknown): void {
  if (writtenTypes.includes(type as string)) return;
  throw new ArgumentError(
    `saveGguf: ${option} must be one of ${writtenTypes.join(", ")}, not ${describe(type)}`,
  );
}

function outputTypeFor(type: WrittenType): WrittenType {
  if (type.endsWith("_K")) return "q6_K";
  return /^q[45]/.test(type) ? "q8_0" : type;
}

/** What llama.cpp's quantizer takes for rows that are no multiple of 256 (IQ4_NL, for the smallest, is not among ours). */
const smallerBlocks: Partial<Record<WrittenType, WrittenType>> = {
  ...{ q2_K: "q4_0", q3_K: "q4_0", q4_K: "q5_0", q5_K: "q5_1", q6_K: "q8_0" },
};

/** The type for rows so long: `type`, or the next that suits them. */
function suitableType(type: WrittenType, row: number): WrittenType {
  if (Object.hasOwn(floats, type)) return type;
  const smaller = smallerBlocks[type];
  if (row % (smaller ? 256 : 32) === 0) return type;
  return smaller ? suitableType(smaller, row) : "f16";
}

function convert(name: string, weight: Tensor, wanted: WrittenType): Weight {
  const type = suitableType(wanted, weight.shape.at(-1) ?? 0);
  if (!Object.hasOwn(floats, type))
    return quantize(weight, { format: type as FormatName, name, measure: false });
  return tidy(() => weight.detach().cast(floats[type as keyof typeof floats]));
}

/**
 * Writes a model as a GGUF file for llama.cpp and for `loadLlama`, whole or not at all. Adapters must be merged before.
 *
 * @param tokenizer - as `loadLlama` gives it, or contents of tokenizer.json and tokenizer_config.json; null for none
 * @throws {ArgumentError} for a weight or a tokenizer that GGUF cannot hold
 */
export async function saveGguf(
  model: LlamaForCausalLM,
  tokenizer: Tokenizer | TokenizerFiles | null,
  path: string,
  options: SaveGgufOptions = {},
): Promise<void> {
  requireLlama("saveGguf", model);
  if (typeof tokenizer !== "object")
    throw new ArgumentError(`saveGguf: expected a tokenizer or null, not ${describe(tokenizer)}`);
  requirePath("saveGguf", path);
  requireOptions("saveGguf", options, ["type", "outputType"]);
  const adapters = [...adaptersOf(model).keys()];
  if (adapters.length > 0)
    throw new ArgumentError(
      `saveGguf: the model carries adapters (${adapters.join(", ")}): mergeAndUnload(model) or remove them before`,
    );
  const { type = "f16" } = options;
  checkType("type", type);
  const { outputType = outputTypeFor(type) } = options;
  checkType("outputType", outputType);
  const { config } = model;
  const metadata = configToGguf(config);
  if (tokenizer) {
    const files = tokenizer instanceof Tokenizer ? tokenizer.files : tokenizer;
    for (const [key, value] of tokenizerToGguf(files, config.vocabSize)) metadata.set(key, value);
  }
  const modules = new Map(model.namedModules());
  const tensors = new Map<string, Weight>();
  const made: Weight[] = [];
  try {
    for (const [name, shape] of llamaShapes(config)) {
      const [, path, kind] = /^(.*)\.(weight|bias)$/.exec(name) as RegExpExecArray;
      const module = modules.get(path) as Partial<Record<"weight" | "bias", Tensor | null>> | undefined;
      let weight: Weight | null | undefined;
      const packed = module instanceof QuantizedLinear || module instanceof QuantizedEmbedding;
      if (module instanceof QuantizedLinear && module.inputScales) {
        throw new ArgumentError(
          `saveGguf: ${path} multiplies its inputs by scales (AWQ), which GGUF has no place for; quantize it by another method`,
        );
      }
      if (packed && kind === "weight") weight = module.quantized;
      else if (module) weight = module[kind as "weight" | "bias"];
      if (!weight) throw new FormatError(`the model has no plain "${name}": merge adapters before`);
      if (rotated.test(name) && (!(weight instanceof QuantizedTensor) || weight.format.rowWise)) {
        weight = permute(weight, config.headDim, false);
        made.push(weight);
      }
      if (!(weight instanceof QuantizedTensor)) {
        const outer = name === "lm_head.weight" || name === embeddingWeight;
        weight = convert(name, weight, shape.length === 1 ? "f32" : outer ? outputType : type);
        made.push(weight);
      }
      tensors.set(toGgufName(name), weight);
    }
    if (config.ropeScaling?.type === "llama3") {
      const factors = tensor(llama3Factors(config, config.ropeScaling));
      made.push(factors);
      tensors.set(ropeFactors, factors);
    }
    await writeGguf(path, { metadata, tensors });
  } finally {
    for (const each of made) each.dispose();
  }
}
