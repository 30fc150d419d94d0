// Adapters as PEFT's folders: adapter_config.json and adapter_model.safetensors. A folder is read wholly, and all its faults are found,
// before the model is touched.

import { ArgumentError, type DType, noGrad, type Tensor } from "@nomoat/core";
import { requireOptions, requirePath } from "@nomoat/core/extend";
import { type Module, requireModule } from "@nomoat/core/nn";
import { writeFilesAtomic } from "@nomoat/core/safetensors";
import { type Adapter, checkAdapterName, peftPrefix, requireAdapter } from "./adapter.js";
import { type ApplyOptions, attach, placeOf, replacementsOf, variantOf } from "./apply.js";
import type { LoraConfig } from "./config.js";
import { savedConfig } from "./init/principal.js";
import { type Expected, Faults, listed, nonFinite, readTensors } from "./peft-checks.js";
import { type WarningHandler, warnOfUnknown } from "./peft-config.js";
import {
  type AdapterSource,
  openFolder,
  openWeights,
  peftFiles,
  readConfig,
  weightsFile,
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
  requireAdapter("serializeAdapter", adapter);
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
  requireAdapter("saveAdapter", adapter);
  requirePath("saveAdapter", folder);
  requireOptions("saveAdapter", options);
  await writeFilesAtomic(folder, await serializeAdapter(adapter, options));
}

export interface LoadAdapterOptions extends ApplyOptions {
  /** Whether its parameters gather gradients (default true). */
  trainable?: boolean;
  /** Told about what is accepted though it has no effect here (default `console.warn`). */
  onWarning?: WarningHandler;
  /** Faults by file that whoever made these files out of others found already: reported with what else is wrong. */
  faults?: ReadonlyMap<string, readonly string[]>;
}

/** The configuration of an adapter's folder. @throws {FormatError} naming every fault */
export async function readAdapterConfig(
  source: AdapterSource,
  options: { onWarning?: WarningHandler } = {},
): Promise<LoraConfig> {
  requireOptions("readAdapterConfig", options);
  const faults = new Faults();
  const read = await readConfig(openFolder(source), faults);
  faults.throwIfAny();
  warnOfUnknown(read, read.file, options.onWarning ?? console.warn);
  return read.config as LoraConfig;
}

/** What the file should hold, by key. */
function expectedTensors(targets: readonly Target[], config: LoraConfig): Map<string, Expected> {
  const expected = new Map<string, Expected>();
  const rankAxis = (suffix: string) =>
    ["A", "B"].indexOf(/^lora_(?:embedding_)?([AB])(?:\.weight)?$/.exec(suffix)?.[1] ?? "");
  for (const target of targets) {
    const { layer, name } = target;
    for (const [suffix, shape] of variantOf(config, layer).shapes(target, layer, config))
      expected.set(`${peftPrefix}${name}.${suffix}`, { layer: name, rankAxis: rankAxis(suffix), shape });
  }
  for (const [key, shape] of variantOf(config, targets[0].layer).shared?.shapes(targets, config) ?? [])
    expected.set(key, { layer: null, rankAxis: -1, shape });
  return expected;
}

/** Two ranks: what differs between them depends on the rank. */
const anyRanks = [720720, 1441440] as const;

/** What the file should hold whatever the ranks are; null where even the names depend on them. */
function expectedOfAnyRank(targets: readonly Target[], config: LoraConfig): Map<string, Expected> | null {
  const [one, other] = anyRanks.map((r) =>
    expectedTensors(
      targets.map((target) => ({ ...target, r })),
      { ...config, r },
    ),
  );
  if ([...one.keys()].join() !== [...other.keys()].join()) return null;
  return new Map(
    Array.from(one, ([key, { shape, ...rest }]) => {
      const second = other.get(key)?.shape ?? [];
      return [key, { ...rest, shape: shape.map((extent, i) => (extent === second[i] ? extent : null)) }];
    }),
  );
}

