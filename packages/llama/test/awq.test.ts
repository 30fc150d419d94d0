// Where a LLaMA takes AWQ's scales in: the same function, without products by scales.

import { init, noGrad, tensor, tidy } from "@nomoat/core";
import { collectStatistics, QuantizedLinear, quantizeModel } from "@nomoat/quant";
import { afterAll, beforeAll, expect, it } from "vitest";
import { awqMappings, perplexity } from "../src/index.js";
import { byteTokenizer, tinyModel } from "./support.js";

beforeAll(() => init({ backend: "reference" }));
afterAll(() => init({ backend: "wasm" }));

const config = { hiddenSize: 32, intermediateSize: 64, headDim: 8, numHeads: 4, numKeyValueHeads: 2 };

it("folds them into its normalisations, value and up projections", async () => {
  const make = () => tinyModel({ config });
  const [model, reference] = [make(), make()];
  const text = "It was the best of times, it was the worst of times, it was the age of wisdom.";
  const statistics = await collectStatistics(
    model,
    () => perplexity({ model, tokenizer: byteTokenizer(), text, length: 20 }),
    (name) => name !== "lm_head",
  );
  const norms = () =>
    [...model.namedParameters()].flatMap(([name, weight]) =>
      /layers.*norm\.weight$/.test(name) ? [Array.from(weight.dataSync() as Float32Array)] : [],
    );
  const before = norms();
  // Fine steps: nothing but a scale in the wrong place could change much.
  quantizeModel(model, { format: "int8_g32", method: "awq", statistics, mappings: awqMappings(model) });
  // All have taken scales of their own in, which tell if they were put in the wrong place.
  for (const [i, after] of norms().entries()) expect(after).not.toEqual(before[i]);
  for (const [, module] of model.namedModules()) {
    if (module instanceof QuantizedLinear) expect(module.inputScales).toBeNull();
  }
  const ids = tensor(Int32Array.from(new TextEncoder().encode(text.slice(0, 20))), { shape: [1, 20] });
  const error = tidy(() =>
    noGrad(() => {
      const expected = reference.forward(ids);
      return model.forward(ids).sub(expected).square().mean().item() / expected.square().mean().item();
    }),
  );
  expect(error).toBeLessThan(1e-3);
  for (const each of [model, reference, ids]) each.dispose();
});
