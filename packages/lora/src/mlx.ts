// Adapters of mlx-lm (https://github.com/ml-explore/mlx-lm, tuner/lora.py and tuner/utils.py), both ways: adapter_config.json and
// adapters.safetensors with lora_a [in, r], lora_b [r, out] and, for DoRA, m [out]; y + scale · (x · lora_a) · lora_b.

import { ArgumentError, FormatError, noGrad, type Tensor, tidy } from "@nomoat/core";
import { type JsonValue, parseJson } from "@nomoat/core/io";
import type { Module } from "@nomoat/core/nn";
import {
  openSafetensors,
  openSource,
  serializeSafetensors,
  writeFilesAtomic,
} from "@nomoat/core/safetensors";
import { type Adapter, peftPrefix, requireAdapter } from "./adapter.js";
import { resolveLoraConfig } from "./config.js";
import { type LoadAdapterOptions, loadAdapter } from "./peft.js";
import { Faults } from "./peft-checks.js";
import {
  type AdapterSource,
  configFile,
  type Folder,
  openFolder,
  peftFiles,
  required,
} from "./peft-folder.js";

const mlxWeightsFile = "adapters.safetensors";
const maxConfigBytes = 2 ** 24;

/** mlx-lm's suffixes and PEFT's. */
const suffixes: Readonly<Record<string, string>> = {
  lora_a: "lora_A.weight",
  lora_b: "lora_B.weight",
  m: "lora_magnitude_vector",
};

/** A field of an object; undefined where there is none, or no object. */
const own = (value: JsonValue | undefined, key: string): JsonValue | undefined =>
  typeof value === "object" && value !== null && !Array.isArray(value) && Object.hasOwn(value, key)
    ? value[key]
    : undefined;

/** The transpose, a new tensor outside the graph. */
const turnedOver = (matrix: Tensor): Tensor => noGrad(() => tidy(() => matrix.transpose().clone()));

/** What adapter_config.json says, with something in the place of what is wrong. */
async function readMlxConfig(
  folder: Folder,
  faults: Faults,
): Promise<{ scale: number; dropout: number; useDora: boolean }> {
  const input = await openSource(await required(folder, configFile), configFile);
  const file = input.name;
  let json: JsonValue | undefined;
  try {
    json = (
      await faults.attempt(file, async () => {
        if (input.size > maxConfigBytes) throw new FormatError(`${input.size} bytes are too many`, { file });
        return { read: parseJson(await input.read(0, input.size), { file }) };
      })
    )?.read;
  } finally {
    await input.close();
  }
  const found: string[] = [];
  const shown = (value: JsonValue | undefined) => JSON.stringify(value)?.slice(0, 60) ?? "missing";
  const kind = own(json, "fine_tune_type") ?? "lora";
  if (kind !== "lora" && kind !== "dora")
    found.push(`fine_tune_type is ${shown(kind)}, expected "lora" or "dora"`);
  const given = own(json, "lora_parameters");
  const numberAt = (key: string, instead: number, holds: (value: number) => boolean, wanted: string) => {
    const value = own(given, key);
    if (typeof value === "number" && holds(value)) return value;
    if (value !== undefined || key === "scale")
      found.push(`lora_parameters.${key} must be ${wanted}, not ${shown(value)}`);
    return instead;
  };
  const scale = numberAt("scale", 1, (s) => Number.isFinite(s) && s > 0, "a positive finite number");
  const dropout = numberAt("dropout", 0, (p) => p >= 0 && p < 1, "a number at least 0 and below 1");
  if (json !== undefined) faults.add(file, found);
  return { scale, dropout, useDora: kind === "dora" };
}

/** An adapter of mlx-lm as the files of a PEFT folder; null where there is too much wrong with it for that. */
async function convert(source: AdapterSource, faults: Faults): Promise<Map<string, Uint8Array> | null> {
  const folder = openFolder(source);
  const { scale, dropout, useDora } = await readMlxConfig(folder, faults);
  const weightsName = `${folder.name}/${mlxWeightsFile}`;
  const opened = await faults.attempt(weightsName, async () =>
    openSafetensors(await required(folder, mlxWeightsFile)),
  );
  if (!opened) return null;
  const tensors = new Map<string, Tensor>();
  try {
    const targets = new Set<string>();
    let r = 0;
    for (const [key, { shape }] of opened.entries) {
      const [, name, part] = /^(.+)\.(lora_a|lora_b|m)$/.exec(key) ?? [];
      const loaded = await opened.load(key);
      if (name === undefined) {
        // For `loadAdapter` to refuse, with all else that does not belong there.
        tensors.set(key, loaded);
        continue;
      }
      targets.add(name);
      if (part !== "m") r ||= shape[part === "lora_a" ? 1 : 0] ?? 0;
      const turned = part === "m" || shape.length !== 2 ? loaded : turnedOver(loaded);
      if (turned !== loaded) loaded.dispose();
      tensors.set(`${peftPrefix}${name}.${suffixes[part]}`, turned);
    }
    if (targets.size === 0 || r === 0) {
      faults.add(weightsName, ["there are no adapter's tensors"]);
      return null;
    }
    const targetModules = [...targets].sort();
    return await faults.attempt(weightsName, () =>
      peftFiles(
        resolveLoraConfig({ r, loraAlpha: scale * r, loraDropout: dropout, useDora, targetModules }),
        tensors,
      ),
    );
  } finally {
    for (const tensor of tensors.values()) tensor.dispose();
    await opened.close();
  }
}

/**
 * An adapter of mlx-lm as the files of a PEFT folder, for `loadAdapter`, which finds what is wrong with its tensors.
 * @param source - the folder's path, or its files by name
 * @throws {FormatError} for another kind of fine-tuning, parameters out of range, or files that are not valid
 * @throws {NomoatError} with code `"IO"` when files cannot be read
 */
export async function mlxToPeft(source: AdapterSource): Promise<Map<string, Uint8Array>> {
  const faults = new Faults();
  const files = await convert(source, faults);
  faults.throwIfAny();
  return files as Map<string, Uint8Array>;
}

/** Puts an adapter of mlx-lm on `model`; see `loadAdapter`, whose checks and errors apply too. */
export async function loadMlxAdapter(
  model: Module,
  source: AdapterSource,
  name = "default",
  options: LoadAdapterOptions = {},
): Promise<Adapter> {
  const faults = new Faults();
  const files = await convert(source, faults);
  if (!files) faults.throwIfAny();
  return loadAdapter(model, files as AdapterSource, name, { ...options, faults: faults.found });
}

/**
 * An adapter's files by name, as mlx-lm reads them.
 * @throws {ArgumentError} for adapters that mlx-lm's format does not hold: other kinds than LoRA and DoRA of linear layers, those with
 *   modules to save or biases or that began with principal parts, layers of different ranks or scalings, and layers that are not in a
 *   numbered list
 */
export async function serializeMlxAdapter(adapter: Adapter): Promise<Map<string, Uint8Array>> {
  requireAdapter("serializeMlxAdapter", adapter);
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
        else tensors.set(`${at}.${part}`, part === "m" ? tensor.detach() : turnedOver(tensor));
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
