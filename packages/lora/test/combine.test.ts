// Combinations of adapters, and compression.

import { Generator, init, matmul, noGrad, type Tensor } from "@nomoat/core";
import { beforeAll, describe, expect, it } from "vitest";
import { combineValues, pruneByMagnitude } from "../src/combine-values.js";
import {
  type Adapter,
  addWeightedAdapter,
  applyLora,
  type CombinationType,
  compressAdapter,
} from "../src/index.js";
import { maxDifference, randomize, TinyModel, tokens } from "./model.js";

beforeAll(() => init({ backend: "reference" }));

function twoAdapters(ranks = [2, 3]) {
  const model = new TinyModel();
  const a = applyLora(
    model,
    { r: ranks[0], loraAlpha: 3, targetModules: ["q_proj", "v_proj", "embed_tokens"] },
    "a",
  );
  const b = applyLora(model, { r: ranks[1], loraAlpha: 5, targetModules: ["q_proj", "up_proj"] }, "b");
  randomize(a.parameters(), 1);
  randomize(b.parameters(), 2);
  return { model, a, b };
}

const at = "model.layers.0.self_attn.q_proj";
const delta = (adapter: Adapter, layer = at): Tensor =>
  noGrad(() => {
    const branch = adapter.branches().get(layer);
    const [a, b] = [...(branch?.tensors().values() ?? [])];
    return matmul(b, a, { alpha: branch?.scaling ?? 0 });
  });

