// The safetensors format: header and bytes, no tensors. See "Format" in https://github.com/huggingface/safetensors#format; where
// the text is silent, what the Rust implementation (safetensors/src/tensor.rs) accepts is the outer bound.

import { ArgumentError, FormatError } from "../errors.js";
import { JsonScanner, printable } from "./json-scanner.js";
import { Reader } from "./reader.js";
import { openSource, type Source, type SourceLike } from "./source.js";

/** Bits of one element. The order is the reference implementation's, of ascending alignment: writers sort by it. */
export const safetensorsBits = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const;

/** Names of element types in the format. */
export type SafetensorsDType = keyof typeof safetensorsBits;

const dtypeOrder = Object.keys(safetensorsBits);

/** The longest header that is read or written, in bytes; the reference implementation's bound. */
export const maxHeaderBytes = 100_000_000;

/** Axes at most; NumPy and PyTorch have no more. */
const maxRank = 64;

/** Tensors, or entries of the metadata, at most: more than any published model has, and read in under a second. */
export const maxTensors = 2 ** 17;

/** What a header says of one tensor. */
export interface SafetensorsEntry {
  readonly dtype: SafetensorsDType;
  readonly shape: readonly number[];
  /** Offset of the first byte, counted from the end of the header. */
  readonly begin: number;
  /** Offset after the last byte. */
  readonly end: number;
}

/** A validated header: the entries cover the rest of the file without overlaps or holes. */
export interface SafetensorsHeader {
  /** The `__metadata__` of the file, on an object without prototype. */
  readonly metadata: Record<string, string>;
  /** By name, in the header's order. */
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
  /** Offset of the first byte after the header. */
  readonly dataStart: number;
}

/** An opened file. */
export interface SafetensorsFile extends SafetensorsHeader {
  readonly source: Source;
  /**
   * The bytes of a tensor: little-endian, row-major. May be a window over memory that the source holds.
   *
   * @throws {FormatError} when there is no such tensor
   */
  readBytes(name: string): Promise<Uint8Array>;
  /** Closes the source, where it was opened here. */
  close(): Promise<void>;
}

/**
 * Bytes of `count(shape)` elements.
 *
 * @returns null when they are no whole number, or beyond 2⁵³
 */
function byteSize(dtype: SafetensorsDType, shape: readonly number[]): number | null {
  let count = 1;
  for (const length of shape) {
    count *= length;
    if (!Number.isSafeInteger(count)) return null;
  }
  const bits = count * safetensorsBits[dtype];
  return Number.isSafeInteger(bits) && bits % 8 === 0 ? bits / 8 : null;
}

function isSafetensorsDType(name: string): name is SafetensorsDType {
  return Object.hasOwn(safetensorsBits, name);
}

/** Reads the value of one tensor's key: `{"dtype": …, "shape": […], "data_offsets": [begin, end]}`. */
function scanEntry(scanner: JsonScanner, name: string, dataBytes: number): SafetensorsEntry {
  const start = scanner.position;
  let dtype: string | undefined;
  let shape: number[] | undefined;
  let offsets: number[] | undefined;
  scanner.object((key) => {
    if (key === "dtype") {
      dtype = scanner.string();
      if (!isSafetensorsDType(dtype)) throw scanner.error(`unknown dtype ${printable(dtype)}`);
    } else if (key === "shape") {
      const axes: number[] = [];
      scanner.array((index) => {
        if (index >= maxRank) throw scanner.error(`more than ${maxRank} axes`);
        axes.push(scanner.size());
      });
      shape = axes;
    } else if (key === "data_offsets") {
      const pair: number[] = [];
      scanner.array((index) => {
        if (index >= 2) throw scanner.error("data_offsets are more than two numbers");
        pair.push(scanner.size(dataBytes));
      });
      if (pair.length !== 2) throw scanner.error("data_offsets are fewer than two numbers");
      offsets = pair;
    } else {
      throw scanner.error("unknown key; a tensor has dtype, shape and data_offsets");
    }
  });
  if (dtype === undefined || !shape || !offsets) {
    const missing = dtype === undefined ? "dtype" : shape ? "data_offsets" : "shape";
    throw scanner.error(`${missing} is missing`, start);
  }
  const entry: SafetensorsEntry = {
    dtype: dtype as SafetensorsDType,
    shape,
    begin: offsets[0],
    end: offsets[1],
  };
  const bytes = byteSize(entry.dtype, shape);
  if (bytes === null || entry.end - entry.begin !== bytes) {
    const found = bytes === null ? "no possible number of bytes" : `${bytes} bytes`;
    const { file, offset } = scanner.error("", start);
    throw new FormatError(
      `data_offsets [${offsets.join(", ")}] do not match ${dtype} [${shape.join(", ")}] (${found})`,
      { file, offset, field: `tensor ${printable(name)}` },
    );
  }
  return entry;
}

