// The suites. A new one is a file, and a line here or in portable.ts.

import { load } from "./load.js";
import { portableSuites } from "./portable.js";
import type { Suite } from "./suite.js";

export const suites: readonly Suite[] = [...portableSuites, load];
