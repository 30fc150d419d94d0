// Sources of bytes that are read in parts: a path, bytes in memory, a Blob, an open file. They know nothing of formats.

import { ArgumentError, FormatError, NomoatError, OutOfMemoryError } from "../errors.js";
import { ioError, nodeFiles } from "./node.js";

/** Bytes of known size, read in parts. */
export interface Source {
  /** Name for error messages. */
  readonly name: string;
  /** Bytes in all. */
  readonly size: number;
  /**
   * Bytes offset … offset + length − 1. May be a window over memory that others hold: read it, do not write it.
   *
   * @throws {FormatError} when the source ends before
   * @throws {OutOfMemoryError} when `length` bytes cannot be had
   */
  read(offset: number, length: number): Promise<Uint8Array>;
  /** Lets go of what {@link openSource} opened; what the caller opened stays open. */
  close(): Promise<void>;
}

/** An open file, as `fs.promises.open` gives it. */
export interface FileHandleLike {
  read(
    buffer: Uint8Array,
    offset: number,
    length: number,
    position: number,
  ): Promise<{ readonly bytesRead: number }>;
  stat(): Promise<{ readonly size: number }>;
}

/** A file that the user picked in a browser, as the File System API has it. */
export interface PickedFileLike {
  getFile(): Promise<Blob>;
}

/** What can be read: a path (where there is a file system), bytes, a Blob or File, an open file, or a {@link Source}. */
export type SourceLike =
  | string
  | URL
  | Uint8Array
  | ArrayBufferLike
  | Blob
  | FileHandleLike
  | PickedFileLike
  | Source;

/** `length` zero bytes. @throws {OutOfMemoryError} */
function allocate(length: number): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(length);
  } catch {
    throw new OutOfMemoryError(`cannot allocate ${length} bytes to read a file`, length, 0);
  }
}

function requireRange(source: Source, offset: number, length: number): void {
  if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < 0 || length < 0) {
    throw new ArgumentError(`${source.name}: cannot read ${length} bytes at ${offset}`);
  }
  if (length > source.size - offset) {
    throw new FormatError(`ends at byte ${source.size}, within ${length} bytes wanted at ${offset}`, {
      file: source.name,
      offset,
    });
  }
}

class BytesSource implements Source {
  readonly name: string;
  readonly size: number;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array, name: string) {
    this.name = name;
    this.size = bytes.byteLength;
    this.#bytes = bytes;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    requireRange(this, offset, length);
    return this.#bytes.subarray(offset, offset + length);
  }

  async close(): Promise<void> {}
}

class BlobSource implements Source {
  readonly name: string;
  readonly size: number;
  readonly #blob: Blob;

  constructor(blob: Blob, name: string) {
    this.name = name;
    this.size = blob.size;
    this.#blob = blob;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    requireRange(this, offset, length);
    let bytes: Uint8Array;
    try {
      bytes = new Uint8Array(await this.#blob.slice(offset, offset + length).arrayBuffer());
    } catch (cause) {
      throw ioError(this.name, "read", cause);
    }
    if (bytes.length !== length)
      throw new FormatError("became shorter while it was read", { file: this.name, offset });
    return bytes;
  }

  async close(): Promise<void> {}
}

// Node refuses to read 2³¹ bytes or more at once.
const mostAtOnce = 2 ** 30;

class FileSource implements Source {
  readonly name: string;
  readonly size: number;
  readonly #handle: FileHandleLike;
  readonly #close: () => Promise<void>;

  constructor(handle: FileHandleLike, size: number, name: string, close: () => Promise<void>) {
    this.name = name;
    this.size = size;
    this.#handle = handle;
    this.#close = close;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    requireRange(this, offset, length);
    const bytes = allocate(length);
    for (let done = 0; done < length; ) {
      const wanted = Math.min(length - done, mostAtOnce);
      let bytesRead: number;
      try {
        ({ bytesRead } = await this.#handle.read(bytes, done, wanted, offset + done));
      } catch (cause) {
        throw ioError(this.name, "read", cause);
      }
      if (!(bytesRead > 0)) {
        throw new FormatError("became shorter while it was read", { file: this.name, offset: offset + done });
      }
      done += bytesRead;
    }
    return bytes;
  }

  close(): Promise<void> {
    return this.#close();
  }
}

async function openPath(path: string | URL): Promise<Source> {
  const name = typeof path === "string" ? path : path.href;
  const { fs } = nodeFiles(name);
  let handle: Awaited<ReturnType<typeof fs.promises.open>>;
  try {
    // A pipe or device would block at opening, or never end.
    const stat = await fs.promises.stat(path);
    if (!stat.isFile()) throw new NomoatError(`${name}: is not a regular file`, "IO");
    handle = await fs.promises.open(path, "r");
  } catch (cause) {
    throw cause instanceof NomoatError ? cause : ioError(name, "opened", cause);
  }
  try {
    const { size } = await handle.stat();
    return new FileSource(handle, size, name, () => handle.close());
  } catch (cause) {
    await handle.close();
    throw ioError(name, "opened", cause);
  }
}

function has(value: object, method: string): boolean {
  return typeof (value as Record<string, unknown>)[method] === "function";
}

/**
 * Opens `source` for reading in parts.
 *
 * @param name - name for error messages where the source has none
 * @throws {NomoatError} with code `"IO"` when a path cannot be opened
 * @throws {ArgumentError} when `source` is none of {@link SourceLike}
 */
export async function openSource(source: SourceLike, name = "bytes"): Promise<Source> {
  if (typeof source === "string" || source instanceof URL) return openPath(source);
  if (source instanceof Uint8Array) return new BytesSource(source, name);
  if (ArrayBuffer.isView(source)) {
    throw new ArgumentError("openSource: of the views of a buffer only Uint8Array is taken as bytes");
  }
  if (
    source instanceof ArrayBuffer ||
    (typeof SharedArrayBuffer !== "undefined" && source instanceof SharedArrayBuffer)
  ) {
    return new BytesSource(new Uint8Array(source), name);
  }
  if (typeof Blob !== "undefined" && source instanceof Blob) {
    return new BlobSource(source, "name" in source ? String(source.name) : name);
  }
  if (typeof source === "object" && source !== null) {
    if (has(source, "getFile")) return openSource(await (source as PickedFileLike).getFile(), name);
    if (has(source, "read") && has(source, "stat")) {
      const handle = source as FileHandleLike;
      const { size } = await handle.stat();
      return new FileSource(handle, size, name, async () => {});
    }
    if (has(source, "read") && "size" in source) return source as Source;
  }
  throw new ArgumentError(
    "openSource: expected a path, a Uint8Array, an ArrayBuffer, a Blob or an open file",
  );
}
