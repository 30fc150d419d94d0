// The header of a GGUF file, versions 2 and 3, strictly: everything is checked before anything is allocated for it. Layout from
// ggml's docs/gguf.md. Big-endian files and version 1 are refused.

import type { Reader } from "@nomoat/core/io";
import {
  defaultAlignment,
  type GgufArray,
  type GgufType,
  type GgufValue,
  type GgufValueType,
  isNumberType,
  maxDims,
  maxKeyBytes,
  maxNameBytes,
  type NumberType,
  numberArrays,
  typeById,
  typeInfo,
  unreadTypes,
  valueTypes,
} from "./types.js";

/** What the header tells of a tensor. */
export interface GgufTensorInfo {
  /** Row-major, the slowest axis first: ggml's dims reversed. */
  readonly shape: readonly number[];
  readonly type: GgufType;
  /** Of the first byte, in its file. */
  readonly offset: number;
  readonly bytes: number;
}

export interface GgufHeader {
  readonly version: 2 | 3;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  readonly tensors: ReadonlyMap<string, GgufTensorInfo>;
  readonly alignment: number;
}

// The largest vocabularies in use have some 300,000 tokens and 500,000 merges.
const maxStrings = 2 ** 21;
const maxEntries = 2 ** 16;
const deepest = 4;
/** Bytes of the least element of each type in an array. */
const leastBytes: Readonly<Record<GgufValueType, number>> = {
  ...{ uint8: 1, int8: 1, uint16: 2, int16: 2, uint32: 4, int32: 4, float32: 4, bool: 1 },
  ...{ string: 8, array: 12, uint64: 8, int64: 8, float64: 8 },
};

/** A name from the file for messages: short, and nothing that a terminal would obey. */
export function shown(name: string): string {
  return JSON.stringify(name.length > 60 ? `${name.slice(0, 60)}…` : name);
}

class HeaderParser {
  readonly #reader: Reader;
  #strings = 0;

  constructor(reader: Reader) {
    this.#reader = reader;
  }

  string(field: string, most = Number.MAX_SAFE_INTEGER): string {
    const length = this.#reader.count(field, 1, most);
    if (++this.#strings > maxStrings) {
      throw this.#reader.error(`more than ${maxStrings} strings in one header`, field);
    }
    return this.#reader.text(length, field);
  }

  valueType(field: string): GgufValueType {
    const start = this.#reader.position;
    const id = this.#reader.u32(field);
    const type = valueTypes[id];
    if (type === undefined) throw this.#reader.error(`unknown metadata type ${id}`, field, start);
    return type;
  }

  bool(field: string): boolean {
    const start = this.#reader.position;
    const byte = this.#reader.u8(field);
    if (byte > 1) throw this.#reader.error(`a bool is 0 or 1, not ${byte}`, field, start);
    return byte === 1;
  }

