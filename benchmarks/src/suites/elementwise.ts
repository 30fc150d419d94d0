// Elementwise operations, reductions, and the fused kernels over rows: what is bound by memory rather than by arithmetic.

import {
  add,
  bytesPerElement,
  exp,
  mul,
  noGrad,
  rmsNorm,
  rope,
  silu,
  softmax,
  sum,
  swiglu,
  type Tensor,
  tensor,
  tidy,
} from "@nomoat/core";
import { AdamW } from "@nomoat/core/optim";
import { spreadOver } from "../accuracy.js";
import type { Prepared, Work } from "../model.js";
import { compareForward } from "../reference.js";
import {
  type Case,
  dtypesOf,
  type FloatDtype,
  movement,
  rounding,
  type Suite,
  seeded,
  sizesOf,
  stored,
  suffixOf,
} from "./suite.js";

interface Operation {
  readonly name: string;
  /** float32 values read or written, as multiples of the elements. */
  readonly streams: number;
  /** Arithmetic operations an element, roughly. */
  readonly operations: number;
  readonly tolerance: number;
  inputs(count: number): Tensor[];
  compute(inputs: readonly Tensor[]): Tensor;
  /** The axis of each input, and of the result, along which a part can be computed alone; the first where none is named. */
  readonly axes?: readonly number[];
}

/** A few units in the last place of float32. */
const fewUlp = 1e-6;
/** Polynomials of exp and its kin, a few units in the last place each, and sums over a row. */
const rowTolerance = 5e-6;
const columns = 512;
const headDim = 64;

const rows = (name: string, count: number): Tensor =>
  seeded(name, [Math.max(1, count / columns), columns], -4, 4);

const operations: readonly Operation[] = [
  {
    ...{ name: "add", streams: 3, operations: 1, tolerance: fewUlp },
    inputs: (count) => [rows("a", count), rows("b", count)],
    compute: ([a, b]) => add(a, b),
  },
  {
    ...{ name: "multiply by a row", streams: 2, operations: 1, tolerance: fewUlp },
    inputs: (count) => [rows("a", count), seeded("b", [columns])],
    compute: ([a, b]) => mul(a, b),
  },
  {
    ...{ name: "exp", streams: 2, operations: 16, tolerance: fewUlp },
    inputs: (count) => [rows("a", count)],
    compute: ([a]) => exp(a),
  },
  {
    ...{ name: "silu", streams: 2, operations: 20, tolerance: fewUlp },
    inputs: (count) => [rows("a", count)],
    compute: ([a]) => silu(a),
  },
  {
    ...{ name: "swiglu", streams: 3, operations: 21, tolerance: fewUlp },
    inputs: (count) => [rows("gate", count), rows("up", count)],
    compute: ([gate, up]) => swiglu(gate, up),
  },
  {
    ...{ name: "sum of rows", streams: 1, operations: 1, tolerance: rowTolerance },
    inputs: (count) => [rows("a", count)],
    compute: ([a]) => sum(a, -1),
  },
  {
    ...{ name: "softmax", streams: 2, operations: 20, tolerance: rowTolerance },
    inputs: (count) => [rows("a", count)],
    compute: ([a]) => softmax(a, -1),
  },
  {
    ...{ name: "rmsNorm", streams: 2, operations: 4, tolerance: rowTolerance },
    inputs: (count) => [rows("a", count), seeded("weight", [columns])],
    compute: ([a, weight]) => rmsNorm(a, weight),
  },
  {
    ...{ name: "rope", streams: 2, operations: 3, tolerance: fewUlp },
    inputs: (count) => {
      const length = Math.max(1, count / (8 * headDim));
      const angles = [length, headDim / 2];
      return [
        seeded("x", [1, 8, length, headDim]),
        seeded("cos", angles, -1, 1),
        seeded("sin", angles, -1, 1),
      ];
    },
    compute: ([x, cos, sin]) => rope(x, cos, sin),
    axes: [2, 0, 0],
  },
];

/** Rows, or positions, that are compared with the reference. */
const mostParts = 256;

