// A model's weights in safetensors files, as Hugging Face has them: dense, or packed by bitsandbytes.

import {
  ArgumentError,
  activeBackend,
  type BackendName,
  FormatError,
  type Tensor,
  tidy,
  withBackend,
} from "@nomoat/core";
import { Embedding, Linear, RMSNorm } from "@nomoat/core/nn";
import type { OpenSafetensors } from "@nomoat/core/safetensors";
import {
  fromBitsAndBytes,
  hostDevice,
  QuantizedLinear,
  type QuantizedTensor,
  toBitsAndBytes,
} from "@nomoat/quant";
import { embeddingWeight, type WeightSource } from "./model/assemble.js";
import type { LlamaConfig } from "./model/config.js";
import { type LlamaForCausalLM, llamaShapes } from "./model/model.js";

/** What bitsandbytes keeps beside the codes of a weight; group 1 is the weight's name. */
const companion =
  /^(.+\.weight)\.(?:absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.bitsandbytes__(?:nf4|fp4))$/;

/** What a file holds for a model of `config`. */
export function weightsOf(
  file: OpenSafetensors,
  config: LlamaConfig,
  options: { dtype: "float32" | "float64"; device?: BackendName; name: string },
): WeightSource {
  const expected = llamaShapes(config);
  const mayBePacked = (name: string) => expected.get(name)?.length === 2 && name !== embeddingWeight;
  const shapes = new Map<string, readonly number[]>();
  const parts = new Map<string, string[]>();
  for (const [name, { shape }] of file.entries) {
    const weight = companion.exec(name)?.[1];
    if (weight === undefined || !mayBePacked(weight) || !file.entries.has(weight)) shapes.set(name, shape);
    else parts.set(weight, [...(parts.get(weight) ?? [weight]), name]);
  }
  // Codes are a column of bytes: what shape they stand for is checked when they are read.
  for (const weight of parts.keys()) shapes.set(weight, expected.get(weight)!);
  return {
    file: options.name,
    shapes,
    packed: new Set(parts.keys()),
    load(name) {
      const names = parts.get(name);
      return names ? loadPacked(file, name, names, expected.get(name)!, options) : file.load(name, options);
    },
  };
}

async function loadPacked(
  file: OpenSafetensors,
  name: string,
  parts: readonly string[],
  shape: readonly number[],
  { device, name: label }: { device?: BackendName; name: string },
): Promise<QuantizedTensor> {
  const backend = device ? withBackend(device, activeBackend) : activeBackend();
  const own = backend.name as BackendName;
  // What the parts say of each other has to be read at once.
  const host = backend.synchronous ? own : hostDevice();
  const tensors = new Map<string, Tensor>();
  let weight: QuantizedTensor | null = null;
  try {
    for (const part of parts) tensors.set(part, await file.load(part, { device: host }));
    weight = fromBitsAndBytes(tensors, name, label);
    if (weight.shape.join() !== shape.join()) {
      throw new FormatError(`is [${weight.shape.join(", ")}], expected [${shape.join(", ")}]`, {
        file: label,
        field: `tensor "${name}"`,
      });
    }
    return weight.to(own);
  } finally {
    weight?.dispose();
    for (const tensor of tensors.values()) tensor.dispose();
  }
}

/**
 * The tensors of a model to be saved, copies that the caller disposes, and the `quantization_config` of those that are packed.
 *
 * @param dtype - of the dense ones
 * @throws {ArgumentError} naming the layers that safetensors files have no place for
 */
export function savedState(
  model: LlamaForCausalLM,
  dtype: "float32" | "float16" | "bfloat16",
): { tensors: Map<string, Tensor>; quantization: object | null } {
  const modules = new Map(model.namedModules());
  const { tieWordEmbeddings } = model.config;
  const tensors = new Map<string, Tensor>();
  const packed: QuantizedTensor[] = [];
  const dense: string[] = [];
  const faults: string[] = [];
  if (tieWordEmbeddings && model.lm_head instanceof QuantizedLinear) faults.push("lm_head (packed and tied)");
  try {
    for (const name of llamaShapes(model.config).keys()) {
      const [, path, kind] = /^(.*)\.(weight|bias)$/.exec(name) as RegExpExecArray;
      const module = modules.get(path);
      if (module instanceof QuantizedLinear && kind === "weight") {
        const { quantized, inputScales } = module;
        if (!/^(?:nf4|fp4)/.test(quantized.format.name) || inputScales) {
          faults.push(`${path} (${quantized.format.name}${inputScales ? " with scales of inputs" : ""})`);
          continue;
        }
        packed.push(quantized);
        for (const [key, part] of toBitsAndBytes(name, quantized, { dtype })) tensors.set(key, part);
      } else if ([Linear, QuantizedLinear, Embedding, RMSNorm].some((plain) => module instanceof plain)) {
        const value = (module as Linear)[kind as "weight" | "bias"] as Tensor;
        tensors.set(
          name,
          tidy(() => value.detach().cast(dtype)),
        );
        if (module instanceof Linear && kind === "weight") dense.push(path);
      } else faults.push(path);
    }
    if (faults.length > 0) {
      throw new ArgumentError(
        `saveLlama: safetensors files have no place for ${faults.join(", ")}: merge adapters, dequantize, or use saveGguf`,
      );
    }
    return { tensors, quantization: packed.length > 0 ? quantizationConfig(packed[0], dense, dtype) : null };
  } catch (error) {
    for (const tensor of tensors.values()) tensor.dispose();
    throw error;
  }
}

/** As `BitsAndBytesConfig.to_dict` writes it; layers that are not packed are named, for the output layer may be. */
function quantizationConfig(weight: QuantizedTensor, dense: readonly string[], dtype: string): object {
  const { name } = weight.format;
  return {
    quant_method: "bitsandbytes",
    load_in_4bit: true,
    load_in_8bit: false,
    bnb_4bit_quant_type: name.slice(0, 3),
    bnb_4bit_use_double_quant: !name.endsWith("_single"),
    bnb_4bit_compute_dtype: dtype,
    bnb_4bit_quant_storage: "uint8",
    llm_int8_skip_modules: dense,
  };
}