  numbers(type: NumberType, count: number, field: string): ArrayLike<number> | ArrayLike<bigint> {
    const kind = numberArrays[type];
    // A copy: the window is not aligned, and may belong to the caller. Little-endian hosts only, as wasm is.
    return new kind(this.#reader.take(count * kind.BYTES_PER_ELEMENT, field).slice().buffer);
  }

  array(field: string, depth: number): GgufArray {
    const start = this.#reader.position;
    if (depth > deepest) throw this.#reader.error(`arrays nested more than ${deepest} deep`, field);
    const of = this.valueType(field);
    // What is copied is bounded by the bytes left; lists of objects are bounded below as well.
    const listed = of === "string" || of === "array" || of === "bool";
    const count = this.#reader.count(field, leastBytes[of], listed ? maxStrings : undefined);
    if (isNumberType(of)) return { type: "array", of, value: this.numbers(of, count, field) };
    const value: (boolean | string | GgufArray)[] = [];
    for (let i = 0; i < count; i++) {
      if (of === "string") value.push(this.string(field));
      else if (of === "bool") value.push(this.bool(field));
      else {
        if (++this.#strings > maxStrings) throw this.#reader.error("too many nested arrays", field, start);
        value.push(this.array(field, depth + 1));
      }
    }
    return { type: "array", of, value };
  }

  value(field: string): GgufValue {
    const type = this.valueType(field);
    if (type === "array") return this.array(field, 1);
    if (type === "string") return { type, value: this.string(field) };
    if (type === "bool") return { type, value: this.bool(field) };
    return { type, value: this.numbers(type, 1, field)[0] } as GgufValue;
  }
}

/**
 * Reads the header. Has no effect but its result, so that it can be run again over more bytes.
 * @throws {FormatError} with file, offset and field
 */
export function parseGgufHeader(reader: Reader): GgufHeader {
  const version = parseVersion(reader);
  const parser = new HeaderParser(reader);
  // Least bytes: name's length, one character, dims, type, offset; key's length, one character, type, value.
  const tensorCount = reader.count("tensor_count", 25, maxEntries);
  const valueCount = reader.count("metadata_kv_count", 14, maxEntries);

  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < valueCount; i++) {
    const start = reader.position;
    const key = parser.string(`metadata key ${i}`, maxKeyBytes);
    const field = `metadata ${shown(key)}`;
    if (key === "") throw reader.error("is empty", `metadata key ${i}`, start);
    if (metadata.has(key)) throw reader.error("appears twice", field, start);
    metadata.set(key, parser.value(field));
  }
  const alignment = alignmentOf(reader, metadata.get("general.alignment"));

  const found: [name: string, at: number, info: Omit<GgufTensorInfo, "offset">, offset: bigint][] = [];
  const names = new Set<string>();
  for (let i = 0; i < tensorCount; i++) {
    const start = reader.position;
    const name = parser.string(`tensor name ${i}`, maxNameBytes);
    const field = `tensor ${shown(name)}`;
    if (names.has(name)) throw reader.error("appears twice", field, start);
    names.add(name);
    const info = parseTensor(reader, field);
    const at = reader.position;
    const offset = reader.u64(field);
    if (offset % BigInt(alignment) !== 0n) {
      throw reader.error(`offset ${offset} is no multiple of the alignment ${alignment}`, field, at);
    }
    found.push([name, at, info, offset]);
  }
  // Files without tensors may end before the padding.
  if (tensorCount > 0) reader.align(alignment, "padding before the tensors");
  const dataStart = reader.position;
  const tensors = new Map<string, GgufTensorInfo>();
  for (const [name, at, info, offset] of found) {
    if (offset + BigInt(info.bytes) > BigInt(reader.left)) {
      const reason = `${info.bytes} bytes at ${offset} do not fit into the ${reader.left} bytes of tensor data`;
      throw reader.error(reason, `tensor ${shown(name)}`, at);
    }
    tensors.set(name, { ...info, offset: dataStart + Number(offset) });
  }
  refuseOverlaps(reader, tensors);
  return { version, metadata, tensors, alignment };
}

function parseVersion(reader: Reader): 2 | 3 {
  const magic = reader.take(4, "magic");
  if (String.fromCharCode(...magic) !== "GGUF") throw reader.error('does not begin with "GGUF"', "magic", 0);
  const version = reader.u32("version");
  if (version !== 2 && version !== 3) {
    const reason =
      version > 0 && version % 65536 === 0
        ? "big-endian files are not read"
        : `version ${version} is not read (known: 2, 3); convert it with a current llama.cpp`;
    throw reader.error(reason, "version", 4);
  }
  return version;
}

function alignmentOf(reader: Reader, given: GgufValue | undefined): number {
  if (given === undefined) return defaultAlignment;
  const field = 'metadata "general.alignment"';
  if (given.type !== "uint32") throw reader.error(`must be uint32, not ${given.type}`, field);
  const { value } = given;
  if (!isAlignment(value)) {
    throw reader.error(`must be a power of two from 8 to 65536, not ${value}`, field);
  }
  return value;
}

/** @internal */
export function isAlignment(value: unknown): value is number {
  return Number.isInteger(value) && Number.isInteger(Math.log2(value as number)) && inRange(value as number);
}

function inRange(alignment: number): boolean {
  return alignment >= 8 && alignment <= 65536;
}

function parseTensor(reader: Reader, field: string): Omit<GgufTensorInfo, "offset"> {
  const start = reader.position;
  const rank = reader.u32(field);
  if (rank > maxDims) throw reader.error(`${rank} dimensions, more than ${maxDims}`, field, start);
  const dims = Array.from({ length: rank }, () => reader.u64(field));
  const typeAt = reader.position;
  const id = reader.u32(field);
  const type = typeById.get(id);
  if (type === undefined) {
    const known = unreadTypes.get(String(id));
    throw reader.error(known ? `type ${known} is not read here` : `unknown type ${id}`, field, typeAt);
  }
  const { blockSize, bytesPerBlock } = typeInfo(type);
  const described = `[${dims.join(", ")}] ${type}`;
  if ((dims[0] ?? 1n) % BigInt(blockSize) !== 0n) {
    throw reader.error(`${described}: rows must be a multiple of ${blockSize} long`, field, start);
  }
  const elements = dims.reduce((product, dim) => product * dim, 1n);
  const bytes = (elements / BigInt(blockSize)) * BigInt(bytesPerBlock);
  // Each alone, too: a zero among them would hide a giant.
  if (bytes > BigInt(reader.left) || dims.some((dim) => dim > Number.MAX_SAFE_INTEGER)) {
    throw reader.error(`${described}: ${bytes} bytes, with ${reader.left} bytes left`, field, start);
  }
  return { shape: dims.reverse().map(Number), type, bytes: Number(bytes) };
}

function refuseOverlaps(reader: Reader, tensors: ReadonlyMap<string, GgufTensorInfo>): void {
  const ordered = [...tensors]
    .filter(([, info]) => info.bytes > 0)
    .sort(([, a], [, b]) => a.offset - b.offset);
  for (let i = 1; i < ordered.length; i++) {
    const [before, { offset, bytes }] = ordered[i - 1];
    const [name, info] = ordered[i];
    if (info.offset < offset + bytes) {
      throw reader.error(`overlaps ${shown(before)}`, `tensor ${shown(name)}`, info.offset);
    }
  }
}
