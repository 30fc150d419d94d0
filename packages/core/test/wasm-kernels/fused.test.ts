// The fused kernels but attention, against the plain float64 formulas of the contract.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Operand } from "../../src/backend/types.js";
import {
  contiguousView,
  firstDifference,
  operandOf,
  outputOf,
  randomizer,
  storageOf,
  type View,
  wasm,
} from "./support.js";

const rowsAndLength = fc.tuple(
  fc.integer({ min: 0, max: 9 }),
  fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constantFrom(511, 512, 513, 1500)),
  fc.nat(),
);

/** Operands of random numbers in (−scale, scale), and their values. */
function random(shape: number[], seed: number, scale = 2): { x: Operand; values: number[] } {
  const next = randomizer(seed);
  const x = operandOf(wasm, "float32", contiguousView(shape), () => (next() - 0.5) * 2 * scale);
  return {
    x,
    values: Array.from(storageOf(wasm, x)).slice(
      0,
      shape.reduce((size, extent) => size * extent, 1),
    ),
  };
}

function free(...operands: Operand[]): void {
  for (const { buffer } of operands) wasm.free(buffer);
}

function valuesOf(x: Operand): number[] {
  return Array.from(wasm.window(x));
}

/** `f` applied to each row of n values. */
function byRow(values: number[], n: number, f: (row: number[], r: number) => number[]): number[] {
  const out: number[] = [];
  for (let r = 0; r * n < values.length; r++) out.push(...f(values.slice(r * n, (r + 1) * n), r));
  return out;
}

const sum = (list: number[]) => list.reduce((total, value) => total + value, 0);

function softmaxOf(row: number[]): number[] {
  const highest = Math.max(...row);
  const e = row.map((x) => Math.exp(x - highest));
  const total = sum(e);
  return e.map((x) => x / total);
}

describe("softmax", () => {
  it("and its gradient", () => {
    fc.assert(
      fc.property(rowsAndLength, ([rows, n, seed]) => {
        const { x, values } = random([rows, n], seed, 6);
        const { x: dy, values: dyValues } = random([rows, n], seed + 1);
        const [y, dx, log, dLog] = [0, 1, 2, 3].map(() => outputOf(wasm, "float32", [rows, n]));
        wasm.fused.softmax(x, y);
        wasm.fused.softmaxBackward(y, dy, dx);
        wasm.fused.logSoftmax(x, log);
        wasm.fused.logSoftmaxBackward(log, dy, dLog);
        const p = byRow(values, n, softmaxOf);
        const of = (r: number) => dyValues.slice(r * n, (r + 1) * n);
        expect(firstDifference(valuesOf(y), p, 1e-9, 1e-6)).toBeNull();
        const expectedDx = byRow(p, n, (row, r) => {
          const dot = sum(row.map((v, i) => v * of(r)[i]));
          return row.map((v, i) => v * (of(r)[i] - dot));
        });
        expect(firstDifference(valuesOf(dx), expectedDx, 1e-6, 1e-5)).toBeNull();
        expect(firstDifference(valuesOf(log), p.map(Math.log), 2e-6, 1e-6)).toBeNull();
        const expectedLog = byRow(p, n, (row, r) => {
          const total = sum(of(r));
          return row.map((v, i) => of(r)[i] - v * total);
        });
        expect(firstDifference(valuesOf(dLog), expectedLog, 1e-5, 1e-5)).toBeNull();
        free(x, dy, y, dx, log, dLog);
      }),
      { numRuns: 40 },
    );
  });

  it("keeps −∞ at 0 and spreads NaN over its row alone", () => {
    const rows = [
      [Number.NEGATIVE_INFINITY, 0, 0, Number.NEGATIVE_INFINITY, 0],
      [1, Number.NaN, 0, 0, 0],
      [1000, 999, 1000, -1000, 0],
    ];
    const x = operandOf(wasm, "float32", contiguousView([3, 5]), (i) => rows.flat()[i]);
    const y = outputOf(wasm, "float32", [3, 5]);
    wasm.fused.softmax(x, y);
    const third = Math.fround(1 / 3);
    expect(valuesOf(y).slice(0, 5)).toEqual([0, third, third, 0, third]);
    expect(valuesOf(y).slice(5, 10)).toEqual(new Array(5).fill(Number.NaN));
    expect(firstDifference(valuesOf(y).slice(10), softmaxOf(rows[2]), 1e-7, 1e-6)).toBeNull();
    free(x, y);
  });
});

