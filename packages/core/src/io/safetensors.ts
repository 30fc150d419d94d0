// Safetensors files and sharded folders, as tensors. What the format is stands in safetensors-format.ts; pickled checkpoints
// (.bin, .pt) are not read: convert them to safetensors first.

import { requireOptions } from "../arguments.js";
import { activeBackend, type BackendName, backendByName } from "../backend/registry.js";
import type { Backend } from "../backend/types.js";
import { bytesPerElement, type DType, isDType, isFloat } from "../dtype.js";
import { DTypeError, FormatError } from "../errors.js";
import { empty } from "../ops/dispatch.js";
import { cast } from "../ops/elementwise.js";
import type { Tensor } from "../tensor.js";
import { printable } from "./json-scanner.js";
import {
  requireEntry,
  type SafetensorsDType,
  type SafetensorsEntry,
  type SafetensorsFile,
} from "./safetensors-format.js";
import { chunkBytes, storedAs } from "./safetensors-save.js";
import { openShards, type SafetensorsSource } from "./safetensors-shards.js";

export { writeFileAtomic, writeFilesAtomic } from "./atomic.js";
export {
  encodeSafetensors,
  parseSafetensors,
  type SafetensorsDType,
  type SafetensorsEntry,
  type SafetensorsFile,
  type SafetensorsSpec,
} from "./safetensors-format.js";
export {
  type NamedTensors,
  type SaveShardedOptions,
  saveSafetensors,
  saveShardedSafetensors,
  serializeSafetensors,
} from "./safetensors-save.js";
export type { SafetensorsSource } from "./safetensors-shards.js";
export { openSource, type Source, type SourceLike } from "./source.js";

const toCore = new Map(Object.entries(storedAs).map(([core, name]) => [name, core as DType]));

/** Integers that core lacks, read as int32 when every value fits. */
const widths: Partial<Record<SafetensorsDType, (view: DataView, offset: number) => bigint | number>> = {
  I16: (view, offset) => view.getInt16(offset, true),
  U16: (view, offset) => view.getUint16(offset, true),
  U32: (view, offset) => view.getUint32(offset, true),
  I64: (view, offset) => view.getBigInt64(offset, true),
  U64: (view, offset) => view.getBigUint64(offset, true),
};
const widthBytes: Partial<Record<SafetensorsDType, number>> = { I16: 2, U16: 2, U32: 4, I64: 8, U64: 8 };

export interface LoadTensorOptions {
  /** Float tensors are cast to this float dtype; others keep theirs. Default: as stored. */
  dtype?: DType;
  /** Default: the active backend. */
  device?: BackendName;
}

export interface LoadSafetensorsOptions extends LoadTensorOptions {
  /** Which tensors to load: their names, or a test of a name. Default: all. */
  names?: Iterable<string> | ((name: string) => boolean);
}

