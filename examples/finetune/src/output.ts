/** The output folder: everything is written beside it first, and put in place when all of it is good. */
import { accessSync, constants, statSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rename, rm } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { UserError } from "./errors.js";

/**
 * Finds out, before hours of work, whether a folder can be written; makes nothing.
 *
 * @throws {UserError} when it is a file, or nobody may write there
 */
export function checkOutput(folder: string): void {
  for (let path = resolve(folder); ; path = dirname(path)) {
    const stats = statSync(path, { throwIfNoEntry: false });
    if (!stats) continue;
    if (!stats.isDirectory()) throw new UserError(`${folder}: ${path} is a file, not a folder`);
    try {
      accessSync(path, constants.W_OK);
    } catch {
      throw new UserError(`${folder}: ${path} cannot be written`);
    }
    return;
  }
}

/** What is being written; nothing of it shows in the output folder before {@link publish}. */
export interface Staging {
  /** An empty folder to write into. */
  readonly folder: string;
  /** Puts all of it in place; what stood there under the same names is replaced, the rest stays. */
  publish(): Promise<void>;
  /** Removes all of it; without effect after {@link publish}. */
  discard(): Promise<void>;
}

/** Removes the folders among `made` that are empty, innermost first. */
async function removeEmpty(first: string | undefined, innermost: string): Promise<void> {
  if (first === undefined) return;
  for (let path = innermost; path.length >= first.length; path = dirname(path)) {
    if ((await readdir(path)).length > 0) return;
    await rm(path, { recursive: true });
  }
}

/** Starts to write the output folder `target`. */
export async function stageOutput(target: string): Promise<Staging> {
  const final = resolve(target);
  const parent = dirname(final);
  const firstMade = await mkdir(parent, { recursive: true });
  // Beside the target, so that renaming stays within one file system.
  const folder = await mkdtemp(join(parent, `.${basename(final)}-`));
  let open = true;
  const discard = async (): Promise<void> => {
    if (!open) return;
    open = false;
    await rm(folder, { recursive: true, force: true });
    await removeEmpty(firstMade, parent);
  };
  const publish = async (): Promise<void> => {
    await mkdir(final, { recursive: true });
    for (const name of await readdir(folder)) {
      const place = join(final, name);
      const old = join(folder, `.old-${name}`);
      const replaced = await rename(place, old).then(
        () => true,
        (error: NodeJS.ErrnoException) => {
          if (error.code === "ENOENT") return false;
          throw error;
        },
      );
      try {
        await rename(join(folder, name), place);
      } catch (error) {
        if (replaced) await rename(old, place);
        throw error;
      }
    }
    open = false;
    await rm(folder, { recursive: true, force: true });
  };
  return { folder, publish, discard };
}
