// GGUF files, lazily: the header at once, tensors when they are asked for.

import {
  ArgumentError,
  type BackendName,
  FormatError,
  fromBuffer,
  openSource,
  readPrefix,
  type Source,
  type SourceLike,
  type Tensor,
} from "@nomoat/core";
import { formatByName } from "../formats/index.js";
import { QuantizedTensor } from "../quantized-tensor.js";
import { type GgufTensorInfo, parseGgufHeader, shown } from "./parse.js";
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

/**
 * Opens a GGUF file, version 2 or 3, and reads and validates its header; of tensors nothing is read yet.
 *
 * @param source - a path, bytes, a Blob, an open file; an open {@link Source} is the caller's to close
 * @throws {FormatError} with file, offset and field
 */
export async function readGguf(source: SourceLike): Promise<GgufFile> {
  const opened = await openSource(source, "gguf");
  try {
    const header = await readPrefix(opened, parseGgufHeader, { most: maxHeaderBytes });
    const { version, metadata, tensors } = header;
    const load = async (name: string, options: LoadGgufTensorOptions = {}) =>
      loadTensor(opened, name, requireInfo(opened, tensors, name), options);
    return {
      ...{ version, metadata, tensors },
      load: load as GgufFile["load"],
      readBytes: async (name) => {
        const { offset, bytes } = requireInfo(opened, tensors, name);
        return opened.read(offset, bytes);
      },
      close: () => opened.close(),
    };
  } catch (error) {
    await opened.close();
    throw error;
  }
}

function requireInfo(
  source: Source,
  tensors: ReadonlyMap<string, GgufTensorInfo>,
  name: string,
): GgufTensorInfo {
  const info = tensors.get(name);
  if (!info) {
    throw new FormatError(`there is no such tensor among the ${tensors.size} of the file`, {
      file: source.name,
      field: `tensor ${shown(name)}`,
    });
  }
  return info;
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