describe("crossEntropy", () => {
  it.each([false, true])("losses, with gradient %s", (withGradient) => {
    fc.assert(
      fc.property(rowsAndLength, ([rows, n, seed]) => {
        const { x, values } = random([rows, n], seed, 6);
        const next = randomizer(seed + 2);
        const targets = operandOf(wasm, "int32", contiguousView([rows]), () =>
          next() < 0.3 ? -100 : Math.floor(next() * n),
        );
        const { x: scales, values: scaleValues } = random([rows], seed + 3);
        const losses = outputOf(wasm, "float32", [rows]);
        const chosen = Array.from(storageOf(wasm, targets)).slice(0, rows);
        wasm.fused.crossEntropy(x, targets, -100, losses, withGradient ? scales : null);
        const p = byRow(values, n, softmaxOf);
        const expected = chosen.map((t, r) => (t === -100 ? 0 : -Math.log(p[r * n + t])));
        expect(firstDifference(valuesOf(losses), expected, 2e-6, 1e-6)).toBeNull();
        const gradient = p.map((v, i) => {
          const r = Math.floor(i / n);
          return chosen[r] === -100 ? 0 : scaleValues[r] * (v - (i % n === chosen[r] ? 1 : 0));
        });
        if (withGradient) expect(firstDifference(valuesOf(x), gradient, 1e-6, 1e-6)).toBeNull();
        else expect(firstDifference(valuesOf(x), values, 0, 0)).toBeNull();
        free(x, targets, scales, losses);
      }),
      { numRuns: 30 },
    );
  });
});

describe("rmsNorm", () => {
  it("and its gradients", () => {
    const manyRows = fc.tuple(
      fc.oneof(fc.integer({ min: 0, max: 9 }), fc.constantFrom(32, 33, 100)),
      fc.integer({ min: 1, max: 70 }),
      fc.nat(),
    );
    fc.assert(
      fc.property(manyRows, ([rows, n, seed]) => {
        const { x, values } = random([rows, n], seed);
        const { x: weight, values: w } = random([n], seed + 1);
        const { x: dy, values: g } = random([rows, n], seed + 2);
        const [out, dx] = [0, 1].map(() => outputOf(wasm, "float32", [rows, n]));
        const inverse = outputOf(wasm, "float32", [rows]);
        const dWeight = outputOf(wasm, "float32", [n]);
        const eps = 1e-5;
        wasm.fused.rmsNorm(x, weight, eps, out, inverse);
        wasm.fused.rmsNormBackward(x, weight, inverse, dy, dx, dWeight);
        const inv = Array.from(
          { length: rows },
          (_, r) => 1 / Math.sqrt(sum(values.slice(r * n, (r + 1) * n).map((v) => v * v)) / n + eps),
        );
        const all = Array.from({ length: rows * n }, (_, i) => i);
        expect(firstDifference(valuesOf(inverse), inv, 0, 1e-6)).toBeNull();
        expect(
          firstDifference(
            valuesOf(out),
            all.map((i) => values[i] * inv[Math.floor(i / n)] * w[i % n]),
            1e-7,
            1e-6,
          ),
        ).toBeNull();
        const dots = inv.map((_, r) => sum(w.map((v, j) => v * g[r * n + j] * values[r * n + j])));
        const expectedDx = all.map((i) => {
          const r = Math.floor(i / n);
          return inv[r] * w[i % n] * g[i] - (values[i] * inv[r] ** 3 * dots[r]) / n;
        });
        // With one element or tiny rows the two terms nearly cancel, at the size of inverse.
        const size = Math.max(1, ...inv);
        expect(firstDifference(valuesOf(dx), expectedDx, 3e-6 * size, 1e-5)).toBeNull();
        const expectedWeight = w.map((_, j) => sum(inv.map((v, r) => values[r * n + j] * v * g[r * n + j])));
        expect(firstDifference(valuesOf(dWeight), expectedWeight, 2e-5, 1e-5)).toBeNull();
        // Each alone gives the same.
        const [dx2, dWeight2] = [outputOf(wasm, "float32", [rows, n]), outputOf(wasm, "float32", [n])];
        wasm.fused.rmsNormBackward(x, weight, inverse, dy, dx2, null);
        wasm.fused.rmsNormBackward(x, weight, inverse, dy, null, dWeight2);
        expect(valuesOf(dx2)).toEqual(valuesOf(dx));
        expect(valuesOf(dWeight2)).toEqual(valuesOf(dWeight));
        free(x, weight, dy, out, dx, inverse, dWeight, dx2, dWeight2);
      }),
      { numRuns: 40 },
    );
  });
});

