// Optimizers without fixtures of PyTorch's against their formulas in plain numbers; their state; schedules; clipping by value.

import { describe, expect, test } from "vitest";
import * as nm from "../src/index.js";
import * as optim from "../src/optim/index.js";
import { backends, on, type Subject } from "./support/backends.js";
import { expectClose, expectNoLeak, random, values } from "./support/numbers.js";

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

/** Adafactor's step on a matrix, or a vector (rows = 0), by its paper and torch.optim.Adafactor. */
function adafactor(
  p: number[],
  g: number[],
  rows: number,
  columns: number,
  t: number,
  state: number[][],
): void {
  const [row, column] = state;
  const fresh = t ** -0.8;
  const square = g.map((x) => x * x);
  let v: number[];
  if (rows === 0) {
    square.forEach((x, i) => {
      row[i] += (x - row[i]) * fresh;
    });
    v = row;
  } else {
    for (let i = 0; i < rows; i++) {
      const mean = square.slice(i * columns, (i + 1) * columns).reduce((a, b) => a + b) / columns;
      row[i] += (mean - row[i]) * fresh;
    }
    for (let j = 0; j < columns; j++) {
      let mean = 0;
      for (let i = 0; i < rows; i++) mean += square[i * columns + j] / rows;
      column[j] += (mean - column[j]) * fresh;
    }
    const all = row.slice(0, rows).reduce((a, b) => a + b) / rows;
    v = p.map((_, k) => (row[Math.floor(k / columns)] * column[k % columns]) / all);
  }
  const update = g.map((x, i) => x / Math.sqrt(v[i]));
  const rate = (Math.max(1e-3, rms(p)) * Math.min(0.05, 1 / Math.sqrt(t))) / Math.max(1, rms(update));
  update.forEach((x, i) => {
    p[i] = p[i] * (1 - 0.05 * 0.1) - rate * x;
  });
}

describe.each(backends)("$name", (subject) => {
  test.each([
    ["a matrix", [3, 4], 3, 4],
    ["a vector", [5], 0, 0],
  ] as const)("Adafactor on %s", (_, shape, rows, columns) => {
    expectNoLeak("Adafactor", () => {
      const size = shape.reduce((a: number, b: number) => a * b, 1);
      const expected = normal(size, 1);
      const state = [Array<number>(size).fill(0), Array<number>(size).fill(0)];
      const parameter = leaf(subject, [...shape], expected);
      const optimizer = new optim.Adafactor([parameter], { learningRate: 0.05, weightDecay: 0.1 });
      for (let t = 1; t <= 6; t++) {
        const g = normal(size, 10 + t);
        setGradient(parameter, g);
        optimizer.step();
        adafactor(expected, g, rows, columns, t, state);
        expectClose(parameter.dataSync(), expected, 4 * tolerance[subject.dtype], `step ${t}`);
      }
      const names = [...optimizer.stateDict().tensors.keys()];
      expect(names).toEqual(rows === 0 ? ["0.v"] : ["0.row", "0.column"]);
      optimizer.dispose();
      parameter.dispose();
    });
  });

  test("Lion", () => {
    const expected = normal(6, 2);
    const m = Array<number>(6).fill(0);
    const parameter = leaf(subject, [2, 3], expected);
    const optimizer = new optim.Lion([parameter], { learningRate: 0.01, weightDecay: 0.2 });
    for (let t = 0; t < 6; t++) {
      const g = normal(6, 20 + t);
      setGradient(parameter, g);
      optimizer.step();
      g.forEach((x, i) => {
        expected[i] = expected[i] * (1 - 0.01 * 0.2) - 0.01 * Math.sign(0.9 * m[i] + 0.1 * x);
        m[i] = 0.99 * m[i] + 0.01 * x;
      });
      expectClose(parameter.dataSync(), expected, tolerance[subject.dtype]);
    }
    optimizer.dispose();
    parameter.dispose();
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
    ["AdamW8bit", (p: nm.Tensor[]) => new optim.AdamW8bit(p, { minimumSize: 5 })],
  ] as const)("a saved state of %s goes on bit for bit", (_, make) => {
    nm.tidy(() => {
      const shapes = [[20, 30], [4]];
      const fresh = () =>
        shapes.map((shape, i) =>
          leaf(
            subject,
            shape,
            normal(
              shape.reduce((a, b) => a * b),
              i,
            ),
          ),
        );
      const steps = (optimizer: { step(): void }, parameters: nm.Tensor[], from: number, to: number) => {
        for (let step = from; step < to; step++) {
          parameters.forEach((p, i) => {
            setGradient(p, normal(p.size, 100 * step + i));
          });
          optimizer.step();
        }
      };
      const [whole, broken] = [fresh(), fresh()];
      steps(make(whole), whole, 0, 6);
      const before = make(broken);
      steps(before, broken, 0, 3);
      const after = make(broken);
      after.loadStateDict(before.stateDict());
      steps(after, broken, 3, 6);
      expect(broken.map((p) => p.toArray())).toEqual(whole.map((p) => p.toArray()));
    });
  });

  test("clipping by value", () => {
    nm.tidy(() => {
      const parameter = leaf(subject, [4], [0, 0, 0, 0]);
      setGradient(parameter, [-3, 0.25, 2, Number.NaN]);
      optim.clipGradValue([parameter, leaf(subject, [1], [0])], 0.5);
      expect([...parameter.grad!.dataSync()]).toEqual([-0.5, 0.25, 0.5, Number.NaN]);
      expect(() => optim.clipGradValue([parameter], -1)).toThrow("maxValue must not be negative, not -1");
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

  test("one cycle: from 1/25 up to 1 and down to 1/250000", () => {
    const schedule = optim.oneCycleSchedule({ totalSteps: 11, warmupShare: 5 / 11 });
    expect(schedule(0)).toBeCloseTo(0.04, 12);
    expect(schedule(2)).toBeCloseTo(0.52, 12);
    expect(schedule(4)).toBe(1);
    expect(schedule(7)).toBeCloseTo((1 + 4e-6) / 2, 12);
    expect(schedule(10)).toBeCloseTo(4e-6, 12);
    expect(schedule(50)).toBeCloseTo(4e-6, 12);
    for (const totalSteps of [1, 2]) expect(optim.oneCycleSchedule({ totalSteps })(0)).not.toBeNaN();
  });
});