/** Checks that the entries cover `dataBytes` bytes one after another. */
function requireCoverage(
  entries: ReadonlyMap<string, SafetensorsEntry>,
  dataBytes: number,
  file: string,
  dataStart: number,
): void {
  const sorted = [...entries].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  let end = 0;
  for (const [name, entry] of sorted) {
    if (entry.begin !== end) {
      const fault = entry.begin < end ? "overlap those of another tensor" : `leave a hole from ${end}`;
      throw new FormatError(`data_offsets [${entry.begin}, ${entry.end}] ${fault}`, {
        file,
        offset: dataStart + Math.min(entry.begin, end),
        field: `tensor ${printable(name)}`,
      });
    }
    end = entry.end;
  }
  if (end !== dataBytes) {
    throw new FormatError(`the tensors end at byte ${end} of ${dataBytes} bytes of data`, {
      file,
      offset: dataStart + end,
    });
  }
}

/**
 * Reads and validates the header of a safetensors file; of the data nothing is read.
 *
 * Stricter than the reference implementation in this: keys of a tensor other than its three are refused, as are more than 64
 * axes, sizes beyond 2⁵³, more than 2¹⁷ tensors and a `__metadata__` of null.
 *
 * @throws {FormatError} with file, offset and field
 */
export async function readSafetensorsHeader(source: Source): Promise<SafetensorsHeader> {
  const { name: file, size } = source;
  const lengthReader = new Reader(await source.read(0, Math.min(8, size)), file, size);
  const length = lengthReader.count("header length", 1, maxHeaderBytes);
  const dataStart = 8 + length;
  const bytes = await source.read(8, length);
  const scanner = new JsonScanner(bytes, { file, offset: 8, maxDepth: 3, maxKeys: maxTensors });
  if (bytes[0] !== 0x7b) throw scanner.error('the header does not begin with "{"', 0);

  const metadata: Record<string, string> = Object.create(null);
  const entries = new Map<string, SafetensorsEntry>();
  scanner.object((name) => {
    if (name === "__metadata__") {
      scanner.object((key) => {
        metadata[key] = scanner.string();
      });
    } else {
      entries.set(name, scanEntry(scanner, name, size - dataStart));
    }
  });
  scanner.end();
  requireCoverage(entries, size - dataStart, file, dataStart);
  return { metadata, entries, dataStart };
}

/**
 * Opens a safetensors file: reads and validates its header, and reads tensors when asked.
 *
 * @throws {FormatError} with file, offset and field
 */