/** Fields that only ranks depend on. */
const rankFields: ReadonlySet<keyof LoraConfig> = new Set(["r", "rankPattern", "initR", "rankMasks"]);
/** Fields that no tensor's name or shape depends on. */
const freeFields: ReadonlySet<keyof LoraConfig> = new Set([
  ...(["loraAlpha", "alphaPattern", "loraDropout", "useRslora", "initLoraWeights", "fanInFanOut"] as const),
  ...(["dInitial", "projectionKey", "saveProjection", "targetR", "tinit", "tfinal", "deltaT"] as const),
  ...([
    "beta1",
    "beta2",
    "orthRegWeight",
    "totalStep",
    "taskType",
    "baseModelNameOrPath",
    "revision",
  ] as const),
]);

/**
 * Puts a saved adapter on `model`: PEFT's folder with adapter_config.json and adapter_model.safetensors. The model's parameters are
 * frozen; the adapter takes part beside those that are on the model already.
 *
 * @param source - the folder's path, or its files by name
 * @param name - as in `applyLora`
 * @throws {FormatError} listing all faults of all files together: fields out of range or not supported, tensors that are missing,
 *   unexpected, misshapen, of another rank than the configuration says, not float, or not finite; and for pickles. The model is as it
 *   was then.
 * @throws {ArgumentError} for a name that is taken
 * @throws {NomoatError} with code `"IO"` when files cannot be read
 */
export async function loadAdapter(
  model: Module,
  source: AdapterSource,
  name = "default",
  options: LoadAdapterOptions = {},
): Promise<Adapter> {
  requireModule("loadAdapter", model);
  requireOptions("loadAdapter", options);
  checkAdapterName(model, name);
  const { onWarning = console.warn } = options;
  const folder = openFolder(source);
  const faults = new Faults();
  for (const [file, texts] of options.faults ?? []) faults.add(file, texts);
  const read = await readConfig(folder, faults);
  const { config, broken, file: configPath } = read;
  const place = placeOf(model);
  const dtype = options.dtype ?? place.dtype;
  const fresh = { ...place, dtype };
  // What the configuration says of the tensors, as far as it says anything.
  const told =
    config !== null && [...broken].every((field) => rankFields.has(field) || freeFields.has(field));
  const targets = told ? await faults.attempt(configPath, () => resolveTargets(model, config)) : null;
  const saved =
    config && targets
      ? await faults.attempt(configPath, () => replacementsOf(model, config, targets, dtype))
      : null;
  const tensors = new Map<string, Tensor>();
  let adapter: Adapter | null = null;
  try {
    const weights = await faults.attempt(`${folder.name}/${weightsFile}`, () => openWeights(folder));
    if (weights) {
      const { opened, file } = weights;
      try {
        const ranked = ![...broken].some((field) => rankFields.has(field));
        const expected =
          config &&
          targets &&
          (ranked ? expectedTensors(targets, config) : expectedOfAnyRank(targets, config));
        // PEFT does not write the biases of layers that it wraps with "lora_only".
        const optional = config?.bias === "lora_only";
        for (const [key, { shape }] of saved?.tensors() ?? [])
          expected?.set(`${peftPrefix}${key}`, {
            ...{ layer: null, rankAxis: -1, shape },
            optional: optional && key.endsWith("bias"),
          });
        const { missing } = await readTensors(opened, expected, {
          ...{ file, faults, tensors, ...fresh },
          complete: saved !== null,
        });
        if (faults.none && missing.length > 0)
          onWarning(`${file}: the base's values are kept for ${listed(missing)}`);
      } finally {
        await opened.close();
      }
    }
    faults.throwIfAny();
    warnOfUnknown(read, configPath, onWarning);
    checkAdapterName(model, name);
    const [known, free, layers] = [config as LoraConfig, saved as Replacements, targets as Target[]];
    free.checkFree();
    adapter = build(model, name, known, layers, tensors, free, { ...fresh, ...options });
    return adapter;
  } finally {
    if (!adapter) {
      for (const tensor of tensors.values()) tensor.dispose();
      saved?.dispose();
    }
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
