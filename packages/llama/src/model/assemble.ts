// A model out of a file, one weight at a time: a weight that is to be quantized is never in memory with another in float.

import { type BackendName, keep, type Tensor, tidy, zeros } from "@nomoat/core";
import { Embedding, Linear } from "@nomoat/core/nn";
import {
  QuantizedEmbedding,
  QuantizedLinear,
  QuantizedTensor,
  type QuantizeModelOptions,
  quantizeModelAsync,
} from "@nomoat/quant";
import type { LlamaConfig } from "./config.js";
import { checkShapes, LlamaForCausalLM, llamaShapes } from "./model.js";

export type Weight = Tensor | QuantizedTensor;

/** Where a model's tensors come from, by Hugging Face's names. */
export interface WeightSource {
  /** For messages. */
  readonly file: string;
  /** What the file calls a tensor, for messages (default: the same). */
  nameOf?(name: string): string;
  /** Shapes of all its tensors; of packed weights those of what they stand for. */
  readonly shapes: ReadonlyMap<string, readonly number[]>;
  /** Those that `load` gives packed. */
  readonly packed: ReadonlySet<string>;
  /** Reads one; the caller owns it. */
  load(name: string): Promise<Weight>;
}

/** How weights are quantized as they are read: what `quantizeModel` takes, but for methods that need data. */
export type LoadQuantization = Omit<
  QuantizeModelOptions,
  "method" | "statistics" | "activations" | "measure"
> & {
  readonly method?: "nearest" | "hqq";
  readonly activations?: "float32" | "int8";
};

/** Name of the embedding table, which is looked up by rows. */
export const embeddingWeight = "model.embed_tokens.weight";

/**
 * Builds the model of `config` out of what `source` holds. Packed weights stay packed; those that `quantize` is for are packed as
 * they are read.
 *
 * @throws {FormatError} listing every missing, unexpected and misshapen tensor, before any is read; nothing stays allocated then
 * @throws {ArgumentError} as `quantizeModel`
 */
export async function assembleLlama(
  config: LlamaConfig,
  source: WeightSource,
  options: { quantize?: LoadQuantization; device?: BackendName } = {},
): Promise<LlamaForCausalLM> {
  const { quantize, device } = options;
  checkShapes(config, source.shapes, source.file, source.nameOf);
  const tensors = new Map<string, Tensor>();
  const packed = new Map<string, QuantizedTensor>();
  const places = new Map<Tensor, string>();
  let model: LlamaForCausalLM | null = null;
  try {
    for (const [name, shape] of llamaShapes(config)) {
      const later = quantize !== undefined && shape.length === 2 && !source.packed.has(name);
      const given = later ? null : await source.load(name);
      if (given && !(given instanceof QuantizedTensor)) tensors.set(name, given);
      else {
        // A view of one zero holds the place of a weight that is packed, or not read yet.
        const place = keep(tidy(() => zeros([1, 1], { device: given?.device ?? device }).expand(shape)));
        places.set(place, name);
        tensors.set(name, place);
        if (given) packed.set(name, given);
      }
    }
    model = LlamaForCausalLM.fromTensors(config, tensors, source.file);
    placePacked(model, packed, tensors);
    if (quantize) {
      const valuesOf = (place: Tensor) => loadDense(source, places.get(place)!);
      await quantizeModelAsync(model, { ...quantize, measure: false, valuesOf });
      await fillPlaces(model, places, source);
    }
    return model;
  } catch (error) {
    model?.dispose();
    for (const each of [...tensors.values(), ...packed.values()]) each.dispose();
    throw error;
  } finally {
    for (const place of places.keys()) place.dispose();
  }
}

async function loadDense(source: WeightSource, name: string): Promise<Tensor> {
  return (await source.load(name)) as Tensor;
}

/** Puts layers of packed weights where the model has places for them. */
function placePacked(
  model: LlamaForCausalLM,
  packed: ReadonlyMap<string, QuantizedTensor>,
  tensors: ReadonlyMap<string, Tensor>,
): void {
  for (const [name, weight] of packed) {
    const layer = name.replace(/\.weight$/, "");
    if (name !== embeddingWeight) {
      model.replaceModule(layer, new QuantizedLinear(weight, tensors.get(`${layer}.bias`) ?? null));
      continue;
    }
    model.replaceModule(layer, new QuantizedEmbedding(weight));
    if (model.config.tieWordEmbeddings) model.lm_head = new QuantizedLinear(weight);
  }
}

/** Reads what is still a place: the weights of layers that were not to be quantized. */
async function fillPlaces(
  model: LlamaForCausalLM,
  places: ReadonlyMap<Tensor, string>,
  source: WeightSource,
): Promise<void> {
  const read = new Map<Tensor, Tensor>();
  for (const [name, layer] of [...model.namedModules()]) {
    if (!(layer instanceof Linear || layer instanceof Embedding)) continue;
    const place = places.get(layer.weight);
    if (place === undefined) continue;
    // Layers that share a weight go on sharing it.
    const weight = read.get(layer.weight) ?? (await loadDense(source, place));
    read.set(layer.weight, weight);
    model.replaceModule(
      name,
      layer instanceof Linear ? new Linear(weight, layer.bias) : new Embedding(weight),
    );
  }
}
