// Several adapters in one batch, each with rows of its own.

import { gradcheck, init, slice, type Tensor, tensor, tidy } from "@nomoat/core";
import { beforeAll, describe, expect, it } from "vitest";
import { type Adapter, applyLora, type LoraConfig, withAdapterRows } from "../src/index.js";
import { segmentedUpdate } from "../src/segments.js";
import { maxDifference, normalTensor, randomize, TinyModel } from "./model.js";

beforeAll(() => init({ backend: "reference" }));

const ids = Array.from({ length: 20 }, (_, i) => (i * 7 + 3) % 11);
const batch = tensorOf(ids, [5, 4]);

function tensorOf(values: number[], shape: number[]): () => Tensor {
  return () => tensor(values, { shape, dtype: "int32", device: "reference" });
}

function adaptersOn(model: TinyModel, variants: Partial<LoraConfig>[]): Adapter[] {
  return variants.map((config, i) => {
    const adapter = applyLora(model, { r: 2 + i, loraAlpha: 3, ...config }, `a${i}`);
    randomize(adapter.parameters(), 10 + i);
    return adapter;
  });
}

const cases: [string, Partial<LoraConfig>[]][] = [
  ["plain", [{ targetModules: "all-linear" }, { targetModules: ["q_proj", "up_proj"] }]],
  [
    "with others",
    [{ useDora: true }, { initLoraWeights: "olora" }, { targetModules: ["embed_tokens", "q_proj"] }],
  ],
];

describe.each(cases)("mixed batch, %s", (_, variants) => {
  it("equals separate batches, forward and backward", () => {
    const model = new TinyModel();
    const adapters = adaptersOn(model, variants);
    const rows = ["a1", null, "a0", "a0", variants.length > 2 ? "a2" : "a1"];
    const weights = normalTensor([5, 4, 11], 3);
    const expected = rows.map((name, i) => {
      for (const adapter of adapters) adapter.disable();
      adapters.find((adapter) => adapter.name === name)?.enable();
      return tidy(() => {
        const out = model.forward(slice(batch(), [i, i + 1]));
        if (name)
          out
            .mul(slice(weights, [i, i + 1]))
            .sum()
            .backward();
        return out.detach();
      });
    });
    const gradients = () =>
      adapters.flatMap((adapter) =>
        adapter.parameters().map((parameter) => {
          const gradient = [...(parameter.grad?.dataSync() ?? [])];
          parameter.zeroGrad();
          return gradient;
        }),
      );
    const wanted = gradients();
    adapters[0].enable().merge();
    const mixed = withAdapterRows(model, rows, () => model.forward(batch()));
    adapters[0].unmerge();
    for (const [i, alone] of expected.entries())
      expect(maxDifference(slice(mixed, [i, i + 1]), alone)).toBeLessThan(1e-13);
    withAdapterRows(model, rows, () => model.forward(batch()))
      .mul(weights)
      .sum()
      .backward();
    for (const [i, gradient] of gradients().entries()) {
      expect(gradient).toHaveLength(wanted[i].length);
      for (const [j, value] of gradient.entries()) expect(value).toBeCloseTo(wanted[i][j], 10);
    }
  });
});

describe("segments", () => {
  it("have the gradients of finite differences", () => {
    const inputs = [
      [2, 3, 5],
      [2, 3, 4],
      [2, 5],
      [4, 2],
      [1, 5],
      [4, 1],
    ].map((shape, i) => {
      const value = normalTensor(shape, i + 1);
      value.requiresGrad = true;
      return value;
    });
    const segments = [
      { start: 0, end: 2, index: 1, scaling: 2 },
      { start: 2, end: 3, index: -1, scaling: 1 },
      { start: 3, end: 5, index: 0, scaling: -1 },
      { start: 5, end: 6, index: 1, scaling: 2 },
    ];
    gradcheck((x, y, ...factors) => segmentedUpdate(x, y.mul(1), factors, segments).add(x.sum()), inputs);
    inputs[0].requiresGrad = inputs[2].requiresGrad = false;
    gradcheck((x, y, ...factors) => segmentedUpdate(x, y.mul(1), factors, segments), inputs);
  });

  it("refuse rows that do not fit, unknown names, saved modules; and end with their scope", async () => {
    const model = new TinyModel();
    const [a] = adaptersOn(model, [{}]);
    const out = () => model.forward(batch());
    const before = out();
    expect(() => withAdapterRows(model, ["a0", "a0"], out)).toThrow(/2 rows were given, but .* 5 entries/);
    expect(() => withAdapterRows(model, ["zz"], out)).toThrow(/no adapter "zz"/);
    expect(() => withAdapterRows(model, [], out)).toThrow(/no rows/);
    expect(maxDifference(await withAdapterRows(model, ["a0"], async () => out()), before)).toBeLessThan(
      1e-13,
    );
    a.disable();
    const base = out();
    expect(maxDifference(withAdapterRows(model, [null], out), base)).toBe(0);
    expect(maxDifference(out(), base)).toBe(0);
    applyLora(model, { modulesToSave: ["lm_head"] }, "saved");
    expect(() => withAdapterRows(model, ["saved"], out)).toThrow(/modules to save/);
    expect(() => withAdapterRows(model, ["a0"], out)).toThrow(/disable adapter "saved"/);
  });
});
