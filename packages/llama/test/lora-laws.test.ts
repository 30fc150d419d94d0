// The laws of adapters on quantized bases: the packed bytes stay as they are.

import { init, type Tensor } from "@nomoat/core";
import type { Module } from "@nomoat/core/nn";
import { denseMerge } from "@nomoat/lora";
import { QuantizedLinear, quantizeModel } from "@nomoat/quant";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { type Base, checkLaws, kinds, Net } from "../../lora/test/laws.js";

beforeAll(async () => void (await init({ backend: "wasm" })));

const place = { dtype: "float32", device: "wasm" } as const;

/** Counts a model's quantized layers. */
const quantized = (model: Module) =>
  [...model.namedModules()].filter(([, module]) => module instanceof QuantizedLinear).length;

describe.each(["int8", "nf4"] as const)("on a base of %s", (format) => {
  const base: Base = {
    make(seed) {
      const model: Module & { forward(ids: Tensor): Tensor } = new Net(seed, place);
      quantizeModel(model, { format });
      expect(quantized(model)).toBeGreaterThan(4);
      return model;
    },
    place,
    tolerance: 1e-4,
    // Into weights that do not round, so that the outputs are the same.
    merge: { quantize: denseMerge("float32") },
    file: "float32",
  };

  it.each(kinds)("%s obeys the laws of adapters", async (_, configs, exact) => {
    const property = fc.asyncProperty(configs, fc.nat(99), (config, seed) =>
      checkLaws(base, config, seed, exact),
    );
    await fc.assert(property, { numRuns: 2 });
  });
});
