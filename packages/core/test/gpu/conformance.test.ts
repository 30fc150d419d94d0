// Every operation on the gpu backend, in the modes of gpu.js that Node always has.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { init, mul, shutdown, tensor, tidy } from "../../src/index.js";
import { arithmeticCases } from "../conformance/cases/arithmetic.js";
import { elementwiseCases } from "../conformance/cases/elementwise.js";
import { matmulCases, neuralCases } from "../conformance/cases/neural.js";
import { rearrangeCases } from "../conformance/cases/rearrange.js";
import { selectionCases } from "../conformance/cases/selection.js";
import { indexingCases, reduceCases, viewCases } from "../conformance/cases/structure.js";
import { checkOnGpu } from "./check.js";

/** Their results depend on values in ways that kernels cannot follow, so the host would have to read them at once. */
const readsValues = /^(argsort|sort|topk|unique|move)\b/;

const cases = [
  ...elementwiseCases,
  ...arithmeticCases,
  ...rearrangeCases,
  ...selectionCases,
  ...viewCases,
  ...indexingCases,
  ...reduceCases,
  ...matmulCases,
  ...neuralCases,
];

describe.each(["webasm", "cpu"] as const)("%s", (mode) => {
  beforeAll(async () => {
    shutdown();
    await init({ backend: "gpu", mode });
  });
  afterAll(shutdown);

  const computed = cases.filter(({ name }) => !readsValues.test(name));
  test.each(computed.map((each) => [each.name, each] as const))("%s", (_, each) => checkOnGpu(each));

  const refused = cases.filter(({ name }) => readsValues.test(name) && !/of (none|nothing)$/.test(name));
  test.each(refused.map((each) => [each.name, each] as const))("%s is refused in words", (_, each) => {
    tidy(() => {
      const inputs = each.inputs.map(({ shape, values }) =>
        mul(tensor(Float32Array.from(values), { shape, device: "gpu" }), 2),
      );
      expect(() => each.fn(...inputs)).toThrow(/reads what it computed asynchronously: use await data\(\)/);
    });
  });
});
