// The files of a PEFT folder: adapter_config.json and adapter_model.safetensors, in one piece or in shards.

import { FormatError, NomoatError, type Tensor } from "@nomoat/core";
import { requireMap, requireOptions } from "@nomoat/core/extend";
import { parseJson } from "@nomoat/core/io";
import {
  type OpenSafetensors,
  openSafetensors,
  openSource,
  type SourceLike,
  serializeSafetensors,
} from "@nomoat/core/safetensors";
import type { LoraConfig } from "./config.js";
import type { Faults } from "./peft-checks.js";
import { type PeftJson, readPeftJson, toPeftJson } from "./peft-config.js";

export const configFile = "adapter_config.json";
export const weightsFile = "adapter_model.safetensors";
const indexFile = "adapter_model.safetensors.index.json";
const pickleFile = "adapter_model.bin";

/** Bytes of adapter_config.json at most. */
const maxConfigBytes = 2 ** 24;

/** A folder's path, or what holds its files, by name (in a browser). */
export type AdapterSource = string | ReadonlyMap<string, SourceLike>;

/** Files by name. */
export interface Folder {
  readonly name: string;
  /** Null for a folder of the file system. */
  readonly files: ReadonlyMap<string, SourceLike> | null;
  get(file: string): SourceLike | undefined;
}

/** The folder at a path, or of given files. */
export function openFolder(source: AdapterSource): Folder {
  if (typeof source !== "string") requireMap("adapter", "a folder that is no path", source);
  if (typeof source === "string")
    return { name: source, files: null, get: (file) => `${source.replace(/[/\\]+$/, "")}/${file}` };
  return { name: "adapter", files: source, get: (file) => source.get(file) };
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

/** A file of the folder. @throws {FormatError} for pickles @throws {NomoatError} with code `"IO"` when there is none */
export async function required(folder: Folder, file: string): Promise<SourceLike> {
  if (await exists(folder, file)) return folder.get(file) as SourceLike;
  if (file === weightsFile && (await exists(folder, pickleFile))) {
    throw new FormatError(
      `is a pickle, which can run any code when it is read, and is refused; save it as safetensors where you trust it (in PEFT: model.save_pretrained(folder, safe_serialization=True))`,
      { file: `${folder.name}/${pickleFile}` },
    );
  }
  throw new NomoatError(`${folder.name}: has no readable ${file}; expected a folder as PEFT saves it`, "IO");
}

/**
 * The two files of a PEFT folder, by name, for `loadAdapter` or to be written.
 * @param tensors - by PEFT's full keys (`base_model.model.….lora_A.weight`)
 */
export async function peftFiles(
  config: LoraConfig,
  tensors: ReadonlyMap<string, Tensor>,
): Promise<Map<string, Uint8Array>> {
  requireOptions("peftFiles: tensors", tensors);
  const json = JSON.stringify(toPeftJson(config), null, 2);
  return new Map([
    [weightsFile, await serializeSafetensors(tensors, { format: "pt" })],
    [configFile, new TextEncoder().encode(json)],
  ]);
}

/**
 * adapter_config.json of a folder, its faults being gathered.
 * @throws {NomoatError} with code `"IO"` when there is no such file
 */
export async function readConfig(folder: Folder, faults: Faults): Promise<PeftJson & { file: string }> {
  const source = await openSource(await required(folder, configFile), configFile);
  const file = source.name;
  try {
    const read = await faults.attempt(file, async () => {
      if (source.size > maxConfigBytes)
        throw new FormatError(`${source.size} bytes, more than the ${maxConfigBytes} allowed`, { file });
      return readPeftJson(parseJson(await source.read(0, source.size), { file }));
    });
    if (!read) return { file, config: null, broken: new Set(), faults: [], unknown: [] };
    faults.add(file, read.faults);
    return { ...read, file };
  } finally {
    await source.close();
  }
}

/**
 * Opens the tensors of a folder: one file, or else the shards that an index names.
 * @returns what is open, and its name for messages
 * @throws {FormatError} for pickles, and for files that are not valid
 * @throws {NomoatError} with code `"IO"` when there is no such file
 */
export async function openWeights(folder: Folder): Promise<{ opened: OpenSafetensors; file: string }> {
  if (!(await exists(folder, weightsFile)) && (await exists(folder, indexFile))) {
    const index = folder.get(indexFile) as SourceLike;
    // Core finds the shards beside an index by its path, and in a Map by the name that models have.
    const source = folder.files ? new Map([...folder.files, ["model.safetensors.index.json", index]]) : index;
    return { opened: await openSafetensors(source), file: `${folder.name}/${indexFile}` };
  }
  const source = await required(folder, weightsFile);
  return { opened: await openSafetensors(source), file: `${folder.name}/${weightsFile}` };
}
