// Files that are written whole or not at all: to a temporary name in the same folder, synced, then renamed. An existing good file
// survives every fault before the rename. Node only.

import { requireOptions, requirePath } from "../arguments.js";
import { ArgumentError } from "../errors.js";
import { ioError, nodeFiles } from "./node.js";

/** What a file is to hold: bytes, or pieces of it one after another. */
export type Chunks = Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

type Files = typeof import("node:fs").promises;

/** What a symbolic link leads to, so that the link stays one. */
async function resolveLink(fs: Files, path: string): Promise<string> {
  try {
    return await fs.realpath(path);
  } catch {
    return path; // does not exist yet
  }
}

let counter = 0;

/** A hidden name beside `path` that no other write of this or another process uses. */
function temporaryName(path: typeof import("node:path"), target: string, suffix: string): string {
  const unique = `${process.pid}-${Date.now().toString(36)}-${(counter++).toString(36)}`;
  // Some file systems end at 255 bytes.
  return path.join(path.dirname(target), `.${path.basename(target).slice(0, 40)}.${unique}.${suffix}`);
}

function notBytes(file: string): ArgumentError {
  return new ArgumentError(`${file}: contents must be a Uint8Array, or pieces that are`);
}

/** Writes and syncs a new file; removes it again on any fault. */
async function writeNew(fs: Files, temporary: string, target: string, chunks: Chunks): Promise<void> {
  const iterable = chunks as object | null;
  if (
    typeof iterable !== "object" ||
    !iterable ||
    !(Symbol.iterator in iterable || Symbol.asyncIterator in iterable)
  ) {
    throw notBytes(target);
  }
  const io = async <T>(operation: Promise<T>): Promise<T> => {
    try {
      return await operation;
    } catch (cause) {
      throw ioError(target, "written", cause);
    }
  };
  const handle = await io(fs.open(temporary, "wx"));
  try {
    try {
      for await (const chunk of chunks instanceof Uint8Array ? [chunks] : chunks) {
        if (!(chunk instanceof Uint8Array)) throw notBytes(target);
        for (let done = 0; done < chunk.length; ) {
          const { bytesWritten } = await io(
            handle.write(chunk, done, Math.min(chunk.length - done, 2 ** 30)),
          );
          done += bytesWritten;
        }
      }
      const existing = await fs.stat(target).catch(() => null);
      if (existing) await io(handle.chmod(existing.mode & 0o7777));
      await io(handle.sync());
    } finally {
      await io(handle.close());
    }
  } catch (error) {
    await fs.rm(temporary, { force: true }).catch(() => {});
    throw error;
  }
}

/** Makes renames in `folder` durable, where the system can. */
async function syncFolder(fs: Files, folder: string): Promise<void> {
  try {
    const handle = await fs.open(folder, "r");
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch {
    // Windows cannot sync a folder, nor can some network file systems.
  }
}

/**
 * Writes a file whole or not at all. What stood at `path` stays readable, unchanged, until the new file is complete and synced;
 * after a fault no temporary file is left. A symbolic link is followed; an existing file's mode is kept.
 *
 * @param chunks - may be an async generator; its errors are passed on
 * @throws {NomoatError} with code `"IO"` when the file system refuses
 */
export async function writeFileAtomic(path: string, chunks: Chunks): Promise<void> {
  requirePath("writeFileAtomic", path);
  const node = nodeFiles(path);
  const fs = node.fs.promises;
  const target = await resolveLink(fs, path);
  const temporary = temporaryName(node.path, target, "tmp");
  await writeNew(fs, temporary, target, chunks);
  try {
    await fs.rename(temporary, target);
  } catch (cause) {
    await fs.rm(temporary, { force: true }).catch(() => {});
    throw ioError(path, "written", cause);
  }
  await syncFolder(fs, node.path.dirname(target));
}

/**
 * Writes several files of a folder, which is made if it is missing. All are complete and synced before the first is renamed into
 * place; when a rename fails, the ones before it are undone. Only the process's death between two renames can leave new files
 * beside old ones, each of them whole; they are renamed in the given order.
 *
 * @param files - contents by plain name
 * @throws {NomoatError} with code `"IO"` when the file system refuses
 * @throws {ArgumentError} for a name that leads out of the folder
 */
export async function writeFilesAtomic(
  folder: string,
  files: ReadonlyMap<string, Chunks> | Readonly<Record<string, Chunks>>,
): Promise<void> {
  requirePath("writeFilesAtomic", folder);
  requireOptions("writeFilesAtomic", files);
  const entries = files instanceof Map ? [...files] : Object.entries(files as Record<string, Chunks>);
  for (const [name] of entries) {
    if (!isPlainName(name))
      throw new ArgumentError(`${folder}: ${JSON.stringify(name)} is not a plain file name`);
  }
  const node = nodeFiles(folder);
  const fs = node.fs.promises;
  const leftovers: string[] = [];
  const undo: (() => Promise<void>)[] = [];
  try {
    await fs.mkdir(folder, { recursive: true }).catch((cause) => {
      throw ioError(folder, "made", cause);
    });
    const planned: { target: string; temporary: string }[] = [];
    for (const [name, chunks] of entries) {
      const target = await resolveLink(fs, node.path.join(folder, name));
      const temporary = temporaryName(node.path, target, "tmp");
      await writeNew(fs, temporary, target, chunks);
      leftovers.push(temporary);
      planned.push({ target, temporary });
    }
    for (const { target, temporary } of planned) {
      try {
        const backup = temporaryName(node.path, target, "bak.tmp");
        leftovers.push(backup);
        const existed = await backUp(fs, target, backup);
        await fs.rename(temporary, target);
        undo.push(() => (existed ? fs.rename(backup, target) : fs.rm(target)));
      } catch (cause) {
        throw ioError(target, "written", cause);
      }
    }
  } catch (error) {
    for (const step of undo.reverse()) await step().catch(() => {});
    throw error;
  } finally {
    for (const leftover of leftovers) await fs.rm(leftover, { force: true }).catch(() => {});
  }
  await syncFolder(fs, folder);
}

/** Gives an existing file a second name (or makes a copy where there are no hard links); false when there is no file. */
async function backUp(fs: Files, target: string, backup: string): Promise<boolean> {
  try {
    await fs.link(target, backup);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
    await fs.copyFile(target, backup);
  }
  return true;
}

/** True for a name that stays within its folder on every system: no separators, drives, `.` or `..`, no control characters. */
export function isPlainName(name: string): boolean {
  return (
    name.length > 0 && name.length <= 255 && name !== "." && name !== ".." && !/[/\\:\p{Cc}]/u.test(name)
  );
}
