// quantizeModel: puts quantized linear layers, and embeddings, where a model has float ones.

import { ArgumentError, keep, type Tensor, tensor } from "@nomoat/core";
import { requireOptions } from "@nomoat/core/extend";
import { Embedding, Linear, type Module, requireModule } from "@nomoat/core/nn";
import { type ActivationRange, activationGrid } from "./activations.js";
import { quantizeAwq } from "./calibrated/awq.js";
import {
  type AwqMapping,
  dividedBy,
  type FoldedScales,
  foldScales,
  nothingFolded,
  scaleOutputs,
} from "./calibrated/awq-mappings.js";
import { quantizeGptq } from "./calibrated/gptq.js";
import { quantizeHqq } from "./calibrated/hqq.js";
import type { ActivationStatistics } from "./calibrated/statistics.js";
import { QuantizedEmbedding, requireRows } from "./embedding.js";
import type { BlockFormat } from "./formats/format.js";
import type { FormatName } from "./formats/index.js";
import { QuantizedLinear, type QuantizedLinearOptions } from "./linear.js";
import { chooseFormats } from "./mixed.js";
import { hostDevice, quantize, resolveFormat } from "./quantize.js";
import type { QuantizedTensor } from "./quantized-tensor.js";
import { QuantizationReport, reportLines } from "./report.js";

type Format = FormatName | BlockFormat;

export interface QuantizeModelOptions {
  /** The format of all layers; not needed with `bitsPerWeight`. */
  readonly format?: Format;
  /**
   * Give each layer one of the `candidates`, so that all that are quantized take at most so many bits a weight on average,
   * scales included: the layers that lose most get most. Every candidate is tried on every layer.
   */
  readonly bitsPerWeight?: number;
  /** What `bitsPerWeight` chooses from (default nf4, q5_0, q5_1, int8); those that a shape does not suit are passed over. */
  readonly candidates?: readonly Format[];
  /**
   * How codes and scales are found: "nearest" (default) as the format has it, "hqq" without data, "gptq" and "awq" from
   * `statistics`. "gptq" and "hqq" take formats of integers in groups or rows; of layers that share a weight the first decides.
   */
  readonly method?: "nearest" | "hqq" | "gptq" | "awq";
  /** Dequantize each layer again to measure its error (default true; methods other than "nearest" always do). */
  readonly measure?: boolean;
  /** What `collectStatistics` gathered: for "gptq" and "awq", and for `bitsPerWeight` to weigh layers by what their outputs lose. */
  readonly statistics?: ReadonlyMap<string, ActivationStatistics>;
  /**
   * For "awq": modules that take the scales of the layers after them in, so that products cost nothing more (`awqMappings` of
   * `@nomoat/llama` has those of a LLaMA). Layers in none of them multiply their inputs; so do those of a mapping that has a layer which
   * is not quantized.
   */
  readonly mappings?: Iterable<AwqMapping>;
  /** Modules to leave as they are: a name, or its end from a dot on (`lm_head`, `mlp.down_proj`), or a RegExp on the whole name. */
  readonly skip?: readonly (string | RegExp)[];
  /** Formats of some modules, by the same patterns; the first that fits wins, null leaves the module as it is. */
  readonly perModule?: Iterable<readonly [pattern: string | RegExp, format: Format | null]>;
  /** Quantize the output layer (`lm_head`) too (default false). */
  readonly outputLayer?: boolean;
  /**
   * Quantize `nn.Embedding`s too, by rounding to nearest (default false). A linear layer that shares its weight with one goes with it,
   * an output layer as well, and goes on sharing it. Formats whose blocks cross rows (nf4, fp4, int8_tensor) do not suit them.
   */
  readonly embeddings?: boolean;
  /**
   * How inputs enter the products: see `quantizedMatmul` (default "float32"); or ranges by layer, as `calibrateActivations` finds
   * them, for one grid of 256 steps a layer (static quantization). Not with "awq".
   */
  readonly activations?: "float32" | "int8" | ReadonlyMap<string, ActivationRange>;
}