describe("addWeightedAdapter", () => {
  it.each<CombinationType>(["cat", "svd"])("%s is the weighted sum of the updates", (combinationType) => {
    const { model, a, b } = twoAdapters();
    a.weight = 0.5;
    b.weight = -2;
    const expected = model.forward(tokens());
    a.weight = b.weight = 1;
    const before = model.forward(tokens());
    const sum = addWeightedAdapter([a, b], [0.5, -2], "sum", { combinationType, svdRank: 5 });
    expect(sum.active).toBe(false);
    expect(maxDifference(model.forward(tokens()), before)).toBe(0);
    expect(sum.config).toMatchObject({ r: 5, loraAlpha: 5 });
    expect(sum.layers.size).toBe(7);
    sum.setActive();
    expect(maxDifference(model.forward(tokens()), expected)).toBeLessThan(1e-11);
  });

  it("linear sums the factors with the roots of the weights, the sign on A", () => {
    const { a, b } = twoAdapters([2, 2]);
    const sum = addWeightedAdapter([a, b], [2, -0.5], "sum", { combinationType: "linear" });
    const [a1, b1, a2, b2, a3, b3] = [a, b, sum].flatMap((adapter) => [
      ...(adapter.branches().get(at)?.tensors().values() ?? []),
    ]);
    const [s1, s2] = [Math.sqrt(2 * 1.5), Math.sqrt(0.5 * 2.5)];
    noGrad(() => {
      expect(maxDifference(a3, a1.mul(s1).sub(a2.mul(s2)))).toBeLessThan(1e-14);
      expect(maxDifference(b3, b1.mul(s1).add(b2.mul(s2)))).toBeLessThan(1e-14);
    });
    const scaled = addWeightedAdapter([a], [-3], "scaled");
    expect(
      maxDifference(
        delta(scaled),
        noGrad(() => delta(a).mul(-3)),
      ),
    ).toBeLessThan(1e-13);
  });

  it("svd is the best approximation; svd of pruned updates reaches it with density 1", () => {
    const { a, b } = twoAdapters();
    const whole = noGrad(() => delta(a).add(delta(b)));
    const error = (adapter: Adapter) => noGrad(() => delta(adapter).sub(whole).square().sum().item());
    const one = (type: CombinationType, rank: number, name: string) =>
      addWeightedAdapter([a, b], [1, 1], name, {
        combinationType: type,
        svdRank: rank,
        density: 1,
        generator: new Generator(2),
      });
    const errors = [1, 2, 4, 5].map((rank) => error(one("svd", rank, `svd${rank}`)));
    expect(errors).toEqual([...errors].sort((x, y) => y - x));
    expect(errors[3]).toBeLessThan(1e-20);
    expect(error(one("magnitude_prune_svd", 2, "m"))).toBeCloseTo(errors[1], 10);
    expect(error(one("dare_linear_svd", 2, "d"))).toBeCloseTo(errors[1], 10);
  });

  it("by values equals PEFT's formulas on small arrays", () => {
    const tasks = [Float64Array.of(1, -4, 3, 0.5), Float64Array.of(-2, -1, 5, 1)];
    const options = { density: 0.5, signMethod: "total" as const, generator: new Generator(1) };
    const run = (
      method: Parameters<typeof combineValues>[0],
      density = 0.5,
      signMethod: "total" | "frequency" = "total",
    ) => [...combineValues(method, tasks, [2, 10], { ...options, density, signMethod })];
    expect([...pruneByMagnitude(tasks[0], 0.5)]).toEqual([0, -4, 3, 0]);
    expect(run("linear")).toEqual([-18, -18, 56, 11]);
    expect(run("magnitude_prune")).toEqual([-20, -8, 56, 0]);
    // Signs elected: [-, -, +, +]; means over those that agree: [-20, -8, (6+50)/2, 0].
    expect(run("ties")).toEqual([-20, -8, 28, 0]);
    expect(run("ties", 1)).toEqual([-20, (-8 - 10) / 2, 28, (1 + 10) / 2]);
    // By count position 0 is a tie, which counts as positive.
    expect(run("ties", 1, "frequency")[0]).toBe(2);
    expect(run("dare_linear", 1)).toEqual(run("linear"));
    expect(run("dare_ties", 1)).toEqual(run("ties", 1));
    const many = Float64Array.from({ length: 20000 }, () => 1);
    const kept = combineValues("dare_linear", [many], [1], { ...options, density: 0.25 });
    expect(new Set(kept)).toEqual(new Set([0, 4]));
    expect(kept.reduce((x, y) => x + y) / 20000).toBeCloseTo(1, 1);
  });

  it.each<CombinationType>([
    "ties",
    "dare_linear",
    "dare_ties",
    "magnitude_prune",
    "ties_svd",
    "dare_ties_svd",
  ])("%s runs", (combinationType) => {
    const { model, a, b } = twoAdapters([2, 2]);
    const make = (name: string) =>
      addWeightedAdapter([a, b], [1, 1], name, {
        combinationType,
        density: 0.5,
        generator: new Generator(3),
      });
    expect(maxDifference(delta(make("x")), delta(make("y")))).toBe(0);
    expect(model.forward(tokens()).isContiguous).toBe(true);
  });

  it("refuses what does not fit", () => {
    const { a, b } = twoAdapters();
    const dora = applyLora(a.model, { useDora: true }, "dora");
    const run = (adapters: Adapter[], weights: number[], options = {}) =>
      addWeightedAdapter(adapters, weights, "new", options);
    expect(() => run([a, b], [1, 1], { combinationType: "linear" })).toThrow(/one rank, not 2, 3/);
    expect(() => run([a, b], [1])).toThrow(/2 finite weights/);
    expect(() => run([a, b], [1, 1], { combinationType: "ties_svd" })).toThrow(/density/);
    expect(() => run([a, b], [1, 1], { combinationType: "mean" })).toThrow(/known: cat/);
    expect(() => run([a, dora], [1, 1])).toThrow(/lora_magnitude_vector/);
    expect(() => run([], [])).toThrow(/no adapters/);
    expect(() => run([a, twoAdapters().b], [1, 1])).toThrow(/different models/);
    expect(() => addWeightedAdapter([a, b], [1, 1], "a")).toThrow(/exists already/);
  });
});

describe("compressAdapter", () => {
  it("gives the best approximation and its error", () => {
    const { a } = twoAdapters([4, 1]);
    const { adapter, errors } = compressAdapter(a, 2, "small");
    expect(adapter.config.r).toBe(2);
    const loss = noGrad(
      () => delta(adapter).sub(delta(a)).square().sum().item() / delta(a).square().sum().item(),
    );
    const mine = errors.find((error) => error.name === at);
    expect(mine?.relativeError).toBeCloseTo(Math.sqrt(loss), 10);
    expect(mine?.relativeError).toBeGreaterThan(0.01);
    const same = compressAdapter(a, 6, "same");
    expect(maxDifference(delta(same.adapter), delta(a))).toBeLessThan(1e-13);
    expect(Math.max(...same.errors.map((error) => error.relativeError))).toBeLessThan(1e-7);
    expect(() => compressAdapter(a, 0, "x")).toThrow(/positive/);
  });
});
