// Adapters as PEFT's folders: adapter_config.json and adapter_model.safetensors. A folder is read wholly, and all its faults are found,
// before the model is touched.

import {
  ArgumentError,
  type DType,
  FormatError,
  NomoatError,
  noGrad,
  parseJson,
  type Tensor,
} from "@nomoat/core";
import type { Module } from "@nomoat/core/nn";
import {
  type OpenSafetensors,
  openSafetensors,
  openSource,
  type SourceLike,
  serializeSafetensors,
  writeFilesAtomic,
} from "@nomoat/core/safetensors";
import { type Adapter, checkAdapterName, peftPrefix } from "./adapter.js";
import { type ApplyOptions, attach, placeOf, variantOf } from "./apply.js";
import type { LoraConfig } from "./config.js";
import { savedConfig } from "./init/principal.js";
import { fromPeftJson, toPeftJson, type WarningHandler } from "./peft-config.js";
import { SavedModules } from "./saved-modules.js";
import { resolveTargets, type Target } from "./targets.js";

const configFile = "adapter_config.json";
const weightsFile = "adapter_model.safetensors";
const pickleFile = "adapter_model.bin";

/** Bytes of adapter_config.json at most. */
const maxConfigBytes = 2 ** 24;
/** Faults that one message lists. */
const maxListed = 30;

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
    const json = JSON.stringify(toPeftJson(savedConfig(adapter.config)), null, 2);
    return new Map([
      [weightsFile, await serializeSafetensors(tensors, { format: "pt" })],
      [configFile, new TextEncoder().encode(json)],
    ]);
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

async function nonFinite(tensors: ReadonlyMap<string, Tensor>): Promise<string[]> {
  const found: string[] = [];
  for (const [key, tensor] of tensors) if (!(await tensor.data()).every(Number.isFinite)) found.push(key);
  return found;
}