interface Target {
  readonly name: string;
  readonly layer: Linear | Embedding;
  readonly format: BlockFormat;
}

const defaultCandidates: readonly Format[] = ["nf4", "q5_0", "q5_1", "int8"];

/**
 * Replaces the `nn.Linear` layers of `model`, and on request its embeddings, by quantized ones and disposes their float weights, except
 * those that another module holds too (tied embeddings that stay float). Biases move over. All layers are checked before one is replaced.
 *
 * @returns the error of each layer, measured on the way (null with `measure: false`); the same as `quantizationReport(model)`
 * @throws {ArgumentError} listing the layers whose shape does not suit their format; naming tensor and index of a value
 * that cannot be quantized (the model is unchanged then); when no layer is left to quantize; when `bitsPerWeight` is too few
 */
export function quantizeModel(model: Module, options: QuantizeModelOptions): QuantizationReport {
  const work = quantizing(model, options);
  let step = work.next();
  while (!step.done) step = work.next(step.value);
  return step.value;
}

export interface QuantizeModelAsyncOptions extends QuantizeModelOptions {
  /**
   * Gives the values of a weight that lie elsewhere, in a file say, while the model holds a tensor of that shape in its place: a tensor
   * that is disposed when it is packed. Default: the weight's own.
   */
  readonly valuesOf?: (weight: Tensor) => Promise<Tensor>;
}

/**
 * {@link quantizeModel} where weights have to be waited for: in files, or on the gpu backend, whose computed values cannot be read at
 * once. Each is quantized by the wasm backend's kernels, or plain code where that does not run, and goes where its layer is, packed.
 */
export async function quantizeModelAsync(
  model: Module,
  options: QuantizeModelAsyncOptions,
): Promise<QuantizationReport> {
  const work = quantizing(model, options);
  let step = work.next();
  while (!step.done) {
    const weight = step.value;
    let values: Tensor;
    try {
      values = await readable(weight, options.valuesOf);
    } catch (error) {
      step = work.throw(error);
      continue;
    }
    try {
      step = work.next(values);
    } finally {
      if (values !== weight) values.dispose();
    }
  }
  return step.value;
}

/** The values of `weight` where they can be read at once: itself, or a tensor of its own. */
async function readable(weight: Tensor, valuesOf: QuantizeModelAsyncOptions["valuesOf"]): Promise<Tensor> {
  const given = valuesOf ? await valuesOf(weight) : weight;
  if (given.storage.backend.synchronous) return given;
  try {
    const { shape, dtype } = given;
    return keep(tensor(await given.data(), { shape, dtype, device: hostDevice() }));
  } finally {
    if (given !== weight) given.dispose();
  }
}

/** The work, which asks for each weight and is given it, or a copy of it that can be read; the copy is its own until it asks again. */
function* quantizing(
  model: Module,
  options: QuantizeModelOptions,
): Generator<Tensor, QuantizationReport, Tensor> {
  const targets = yield* findTargets(model, options);
  // A table that is looked up has rows as they are: no scales of inputs, and no inputs to calibrate by.
  const looked = new Set(targets.flatMap(({ layer }) => (layer instanceof Embedding ? [layer.weight] : [])));
  const inputs = targets.map(({ name, layer }) =>
    layer instanceof Embedding ? {} : activationsOf(name, options),
  );
  const { method, mappings, statistics } = options;
  if (mappings && method !== "awq") throw new ArgumentError("quantizeModel: mappings are for the method awq");
  const folded = mappings ? yield* foldScales(model, mappings, targets, statistics) : nothingFolded;
  const made = new Map<Tensor, Made>();
  const weights: Made[] = [];
  try {
    for (const { name, layer, format } of targets) {
      // Layers that share a weight go on sharing it.
      let found = made.get(layer.weight);
      if (found?.quantized.format !== format) {
        const by = looked.has(layer.weight) ? "nearest" : method;
        const weight = yield layer.weight;
        const packed = quantizeFolded(name, weight, format, { ...options, method: by }, folded);
        found = moved(packed, layer.weight.device);
        made.set(layer.weight, found);
      }
      weights.push(found);
    }
  } catch (error) {
    for (const { quantized, inputScales } of weights) {
      quantized.dispose();
      inputScales?.dispose();
    }
    throw error;
  }
  const modules = new Map(model.namedModules());
  scaleOutputs(modules, folded, new Set(targets.map(({ name }) => name)));
  const replacements = targets.map(({ name, layer }, i) => {
    const { quantized, inputScales } = weights[i];
    const replacement =
      layer instanceof Embedding
        ? new QuantizedEmbedding(quantized)
        : new QuantizedLinear(quantized, layer.bias, { ...inputs[i], inputScales });
    replacement.train(layer.training);
    model.replaceModule(name, replacement);
    return [name, replacement] as const;
  });
  const held = new Set(model.stateDict().values());
  for (const { layer } of targets) if (!held.has(layer.weight)) layer.weight.dispose();
  return new QuantizationReport(reportLines(replacements));
}