describe("layerNorm", () => {
  it("and its gradients", () => {
    const manyRows = fc.tuple(
      fc.oneof(fc.integer({ min: 0, max: 9 }), fc.constantFrom(32, 33, 100)),
      fc.oneof(fc.integer({ min: 2, max: 70 }), fc.constantFrom(512, 515, 1030)),
      fc.nat(),
    );
    fc.assert(
      fc.property(manyRows, ([rows, n, seed]) => {
        const { x, values } = random([rows, n], seed);
        const { x: weight, values: w } = random([n], seed + 1);
        const { x: bias, values: shift } = random([n], seed + 2);
        const { x: dy, values: g } = random([rows, n], seed + 3);
        const [out, dx, dx2] = [0, 1, 2].map(() => outputOf(wasm, "float32", [rows, n]));
        const [mean, inverse] = [0, 1].map(() => outputOf(wasm, "float32", [rows]));
        const [dWeight, dBias, dWeight2, dBias2] = [0, 1, 2, 3].map(() => outputOf(wasm, "float32", [n]));
        const eps = 1e-3;
        wasm.fused.layerNorm(x, weight, bias, eps, out, mean, inverse);
        wasm.fused.layerNormBackward(x, weight, mean, inverse, dy, dx, dWeight, dBias);
        const expected = { out: [] as number[], dx: [] as number[], size: 1 };
        const expectedWeight = new Array<number>(n).fill(0);
        const expectedBias = new Array<number>(n).fill(0);
        for (let r = 0; r < rows; r++) {
          const row = values.slice(r * n, (r + 1) * n);
          const d = g.slice(r * n, (r + 1) * n);
          const average = sum(row) / n;
          const inv = 1 / Math.sqrt(sum(row.map((v) => (v - average) ** 2)) / n + eps);
          const standard = row.map((v) => (v - average) * inv);
          const pulled = d.map((v, j) => v * w[j]);
          const [plain, along] = [sum(pulled) / n, sum(pulled.map((v, j) => v * standard[j])) / n];
          expected.out.push(...standard.map((v, j) => v * w[j] + shift[j]));
          expected.dx.push(...pulled.map((v, j) => inv * (v - plain - standard[j] * along)));
          expected.size = Math.max(expected.size, inv);
          for (const [j, v] of standard.entries()) {
            expectedWeight[j] += v * d[j];
            expectedBias[j] += d[j];
          }
        }
        // The mean is rounded to float32 before it is subtracted, at the size of inverse.
        expect(firstDifference(valuesOf(out), expected.out, 1e-6 * expected.size, 1e-6)).toBeNull();
        expect(firstDifference(valuesOf(dx), expected.dx, 5e-6 * expected.size, 1e-5)).toBeNull();
        expect(firstDifference(valuesOf(dWeight), expectedWeight, 3e-5 * expected.size, 1e-5)).toBeNull();
        expect(firstDifference(valuesOf(dBias), expectedBias, 2e-5, 1e-5)).toBeNull();
        // Each alone gives the same.
        wasm.fused.layerNormBackward(x, weight, mean, inverse, dy, dx2, null, null);
        wasm.fused.layerNormBackward(x, weight, mean, inverse, dy, null, dWeight2, null);
        wasm.fused.layerNormBackward(x, weight, mean, inverse, dy, null, null, dBias2);
        expect(valuesOf(dx2)).toEqual(valuesOf(dx));
        expect(valuesOf(dWeight2)).toEqual(valuesOf(dWeight));
        expect(valuesOf(dBias2)).toEqual(valuesOf(dBias));
        free(x, weight, bias, dy, out, dx, dx2, mean, inverse, dWeight, dBias, dWeight2, dBias2);
      }),
      { numRuns: 40 },
    );
  });
});

