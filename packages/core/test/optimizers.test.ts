// Optimizers that PyTorch 1.13 lacks against their papers' formulas in NumPy (tools/golden); their state; schedules; clipping by value.

import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import * as nm from "../src/index.js";
import { loadSafetensors, serializeSafetensors } from "../src/io/safetensors.js";
import * as optim from "../src/optim/index.js";
import { backends, on, type Subject } from "./support/backends.js";
import { expectClose, expectNoLeak, random, values } from "./support/numbers.js";

interface Run {
  name: string;
  optimizer: "adafactor" | "lion" | "adamw_8bit";
  shape: number[];
  initial: number[];
  gradients: number[][];
  after: number[][];
}

interface OneCycle extends optim.OneCycleOptions {
  factors: number[];
}

const file = new URL("./fixtures/optim-formulas.json", import.meta.url);
const golden = JSON.parse(readFileSync(file, "utf8")) as { runs: Run[]; oneCycle: OneCycle[] };

/** With the options of tools/golden/optim_formulas.py. */
const makers = {
  adafactor: (p: nm.Tensor) => new optim.Adafactor([p], { learningRate: 0.05, weightDecay: 0.1 }),
  lion: (p: nm.Tensor) => new optim.Lion([p], { learningRate: 0.01, weightDecay: 0.2 }),
  adamw_8bit: (p: nm.Tensor) => new optim.AdamW8bit([p], { learningRate: 0.01, minimumSize: 1 }),
};

const tolerance = { float64: 1e-12, float32: 3e-6 };
const normal = (count: number, seed: number) => values(count, seed, (next) => next() * 2 - 1);

function leaf(subject: Subject, shape: number[], data: number[]): nm.Tensor {
  return nm.tensor(data, { ...on(subject), shape, requiresGrad: true });
}

function setGradient(parameter: nm.Tensor, data: number[]): void {
  parameter.zeroGrad();
  const { device, dtype, shape } = parameter;
  parameter.grad = nm.keep(nm.tensor(data, { device, dtype, shape }));
}

const rms = (list: number[]) => Math.sqrt(list.reduce((sum, x) => sum + x * x, 0) / list.length);

describe.each(backends)("$name", (subject) => {
  test.each(golden.runs.map((run) => [run.optimizer, run.name, run] as const))("%s on %s", (kind, _, run) => {
    expectNoLeak(kind, () => {
      const parameter = leaf(subject, run.shape, run.initial);
      const optimizer = makers[kind](parameter);
      // 8-bit runs show every third step.
      const every = run.gradients.length / run.after.length;
      run.gradients.forEach((gradient, t) => {
        setGradient(parameter, gradient);
        optimizer.step();
        if ((t + 1) % every !== 0) return;
        const expected = run.after[(t + 1) / every - 1];
        expectClose(parameter.dataSync(), expected, 4 * tolerance[subject.dtype], `step ${t + 1}`);
      });
      const names = [...optimizer.stateDict().tensors.keys()];
      if (kind === "adafactor") expect(names).toEqual(run.shape.length < 2 ? ["0.v"] : ["0.row", "0.column"]);
      optimizer.dispose();
      parameter.dispose();
    });
  });

  test("AdamW8bit stays near AdamW with a quarter of its state, and leaves small parameters exact", () => {
    expectNoLeak("AdamW8bit", () => {
      const size = 5000;
      const start = normal(size, 3);
      const [a, b, small] = [
        leaf(subject, [50, 100], start),
        leaf(subject, [50, 100], start),
        leaf(subject, [3], [1, 2, 3]),
      ];
      const exact = new optim.AdamW([a], { learningRate: 0.01 });
      const coded = new optim.AdamW8bit([b, small], { learningRate: 0.01 });
      const next = random(9);
      for (let t = 0; t < 30; t++) {
        // Around a slope of its own for each entry, over four orders of magnitude.
        const g = start.map((x) => x * 10 ** (-4 * Math.abs(x)) * (1 + next()));
        setGradient(a, g);
        setGradient(b, g);
        setGradient(small, [1, 1, 1]);
        exact.step();
        coded.step();
      }
      const moved = rms(Array.from(a.dataSync(), (x, i) => x - start[i]));
      const apart = rms(Array.from(a.dataSync(), (x, i) => x - b.dataSync()[i]));
      expect(moved).toBeGreaterThan(0.1);
      expect(apart / moved).toBeLessThan(0.1);
      const { tensors } = coded.stateDict();
      expect([...tensors.keys()]).toEqual(["0.mCodes", "0.mScales", "0.vCodes", "0.vScales", "1.m", "1.v"]);
      expect(tensors.get("0.mCodes")!.dtype).toBe("uint8");
      expect(tensors.get("0.vScales")!.shape).toEqual([20]);
      for (const optimizer of [exact, coded]) optimizer.dispose();
      for (const parameter of [a, b, small]) parameter.dispose();
    });
  });

  test("AdamW8bit's first step is AdamW's, transposed parameters included", () => {
    nm.tidy(() => {
      const start = normal(4200, 4);
      const [a, b] = [leaf(subject, [60, 70], start), leaf(subject, [60, 70], start).detach().transpose()];
      b.requiresGrad = true;
      const g = nm.tensor(normal(4200, 5), { ...on(subject), shape: [60, 70] });
      a.grad = nm.keep(g.clone());
      b.grad = nm.keep(g.transpose());
      new optim.AdamW([a]).step({ gradientScale: 0.5 });
      new optim.AdamW8bit([b]).step({ gradientScale: 0.5 });
      expectClose(b.transpose().dataSync(), a.dataSync(), tolerance[subject.dtype]);
    });
  });

  test.each([
    ["SGD", (p: nm.Tensor[]) => new optim.SGD(p, { momentum: 0.9, nesterov: true })],
    ["Adam", (p: nm.Tensor[]) => new optim.Adam(p, { amsgrad: true, weightDecay: 0.1 })],
    ["Adafactor", (p: nm.Tensor[]) => new optim.Adafactor(p)],
    ["Lion", (p: nm.Tensor[]) => new optim.Lion(p)],
    ["AdamW", (p: nm.Tensor[]) => new optim.AdamW(p, { amsgrad: true })],
    ["AdamW8bit", (p: nm.Tensor[]) => new optim.AdamW8bit(p, { minimumSize: 5 })],
  ] as const)("a state of %s that was written to a file goes on bit for bit", async (_, make) => {
    const shapes = [[20, 30], [4]];
    const fresh = (): nm.Tensor[] =>
      shapes.map((shape, i) => {
        const size = shape.reduce((a, b) => a * b);
        return leaf(subject, shape, normal(size, i));
      });
    const steps = (optimizer: { step(): void }, parameters: nm.Tensor[], from: number, to: number) => {
      for (let step = from; step < to; step++) {
        parameters.forEach((p, i) => {
          setGradient(p, normal(p.size, 100 * step + i));
        });
        optimizer.step();
      }
    };
    const [whole, broken] = [fresh(), fresh()];
    const unbroken = make(whole);
    steps(unbroken, whole, 0, 6);
    const before = make(broken);
    steps(before, broken, 0, 3);
    const { tensors, ...counts } = before.stateDict();
    const file = await serializeSafetensors(tensors, { counts: JSON.stringify(counts) });
    const read = await loadSafetensors(file, { device: subject.device });
    const after = make(broken);
    after.loadStateDict({ ...JSON.parse(read.metadata.counts), tensors: read.tensors });
    steps(after, broken, 3, 6);
    expect(broken.map((p) => p.toArray())).toEqual(whole.map((p) => p.toArray()));
    for (const optimizer of [unbroken, before, after]) optimizer.dispose();
    for (const t of [...whole, ...broken, ...read.tensors.values()]) t.dispose();
  });

  test("clipping by value", () => {
    nm.tidy(() => {
      const parameter = leaf(subject, [4], [0, 0, 0, 0]);
      setGradient(parameter, [-3, 0.25, 2, Number.NaN]);
      optim.clipGradValue([parameter, leaf(subject, [1], [0])], 0.5);
      expect([...parameter.grad!.dataSync()]).toEqual([-0.5, 0.25, 0.5, Number.NaN]);
      expect(() => optim.clipGradValue([parameter], -1)).toThrow(
        "clipGradValue: maxValue must be at least 0, not -1",
      );
      expect(() => optim.gradNorm([parameter], 0)).toThrow("normType must be above 0, not 0");
    });
  });
});

