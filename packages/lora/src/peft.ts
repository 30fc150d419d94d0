// Adapters as PEFT's folders: adapter_config.json and adapter_model.safetensors. A folder is read wholly, and all its faults are found,
// before the model is touched.

import { ArgumentError, type DType, noGrad, type Tensor } from "@nomoat/core";
import type { Module } from "@nomoat/core/nn";
import { writeFilesAtomic } from "@nomoat/core/safetensors";
import { type Adapter, checkAdapterName, peftPrefix } from "./adapter.js";
import { type ApplyOptions, attach, placeOf, replacementsOf, variantOf } from "./apply.js";
import type { LoraConfig } from "./config.js";
import { savedConfig } from "./init/principal.js";
import { asFormatError, type Expected, listed, nonFinite, readTensors } from "./peft-checks.js";
import type { WarningHandler } from "./peft-config.js";
import {
  type AdapterSource,
  configFile,
  openFolder,
  openWeights,
  peftFiles,
  readConfig,
} from "./peft-folder.js";
import type { Replacements } from "./replacements.js";
import { namedTargets, resolveTargets, type Target } from "./targets.js";

export interface SaveAdapterOptions {
  /** dtype of the saved tensors (default float32). */
  dtype?: "float64" | "float32" | "float16" | "bfloat16";
}

/**
 * An adapter's files by name, as PEFT writes them.
 * @throws {ArgumentError} when values are not finite (in the dtype asked for)
 */
export async function serializeAdapter(
  adapter: Adapter,
  options: SaveAdapterOptions = {},
): Promise<Map<string, Uint8Array>> {
  const dtype = options.dtype ?? "float32";
  const own = adapter.stateDict();
  const state = adapter.savedStateDict();
  const tensors = new Map<string, Tensor>();
  try {
    for (const [key, tensor] of state) tensors.set(key, converted(tensor, dtype));
    const faults = await nonFinite(tensors);
    if (faults.length > 0) {
      throw new ArgumentError(`saveAdapter: values that are not finite in ${listed(faults)}`);
    }
    return await peftFiles(savedConfig(namedTargets(adapter.model, adapter.config)), tensors);
  } finally {
    for (const tensor of tensors.values()) tensor.dispose();
    for (const [key, tensor] of state) if (own.get(key) !== tensor) tensor.dispose();
  }
}

/** Another handle, or a copy in `dtype`, outside the graph. */
function converted(tensor: Tensor, dtype: DType): Tensor {
  const detached = tensor.detach();
  if (tensor.dtype === dtype) return detached;
  const copy = detached.cast(dtype);
  detached.dispose();
  return copy;
}

/**
 * Writes an adapter as a folder that PEFT reads: adapter_config.json and adapter_model.safetensors. Both are complete before either
 * takes its place; what stood there before survives every fault. The factor `adapter.weight` is not part of it.
 *
 * @throws {ArgumentError} when values are not finite
 * @throws {NomoatError} with code `"IO"` when the file system refuses
 */
export async function saveAdapter(
  adapter: Adapter,
  folder: string,
  options: SaveAdapterOptions = {},
): Promise<void> {
  await writeFilesAtomic(folder, await serializeAdapter(adapter, options));
}

export interface LoadAdapterOptions extends ApplyOptions {
  /** Whether its parameters gather gradients (default true). */
  trainable?: boolean;
  /** Told about what is accepted though it has no effect here (default `console.warn`). */
  onWarning?: WarningHandler;
}

/** The configuration of an adapter's folder. @throws {FormatError} naming every fault */
export async function readAdapterConfig(
  source: AdapterSource,
  options: { onWarning?: WarningHandler } = {},
): Promise<LoraConfig> {
  return readConfig(openFolder(source), options.onWarning);
}

