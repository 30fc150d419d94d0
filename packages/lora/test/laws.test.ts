// The laws of adapters on dense bases in both precisions; those on quantized ones are in llama's tests.

import { init } from "@nomoat/core";
import fc from "fast-check";
import { beforeAll, describe, it } from "vitest";
import { type Base, checkLaws, kinds, Net } from "./laws.js";

beforeAll(() => init({ backend: "reference" }));

const bases: readonly [name: string, base: Base][] = (["float64", "float32"] as const).map((dtype) => {
  const place = { dtype, device: "reference" } as const;
  const tolerance = dtype === "float64" ? 1e-11 : 1e-4;
  return [dtype, { make: (seed) => new Net(seed, place), place, tolerance, file: dtype }];
});

describe.each(bases)("on a %s base", (dtype, base) => {
  it.each(kinds)("%s obeys the laws of adapters", async (_, configs, exact) => {
    const property = fc.asyncProperty(configs, fc.nat(99), (config, seed) =>
      checkLaws(base, config, seed, exact),
    );
    await fc.assert(property, { numRuns: dtype === "float64" ? 4 : 2 });
  });
});
