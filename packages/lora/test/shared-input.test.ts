// Layers with adapters that share their input: as one operation, and each for itself.

import { checkpoint, Generator, gradcheck, init, randn, type Tensor, tidy } from "@nomoat/core";
import { Linear, type LinearBase, linearGroup, Module } from "@nomoat/core/nn";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import {
  applyLora,
  freezeA,
  type LoraConfig,
  LoraLinear,
  layerInputs,
  withAdapterRows,
} from "../src/index.js";
import { segmentedUpdates } from "../src/segments.js";
import { maxDifference, normalTensor, randomize, reference64 } from "./model.js";

beforeAll(() => init({ backend: "wasm", threads: 2 }));

/** Three projections of one input, as a group or each for itself. */
class Projections extends Module {
  q_proj: LinearBase;
  k_proj: LinearBase;
  v_proj: LinearBase;
  together = true;

  constructor(inFeatures: number, widths: readonly number[], options: object = {}) {
    super();
    const generator = new Generator(1);
    const [q, k, v] = widths.map((width) => Linear.create(inFeatures, width, { generator, ...options }));
    this.q_proj = q;
    this.k_proj = k;
    this.v_proj = v;
  }

  get layers(): LinearBase[] {
    return [this.q_proj, this.k_proj, this.v_proj];
  }

  outputs(x: Tensor): Tensor[] {
    return this.together ? linearGroup(x, this.layers) : this.layers.map((layer) => layer.forward(x));
  }

  override forward(x: Tensor): Tensor {
    return tidy(() => {
      const sums = this.outputs(x).map((y, i) =>
        y
          .mul(y)
          .sum()
          .mul(i + 1),
      );
      return sums.reduce((a, b) => a.add(b));
    });
  }
}

/** Loss and gradients of x and of all that is trained, in one way or the other. */
function pass(model: Projections, together: boolean, x: Tensor, run = () => model.forward(x)): number[][] {
  model.together = together;
  return tidy(() => {
    x.requiresGrad = true;
    const loss = run();
    loss.backward();
    const gradients = [x, ...model.parameters().filter((one) => one.requiresGrad)].map((one) => {
      const gradient = Array.from(one.grad?.dataSync() ?? [], Number);
      one.zeroGrad();
      return gradient;
    });
    return [[loss.item()], ...gradients];
  });
}

/** The largest difference as a share of the largest value of each list. */
function difference(a: readonly number[][], b: readonly number[][]): number {
  expect(a.map(({ length }) => length)).toEqual(b.map(({ length }) => length));
  return Math.max(
    ...a.map((list, i) => {
      const scale = Math.max(1e-6, ...list.map(Math.abs));
      return Math.max(0, ...list.map((value, j) => Math.abs(value - b[i][j]))) / scale;
    }),
  );
}

const kinds: [string, Partial<LoraConfig>][] = [
  ["plain", {}],
  ["ranks of their own", { rankPattern: { q_proj: 5, v_proj: 1 } }],
  ["some layers alone", { targetModules: ["q_proj", "v_proj"] }],
  ["with biases", { loraBias: true }],
  ["DoRA", { useDora: true }],
];

