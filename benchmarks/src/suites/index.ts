// The suites by name. A new suite is one file and one line here.

import { BenchError } from "../model.js";
import { gemm } from "./gemm.js";
import type { Suite } from "./suite.js";

export const suites: readonly Suite[] = [gemm];

/** @throws {BenchError} listing the known suites */
export function suitesByName(names: readonly string[]): Suite[] {
  return names.map((name) => {
    const found = suites.find((suite) => suite.name === name);
    if (found) return found;
    throw new BenchError(`unknown suite "${name}" (known: ${suites.map((suite) => suite.name).join(", ")})`);
  });
}
