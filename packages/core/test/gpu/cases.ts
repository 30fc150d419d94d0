// All cases of the conformance suite, and those that a backend without synchronous reads refuses.

import { allCases as cases } from "../conformance/cases/index.js";

/** `npm run test:gpu` runs all cases in all modes and layouts. */
export const full = (import.meta as { env?: { MODE?: string } }).env?.MODE === "full";

/** Their results depend on values in ways that kernels cannot follow, so the host would have to read them at once. */
const readsValues = /^(argsort|sort|topk|unique|move)\b/;

export const computedCases = cases.filter(({ name }) => !readsValues.test(name));

export const refusedCases = cases.filter(
  ({ name }) => readsValues.test(name) && !/of (none|nothing)$/.test(name),
);