/** What the file should hold, by key. */
function expectedTensors(
  targets: readonly Target[],
  config: LoraConfig,
  saved: Replacements,
): Map<string, Expected> {
  const expected = new Map<string, Expected>();
  for (const target of targets) {
    const { layer } = target;
    for (const [suffix, shape] of variantOf(config, layer).shapes(target, layer, config))
      expected.set(`${peftPrefix}${target.name}.${suffix}`, { r: target.r, suffix, shape });
  }
  for (const [key, shape] of variantOf(config, targets[0].layer).shared?.shapes(targets, config) ?? [])
    expected.set(key, { r: null, suffix: key, shape });
  // PEFT does not write the biases of layers that it wraps with "lora_only".
  const optional = config.bias === "lora_only";
  for (const [key, { shape }] of saved.tensors())
    expected.set(`${peftPrefix}${key}`, {
      r: null,
      suffix: key,
      shape,
      optional: optional && key.endsWith("bias"),
    });
  return expected;
}

/**
 * Puts a saved adapter on `model`: PEFT's folder with adapter_config.json and adapter_model.safetensors. The model's parameters are
 * frozen; the adapter takes part beside those that are on the model already.
 *
 * @param source - the folder's path, or its files by name
 * @param name - as in `applyLora`
 * @throws {FormatError} listing all faults: fields out of range or not supported, tensors that are missing, unexpected, misshapen, of
 *   another rank than the configuration says, not float, or not finite; and for pickles. The model is as it was then.
 * @throws {ArgumentError} for a name that is taken
 * @throws {NomoatError} with code `"IO"` when files cannot be read
 */
export async function loadAdapter(
  model: Module,
  source: AdapterSource,
  name = "default",
  options: LoadAdapterOptions = {},
): Promise<Adapter> {
  checkAdapterName(model, name);
  const folder = openFolder(source);
  const config = await readConfig(folder, options.onWarning);
  const configPath = `${folder.name}/${configFile}`;
  const targets = asFormatError(() => resolveTargets(model, config), configPath);
  const place = placeOf(model);
  const dtype = options.dtype ?? place.dtype;
  const { opened, file } = await openWeights(folder);
  let saved: Replacements | null = null;
  const tensors = new Map<string, Tensor>();
  const fresh = { ...place, dtype };
  try {
    saved = asFormatError(() => replacementsOf(model, config, targets, dtype), configPath);
    const expected = expectedTensors(targets, config, saved);
    const { missing } = await readTensors(opened, expected, { file, tensors, ...fresh });
    if (missing.length > 0)
      (options.onWarning ?? console.warn)(`${file}: the base's values are kept for ${listed(missing)}`);
    checkAdapterName(model, name);
    saved.checkFree();
    return build(model, name, config, targets, tensors, saved, { ...fresh, ...options });
  } catch (error) {
    for (const tensor of tensors.values()) tensor.dispose();
    saved?.dispose();
    throw error;
  } finally {
    await opened.close();
  }
}

function build(
  model: Module,
  name: string,
  config: LoraConfig,
  targets: readonly Target[],
  tensors: ReadonlyMap<string, Tensor>,
  saved: Replacements,
  options: LoadAdapterOptions & ReturnType<typeof placeOf>,
): Adapter {
  const shapes = variantOf(config, targets[0].layer).shared?.shapes(targets, config) ?? new Map();
  const shared = new Map(Array.from(shapes.keys(), (key: string) => [key, tensors.get(key) as Tensor]));
  const parts = targets.map((target) => {
    const variant = variantOf(config, target.layer);
    const own = new Map<string, Tensor>();
    for (const suffix of variant.shapes(target, target.layer, config).keys())
      own.set(suffix, tensors.get(`${peftPrefix}${target.name}.${suffix}`) as Tensor);
    const { dtype, device, generator } = options;
    const branchOptions = { adapter: name, config, target, dtype, device, generator, shared };
    return { target, branch: variant.create(target.layer, branchOptions, own) };
  });
  noGrad(() => {
    for (const [key, copy] of saved.tensors()) {
      const loaded = tensors.get(`${peftPrefix}${key}`);
      if (!loaded) continue;
      copy.copyFrom(loaded);
      loaded.dispose();
    }
  });
  const adapter = attach(model, name, config, parts, saved, shared);
  return adapter.requiresGrad(options.trainable ?? true);
}
