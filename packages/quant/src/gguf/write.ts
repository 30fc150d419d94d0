// Writing GGUF, version 3 (or 2), little-endian. Layout from ggml's docs/gguf.md.

import { ArgumentError, type DType, Tensor, toBuffer } from "@nomoat/core";
import { requireOptions } from "@nomoat/core/extend";
import { writeFileAtomic } from "@nomoat/core/io";
import { QuantizedTensor } from "../quantized-tensor.js";
import { isAlignment, shown } from "./parse.js";
import {
  defaultAlignment,
  type GgufArray,
  type GgufType,
  type GgufValue,
  ggufTypes,
  isNumberType,
  maxDims,
  maxKeyBytes,
  type NumberType,
  numberArrays,
  typeInfo,
  valueTypes,
} from "./types.js";

/** A tensor's bytes as they are to stand in the file: K-quants, or what was read from another file. */
export interface GgufBytes {
  readonly type: GgufType;
  /** Row-major, the slowest axis first. */
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

export interface GgufContent {
  /** `general.alignment`, uint32, sets the alignment (default 32). */
  readonly metadata?: ReadonlyMap<string, GgufValue> | Readonly<Record<string, GgufValue>>;
  /** In the order in which they are to stand in the file. */
  readonly tensors?: ReadonlyMap<string, Tensor | QuantizedTensor | GgufBytes>;
  /** Default 3. */
  readonly version?: 2 | 3;
}

interface Planned extends Omit<GgufBytes, "bytes"> {
  readonly name: string;
  readonly bytes: number;
  read(): Promise<Uint8Array>;
}

const typeOfDtype: Partial<Record<DType, GgufType>> = {
  ...{ float32: "F32", float16: "F16", bfloat16: "BF16", float64: "F64", int8: "I8", int32: "I32" },
};
const typeOfFormat = new Map(
  (Object.keys(ggufTypes) as GgufType[]).flatMap((type) => {
    const { format } = typeInfo(type);
    return format ? [[format as string, type] as const] : [];
  }),
);
/** ggml's own limit, the terminating zero taken off. */
const maxWrittenNameBytes = 63;

/** Bytes that grow. */
class Writer {
  #bytes = new Uint8Array(1024);
  #view = new DataView(this.#bytes.buffer);
  length = 0;

