// Where prepared data and checkpoints lie; git ignores it.

import { fileURLToPath } from "node:url";

export const CACHE_FOLDER = fileURLToPath(new URL("../.cache", import.meta.url));