/** The chosen places of an axis, as a new tensor. */
function take(x: Tensor, axis: number, chosen: readonly number[]): Tensor {
  const values = x.dataSync() as Float32Array;
  const inner = x.shape.slice(axis + 1).reduce((product, extent) => product * extent, 1);
  const outer = x.shape.slice(0, axis).reduce((product, extent) => product * extent, 1);
  const taken = new Float32Array(outer * chosen.length * inner);
  for (let i = 0, at = 0; i < outer; i++) {
    for (const place of chosen) {
      const start = (i * x.shape[axis] + place) * inner;
      taken.set(values.subarray(start, start + inner), at);
      at += inner;
    }
  }
  return tensor(taken, { shape: [...x.shape.slice(0, axis), chosen.length, ...x.shape.slice(axis + 1)] });
}

function workOf({ streams, operations: each }: Operation, count: number, dtype: FloatDtype): Work {
  return movement(bytesPerElement(dtype) * streams * count, each * count);
}

function prepare(operation: Operation, count: number, dtype: FloatDtype): Prepared {
  // What all rows share stays as it is, as weights of norms and angles do.
  const inputs = operation.inputs(count).map((x) => (x.size === count ? stored(x, dtype) : x));
  const call = (): Tensor => noGrad(() => operation.compute(inputs));
  return {
    run: () => call().dispose(),
    verify: () =>
      tidy(() => {
        const { axes = [], tolerance } = operation;
        const chosen = spreadOver(inputs[0].shape[axes[0] ?? 0], mostParts);
        return compareForward(
          take(call(), axes[0] ?? 0, chosen),
          // What all rows share is taken whole.
          inputs.map((x, i) => (x.rank === 1 ? x : take(x, axes[i] ?? 0, chosen))),
          (given) => operation.compute(given),
          // Rounded when it is stored, and once or twice on the way.
          tolerance + 2 * rounding[dtype],
          `elementwise ${operation.name} ${count} ${dtype}`,
        );
      }),
    dispose() {
      for (const x of inputs) x.dispose();
    },
  };
}

const adamw = { learningRate: 1e-3, betas: [0.9, 0.999] as const, epsilon: 1e-8, weightDecay: 0.01 };

/** One step of AdamW, which reads four values and writes three for each parameter. */
function prepareAdamW(count: number): Prepared {
  const step = (parameter: Tensor, gradient: Tensor): AdamW => {
    parameter.requiresGrad = true;
    parameter.grad = gradient;
    return new AdamW([parameter], adamw);
  };
  const parameter = seeded("parameter", [count / columns, columns]);
  const gradient = seeded("gradient", [count / columns, columns]);
  const before = parameter.clone();
  before.requiresGrad = false;
  const optimizer = step(parameter, gradient);
  return {
    run: () => optimizer.step(),
    // One call was made: compare with the first step.
    verify: () =>
      tidy(() => {
        const chosen = spreadOver(parameter.shape[0], mostParts);
        const [result, ...given] = [parameter, before, gradient].map((x) => take(x, 0, chosen));
        const compute = ([p, g]: Tensor[]): Tensor => {
          step(p, g).step();
          return p;
        };
        return compareForward(result, given, compute, fewUlp, `AdamW ${count}`);
      }),
    dispose() {
      optimizer.dispose();
      for (const x of [parameter, gradient, before]) x.dispose();
    },
  };
}

function adamwCase(described: Pick<Case, "suite" | "name" | "parameters">, count: number): Case {
  return { ...described, work: movement(28 * count, 14 * count), prepare: () => prepareAdamW(count) };
}

export const elementwise: Suite = {
  name: "elementwise",
  about: "elementwise operations, reductions, softmax, norm, rope, AdamW, by number of elements",
  cases(sweep): Case[] {
    const sizes = sizesOf(sweep, {
      quick: [1 << 14, 1 << 20],
      standard: [1 << 12, 1 << 16, 1 << 20, 1 << 23],
    });
    const sweeps = dtypesOf(sweep, ["float32"]).flatMap((dtype) => sizes.map((size) => ({ dtype, size })));
    return sweeps.flatMap(({ dtype, size }) => {
      const count = Math.max(columns, Math.round(size / columns) * columns);
      const describe = (name: string): Pick<Case, "suite" | "name" | "parameters"> => ({
        suite: "elementwise",
        name: `${name} ${count}${suffixOf(dtype)}`,
        parameters: { operation: name, elements: count, ...(dtype !== "float32" && { dtype }) },
      });
      return [
        ...operations.map((operation) => ({
          ...describe(operation.name),
          work: workOf(operation, count, dtype),
          prepare: () => prepare(operation, count, dtype),
        })),
        // Parameters that are trained are float32.
        ...(dtype === "float32" ? [adamwCase(describe("AdamW"), count)] : []),
      ];
    });
  },
};
