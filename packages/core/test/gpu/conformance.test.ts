// Every operation on the gpu backend, in the modes of gpu.js that Node always has, or in those that GPU_MODES names.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createGpuBackend } from "../../src/backend/gpu/index.js";
import { init, mul, shutdown, tensor, tidy } from "../../src/index.js";
import { runtime } from "../../src/runtime.js";
import { layoutNames } from "../support/check-op.js";
import { computedCases, full, refusedCases } from "./cases.js";
import { checkOnGpu } from "./check.js";
import { nodeModes } from "./node-modes.js";

describe.each(nodeModes)("%s", (mode) => {
  beforeAll(async () => {
    shutdown();
    await init({ backend: "gpu", mode });
  });
  afterAll(shutdown);

  const layouts = full || mode === "webasm" ? layoutNames : ["sliced"];
  test.each(computedCases.map((each) => [each.name, each] as const))("%s", (_, each) =>
    checkOnGpu(each, layouts),
  );

  test.each(refusedCases.map((each) => [each.name, each] as const))("%s is refused in words", (_, each) => {
    tidy(() => {
      const inputs = each.inputs.map(({ shape, values }) =>
        mul(tensor(Float32Array.from(values), { shape, device: "gpu" }), 2),
      );
      expect(() => each.fn(...inputs)).toThrow(/reads what it computed asynchronously: use await data\(\)/);
    });
  });
});

describe("arrays in tiles of 7 elements", () => {
  beforeAll(async () => {
    shutdown();
    runtime.backends.set("gpu", await createGpuBackend({ mode: "webasm", largestTile: 7 }));
  });
  afterAll(shutdown);

  const some = computedCases.filter(({ name }, i) => full || i % 10 === 0 || name.startsWith("attention"));
  test.each(some.map((each) => [each.name, each] as const))("%s", (_, each) => checkOnGpu(each, ["sliced"]));
});
