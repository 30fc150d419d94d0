// The suites that need no file system, which a page can run too.

import { attention } from "./attention.js";
import { crossover } from "./crossover.js";
import { elementwise } from "./elementwise.js";
import { gemm } from "./gemm.js";
import { generate } from "./generate.js";
import { lora } from "./lora.js";
import { quant } from "./quant.js";
import type { Suite } from "./suite.js";
import { together } from "./together.js";
import { trainStep } from "./train-step.js";
import { windows } from "./windows.js";

export const portableSuites: readonly Suite[] = [
  gemm,
  elementwise,
  attention,
  windows,
  quant,
  lora,
  trainStep,
  together,
  generate,
  crossover,
];
