// LoRA+ and LoRA-FA.

import { init, matmul, noGrad, type Tensor } from "@nomoat/core";
import { AdamW } from "@nomoat/core/optim";
import { beforeAll, describe, expect, it } from "vitest";
import { applyLora, correctLoraFaGradients, freezeA, loraPlusGroups } from "../src/index.js";
import { fromTensor, inverseSpd } from "../src/linalg.js";
import { maxDifference, randomize, TinyModel, tokens } from "./model.js";

beforeAll(() => init({ backend: "reference" }));

describe("LoRA+", () => {
  it("groups parameters as PEFT", () => {
    const adapter = applyLora(new TinyModel(), { useDora: true, r: 2 });
    const groups = loraPlusGroups(adapter, { learningRate: 1e-3, ratio: 8, weightDecay: 0.1 });
    expect(
      groups.map((g) => [
        g.parameters.map((p) => p.shape.join("x"))[0],
        g.parameters.length,
        g.learningRate,
        g.weightDecay,
      ]),
    ).toEqual([
      ["2x6", 4, 1e-3, 0.1],
      ["6x2", 4, 8e-3, 0.1],
      ["6", 4, 8e-3, 0],
    ]);
    expect(new AdamW(groups).groups.map((group) => group.learningRate)).toEqual([1e-3, 8e-3, 8e-3]);
    const embeddings = applyLora(new TinyModel(), { targetModules: ["embed_tokens"] });
    expect(loraPlusGroups(embeddings, { learningRate: 1 })).toMatchObject([{ learningRate: 1e-6 }]);
    expect(() => loraPlusGroups(adapter, { learningRate: 1, ratio: 0.5 })).toThrow(/ratio/);
  });
});

describe("LoRA-FA", () => {
  it("trains B alone, with the gradient that changes the weight best", () => {
    const model = new TinyModel();
    const adapter = freezeA(applyLora(model, { r: 2, loraAlpha: 6 }));
    randomize(adapter.parameters());
    expect(adapter.trainableParameters()).toHaveLength(4);
    model.forward(tokens()).square().sum().backward();
    const [a, b] = adapter.parameters();
    expect(a.grad).toBeNull();
    const before = (b.grad as Tensor).clone();
    correctLoraFaGradients(adapter);
    // ΔW = s·g·A should be the projection of the full gradient G: s·g·A·Aᵀ = G·Aᵀ, where before = s·G·Aᵀ.
    const after = noGrad(() => matmul(matmul(b.grad as Tensor, a), a, { transB: true, alpha: 9 }));
    expect(maxDifference(after, before)).toBeLessThan(1e-6);
    expect(inverseSpd(fromTensor("test", matmul(a, a, { transB: true }).detach())).rows).toBe(2);
    new AdamW(adapter.trainableParameters()).step();
  });
});
