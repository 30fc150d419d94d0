// Packed layers in safetensors files: every format comes back byte for byte, into a layer that held something else.

import { memoryStats, type Tensor, tidy } from "@nomoat/core";
import { loadSafetensors, serializeSafetensors } from "@nomoat/core/safetensors";
import { expect, it } from "vitest";
import {
  ActivationStatistics,
  QuantizedEmbedding,
  QuantizedLinear,
  quantize,
  quantizeAwq,
} from "../src/index.js";
import { allNames, bellTensor, rowMultiple } from "./helpers.js";

/** Names and bytes. */
const contents = (state: ReadonlyMap<string, Tensor>) =>
  Array.from(state, ([name, each]) => [name, each.dtype, each.shape, Array.from(each.dataSync())]);

it.each([...allNames, "int8_asym_g64", "int4_asym_g96"] as const)(
  "%s is saved, and loaded into another layer",
  async (format) => {
    const before = memoryStats().tensors;
    const shape = [20, Math.max(96, rowMultiple(format))];
    const make = (seed: number) =>
      tidy(() => QuantizedLinear.from(bellTensor(shape, seed), bellTensor([20], seed + 1), format));
    const [layer, other] = [make(1), make(5)];
    const file = await serializeSafetensors(layer.stateDict());
    const { tensors } = await loadSafetensors(file);
    other.loadStateDict(tensors);
    expect(contents(other.stateDict())).toEqual(contents(layer.stateDict()));
    tidy(() => {
      expect(other.denseWeight().dataSync()).toEqual(layer.denseWeight().dataSync());
      const x = bellTensor([3, shape[1]], 9);
      expect(other.forward(x).dataSync()).toEqual(layer.forward(x).dataSync());
    });
    for (const each of [layer, other, ...tensors.values()]) each.dispose();
    expect(memoryStats().tensors).toBe(before);
  },
);

it("so are scales of inputs, grids of activations, and tables", async () => {
  const seen = new ActivationStatistics(64);
  tidy(() => seen.add(bellTensor([50, 64], 3)));
  const scaled = (seed: number) =>
    tidy(() => {
      const { weight, inputScales } = quantizeAwq(bellTensor([8, 64], seed), seen, { format: "q4_1" });
      return new QuantizedLinear(weight, null, { inputScales });
    });
  const grid = (scale: number) =>
    tidy(() =>
      QuantizedLinear.from(bellTensor([8, 64], 2), null, "int8", {
        activationGrid: { scale, zeroPoint: 3 },
      }),
    );
  const table = (seed: number) =>
    tidy(() => new QuantizedEmbedding(quantize(bellTensor([8, 64], seed), { format: "q8_0" })));
  for (const [from, to] of [
    [scaled(1), scaled(4)],
    [grid(0.25), grid(0.5)],
    [table(1), table(2)],
  ]) {
    const { tensors } = await loadSafetensors(await serializeSafetensors(from.stateDict()));
    to.loadStateDict(tensors);
    expect(contents(to.stateDict())).toEqual(contents(from.stateDict()));
    for (const each of [from, to, ...tensors.values()]) each.dispose();
  }
});
