// Beginnings and merged weights against NumPy's (tools/golden/lora_init.py).

import { readFileSync } from "node:fs";
import { init, type Tensor, tensor } from "@nomoat/core";
import { Linear, type LinearBase, Module } from "@nomoat/core/nn";
import { beforeAll, describe, expect, it } from "vitest";
import { applyEva, applyLora, initLoftq, type LoraConfig } from "../src/index.js";
import { maxDifference, reference64 } from "./model.js";

interface Stored {
  shape: number[];
  data: number[];
}

const golden = JSON.parse(readFileSync(new URL("./fixtures/inits.json", import.meta.url), "utf8"));
const place = ({ shape, data }: Stored): Tensor => tensor(data, { shape, ...reference64 });

beforeAll(() => init({ backend: "reference" }));

class One extends Module {
  layer: LinearBase = new Linear(place(golden.w));

  override forward(x: Tensor): Tensor {
    return this.layer.forward(x);
  }
}

const config = { r: golden.r, loraAlpha: golden.alpha, targetModules: ["layer"] };
const close = (actual: Tensor, expected: Stored, tolerance = 1e-12) => {
  expect(actual.shape).toEqual(expected.shape);
  expect(maxDifference(actual, place(expected))).toBeLessThan(tolerance);
};

describe("NumPy's beginnings", () => {
  it("PiSSA: scaling · B · A is the best approximation of the weight", () => {
    const [a, b] = applyLora(new One(), { ...config, initLoraWeights: "pissa" }).parameters();
    close(b.matmul(a).mul(golden.alpha / golden.r), golden.pissa);
    const [c, d] = applyLora(new One(), { ...config, initLoraWeights: "pissa_niter_30" }).parameters();
    close(d.matmul(c).mul(golden.alpha / golden.r), golden.pissa, 1e-6);
  });

  it("OLoRA: the leading parts of the weight's QR", () => {
    const [a, b] = applyLora(new One(), { ...config, initLoraWeights: "olora" }).parameters();
    close(a, golden.olora.a);
    close(b, golden.olora.b);
  });

  it("LoftQ: by turns", () => {
    const { step, iterations, quantized, product } = golden.loftq;
    const model = new One();
    const adapter = applyLora(model, config);
    const quantize = (weight: Tensor) =>
      new Linear(
        tensor(
          Array.from(weight.dataSync(), (value) => Math.round(Number(value) / step) * step),
          { shape: weight.shape, ...reference64 },
        ),
      );
    initLoftq(adapter, { quantize, iterations });
    const [a, b] = adapter.parameters();
    close(b.matmul(a).mul(golden.alpha / golden.r), product);
    close((model.getModule("layer.base_layer") as Linear).weight, quantized);
  });

  it.each([
    ["exactly", {}, 1e-10],
    ["by subspace iteration", { svdIterations: 60 }, 1e-6],
  ])("EVA, %s: the inputs' components, ranks to where they explain most", (_, options, tolerance) => {
    class Two extends Module {
      first = Linear.create(5, 3, reference64);
      second = Linear.create(5, 3, reference64);
      override forward(): void {}
    }
    const model = new Two();
    const { inputs, r, rho, ranks, directions } = golden.eva;
    // In several batches, which count as one.
    const run = () => {
      for (const [layer, stored] of [
        [model.getModule("first"), inputs[0]],
        [model.getModule("second"), inputs[1]],
      ] as const)
        for (const range of [
          [0, 7],
          [7, 31],
          [31, 40],
        ] as const)
          (layer as Linear).forward(place(stored).slice(range));
    };
    const adapter = applyEva(model, { r, targetModules: ["first", "second"] }, run, { rho, ...options });
    const branches = [...adapter.branches().values()];
    expect(branches.map((branch) => branch.r)).toEqual(ranks);
    branches.forEach((branch, i) => {
      const [a] = [...branch.tensors().values()];
      const expected = place(directions[i]);
      // Directions have no sign.
      const cosines = a.mul(expected).sum(1).abs();
      expect(Math.min(...Array.from(cosines.dataSync(), Number))).toBeGreaterThan(1 - tolerance);
    });
  });
});

describe("NumPy's merged weights", () => {
  const { merged } = golden;
  const given = (extra: Partial<LoraConfig>, values: readonly Stored[], shared: readonly Stored[] = []) => {
    const model = new One();
    const adapter = applyLora(model, { ...config, ...extra });
    adapter.parameters().forEach((parameter, i) => {
      parameter.requiresGrad = false;
      parameter.copyFrom(place(values[i]));
    });
    const frozen = [...adapter.swappableTensors().values()].slice(-shared.length || Number.POSITIVE_INFINITY);
    shared.forEach((stored, i) => {
      frozen[i].copyFrom(place(stored));
    });
    const unmerged = model.layer.denseWeight();
    adapter.merge();
    expect(
      maxDifference((model.layer as unknown as { base_layer: Linear }).base_layer.weight, unmerged),
    ).toBe(0);
    return unmerged;
  };

  it("LoRA, rank-stabilized LoRA, DoRA", () => {
    close(given({}, [golden.a, golden.b]), merged.lora);
    close(given({ useRslora: true }, [golden.a, golden.b]), merged.rslora);
    close(given({ useDora: true }, [golden.a, golden.b, merged.dora.magnitude]), merged.dora.weight);
  });

  it("LoHa, LoKr, VeRA, (IA)³", () => {
    close(given({ peftType: "LOHA" }, merged.loha.factors), merged.loha.weight);
    close(given({ peftType: "LOKR" }, merged.lokr.factors), merged.lokr.weight);
    close(
      given({ peftType: "VERA", r: golden.r }, merged.vera.factors, [golden.a, golden.b]),
      merged.vera.weight,
    );
    close(given({ peftType: "IA3", feedforwardModules: null }, merged.ia3.factors), merged.ia3.weight);
  });
});