/** An opened file or sharded folder, whose tensors are read when asked for. */
export interface OpenSafetensors {
  /** dtype and shape of every tensor, by name. */
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
  /** `__metadata__`; of several shards the union, the first of equal keys. */
  readonly metadata: Readonly<Record<string, string>>;
  /**
   * Reads one tensor; the caller owns it. I64, U64, U32, U16 and I16 become int32.
   *
   * @throws {FormatError} when there is no such tensor, its dtype has no counterpart, or an integer is beyond int32
   */
  load(name: string, options?: LoadTensorOptions): Promise<Tensor>;
  /** The stored bytes of one tensor, little-endian and row-major. Read them, do not write them. */
  readBytes(name: string): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** Turns stored chunks of one dtype into those of another. */
interface Decoding {
  /** dtype of the tensor that is filled. */
  readonly dtype: DType;
  /** Bytes of an element in the file. */
  readonly storedBytes: number;
  /** The chunk that starts at element `first`, as elements of `dtype`. */
  decode(chunk: Uint8Array, first: number): Uint8Array;
}

function viewOf(chunk: Uint8Array): DataView {
  return new DataView(chunk.buffer, chunk.byteOffset, chunk.byteLength);
}

function chooseDecoding(
  backend: Backend,
  stored: SafetensorsDType,
  wanted: DType | undefined,
  error: (reason: string) => FormatError,
): Decoding {
  const core = toCore.get(stored);
  if (core === "bool") {
    return { dtype: "bool", storedBytes: 1, decode: (chunk) => chunk.map((byte) => (byte ? 1 : 0)) };
  }
  if (core === "float64" && wanted && wanted !== "float64" && !backend.dtypes.has("float64")) {
    const decode = (chunk: Uint8Array) => {
      const view = viewOf(chunk);
      const values = new Float32Array(chunk.length / 8);
      for (let i = 0; i < values.length; i++) values[i] = view.getFloat64(8 * i, true);
      return new Uint8Array(values.buffer);
    };
    return { dtype: "float32", storedBytes: 8, decode };
  }
  if (core) return { dtype: core, storedBytes: bytesPerElement(core), decode: (chunk) => chunk };
  const read = widths[stored];
  const storedBytes = widthBytes[stored];
  if (!read || !storedBytes) {
    throw error(`${stored} has no counterpart among the dtypes here; readBytes gives its bytes`);
  }
  const decode = (chunk: Uint8Array, first: number) => {
    const view = viewOf(chunk);
    const values = new Int32Array(chunk.length / storedBytes);
    for (let i = 0; i < values.length; i++) {
      const value = read(view, i * storedBytes);
      if (value < -(2 ** 31) || value >= 2 ** 31) {
        throw error(`${stored} value ${value} at position ${first + i} is beyond int32`);
      }
      values[i] = Number(value);
    }
    return new Uint8Array(values.buffer);
  };
  return { dtype: "int32", storedBytes, decode };
}

/** The backend to load to. Called before anything is awaited: what is active may change meanwhile. */
function chooseBackend({ dtype, device }: LoadTensorOptions): Backend {
  if (dtype !== undefined && (!isDType(dtype) || !isFloat(dtype))) {
    throw new DTypeError(`safetensors: the dtype to load as must be a float, not ${String(dtype)}`);
  }
  return device ? backendByName(device) : activeBackend();
}

async function loadTensor(
  file: SafetensorsFile,
  name: string,
  backend: Backend,
  wanted: DType | undefined,
): Promise<Tensor> {
  const { source, dataStart, entries } = file;
  const entry = requireEntry(entries, name, source.name);
  const start = dataStart + entry.begin;
  const fault = (reason: string) =>
    new FormatError(reason, { file: source.name, offset: start, field: `tensor ${printable(name)}` });
  const { dtype, storedBytes, decode } = chooseDecoding(backend, entry.dtype, wanted, fault);
  if (!backend.dtypes.has(dtype))
    throw new DTypeError(
      `${source.name}: tensor ${printable(name)} is ${entry.dtype}, which the ${backend.name} backend lacks; load it with { dtype: "float32" } or { device: "reference" }`,
    );
  const loaded = empty(backend, dtype, [...entry.shape]);
  try {
    const bytes = entry.end - entry.begin;
    for (let done = 0; done < bytes; done += chunkBytes) {
      const chunk = await source.read(start + done, Math.min(chunkBytes, bytes - done));
      const first = done / storedBytes;
      backend.write(loaded.storage.buffer, first * bytesPerElement(dtype), decode(chunk, first));
    }
    if (!wanted || !isFloat(dtype) || dtype === wanted) return loaded;
    const converted = cast(loaded, wanted);
    loaded.dispose();
    return converted;
  } catch (error) {
    loaded.dispose();
    throw error;
  }
}

/**
 * Opens a safetensors file, or a folder of shards, and reads and validates its headers; of tensors nothing is read yet.
 *
 * @throws {FormatError} with file, offset and field
 */
export async function openSafetensors(source: SafetensorsSource): Promise<OpenSafetensors> {
  const { files, places, metadata, name: label } = await openShards(source);
  const entries = new Map<string, SafetensorsEntry>();
  for (const [name, file] of places) entries.set(name, requireEntry(file.entries, name, file.source.name));
  return {
    entries,
    metadata,
    load: async (name, options = {}) =>
      loadTensor(requireEntry(places, name, label), name, chooseBackend(options), options.dtype),
    readBytes: async (name) => requireEntry(places, name, label).readBytes(name),
    close: () => closeAll(files),
  };
}

async function closeAll(files: readonly SafetensorsFile[]): Promise<void> {
  await Promise.all(files.map((file) => file.close()));
}

/**
 * Loads tensors of a safetensors file, or of a folder of shards.
 *
 * @param source - a path of a file, of a folder or of its `*.safetensors.index.json`; bytes; a Blob; an open file; or a map from the
 *   names of a folder's files to what holds them
 * @returns the tensors, which the caller owns, in the file's order, and the file's metadata
 * @throws {FormatError} with file, offset and field; nothing stays allocated then
 */
export async function loadSafetensors(
  source: SafetensorsSource,
  options: LoadSafetensorsOptions = {},
): Promise<{ tensors: Map<string, Tensor>; metadata: Record<string, string> }> {
  requireOptions("loadSafetensors", options);
  const backend = chooseBackend(options);
  const { files, places, metadata, name: label } = await openShards(source);
  const tensors = new Map<string, Tensor>();
  try {
    for (const name of chooseNames(places, options.names)) {
      const file = requireEntry(places, name, label);
      tensors.set(name, await loadTensor(file, name, backend, options.dtype));
    }
    return { tensors, metadata };
  } catch (error) {
    for (const tensor of tensors.values()) tensor.dispose();
    throw error;
  } finally {
    await closeAll(files);
  }
}

function chooseNames(
  places: ReadonlyMap<string, unknown>,
  names: LoadSafetensorsOptions["names"],
): Iterable<string> {
  if (names === undefined) return places.keys();
  if (typeof names === "function") return [...places.keys()].filter(names);
  return typeof names === "string" ? [names] : new Set(names);
}
