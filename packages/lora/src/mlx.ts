// Adapters of mlx-lm (https://github.com/ml-explore/mlx-lm, tuner/lora.py and tuner/utils.py), both ways: adapter_config.json and
// adapters.safetensors with lora_a [in, r], lora_b [r, out] and, for DoRA, m [out]; y + scale · (x · lora_a) · lora_b.

import { ArgumentError, FormatError, type Tensor } from "@nomoat/core";
import { type JsonObject, type JsonValue, parseJson } from "@nomoat/core/io";
import type { Module } from "@nomoat/core/nn";
import {
  openSafetensors,
  openSource,
  serializeSafetensors,
  writeFilesAtomic,
} from "@nomoat/core/safetensors";
import { type Adapter, peftPrefix } from "./adapter.js";
import { resolveLoraConfig } from "./config.js";
import { type LoadAdapterOptions, loadAdapter } from "./peft.js";
import { listed } from "./peft-checks.js";
import { type AdapterSource, configFile, openFolder, peftFiles, required } from "./peft-folder.js";

const mlxWeightsFile = "adapters.safetensors";
const maxConfigBytes = 2 ** 24;

/** mlx-lm's suffixes and PEFT's. */
const suffixes: Readonly<Record<string, string>> = {
  lora_a: "lora_A.weight",
  lora_b: "lora_B.weight",
  m: "lora_magnitude_vector",
};

function asObject(value: JsonValue | undefined, what: string, file: string): JsonObject {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new FormatError(`${what} is no object`, { file });
  return value;
}

const own = (object: JsonObject, key: string): JsonValue | undefined =>
  Object.hasOwn(object, key) ? object[key] : undefined;

function numberAt(object: JsonObject, key: string, file: string, fallback?: number): number {
  const value = own(object, key) ?? fallback;
  if (typeof value !== "number" || !Number.isFinite(value))
    throw new FormatError(`lora_parameters.${key} must be a finite number`, { file });
  return value;
}

/**
 * An adapter of mlx-lm as the files of a PEFT folder, for `loadAdapter`.
 * @param source - the folder's path, or its files by name
 * @throws {FormatError} for another kind of fine-tuning, parameters out of range, or tensors that are no adapter's
 * @throws {NomoatError} with code `"IO"` when files cannot be read
 */
export async function mlxToPeft(source: AdapterSource): Promise<Map<string, Uint8Array>> {
  const folder = openFolder(source);
  const input = await openSource(await required(folder, configFile), configFile);
  const file = input.name;
  let json: JsonObject;
  try {
    if (input.size > maxConfigBytes) throw new FormatError(`${input.size} bytes are too many`, { file });
    json = asObject(parseJson(await input.read(0, input.size), { file }), "the configuration", file);
  } finally {
    await input.close();
  }
  const kind = own(json, "fine_tune_type") ?? "lora";
  if (kind !== "lora" && kind !== "dora")
    throw new FormatError(`fine_tune_type is ${JSON.stringify(kind)}, expected "lora" or "dora"`, { file });
  const given = asObject(own(json, "lora_parameters"), "lora_parameters", file);
  const scale = numberAt(given, "scale", file);
  const dropout = numberAt(given, "dropout", file, 0);
  const opened = await openSafetensors(await required(folder, mlxWeightsFile));
  const tensors = new Map<string, Tensor>();
  try {
    const faults: string[] = [];
    const targets = new Set<string>();
    let r = 0;
    for (const [key, { shape, dtype }] of opened.entries) {
      const [, name, part] = /^(.+)\.(lora_a|lora_b|m)$/.exec(key) ?? [];
      if (name === undefined || shape.length !== (part === "m" ? 1 : 2) || !/^B?F/.test(dtype)) {
        faults.push(
          `${JSON.stringify(key.slice(0, 200))} is no part of an adapter: ${dtype} [${shape.join(", ")}]`,
        );
        continue;
      }
      targets.add(name);
      const rank = part === "m" ? r : shape[part === "lora_a" ? 1 : 0];
      if (r !== 0 && rank !== r) faults.push(`${key} has rank ${rank}, others ${r}`);
      r ||= rank;
      const loaded = await opened.load(key, { dtype: "float32" });
      const turned = part === "m" ? loaded : loaded.transpose().clone();
      if (turned !== loaded) loaded.dispose();
      tensors.set(`${peftPrefix}${name}.${suffixes[part]}`, turned);
    }
    const weights = `${folder.name}/${mlxWeightsFile}`;
    if (targets.size === 0) faults.push("there are no adapter's tensors");
    if (faults.length > 0) throw new FormatError(listed(faults), { file: weights });
    let config: ReturnType<typeof resolveLoraConfig>;
    try {
      const targetModules = [...targets].sort();
      config = resolveLoraConfig({
        r,
        loraAlpha: scale * r,
        loraDropout: dropout,
        useDora: kind === "dora",
        targetModules,
      });
    } catch (cause) {
      throw new FormatError((cause as Error).message, { file }, { cause });
    }
    return await peftFiles(config, tensors);
  } finally {
    for (const tensor of tensors.values()) tensor.dispose();
    await opened.close();
  }
}

