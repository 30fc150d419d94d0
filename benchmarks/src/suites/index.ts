// The suites by name. A new suite is one file and one line here.

import { BenchError } from "../model.js";
import { attention } from "./attention.js";
import { elementwise } from "./elementwise.js";
import { gemm } from "./gemm.js";
import { generate } from "./generate.js";
import { load } from "./load.js";
import { lora } from "./lora.js";
import { quant } from "./quant.js";
import type { Suite } from "./suite.js";
import { trainStep } from "./train-step.js";

export const suites: readonly Suite[] = [
  gemm,
  elementwise,
  attention,
  quant,
  lora,
  trainStep,
  generate,
  load,
];

/** @throws {BenchError} listing the known suites */
export function suitesByName(names: readonly string[]): Suite[] {
  return names.map((name) => {
    const found = suites.find((suite) => suite.name === name);
    if (found) return found;
    throw new BenchError(`unknown suite "${name}" (known: ${suites.map((suite) => suite.name).join(", ")})`);
  });
}
