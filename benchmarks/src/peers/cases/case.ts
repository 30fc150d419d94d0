// A case as peers are asked for it.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Places } from "../../accuracy.js";
import type { Accuracy } from "../../model.js";
import type { Case } from "../../suites/suite.js";
import type { Task } from "../protocol.js";

export interface PeerCase extends Case {
  readonly kind: Task["kind"];
  /** What peers are told; files that it names exist when the promise is fulfilled. */
  task(): Task | Promise<Task>;
  /** Where a product is compared; absent where the whole result is. */
  readonly places?: Places;
  /** Compares a peer's result, or what stands at the places, with what is right. */
  check(values: ArrayLike<number>): Accuracy | Promise<Accuracy>;
}

let folder: Promise<string> | null = null;

/** A place for a file that peers read; all are removed by `removeFiles`. */
export async function temporaryFile(name: string): Promise<string> {
  folder ??= mkdtemp(join(tmpdir(), "nomoat-bench-peers-"));
  return join(await folder, name);
}

export async function removeFiles(): Promise<void> {
  if (folder) await rm(await folder, { recursive: true, force: true });
  folder = null;
}

/** Makes a value when it is first asked for. */
export function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | null = null;
  return () => {
    made ??= make();
    return made;
  };
}