/** Puts an adapter of mlx-lm on `model`; see `loadAdapter`, whose checks and errors apply too. */
export async function loadMlxAdapter(
  model: Module,
  source: AdapterSource,
  name = "default",
  options: LoadAdapterOptions = {},
): Promise<Adapter> {
  return loadAdapter(model, await mlxToPeft(source), name, options);
}

/**
 * An adapter's files by name, as mlx-lm reads them.
 * @throws {ArgumentError} for adapters that mlx-lm's format does not hold: other kinds than LoRA and DoRA of linear layers, those with
 *   modules to save or biases or that began with principal parts, layers of different ranks or scalings, and layers that are not in a
 *   numbered list
 */
export async function serializeMlxAdapter(adapter: Adapter): Promise<Map<string, Uint8Array>> {
  const { config } = adapter;
  const branches = [...adapter.branches()];
  const [, { r, scaling }] = branches[0];
  const refuse = (why: string) => {
    throw new ArgumentError(`serializeMlxAdapter: adapter "${adapter.name}": ${why}`);
  };
  if (adapter.replacesParts) refuse("modules to save and trained biases have no place in mlx-lm's files");
  const tensors = new Map<string, Tensor>();
  const keys = new Set<string>();
  let layers = 0;
  try {
    for (const [at, branch] of branches) {
      if (branch.r !== r || branch.scaling !== scaling)
        refuse(`rank or scaling of ${at} differ from the first's`);
      const [, index, inside] = /(?:^|\.)(\d+)\.(.+)$/.exec(at) ?? [];
      if (index === undefined) refuse(`${at} is not in a numbered layer`);
      keys.add(inside);
      layers = Math.max(layers, Number(index) + 1);
      const saved = branch.savedTensors();
      const state = branch.tensors();
      for (const [suffix, tensor] of saved) {
        const part = Object.keys(suffixes).find((key) => suffixes[key] === suffix);
        if (part === undefined || state.get(suffix) !== tensor || tensor.rank > 2)
          refuse(`${at} has a ${suffix} that mlx-lm does not know`);
        else
          tensors.set(`${at}.${part}`, part === "m" ? tensor.detach() : tensor.detach().transpose().clone());
      }
    }
    const json = {
      fine_tune_type: config.useDora ? "dora" : "lora",
      num_layers: layers,
      lora_parameters: { rank: r, scale: scaling, dropout: config.loraDropout, keys: [...keys].sort() },
    };
    return new Map([
      [mlxWeightsFile, await serializeSafetensors(tensors)],
      [configFile, new TextEncoder().encode(JSON.stringify(json, null, 4))],
    ]);
  } finally {
    for (const tensor of tensors.values()) tensor.dispose();
  }
}

/** Writes an adapter as a folder that mlx-lm reads; see {@link serializeMlxAdapter}. */
export async function saveMlxAdapter(adapter: Adapter, folder: string): Promise<void> {
  await writeFilesAtomic(folder, await serializeMlxAdapter(adapter));
}
