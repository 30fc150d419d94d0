// All cases.

import type { OpCase } from "../../support/check-op.js";
import { arithmeticCases } from "./arithmetic.js";
import { elementwiseCases } from "./elementwise.js";
import { layerCases } from "./layers.js";
import { linalgCases } from "./linalg.js";
import { matmulCases, neuralCases } from "./neural.js";
import { rearrangeCases } from "./rearrange.js";
import { selectionCases } from "./selection.js";
import { indexingCases, reduceCases, viewCases } from "./structure.js";

export const allCases: readonly OpCase[] = [
  ...elementwiseCases,
  ...arithmeticCases,
  ...rearrangeCases,
  ...selectionCases,
  ...linalgCases,
  ...layerCases,
  ...viewCases,
  ...indexingCases,
  ...reduceCases,
  ...matmulCases,
  ...neuralCases,
];

/** The exported operation that a case is of. */
export function operationOf({ name }: OpCase): string {
  const first = name.split(/[ ,]/)[0];
  return first === "attention" ? "scaledDotProductAttention" : first;
}