function listed(items: readonly string[]): string {
  const shown = items.slice(0, maxListed).join("; ");
  return items.length > maxListed ? `${shown}; and ${items.length - maxListed} more` : shown;
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

/** A folder's path, or what holds its files, by name (in a browser). */
export type AdapterSource = string | ReadonlyMap<string, SourceLike>;

export interface LoadAdapterOptions extends ApplyOptions {
  /** Whether its parameters gather gradients (default true). */
  trainable?: boolean;
  /** Told about what is accepted though it has no effect here (default `console.warn`). */
  onWarning?: WarningHandler;
}

interface Folder {
  readonly name: string;
  get(file: string): SourceLike | undefined;
}

function openFolder(source: AdapterSource): Folder {
  if (typeof source === "string")
    return { name: source, get: (file) => `${source.replace(/[/\\]+$/, "")}/${file}` };
  return { name: "adapter", get: (file) => source.get(file) };
}

async function exists(folder: Folder, file: string): Promise<boolean> {
  const source = folder.get(file);
  if (source === undefined) return false;
  if (typeof source !== "string") return true;
  try {
    await (await openSource(source)).close();
    return true;
  } catch {
    return false;
  }
}

async function required(folder: Folder, file: string): Promise<SourceLike> {
  if (await exists(folder, file)) return folder.get(file) as SourceLike;
  if (file === weightsFile && (await exists(folder, pickleFile))) {
    throw new FormatError(
      `is a pickle, which can run any code when it is read, and is refused; save it as safetensors where you trust it (in PEFT: model.save_pretrained(folder, safe_serialization=True))`,
      { file: `${folder.name}/${pickleFile}` },
    );
  }
  throw new NomoatError(`${folder.name}: has no readable ${file}; expected a folder as PEFT saves it`, "IO");
}

/** Reads and checks adapter_config.json of a folder. */
async function readConfig(folder: Folder, onWarning: WarningHandler | undefined): Promise<LoraConfig> {
  const source = await openSource(await required(folder, configFile), configFile);
  const file = source.name;
  try {
    if (source.size > maxConfigBytes)
      throw new FormatError(`${source.size} bytes, more than the ${maxConfigBytes} allowed`, { file });
    const json = parseJson(await source.read(0, source.size), { file });
    return fromPeftJson(json, onWarning ? { file, onWarning } : { file });
  } finally {
    await source.close();
  }
}

/** The configuration of an adapter's folder. @throws {FormatError} naming every fault */
export async function readAdapterConfig(
  source: AdapterSource,
  options: { onWarning?: WarningHandler } = {},
): Promise<LoraConfig> {
  return readConfig(openFolder(source), options.onWarning);
}

interface Expected {
  /** Of a layer's adapter; null for a module that is saved as a whole. */
  readonly target: Target | null;
  readonly suffix: string;
  readonly shape: readonly number[];
}

/** What the file should hold, by key. */
function expectedTensors(
  targets: readonly Target[],
  config: LoraConfig,
  saved: SavedModules,
): Map<string, Expected> {
  const expected = new Map<string, Expected>();
  for (const target of targets) {
    const { layer } = target;
    for (const [suffix, shape] of variantOf(config, layer).shapes(target, layer, config))
      expected.set(`${peftPrefix}${target.name}.${suffix}`, { target, suffix, shape });
  }
  for (const [key, shape] of variantOf(config, targets[0].layer).shared?.shapes(targets, config) ?? [])
    expected.set(key, { target: null, suffix: key, shape });
  for (const [key, tensor] of saved.tensors())
    expected.set(`${peftPrefix}${key}`, { target: null, suffix: key, shape: tensor.shape });
  return expected;
}

const floats: ReadonlySet<string> = new Set(["F64", "F32", "F16", "BF16"]);

/** Faults of a file's header, against what is expected. */
function headerFaults(
  entries: OpenSafetensors["entries"],
  expected: ReadonlyMap<string, Expected>,
): string[] {
  const faults: string[] = [];
  for (const [key, { target, suffix, shape }] of expected) {
    const entry = entries.get(key);
    if (!entry) {
      faults.push(`missing ${key} [${shape.join(", ")}]`);
      continue;
    }
    if (!floats.has(entry.dtype)) faults.push(`${key} is ${entry.dtype}, expected a float`);
    if (entry.shape.join() === shape.join()) continue;
    const axis = suffix === "lora_A.weight" ? 0 : suffix === "lora_B.weight" ? 1 : -1;
    const rankOnly =
      entry.shape.length === shape.length &&
      entry.shape.every((extent, i) => i === axis || extent === shape[i]);
    faults.push(
      rankOnly && target
        ? `${key} has rank ${entry.shape[axis]}, but r and rank_pattern give ${target.r}`
        : `${key} is [${entry.shape.join(", ")}], expected [${shape.join(", ")}]`,
    );
  }
  for (const key of entries.keys())
    if (!expected.has(key)) faults.push(`unexpected ${JSON.stringify(key.slice(0, 200))}`);
  return faults;
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
  const file = `${folder.name}/${weightsFile}`;
  const weights = await required(folder, weightsFile);
  const configPath = `${folder.name}/${configFile}`;
  const targets = asFormatError(() => resolveTargets(model, config), configPath);
  const place = placeOf(model);
  const dtype = options.dtype ?? place.dtype;
  const opened = await openSafetensors(weights);
  let saved: SavedModules | null = null;
  const tensors = new Map<string, Tensor>();
  const fresh = { ...place, dtype };
  try {
    saved = asFormatError(() => new SavedModules(model, config.modulesToSave ?? [], dtype), configPath);
    const expected = expectedTensors(targets, config, saved);
    const faults = headerFaults(opened.entries, expected);
    for (const key of expected.keys()) {
      const entry = opened.entries.get(key);
      if (entry && floats.has(entry.dtype)) tensors.set(key, await opened.load(key, fresh));
    }
    faults.push(...(await nonFinite(tensors)).map((key) => `${key} has values that are not finite`));
    if (faults.length > 0) throw new FormatError(listed(faults), { file });
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

/** What a configuration asks for in vain is a fault of its file. */
function asFormatError<T>(fn: () => T, file: string): T {
  try {
    return fn();
  } catch (error) {
    if (error instanceof ArgumentError) throw new FormatError(error.message, { file }, { cause: error });
    throw error;
  }
}

function build(
  model: Module,
  name: string,
  config: LoraConfig,
  targets: readonly Target[],
  tensors: ReadonlyMap<string, Tensor>,
  saved: SavedModules,
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
      const loaded = tensors.get(`${peftPrefix}${key}`) as Tensor;
      copy.copyFrom(loaded);
      loaded.dispose();
    }
  });
  const adapter = attach(model, name, config, parts, saved, shared);
  return adapter.requiresGrad(options.trainable ?? true);
}