/** How the inputs of a layer are taken. @throws {ArgumentError} for a layer without a range among given ones */
function activationsOf(name: string, { activations, method }: QuantizeModelOptions): QuantizedLinearOptions {
  if (activations === undefined || typeof activations === "string") return { activations };
  if (method === "awq") {
    throw new ArgumentError(
      "quantizeModel: awq scales inputs by channel, which ranges of activations do not know of",
    );
  }
  const range = activations.get(name);
  if (!range) {
    throw new ArgumentError(
      `quantizeModel: there is no range of activations for ${name}: see calibrateActivations`,
    );
  }
  return { activationGrid: activationGrid(range) };
}

interface Made {
  readonly quantized: QuantizedTensor;
  readonly inputScales?: Tensor;
}

/** The same on `device`. */
function moved(made: Made, device: Tensor["device"]): Made {
  const { quantized, inputScales } = made;
  if (quantized.device === device) return made;
  const result = { quantized: quantized.to(device), inputScales: inputScales?.to(device) };
  quantized.dispose();
  inputScales?.dispose();
  return result;
}

/** {@link quantizeBy}, with what the layers before and after it fold into it. */
function quantizeFolded(
  layer: string,
  weight: Tensor,
  format: BlockFormat,
  options: QuantizeModelOptions,
  { columns, outputs }: FoldedScales,
): Made {
  const scales = outputs.get(layer);
  const own = scales ? dividedBy(weight, scales) : weight;
  const folded = columns.get(layer);
  try {
    const { quantized, inputScales } = quantizeBy(layer, own, format, options, folded);
    // The module before has taken them in.
    if (folded) inputScales?.dispose();
    return folded ? { quantized } : { quantized, inputScales };
  } finally {
    if (own !== weight) own.dispose();
  }
}

function quantizeBy(
  layer: string,
  weight: Tensor,
  format: BlockFormat,
  { method = "nearest", statistics, measure }: QuantizeModelOptions,
  scales?: Float32Array,
): Made {
  const options = { format, name: `${layer}.weight` };
  if (method === "nearest") return { quantized: quantize(weight, { ...options, measure }) };
  if (method === "hqq") return { quantized: quantizeHqq(weight, options) };
  if (method !== "gptq" && method !== "awq") {
    throw new ArgumentError(
      `quantizeModel: unknown method ${String(method)} (known: nearest, hqq, gptq, awq)`,
    );
  }
  const seen = statistics?.get(layer);
  if (!seen) {
    throw new ArgumentError(`quantizeModel: ${method} needs statistics of ${layer}: see collectStatistics`);
  }
  if (method === "gptq") return { quantized: quantizeGptq(weight, seen, options) };
  const { weight: quantized, inputScales } = quantizeAwq(weight, seen, { ...options, scales });
  return { quantized, inputScales };
}