export async function parseSafetensors(input: SourceLike): Promise<SafetensorsFile> {
  const source = await openSource(input);
  try {
    const header = await readSafetensorsHeader(source);
    return {
      ...header,
      source,
      async readBytes(name) {
        const entry = requireEntry(header.entries, name, source.name);
        return source.read(header.dataStart + entry.begin, entry.end - entry.begin);
      },
      close: () => source.close(),
    };
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** The entry of `name`. @throws {FormatError} when there is none */
export function requireEntry<T>(entries: ReadonlyMap<string, T>, name: string, file: string): T {
  const entry = entries.get(name);
  if (entry === undefined) {
    throw new FormatError("is not in the file", { file, field: `tensor ${printable(name)}` });
  }
  return entry;
}

/** What a header needs to know of a tensor. */
export interface SafetensorsSpec {
  readonly name: string;
  readonly dtype: SafetensorsDType;
  readonly shape: readonly number[];
}

/** Orders strings as their UTF-8 bytes are ordered, which is the order of their code points. */
function compareCodePoints(a: string, b: string): number {
  if (a === b) return 0;
  const pointsB = b[Symbol.iterator]();
  for (const point of a) {
    const other = pointsB.next();
    if (other.done) return 1;
    const difference = (point.codePointAt(0) as number) - (other.value.codePointAt(0) as number);
    if (difference !== 0) return difference;
  }
  return -1;
}

function requireWellFormed(text: unknown, what: string): void {
  if (typeof text !== "string") throw new ArgumentError(`safetensors: ${what} is not a string`);
  if (/\p{Surrogate}/u.test(text)) {
    throw new ArgumentError(`safetensors: ${what} ${printable(text)} is not valid Unicode`);
  }
}

/**
 * The beginning of a file, up to its data, and the order in which the data follow: as the reference implementation writes them
 * (by falling alignment of the dtype, then by name; padded with spaces to a multiple of 8 bytes).
 *
 * @param metadata - written in its own order; left out when undefined
 * @throws {ArgumentError} for names or metadata that the format cannot hold, more than 2¹⁷ tensors, or a header beyond 100 MB
 */
export function encodeSafetensorsHeader<T extends SafetensorsSpec>(
  tensors: Iterable<T>,
  metadata?: Readonly<Record<string, string>>,
): { header: Uint8Array; ordered: T[]; dataBytes: number } {
  const ordered = [...tensors].sort(
    (a, b) => dtypeOrder.indexOf(b.dtype) - dtypeOrder.indexOf(a.dtype) || compareCodePoints(a.name, b.name),
  );
  const parts: string[] = [];
  if (metadata) {
    for (const [key, value] of Object.entries(metadata)) {
      requireWellFormed(key, "metadata key");
      requireWellFormed(value, `metadata ${printable(key)}`);
    }
    parts.push(`"__metadata__":${JSON.stringify({ ...metadata })}`);
  }
  const seen = new Set<string>();
  let offset = 0;
  for (const { name, dtype, shape } of ordered) {
    requireWellFormed(name, "tensor name");
    if (name === "__metadata__") throw new ArgumentError("safetensors: no tensor can be named __metadata__");
    if (seen.has(name)) throw new ArgumentError(`safetensors: two tensors are named ${printable(name)}`);
    seen.add(name);
    if (seen.size > maxTensors)
      throw new ArgumentError(`safetensors: more than ${maxTensors} tensors in a file`);
    const bytes = isSafetensorsDType(dtype) ? byteSize(dtype, shape) : null;
    if (bytes === null || shape.length > maxRank || !shape.every((n) => Number.isInteger(n) && n >= 0)) {
      throw new ArgumentError(`safetensors: ${printable(name)}: cannot hold ${dtype} [${shape.join(", ")}]`);
    }
    const info = `{"dtype":"${dtype}","shape":[${shape.join(",")}],"data_offsets":[${offset},${offset + bytes}]}`;
    parts.push(`${JSON.stringify(name)}:${info}`);
    offset += bytes;
  }
  const json = new TextEncoder().encode(`{${parts.join(",")}}`);
  const padded = Math.ceil(json.length / 8) * 8;
  if (padded > maxHeaderBytes) {
    throw new ArgumentError(`safetensors: a header of ${padded} bytes exceeds ${maxHeaderBytes}`);
  }
  const header = new Uint8Array(8 + padded).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(padded), true);
  header.set(json, 8);
  return { header, ordered, dataBytes: offset };
}

/**
 * A whole file in memory, byte for byte as the reference implementation writes it.
 *
 * @param tensors - `bytes` little-endian and row-major, as long as dtype and shape say
 * @throws {ArgumentError} for what the format cannot hold
 */
export function encodeSafetensors(
  tensors: Iterable<SafetensorsSpec & { readonly bytes: Uint8Array }>,
  metadata?: Readonly<Record<string, string>>,
): Uint8Array {
  const { header, ordered, dataBytes } = encodeSafetensorsHeader(tensors, metadata);
  const file = new Uint8Array(header.length + dataBytes);
  file.set(header);
  let offset = header.length;
  for (const { name, dtype, shape, bytes } of ordered) {
    if (bytes.length !== byteSize(dtype, shape)) {
      throw new ArgumentError(
        `safetensors: ${printable(name)}: ${bytes.length} bytes do not fit ${dtype} [${shape.join(", ")}]`,
      );
    }
    file.set(bytes, offset);
    offset += bytes.length;
  }
  return file;
}
