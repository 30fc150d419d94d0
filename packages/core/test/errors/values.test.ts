// Wrong values of the right type, for every number that a public function takes: a size, an axis, a position, a probability, a rate.
// Each ends in an error of our own that names the function and the number; and a number of each kind that is right does not.

import { describe, expect, test } from "vitest";
import * as nm from "../../src/index.js";
import * as nn from "../../src/nn/index.js";
import * as optim from "../../src/optim/index.js";
import { calls } from "./values.js";

class Wrong {
  constructor(
    readonly good: number,
    readonly wrong: readonly number[],
  ) {}
}

type Callable = (...parameters: unknown[]) => unknown;

/** `value` with the number at place `index` (counted through all nested lists and options) taken from its wrong ones. */
function fill(value: unknown, choose: (number: Wrong) => number): unknown {
  if (value instanceof Wrong) return choose(value);
  if (Array.isArray(value)) return value.map((item) => fill(item, choose));
  if (typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype)
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, fill(item, choose)]));
  return value;
}

const modules: Record<string, unknown> = { ...nm, ...nn, ...optim };

function functionOf(path: string): [Callable, owner: unknown] {
  const [first, second] = path.split(".");
  const owner = modules[first] as Record<string, Callable> & Callable;
  return second ? [owner[second], owner] : [owner, undefined];
}

function run(path: string, parameters: unknown[]): unknown {
  const [fn, owner] = functionOf(path);
  if (/^[A-Z]/.test(path) && !path.includes("."))
    return new (fn as unknown as new (...p: unknown[]) => unknown)(...parameters);
  return fn.apply(owner, parameters);
}

/** Runs `path`, and frees what modules and optimizers keep. */
function attempt(path: string, make: () => unknown[], choose: (number: Wrong) => number): void {
  nm.tidy(() => {
    const parameters = fill(make(), choose) as unknown[];
    try {
      const result = run(path, parameters);
      if (result instanceof nn.Module || result instanceof optim.Optimizer) result.dispose();
    } finally {
      const [list] = parameters;
      if (Array.isArray(list)) for (const each of list) if (each instanceof nm.Tensor) each.dispose();
    }
  });
}

const list = Object.entries(calls(Wrong)).flatMap(([path, makes]) =>
  makes.map((make, i) => [path, i, make] as const),
);

describe("wrong values", () => {
  test.each(list)("of %s (%i)", (path, _, make) => {
    const before = nm.memoryStats().tensors;
    const numbers: Wrong[] = [];
    attempt(path, make, (number) => {
      numbers.push(number);
      return number.good;
    });
    expect(numbers.length).toBeGreaterThan(0);
    numbers.forEach((tried, place) => {
      for (const wrong of tried.wrong) {
        const label = `${path}: number ${place} = ${wrong}`;
        let at = 0;
        let error: unknown;
        try {
          attempt(path, make, (number) => (at++ === place ? wrong : number.good));
        } catch (thrown) {
          error = thrown;
        }
        expect(error, label).toBeInstanceOf(nm.NomoatError);
        const { message } = error as Error;
        expect(message, label).toContain(String(wrong));
        expect(message.toLowerCase(), label).toMatch(/^[\w.]+: /);
      }
    });
    expect(nm.memoryStats().tensors, "tensors left behind").toBe(before);
  });

  // More than a typed array or the backend's memory holds: refused before anything is filled.
  const enormous: Record<string, () => unknown> = {
    zeros: () => nm.zeros([2 ** 40]),
    arange: () => nm.arange(2 ** 40),
    linspace: () => nm.linspace(0, 1, 2 ** 40),
    eye: () => nm.eye(2 ** 20),
    randn: () => nm.randn([2 ** 20, 2 ** 20]),
    repeat: () => nm.repeat(nm.ones([2]), 2 ** 40),
    tile: () => nm.tile(nm.ones([2]), 2 ** 40),
    pad: () => nm.pad(nm.ones([2]), [[2 ** 40, 0]]),
    oneHot: () => nm.oneHot(nm.zeros([1], { dtype: "int32" }), 2 ** 40),
    add: () => nm.add(nm.expand(nm.ones([1]), [2 ** 40]), 1),
    outer: () => nm.outer(nm.expand(nm.ones([1]), [2 ** 20]), nm.expand(nm.ones([1]), [2 ** 20])),
    multinomial: () => nm.multinomial(nm.ones([2]), 2 ** 40, { replacement: true }),
    scatterAdd: () => nm.scatterAdd(2 ** 40, nm.zeros([1], { dtype: "int32" }), nm.ones([1])),
    adaptiveAvgPool1d: () => nm.adaptiveAvgPool1d(nm.ones([1, 1, 3]), 2 ** 40),
  };
  test.each(Object.entries(enormous))("of %s: what no memory holds", (_, run) => {
    const before = nm.memoryStats();
    expect(() => nm.tidy(run)).toThrow(nm.OutOfMemoryError);
    const after = nm.memoryStats();
    expect([after.tensors, after.bytes]).toEqual([before.tensors, before.bytes]);
  });

  test("are tried of every function that takes a number", () => {
    const tried = new Set(Object.keys(calls(Wrong)).map((path) => path.split(".")[0]));
    // Numbers stand for tensors here, or mean nothing by themselves.
    const others =
      /^(add|sub|mul|div|pow|minimum|maximum|floorDivide|remainder|bitwise\w+|shift\w+|(not)?equal|(less|greater)(Equal)?|where|\w+_)$/i;
    const without =
      /^(neg|abs|sign|r?sqrt|exp|expm1|log\w*|sin|cos|tanh|erf|sigmoid|silu|softplus|relu|square|reciprocal|floor|ceil|round|trunc|gelu|is\w+|clone|cast|nonzero|unique|swiglu|dot|outer|bmm|linear|matmul|einsum|embedding|gather|mse|bceWithLogits|klDivergence|groupedMatmul|weighted\w+|rope|alias|meshgrid)$/;
    const missing = Object.keys(nm).filter(
      (name) =>
        typeof modules[name] === "function" &&
        /^[a-z]/.test(name) &&
        !tried.has(name) &&
        !others.test(name) &&
        !without.test(name),
    );
    // What takes no number either, and what other packages alone call.
    const rest =
      "anomalyMode grad gradientsOf valueAndGrad checkpoint defineFunction gradcheck enableGrad noGrad activeBackend init shutdown withBackend toBuffer zerosLike onesLike bytesPerElement isFloat promote keep memoryStats resetPeakMemory tidy defaultGenerator";
    expect(missing.filter((name) => !rest.split(" ").includes(name))).toEqual([]);
  });
});