describe("rope", () => {
  it.each([1, -1] as const)("turns by the angle times %i", (sign) => {
    const extent = fc.integer({ min: 0, max: 3 });
    fc.assert(
      fc.property(
        extent,
        extent,
        fc.integer({ min: 0, max: 5 }),
        fc.integer({ min: 0, max: 11 }),
        fc.boolean(),
        fc.nat(),
        (batch, heads, length, half, interleaved, seed) => {
          const depth = 2 * half;
          const plain = contiguousView([batch, heads, length, depth]);
          const view: View = interleaved
            ? { ...plain, strides: [length * heads * depth, depth, heads * depth, 1] }
            : plain;
          const next = randomizer(seed);
          const x = operandOf(wasm, "float32", view, () => next() - 0.5);
          const { x: cos, values: c } = random([length, half], seed + 1, 1);
          const { x: sin, values: s } = random([length, half], seed + 2, 1);
          const out = outputOf(wasm, "float32", plain);
          wasm.fused.rope(x, cos, sin, sign, out);
          const all = storageOf(wasm, x);
          const expected: number[] = [];
          for (let b = 0; b < batch; b++) {
            for (let h = 0; h < heads; h++) {
              for (let t = 0; t < length; t++) {
                for (let d = 0; d < depth; d++) {
                  const at = (i: number) =>
                    all[b * view.strides[0] + h * view.strides[1] + t * view.strides[2] + i];
                  const [i, angle] = [d % half, t * half + (d % half)];
                  expected.push(
                    d < half
                      ? at(i) * c[angle] - sign * at(i + half) * s[angle]
                      : at(i + half) * c[angle] + sign * at(i) * s[angle],
                  );
                }
              }
            }
          }
          expect(firstDifference(valuesOf(out), expected, 1e-6, 0)).toBeNull();
          free(x, cos, sin, out);
        },
      ),
      { numRuns: 60 },
    );
  });
});

describe("swiglu", () => {
  it("and its gradients", () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.integer({ min: 0, max: 50 }), fc.constantFrom(8192, 8193, 20003)),
        fc.nat(),
        (n, seed) => {
          const { x: gate, values: g } = random([n], seed, 10);
          const { x: up, values: u } = random([n], seed + 1);
          const { x: dy, values: d } = random([n], seed + 2);
          const [out, dGate, dUp, alone] = [0, 1, 2, 3].map(() => outputOf(wasm, "float32", [n]));
          wasm.fused.swiglu(gate, up, out);
          wasm.fused.swigluBackward(gate, up, dy, dGate, dUp);
          const s = g.map((v) => 1 / (1 + Math.exp(-v)));
          expect(
            firstDifference(
              valuesOf(out),
              s.map((v, i) => g[i] * v * u[i]),
              1e-7,
              1e-6,
            ),
          ).toBeNull();
          expect(
            firstDifference(
              valuesOf(dUp),
              s.map((v, i) => d[i] * g[i] * v),
              1e-7,
              1e-6,
            ),
          ).toBeNull();
          expect(
            firstDifference(
              valuesOf(dGate),
              s.map((v, i) => d[i] * u[i] * v * (1 + g[i] * (1 - v))),
              2e-6,
              1e-6,
            ),
          ).toBeNull();
          wasm.fused.swigluBackward(gate, up, dy, alone, null);
          expect(valuesOf(alone)).toEqual(valuesOf(dGate));
          wasm.fused.swigluBackward(gate, up, dy, null, alone);
          expect(valuesOf(alone)).toEqual(valuesOf(dUp));
          free(gate, up, dy, out, dGate, dUp, alone);
        },
      ),
      { numRuns: 30 },
    );
  });
});

describe("adamw", () => {
  it("takes the step of the formula", () => {
    for (const n of [0, 1, 3, 4, 7, 1000, 8192, 8195]) {
      const [p, g, m] = [1, 2, 3].map((seed) => random([n], seed + n));
      const v = operandOf(wasm, "float32", contiguousView([n]), (i) => (i % 13) / 10);
      const before = valuesOf(v);
      const o = {
        learningRate: 1e-2,
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-8,
        weightDecay: 0.1,
        biasCorrection1: 1 - 0.9 ** 3,
        biasCorrection2: 1 - 0.99 ** 3,
        gradientScale: 0.5,
      };
      wasm.fused.adamw([{ parameter: p.x, gradient: g.x, m: m.x, v, options: o }]);
      const grad = g.values.map((x) => x * o.gradientScale);
      const m1 = m.values.map((x, i) => o.beta1 * x + (1 - o.beta1) * grad[i]);
      const v1 = before.map((x, i) => o.beta2 * x + (1 - o.beta2) * grad[i] ** 2);
      const p1 = p.values.map((x, i) => {
        const step = m1[i] / o.biasCorrection1 / (Math.sqrt(v1[i] / o.biasCorrection2) + o.epsilon);
        return x - o.learningRate * o.weightDecay * x - o.learningRate * step;
      });
      expect(firstDifference(valuesOf(m.x), m1, 1e-7, 1e-6)).toBeNull();
      expect(firstDifference(valuesOf(v), v1, 1e-7, 1e-6)).toBeNull();
      expect(firstDifference(valuesOf(p.x), p1, 1e-6, 2e-6)).toBeNull();
      free(p.x, g.x, m.x, v);
    }
  });
});

it("leaves no memory behind", () => {
  expect(wasm.memory().used).toBe(0);
});