describe("layers with one input", () => {
  it.each(kinds)("%s: give as a group what they give alone, forward and backward", (_, config) => {
    const model = new Projections(260, [24, 16, 16]);
    const adapter = applyLora(model, { r: 3, targetModules: "all-linear", ...config });
    randomize(adapter.parameters(), 4);
    const x = randn([260, 260], { generator: new Generator(2) });
    expect(difference(pass(model, true, x), pass(model, false, x))).toBeLessThan(2e-5);
    freezeA(adapter);
    expect(difference(pass(model, true, x), pass(model, false, x))).toBeLessThan(2e-5);
    model.dispose();
  });

  it("run as one operation when their adapters are plain, and one by one when they drop out or are several", () => {
    const model = new Projections(260, [4, 4, 4]);
    const adapter = applyLora(model, { r: 2, targetModules: "all-linear", loraDropout: 0.5 });
    randomize(adapter.parameters(), 4);
    const x = randn([260, 260], { generator: new Generator(2) });
    const operations = () => linearGroup(x, model.layers).map(({ node }) => node?.operation);
    model.train(true);
    expect(operations()).toEqual(["lora", "lora", "lora"]);
    model.train(false);
    expect(operations()).toEqual(["lora segments", "lora segments", "lora segments"]);
    applyLora(model, { r: 2, targetModules: ["q_proj"] }, "second");
    for (const layer of model.layers)
      for (const branch of (layer as LoraLinear).adapters) branch.enabled = true;
    expect(operations()).toEqual(["lora", "lora", "lora"]);
    model.dispose();
  });

  it("add to gradients that are there, pass through checkpoints, and after a merge", () => {
    const model = new Projections(260, [6, 6, 6]);
    const adapter = applyLora(model, { r: 2, targetModules: "all-linear" });
    randomize(adapter.parameters(), 4);
    const x = randn([260, 260], { generator: new Generator(2) });
    const twice = () => model.forward(x).add(checkpoint((y) => model.forward(y.mul(0.5)), x));
    expect(difference(pass(model, true, x, twice), pass(model, false, x, twice))).toBeLessThan(2e-5);
    adapter.merge();
    x.requiresGrad = true;
    expect(difference(pass(model, true, x), pass(model, false, x))).toBe(0);
    model.dispose();
  });

  it("hold for any sizes, and for rows of several adapters", () => {
    fc.assert(
      fc.property(
        fc.record({
          rows: fc.integer({ min: 1, max: 6 }),
          positions: fc.integer({ min: 1, max: 40 }),
          inFeatures: fc.integer({ min: 1, max: 70 }),
          widths: fc.tuple(...[1, 2, 3].map(() => fc.integer({ min: 1, max: 40 }))),
          ranks: fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 3 }),
          seed: fc.integer({ min: 0, max: 99 }),
        }),
        ({ rows, positions, inFeatures, widths, ranks, seed }) => {
          const model = new Projections(inFeatures, widths);
          ranks.forEach((r, i) => {
            const targetModules = i === 1 ? ["k_proj"] : ("all-linear" as const);
            const adapter = applyLora(model, { r, targetModules }, `a${i}`);
            randomize(adapter.parameters(), seed + i);
            if (i > 0) adapter.disable();
          });
          const x = randn([rows, positions, inFeatures], { generator: new Generator(seed) });
          expect(difference(pass(model, true, x), pass(model, false, x))).toBeLessThan(2e-5);
          const names = Array.from({ length: rows }, (_, i) =>
            (seed + i) % 4 === 0 ? null : `a${(seed + i) % ranks.length}`,
          );
          const mixed = (together: boolean) => withAdapterRows(model, names, () => pass(model, together, x));
          expect(difference(mixed(true), mixed(false))).toBeLessThan(2e-5);
          model.dispose();
          x.dispose();
        },
      ),
      { numRuns: 25 },
    );
  });

  it("have the gradients of finite differences, plain and by segments", () => {
    const shapes = [
      [2, 3, 5],
      [2, 3, 4],
      [2, 3, 2],
      [2, 5],
      [4, 2],
      [1, 5],
      [2, 1],
    ];
    const inputs = shapes.map((shape, i) => normalTensor(shape, i + 1));
    for (const one of inputs) one.requiresGrad = true;
    const plain = [
      [{ start: 0, end: 6, index: 0, scaling: 2 }],
      [{ start: 0, end: 6, index: 0, scaling: -1 }],
    ];
    const parts = [[{ start: 1, end: 4, index: 0, scaling: 2 }], plain[1]];
    for (const [first, second] of [plain, parts]) {
      const updates = ([x, y, z, a, b, c, d]: Tensor[]) =>
        segmentedUpdates(x, [
          { y: y.mul(1), factors: [a, b], segments: first },
          { y: z.mul(1), factors: [c, d], segments: second },
        ]);
      gradcheck((...all) => {
        const [one, other] = updates(all);
        return one.square().sum().add(other.square().sum()).add(all[0].sum());
      }, inputs);
      // One output that nobody uses.
      gradcheck((...all) => updates(all)[1].square(), inputs);
    }
    inputs[3].requiresGrad = inputs[0].requiresGrad = false;
    gradcheck((x, y, z, a, b, c, d) => {
      const layers = [
        { y: y.mul(1), factors: [a, b], segments: plain[0] },
        { y: z.mul(1), factors: [c, d], segments: plain[1] },
      ];
      const [one, other] = segmentedUpdates(x, layers);
      return one.mul(2).sum().add(other.square().sum());
    }, inputs);
  });

  it("tell their inputs to who observes them, and run a forward that was put in their class's place", async () => {
    const model = new Projections(6, [4, 4, 4], reference64);
    applyLora(model, { r: 2, targetModules: "all-linear" });
    const x = normalTensor([3, 6], 1);
    const moments = await layerInputs(model, () => model.outputs(x));
    expect([...moments.values()].map(({ count }) => count)).toEqual([3, 3, 3]);
    class Doubled extends LoraLinear {
      override forward(input: Tensor): Tensor {
        return tidy(() => super.forward(input).mul(2));
      }
    }
    const layers = [1, 2].map(() => new Doubled(Linear.create(6, 4, { ...reference64 })));
    linearGroup(x, layers).forEach((y, i) => {
      expect(maxDifference(y, layers[i].forward(x))).toBe(0);
    });
  });
});
