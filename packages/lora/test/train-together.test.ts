// Several adapters of different ranks and learning rates, trained in one pass on one frozen base.

import { crossEntropy, Generator, init, slice, type Tensor, tensor, tidy } from "@nomoat/core";
import { AdamW } from "@nomoat/core/optim";
import { beforeAll, describe, expect, it } from "vitest";
import { type Adapter, applyLora, type LoraConfig, withAdapterRows } from "../src/index.js";
import { snapshot, TinyModel } from "./model.js";

beforeAll(() => init({ backend: "reference" }));

const place = { dtype: "float32", device: "reference" } as const;
const runs: { config: Partial<LoraConfig>; learningRate: number; rows: number }[] = [
  { config: { r: 2, targetModules: "all-linear" }, learningRate: 0.02, rows: 1 },
  { config: { r: 5, loraAlpha: 16, targetModules: ["q_proj", "v_proj"] }, learningRate: 0.01, rows: 2 },
  { config: { r: 1, useRslora: true, targetModules: ["up_proj", "q_proj"] }, learningRate: 0.05, rows: 1 },
];
const steps = 12;

/** Token ids [rows, 5] of run `k` at a step. */
function data(k: number, step: number): number[] {
  const generator = new Generator(100 * k + step);
  return Array.from({ length: runs[k].rows * 5 }, () => generator.integer(11));
}

const ids = (values: number[]) =>
  tensor(Int32Array.from(values), { shape: [values.length / 5, 5], dtype: "int32", device: "reference" });

function loss(logits: Tensor, tokens: Tensor): Tensor {
  const rows = logits.shape[0];
  const from = slice(logits, null, [0, 4]).reshape([rows * 4, 11]);
  return crossEntropy(from, slice(tokens, null, [1, 5]).reshape([rows * 4]));
}

function adapterOf(model: TinyModel, k: number): Adapter {
  return applyLora(model, runs[k].config, `run${k}`, { generator: new Generator(k + 1) });
}

function alone(k: number): { losses: number[]; adapter: Adapter } {
  const model = new TinyModel(place);
  const adapter = adapterOf(model, k);
  const optimizer = new AdamW(adapter.parameters(), { learningRate: runs[k].learningRate });
  const losses = Array.from({ length: steps }, (_, step) => {
    const value = tidy(() => {
      const tokens = ids(data(k, step));
      const value = loss(model.forward(tokens), tokens);
      value.backward();
      return value.item();
    });
    optimizer.step();
    optimizer.zeroGrad();
    return Number(value);
  });
  return { losses, adapter };
}

describe("training several adapters in one pass", () => {
  it("gives each the losses and values of its own run", () => {
    const model = new TinyModel(place);
    const base = snapshot(model);
    const adapters = runs.map((_, k) => adapterOf(model, k));
    const names = runs.flatMap(({ rows }, k) => Array.from({ length: rows }, () => `run${k}`));
    const optimizer = new AdamW(
      adapters.map((adapter, k) => ({
        parameters: adapter.parameters(),
        learningRate: runs[k].learningRate,
      })),
    );
    const losses: number[][] = runs.map(() => []);
    for (let step = 0; step < steps; step++) {
      tidy(() => {
        const tokens = ids(runs.flatMap((_, k) => data(k, step)));
        const logits = withAdapterRows(model, names, () => model.forward(tokens));
        let first = 0;
        const each = runs.map(({ rows }) => {
          const range: [number, number] = [first, (first += rows)];
          return loss(slice(logits, range), slice(tokens, range));
        });
        each.reduce((sum, value) => sum.add(value)).backward();
        for (const [k, value] of each.entries()) losses[k].push(Number(value.item()));
      });
      optimizer.step();
      optimizer.zeroGrad();
    }
    for (const [k, adapter] of adapters.entries()) {
      const own = alone(k);
      expect(losses[k][steps - 1]).not.toBeCloseTo(losses[k][0], 3);
      for (const [step, value] of own.losses.entries()) expect(losses[k][step]).toBeCloseTo(value, 5);
      const values = (from: Adapter) => from.parameters().flatMap((parameter) => [...parameter.dataSync()]);
      const expected = values(own.adapter);
      for (const [i, value] of values(adapter).entries()) expect(value).toBeCloseTo(Number(expected[i]), 4);
    }
    for (const adapter of adapters) adapter.remove();
    expect(snapshot(model)).toEqual(base);
  });
});
