// Where prepared data and checkpoints lie; git ignores it.

import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const CACHE_FOLDER = fileURLToPath(new URL("../.cache", import.meta.url));

/** Checkpoint and log of the run at hand. */
export const RUN_FOLDER = join(CACHE_FOLDER, "run");
