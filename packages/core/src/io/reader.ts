// The one way to untrusted bytes: every access is checked against what is left and names its field when it fails. It knows no
// format; text in JSON goes through json.ts.

import { FormatError } from "../errors.js";
import type { Source } from "./source.js";

/** A {@link Reader} asks for bytes that the file has but that were not read yet. {@link readPrefix} reads more. */
class NeedsBytes extends Error {
  readonly needed: number;

  constructor(needed: number) {
    super(`needs ${needed} bytes`);
    this.needed = needed;
  }
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Decodes UTF-8, fatally, with no BOM taken off. @throws {TypeError} as TextDecoder does */
export function decodeUtf8(bytes: Uint8Array): string {
  // Browsers refuse to decode shared memory.
  return utf8.decode(bytes.buffer instanceof ArrayBuffer ? bytes : bytes.slice());
}

/** Reads little-endian fields one after another. */
export class Reader {
  readonly file: string;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #end: number;
  #position = 0;

  /**
   * @param bytes - the file, or its beginning
   * @param file - name for error messages
   * @param size - bytes of the whole file
   */
  constructor(bytes: Uint8Array, file: string, size = bytes.byteLength) {
    this.file = file;
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#end = size;
  }

  /** Offset of the next byte. */
  get position(): number {
    return this.#position;
  }

  /** Bytes of the file that were not taken yet. */
  get left(): number {
    return this.#end - this.#position;
  }

  /** A {@link FormatError} at `offset`, by default here; to be thrown. */
  error(reason: string, field?: string, offset = this.#position): FormatError {
    return new FormatError(reason, { file: this.file, offset, ...(field === undefined ? {} : { field }) });
  }

  /** Moves on by `n` bytes and gives the offset where they start. */
  #advance(n: number | bigint, field: string): number {
    const start = this.#position;
    if (!(n >= 0 && n <= this.left)) {
      throw this.error(`the file ends ${this.left} bytes on, within ${n} bytes`, field);
    }
    const end = start + Number(n);
    if (end > this.#bytes.byteLength) throw new NeedsBytes(end);
    this.#position = end;
    return start;
  }

  /**
   * The next `n` bytes, as a window.
   *
   * @throws {FormatError} when fewer are left
   */
  take(n: number | bigint, field: string): Uint8Array {
    const start = this.#advance(n, field);
    return this.#bytes.subarray(start, start + Number(n));
  }

  u8(field: string): number {
    return this.#view.getUint8(this.#advance(1, field));
  }

  i8(field: string): number {
    return this.#view.getInt8(this.#advance(1, field));
  }

  u16(field: string): number {
    return this.#view.getUint16(this.#advance(2, field), true);
  }

  i16(field: string): number {
    return this.#view.getInt16(this.#advance(2, field), true);
  }

  u32(field: string): number {
    return this.#view.getUint32(this.#advance(4, field), true);
  }

  i32(field: string): number {
    return this.#view.getInt32(this.#advance(4, field), true);
  }

  u64(field: string): bigint {
    return this.#view.getBigUint64(this.#advance(8, field), true);
  }

  i64(field: string): bigint {
    return this.#view.getBigInt64(this.#advance(8, field), true);
  }

  f32(field: string): number {
    return this.#view.getFloat32(this.#advance(4, field), true);
  }

  f64(field: string): number {
    return this.#view.getFloat64(this.#advance(8, field), true);
  }

  /**
   * A u64 that counts elements of at least `leastBytes` bytes each, all still to come: checked before anybody allocates for it.
   *
   * @param most - a bound of the format, where it has one
   * @throws {FormatError} when that many do not fit into what is left, or exceed `most`
   */
  count(field: string, leastBytes: number, most = Number.MAX_SAFE_INTEGER): number {
    const start = this.#position;
    const value = this.u64(field);
    if (value > BigInt(most))
      throw this.error(`${value} is more than the ${most} that are allowed`, field, start);
    if (value * BigInt(leastBytes) > BigInt(this.left)) {
      throw this.error(
        `${value} of at least ${leastBytes} bytes each, with ${this.left} bytes left`,
        field,
        start,
      );
    }
    return Number(value);
  }

  /** The next `n` bytes as UTF-8. @throws {FormatError} when they are not */
  text(n: number | bigint, field: string): string {
    const start = this.#position;
    const bytes = this.take(n, field);
    try {
      return decodeUtf8(bytes);
    } catch (cause) {
      throw new FormatError("is not valid UTF-8", { file: this.file, offset: start, field }, { cause });
    }
  }

  /** Takes the bytes up to the next multiple of `alignment`. */
  align(alignment: number, field: string): void {
    const over = this.#position % alignment;
    if (over !== 0) this.take(alignment - over, field);
  }
}

/**
 * Runs `parse` over the beginning of `source`, which is read only as far as `parse` goes: when it runs past what was read, it
 * is run again over more. It must have no effect but its result.
 *
 * @param most - the longest beginning that is read
 * @throws {FormatError} when `parse` does, or wants more than `most` bytes
 */
export async function readPrefix<T>(
  source: Source,
  parse: (reader: Reader) => T,
  { first = 2 ** 16, most = source.size } = {},
): Promise<T> {
  const end = Math.min(most, source.size);
  for (let length = Math.min(first, end); ; ) {
    const bytes = await source.read(0, length);
    try {
      return parse(new Reader(bytes, source.name, source.size));
    } catch (error) {
      if (!(error instanceof NeedsBytes)) throw error;
      if (error.needed > end) {
        throw new FormatError(`the header exceeds ${most} bytes`, { file: source.name, offset: length });
      }
      length = Math.min(Math.max(error.needed, 4 * length), end);
    }
  }
}