/** True when `pattern` names the module: the whole name, its end from a dot on, or a match of a RegExp. */
function namesModule(pattern: string | RegExp, name: string): boolean {
  if (typeof pattern === "string") return name === pattern || name.endsWith(`.${pattern}`);
  return new RegExp(pattern.source, pattern.flags.replace(/[gy]/g, "")).test(name);
}

const optionNames: readonly (keyof QuantizeModelAsyncOptions)[] = [
  ...([
    "format",
    "bitsPerWeight",
    "candidates",
    "method",
    "measure",
    "statistics",
    "mappings",
    "skip",
  ] as const),
  ...(["perModule", "outputLayer", "embeddings", "activations", "valuesOf"] as const),
];

function* findTargets(model: Module, options: QuantizeModelOptions): Generator<Tensor, Target[], Tensor> {
  requireModule("quantizeModel", model);
  requireOptions("quantizeModel", options, optionNames);
  const { skip = [], perModule = [], outputLayer = false, embeddings = false } = options;
  const perPattern = Array.from(perModule, ([pattern, format]) => ({
    pattern,
    format: format === null ? null : resolveFormat(format),
  }));
  if ((options.format === undefined) === (options.bitsPerWeight === undefined)) {
    throw new ArgumentError("quantizeModel: give either a format or bitsPerWeight");
  }
  const candidates =
    options.format === undefined ? (options.candidates ?? defaultCandidates) : [options.format];
  const formats = candidates.map(resolveFormat);
  const found: (Omit<Target, "format"> & { formats: BlockFormat[] })[] = [];
  const faults: string[] = [];
  const take = (name: string, layer: Linear | Embedding) => {
    if (skip.some((pattern) => namesModule(pattern, name))) return;
    const override = perPattern.find(({ pattern }) => namesModule(pattern, name));
    if (override?.format === null) return;
    const [rows, columns] = layer.weight.shape;
    const suitable: BlockFormat[] = [];
    let fault = "";
    for (const format of override?.format ? [override.format] : formats) {
      try {
        if (layer instanceof Embedding) requireRows(format, name);
        format.checkShape([rows, columns], name);
        suitable.push(format);
      } catch (error) {
        fault = (error as Error).message.replace(/^quantize: /, "");
      }
    }
    if (suitable.length > 0) found.push({ name, layer, formats: suitable });
    else faults.push(fault);
  };
  const modules = [...model.namedModules()].filter(([name]) => name !== "");
  if (embeddings) for (const [name, layer] of modules) if (layer instanceof Embedding) take(name, layer);
  const tables = new Map(found.map(({ name, layer }) => [layer.weight, name]));
  const tied: [name: string, layer: Linear][] = [];
  for (const [name, layer] of modules) {
    if (!(layer instanceof Linear)) continue;
    if (tables.has(layer.weight)) tied.push([name, layer]);
    else if (outputLayer || !namesModule("lm_head", name)) take(name, layer);
  }
  if (faults.length > 0) throw new ArgumentError(`quantizeModel: ${faults.join("; ")}`);
  if (found.length === 0) {
    throw new ArgumentError(
      "quantizeModel: the model has no float linear layer to quantize (of those that are not skipped)",
    );
  }
  const { bitsPerWeight } = options;
  const chosen =
    bitsPerWeight === undefined
      ? null
      : yield* chooseFormats(
          found.map(({ name, layer, formats }) => ({
            ...{ name, weight: layer.weight, formats },
            statistics: layer instanceof Linear ? options.statistics?.get(name) : undefined,
          })),
          bitsPerWeight,
        );
  const targets = found.map(({ name, layer, formats: [only] }) => ({
    ...{ name, layer, format: chosen?.get(name) ?? only },
  }));
  const formatOf = new Map(targets.map(({ layer, format }) => [layer.weight, format]));
  return [...targets, ...tied.map(([name, layer]) => ({ name, layer, format: formatOf.get(layer.weight)! }))];
}