  #grow(n: number): number {
    const start = this.length;
    this.length += n;
    if (this.length > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(2 * this.#bytes.length, this.length));
      grown.set(this.#bytes);
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    return start;
  }

  u32(value: number): void {
    const at = this.#grow(4);
    this.#view.setUint32(at, value, true);
  }

  u64(value: number | bigint): void {
    const at = this.#grow(8);
    this.#view.setBigUint64(at, BigInt(value), true);
  }

  bytes(bytes: Uint8Array): void {
    // Growing takes another array in this.#bytes' place.
    const at = this.#grow(bytes.length);
    this.#bytes.set(bytes, at);
  }

  string(text: string): void {
    const bytes = new TextEncoder().encode(text);
    this.u64(bytes.length);
    this.bytes(bytes);
  }

  align(alignment: number): void {
    this.#grow(padding(this.length, alignment));
  }

  finish(): Uint8Array {
    return this.#bytes.subarray(0, this.length);
  }
}

function padding(length: number, alignment: number): number {
  return (alignment - (length % alignment)) % alignment;
}

function numberBytes(type: NumberType, values: ArrayLike<number | bigint>, field: string): Uint8Array {
  const from = numberArrays[type].from as (values: ArrayLike<number | bigint>) => Float32Array;
  let array: ArrayBufferView & ArrayLike<number | bigint>;
  try {
    array = from.call(numberArrays[type], values);
  } catch {
    throw new ArgumentError(`writeGguf: ${field}: expected ${type}`);
  }
  for (let i = 0; i < values.length; i++) {
    // Floats are rounded; an integer must stand in its type.
    const kept = type.startsWith("float") ? typeof values[i] === "number" : array[i] === values[i];
    if (!kept) throw new ArgumentError(`writeGguf: ${field}: ${String(values[i])} is no ${type}`);
  }
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

function writeScalar(writer: Writer, type: string, value: unknown, field: string): void {
  if (type === "string" && typeof value === "string") writer.string(value);
  else if (type === "bool" && typeof value === "boolean") writer.bytes(Uint8Array.of(value ? 1 : 0));
  else if (isNumberType(type)) writer.bytes(numberBytes(type, [value as number], field));
  else throw new ArgumentError(`writeGguf: ${field}: ${typeof value} is no ${type}`);
}

function writeArray(writer: Writer, { of, value }: GgufArray, field: string): void {
  writer.u32(valueTypes.indexOf(of));
  writer.u64(value.length);
  if (isNumberType(of)) {
    writer.bytes(numberBytes(of, value as ArrayLike<number>, field));
    return;
  }
  for (const element of Array.from(value as ArrayLike<unknown>)) {
    if (of === "array") writeArray(writer, element as GgufArray, field);
    else writeScalar(writer, of, element, field);
  }
}

function writeValue(writer: Writer, value: GgufValue, field: string): void {
  const id = valueTypes.indexOf(value?.type);
  if (id < 0) throw new ArgumentError(`writeGguf: ${field}: expected { type, value } with a type of GGUF`);
  writer.u32(id);
  if (value.type === "array") writeArray(writer, value, field);
  else writeScalar(writer, value.type, value.value, field);
}

function planTensor(name: string, given: Tensor | QuantizedTensor | GgufBytes): Planned {
  const field = `tensor ${shown(name)}`;
  const bytes = new TextEncoder().encode(name).length;
  if (bytes === 0 || bytes > maxWrittenNameBytes) {
    throw new ArgumentError(
      `writeGguf: ${field}: a name has 1 to ${maxWrittenNameBytes} bytes, not ${bytes}`,
    );
  }
  if (given instanceof QuantizedTensor) {
    const type = typeOfFormat.get(given.format.name);
    if (!type) {
      const known = [...typeOfFormat.keys()].join(", ");
      throw new ArgumentError(
        `writeGguf: ${field}: GGUF has no ${given.format.name} (it has: ${known}); dequantize it, or quantize it to one of these`,
      );
    }
    const [data] = given.partList("writeGguf");
    const read = async () => new Uint8Array(await toBuffer(data));
    return { name, type, shape: given.shape, bytes: data.size, read };
  }
  if (given instanceof Tensor) {
    const type = typeOfDtype[given.dtype];
    if (!type)
      throw new ArgumentError(`writeGguf: ${field}: GGUF has no ${given.dtype}; cast it to int32 or int8`);
    const { shape, size } = given;
    const read = async () => new Uint8Array(await toBuffer(given));
    return checked({ name, type, shape, bytes: size * typeInfo(type).bytesPerBlock, read }, field);
  }
  const { type, shape } = given;
  if (!Object.hasOwn(ggufTypes, type)) {
    throw new ArgumentError(`writeGguf: ${field}: unknown type ${String(type)}`);
  }
  const { blockSize, bytesPerBlock } = typeInfo(type);
  const size = shape.reduce((product, extent) => product * extent, 1);
  const wanted = (size / blockSize) * bytesPerBlock;
  if ((shape.at(-1) ?? 1) % blockSize !== 0 || given.bytes.length !== wanted) {
    throw new ArgumentError(
      `writeGguf: ${field}: ${given.bytes.length} bytes are not ${type} [${shape.join(", ")}]`,
    );
  }
  return checked({ name, type, shape, bytes: wanted, read: async () => given.bytes }, field);
}

function checked(planned: Planned, field: string): Planned {
  if (planned.shape.length > maxDims) {
    throw new ArgumentError(`writeGguf: ${field}: rank ${planned.shape.length}, GGUF has at most ${maxDims}`);
  }
  return planned;
}

/** The header, and the file's pieces one after another. */
function planFile(content: GgufContent): { bytes: number; chunks(): AsyncGenerator<Uint8Array> } {
  requireOptions("writeGguf", content);
  const { metadata = {}, tensors = new Map(), version = 3 } = content;
  if (version !== 2 && version !== 3) throw new ArgumentError(`writeGguf: version must be 2 or 3`);
  const values = metadata instanceof Map ? [...metadata] : Object.entries(metadata as object);
  const planned = Array.from(tensors, ([name, given]) => planTensor(name, given));
  const given = values.find(([key]) => key === "general.alignment")?.[1] as GgufValue | undefined;
  const alignment = given?.value ?? defaultAlignment;
  if ((given && given.type !== "uint32") || !isAlignment(alignment)) {
    throw new ArgumentError(
      "writeGguf: general.alignment must be a uint32, and a power of two from 8 to 65536",
    );
  }
  const header = new Writer();
  header.bytes(new TextEncoder().encode("GGUF"));
  header.u32(version);
  header.u64(planned.length);
  header.u64(values.length);
  for (const [key, value] of values as [string, GgufValue][]) {
    const length = new TextEncoder().encode(key).length;
    if (length === 0 || length > maxKeyBytes) {
      throw new ArgumentError(`writeGguf: metadata key ${shown(key)}: must have 1 to ${maxKeyBytes} bytes`);
    }
    header.string(key);
    writeValue(header, value, `metadata ${shown(key)}`);
  }
  let offset = 0;
  for (const { name, type, shape, bytes } of planned) {
    header.string(name);
    header.u32(shape.length);
    for (const extent of shape.toReversed()) header.u64(extent);
    header.u32(typeInfo(type).id);
    header.u64(offset);
    offset += bytes + padding(bytes, alignment);
  }
  header.align(alignment);
  return {
    bytes: header.length + offset,
    async *chunks() {
      yield header.finish();
      for (const { bytes, read } of planned) {
        yield await read();
        const rest = padding(bytes, alignment);
        if (rest > 0) yield new Uint8Array(rest);
      }
    },
  };
}

/**
 * Writes a GGUF file whole or not at all. Values must not change until the promise is fulfilled.
 *
 * @throws {ArgumentError} for what the format cannot hold, before anything is written
 * @throws {NomoatError} with code `"IO"` when the file system refuses
 */
export async function writeGguf(path: string, content: GgufContent): Promise<void> {
  await writeFileAtomic(path, planFile(content).chunks());
}

/** The file that {@link writeGguf} would write, as bytes. */
export async function serializeGguf(content: GgufContent): Promise<Uint8Array> {
  const { bytes, chunks } = planFile(content);
  const file = new Uint8Array(bytes);
  let offset = 0;
  for await (const chunk of chunks()) {
    file.set(chunk, offset);
    offset += chunk.length;
  }
  return file;
}
