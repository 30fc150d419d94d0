// Node's file system, reached in a way that leaves bundles for browsers alone. Nothing else of Node is used here.

import { NomoatError } from "../errors.js";

/**
 * `node:fs` with `node:path`.
 *
 * @throws {NomoatError} where there is no Node (or Deno or Bun): browsers have Blobs, Files and bytes
 */
export function nodeFiles(what: string): { fs: typeof import("node:fs"); path: typeof import("node:path") } {
  const builtin = globalThis.process?.getBuiltinModule;
  const fs = builtin?.("node:fs");
  const path = builtin?.("node:path");
  if (!fs || !path) {
    throw new NomoatError(`${what}: there is no file system here; hand over a Blob, a File or bytes`, "IO");
  }
  return { fs, path };
}

/** Wraps what the file system threw; the original stands in `cause`. */
export function ioError(file: string, doing: string, cause: unknown): NomoatError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new NomoatError(`${file}: cannot be ${doing}: ${reason}`, "IO", { cause });
}
