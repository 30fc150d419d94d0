// GGUF files, lazily: the header at once, tensors when they are asked for. Models in several files are read as one.

import { ArgumentError, type BackendName, FormatError, fromBuffer, type Tensor } from "@nomoat/core";
import { openSource, readPrefix, type Source, type SourceLike } from "@nomoat/core/io";
import { formatByName } from "../formats/index.js";
import { QuantizedTensor } from "../quantized-tensor.js";
import { type GgufHeader, type GgufTensorInfo, parseGgufHeader, shown } from "./parse.js";
import { type GgufType, type GgufValue, typeInfo } from "./types.js";

export interface LoadGgufTensorOptions {
  /** Default: the active backend. */
  readonly device?: BackendName;
  /** Give float32 for quantized types as well (default false). */
  readonly dequantize?: boolean;
}

/** An opened file. */
export interface GgufFile {
  readonly version: 2 | 3;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: ReadonlyMap<string, GgufTensorInfo>;
  /**
   * Reads one tensor; the caller owns it. Matrices of quantized types come as a QuantizedTensor, other shapes of such types
   * in float32. F64 becomes float32; I16 and I64 become int32.
   *
   * @throws {FormatError} when there is no such tensor, or an integer is beyond int32
   */
  load(name: string, options: LoadGgufTensorOptions & { dequantize: true }): Promise<Tensor>;
  load(name: string, options?: LoadGgufTensorOptions): Promise<Tensor | QuantizedTensor>;
  /** The stored bytes of one tensor. Read them, do not write them. */
  readBytes(name: string): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** Beyond the largest headers in use by half; it bounds what a hostile one costs. */
const maxHeaderBytes = 48 * 2 ** 20;

/** One file, or one of several that a model was split into. */
interface Part {
  readonly source: Source;
  readonly header: GgufHeader;
}

/**
 * Opens a GGUF file, version 2 or 3, and reads and validates its header; of tensors nothing is read yet. Of a model in several files
 * (`name-00001-of-00003.gguf`) give the first one's path: the others are found beside it, and their tensors are in the list as well.
 *
 * @param source - a path, bytes, a Blob, an open file; an open {@link Source} is the caller's to close
 * @throws {FormatError} with file, offset and field
 * @throws {NomoatError} with code `"IO"` for a part that is not there
 */
export async function readGguf(source: SourceLike): Promise<GgufFile> {
  const parts: Part[] = [];
  const close = async () => {
    for (const part of parts) await part.source.close();
  };
  try {
    parts.push(await openPart(source));
    for (const path of otherParts(source, parts[0])) parts.push(await openPart(path));
    const places = placeTensors(parts);
    const { version, metadata } = parts[0].header;
    const tensors = new Map(Array.from(places, ([name, { info }]) => [name, info]));
    const placeOf = (name: string) => places.get(name) ?? missing(parts[0].source, tensors, name);
    const load = async (name: string, options: LoadGgufTensorOptions = {}) => {
      const { info, from } = placeOf(name);
      return loadTensor(from, name, info, options);
    };
    return {
      ...{ version, metadata, tensors, close },
      load: load as GgufFile["load"],
      readBytes: async (name) => {
        const { info, from } = placeOf(name);
        return from.read(info.offset, info.bytes);
      },
    };
  } catch (error) {
    await close();
    throw error;
  }
}

async function openPart(given: SourceLike): Promise<Part> {
  const source = await openSource(given, "gguf");
  try {
    return { source, header: await readPrefix(source, parseGgufHeader, { most: maxHeaderBytes }) };
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** A number of `split.*`; undefined where there is none. */
function splitValue({ source, header }: Part, key: string): number | undefined {
  const found = header.metadata.get(key);
  if (found === undefined) return undefined;
  if (typeof found.value === "number" && Number.isInteger(found.value) && found.value >= 0)
    return found.value;
  throw new FormatError("must be a whole number", { file: source.name, field: `metadata "${key}"` });
}

/** The paths of the parts after the first. */
function otherParts(given: SourceLike, first: Part): string[] {
  const count = splitValue(first, "split.count") ?? 0;
  if (count <= 1) return [];
  const fail = (reason: string): never => {
    throw new FormatError(reason, { file: first.source.name, field: 'metadata "split.count"' });
  };
  const number = splitValue(first, "split.no") ?? 0;
  if (number !== 0)
    fail(
      `is part ${number + 1} of ${count}: open the first, whose name ends in -00001-of-${padded(count)}.gguf`,
    );
  const [, name, total] = (typeof given === "string" && /^(.*)-00001-of-(\d{5})\.gguf$/is.exec(given)) || [];
  if (name === undefined || Number(total) !== count) {
    fail(`is the first of ${count} parts: give its path, which ends in -00001-of-${padded(count)}.gguf`);
  }
  return Array.from({ length: count - 1 }, (_, i) => `${name}-${padded(i + 2)}-of-${padded(count)}.gguf`);
}

function padded(number: number): string {
  return String(number).padStart(5, "0");
}

/** Tensors of all parts with their files. @throws {FormatError} for parts that do not belong together */
function placeTensors(parts: readonly Part[]): Map<string, { info: GgufTensorInfo; from: Source }> {
  const places = new Map<string, { info: GgufTensorInfo; from: Source }>();
  for (const [i, part] of parts.entries()) {
    const fail = (field: string, reason: string): never => {
      throw new FormatError(reason, { file: part.source.name, field });
    };
    if (parts.length > 1) {
      for (const [key, wanted] of [
        ["split.no", i],
        ["split.count", parts.length],
      ] as const) {
        const given = splitValue(part, key);
        if (given !== wanted) fail(`metadata "${key}"`, `must be ${wanted} here, not ${given ?? "missing"}`);
      }
    }
    for (const [name, info] of part.header.tensors) {
      if (places.has(name)) fail(`tensor ${shown(name)}`, "is in an earlier part as well");
      places.set(name, { info, from: part.source });
    }
  }
  const total = splitValue(parts[0], "split.tensors.count");
  if (parts.length > 1 && total !== undefined && total !== places.size) {
    throw new FormatError(`the parts hold ${places.size} tensors, not ${total}`, {
      file: parts[0].source.name,
      field: 'metadata "split.tensors.count"',
    });
  }
  return places;
}

function missing(source: Source, tensors: ReadonlyMap<string, GgufTensorInfo>, name: string): never {
  throw new FormatError(`there is no such tensor among the ${tensors.size} of the file`, {
    file: source.name,
    field: `tensor ${shown(name)}`,
  });
}

const direct = { F32: "float32", F16: "float16", BF16: "bfloat16", I8: "int8", I32: "int32" } as const;

async function loadTensor(
  source: Source,
  name: string,
  info: GgufTensorInfo,
  options: LoadGgufTensorOptions,
): Promise<Tensor | QuantizedTensor> {
  const { type, offset, bytes } = info;
  const shape = [...info.shape];
  const { device } = options;
  const { format } = typeInfo(type);
  const data = await source.read(offset, bytes);
  if (format !== undefined) {
    const columns = shape.at(-1) ?? 1;
    const rows = shape.slice(0, -1).reduce((product, extent) => product * extent, 1);
    const part = fromBuffer(data, { dtype: "uint8", shape: [data.length], device });
    const packed = new QuantizedTensor(formatByName(format), [rows, columns], new Map([["data", part]]));
    if (shape.length === 2 && !options.dequantize) return packed;
    try {
      const dense = packed.dequantize();
      if (shape.length === 2) return dense;
      const shaped = dense.reshape(shape);
      dense.dispose();
      return shaped;
    } finally {
      packed.dispose();
    }
  }
  if (Object.hasOwn(direct, type)) {
    return fromBuffer(data, { dtype: direct[type as keyof typeof direct], shape, device });
  }
  const fault = (reason: string) =>
    new FormatError(reason, { file: source.name, offset, field: `tensor ${shown(name)}` });
  const values = convert(type, data, fault);
  const dtype = values instanceof Float32Array ? "float32" : "int32";
  return fromBuffer(values, { dtype, shape, device });
}

/** Types that core lacks as they are. */
function convert(
  type: GgufType,
  data: Uint8Array,
  fault: (reason: string) => FormatError,
): Float32Array | Int32Array {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const count = data.length / typeInfo(type).bytesPerBlock;
  if (type === "F64") return Float32Array.from({ length: count }, (_, i) => view.getFloat64(8 * i, true));
  if (type === "I16") return Int32Array.from({ length: count }, (_, i) => view.getInt16(2 * i, true));
  if (type !== "I64") throw new ArgumentError(`readGguf: ${type} has no counterpart among the dtypes`);
  return Int32Array.from({ length: count }, (_, i) => {
    const value = view.getBigInt64(8 * i, true);
    if (value !== BigInt.asIntN(32, value))
      throw fault(`I64 value ${value} at position ${i} is beyond int32`);
    return Number(value);
  });
}