test("options out of range are refused by name", () => {
  const p = () => [nm.ones([1], { requiresGrad: true })];
  expect(() => new optim.SGD(p(), { nesterov: true })).toThrow(
    "SGD: nesterov needs momentum and no dampening",
  );
  expect(() => new optim.SGD(p(), { momentum: -1 })).toThrow(
    "SGD: momentum must be finite and not negative, not -1",
  );
  expect(() => new optim.Adam(p(), { epsilon: -1 })).toThrow("Adam: epsilon");
  expect(() => new optim.Lion(p(), { betas: [1, 0.9] })).toThrow("Lion: betas must be within [0, 1), not 1");
  expect(() => new optim.Adafactor(p(), { beta2Decay: 1 })).toThrow("Adafactor: −beta2Decay");
  expect(() => new optim.AdamW8bit(p(), { minimumSize: Number.NaN })).toThrow("AdamW8bit: minimumSize");
});

describe("schedules", () => {
  test("polynomial: (1 − progress)^power to the least factor", () => {
    const schedule = optim.polynomialSchedule({ warmupSteps: 2, totalSteps: 6, power: 2, minFactor: 0.1 });
    const expected = [0, 0.5, 1, 0.1 + 0.9 * 0.5625, 0.1 + 0.9 * 0.25, 0.1 + 0.9 * 0.0625, 0.1, 0.1];
    expected.forEach((factor, step) => {
      expect(schedule(step)).toBeCloseTo(factor, 12);
    });
    expect(() => optim.polynomialSchedule({ totalSteps: 1, power: 0 })).toThrow(
      "power must be finite and above 0",
    );
  });

  test.each(golden.oneCycle)("one cycle over $totalSteps steps is PyTorch's", ({ factors, ...options }) => {
    const schedule = optim.oneCycleSchedule(options);
    factors.forEach((factor, step) => {
      expect(schedule(step)).toBeCloseTo(factor, 12);
    });
    expect(schedule(factors.length + 40)).toBeCloseTo(factors[factors.length - 1], 12);
    for (const totalSteps of [1, 2]) expect(optim.oneCycleSchedule({ totalSteps })(0)).not.toBeNaN();
  });
});
