// checkOp: the laws that every operation obeys, on every backend. One call an operation.

import { expect } from "vitest";
import type { GraphNode } from "../../src/autograd/graph.js";
import {
  type CreationOptions,
  concat,
  enableGrad,
  expand,
  flatten,
  gradcheck,
  gradientsOf,
  isFloat,
  mul,
  permute,
  slice,
  sum,
  type Tensor,
  tensor,
  tidy,
} from "../../src/index.js";
import { oracle, type Subject } from "./backends.js";
import { disposeAll, expectClose, expectNoLeak, random, rounding, values } from "./numbers.js";

/** An operand: shape, values, and whether the operation has a gradient for it. */
export interface Input {
  readonly shape: readonly number[];
  readonly values: readonly number[];
  readonly dtype?: "int32" | "bool";
}

export interface OpOptions {
  /** False for operations without a gradient. */
  readonly gradient?: boolean;
  /** float32 rounding instead of the usual, with a reason where it is given. */
  readonly float32?: number;
  /** float32 rounding of gradients of gradients. */
  readonly float32Second?: number;
  /** Where finite differences are too rough: a larger tolerance, with a reason where it is given. */
  readonly numeric?: number;
}

export interface OpCase {
  readonly name: string;
  readonly fn: (...inputs: Tensor[]) => Tensor;
  readonly inputs: readonly Input[];
  readonly options: OpOptions;
}

export function op(
  name: string,
  fn: (...inputs: Tensor[]) => Tensor,
  inputs: readonly Input[],
  options: OpOptions = {},
): OpCase {
  return { name, fn, inputs, options };
}

type Index = readonly number[];

interface Placement {
  /** Shape of the leaf, for an operand of `shape`. */
  base(shape: Index): number[];
  /** Where in the leaf the operand's element `index` stands. */
  at(index: Index, shape: Index): number[];
  /** The operand, as a view of the leaf. */
  view(leaf: Tensor, shape: Index): Tensor;
}

/** Ways to lay an operand out. The operand's values are the same in all of them, but for `expanded`, which repeats one row. */
const layouts: Readonly<Record<string, Placement>> = {
  contiguous: { base: (shape) => [...shape], at: (index) => [...index], view: (leaf) => leaf },
  permuted: {
    base: (shape) => [...shape].reverse(),
    at: (index) => [...index].reverse(),
    view: (leaf) =>
      permute(
        leaf,
        leaf.shape.map((_, i) => leaf.rank - 1 - i),
      ),
  },
  // Every second element of the inner part: an offset, and strides other than those of the shape.
  sliced: {
    base: (shape) => shape.map((extent) => 2 * extent + 1),
    at: (index) => index.map((i) => 2 * i + 1),
    view: (leaf, shape) => slice(leaf, ...shape.map((extent) => [1, 2 * extent, 2] as const)),
  },
  flipped: {
    base: (shape) => [...shape],
    at: (index, shape) => index.map((i, axis) => shape[axis] - 1 - i),
    view: (leaf) => slice(leaf, ...leaf.shape.map(() => [null, null, -1] as const)),
  },
  // The first axis repeats one row: stride 0.
  expanded: {
    base: (shape) => shape.map((extent, axis) => (axis === 0 ? Math.min(1, extent) : extent)),
    at: (index) => index.map((i, axis) => (axis === 0 ? 0 : i)),
    view: (leaf, shape) => expand(leaf, shape),
  },
};

export const layoutNames = Object.keys(layouts);

const product = (shape: Index): number => shape.reduce((size, extent) => size * extent, 1);

/** Position of `index` in row-major order. */
const position = (index: Index, shape: Index): number =>
  index.reduce((at, i, axis) => at * shape[axis] + i, 0);

/** Every index of `shape` in row-major order. */
function indicesOf(shape: Index): number[][] {
  return Array.from({ length: product(shape) }, (_, flat) => {
    const index = new Array<number>(shape.length);
    for (let axis = shape.length - 1, rest = flat; axis >= 0; axis--) {
      index[axis] = rest % shape[axis];
      rest = Math.floor(rest / shape[axis]);
    }
    return index;
  });
}

/** The leaf that shows `input` in the given layout. */
export function leafOf(
  input: Input,
  layout: string,
  options: CreationOptions,
  requiresGrad: boolean,
): Tensor {
  const { base, at } = layouts[layout];
  const shape = base(input.shape);
  const data = new Float64Array(product(shape));
  // Descending, so that of repeated rows the first stays.
  for (const index of indicesOf(input.shape).reverse()) {
    data[position(at(index, input.shape), shape)] = input.values[position(index, input.shape)];
  }
  return tensor(data, {
    ...options,
    dtype: input.dtype ?? options.dtype,
    shape,
    requiresGrad: requiresGrad && !input.dtype,
  });
}

export function viewOf(leaf: Tensor, input: Input, layout: string): Tensor {
  return layouts[layout].view(leaf, input.shape);
}

interface Outcome {
  readonly shape: readonly number[];
  readonly output: ArrayLike<number>;
  readonly gradients: readonly ArrayLike<number>[];
  readonly operations: ReadonlySet<string>;
}

/** The names of all operations recorded before `output`. */
export function recordedOperations(output: Tensor): Set<string> {
  const names = new Set<string>();
  const seen = new Set<GraphNode>();
  const queue = output.node ? [output.node] : [];
  for (let node = queue.pop(); node; node = queue.pop()) {
    if (seen.has(node)) continue;
    seen.add(node);
    names.add(node.operation);
    for (const edge of node.edges) if (edge?.node) queue.push(edge.node);
  }
  return names;
}

/** A fixed weight for each output, so that gradients cannot cancel. */
export function weights(size: number): number[] {
  return values(size, 77, (next) => next() * 2 - 0.7);
}

/** Runs the operation once, forward and back, and frees what it made by hand: what is left over has leaked. */
function run({ name, fn, inputs, options }: OpCase, subject: Subject, layout: string): Outcome {
  return expectNoLeak(`${name}, ${layout}`, () => {
    const creation = { device: subject.device, dtype: subject.dtype };
    const differentiate = options.gradient ?? true;
    const leaves = inputs.map((input) => leafOf(input, layout, creation, differentiate));
    const views = leaves.map((leaf, i) => viewOf(leaf, inputs[i], layout));
    const output = fn(...views);
    const result = { shape: output.shape, output: output.dataSync(), operations: recordedOperations(output) };
    const gradients: ArrayLike<number>[] = [];
    if (differentiate) {
      const dy = tensor(weights(output.size), { ...creation, shape: output.shape });
      // A gradient that does not depend on its inputs (of a step function) is not recorded.
      if (output.requiresGrad) output.backward(dy);
      dy.dispose();
      for (const leaf of leaves) {
        if (!leaf.requiresGrad) continue;
        // No gradient stands for zero; finite differences tell whether it is.
        if (leaf.grad) expect(leaf.grad.shape, `${name}: shape of the gradient`).toEqual(leaf.shape);
        gradients.push(leaf.grad?.dataSync() ?? new Float64Array(leaf.size));
      }
    }
    output.dispose();
    disposeAll(...views, ...leaves);
    return { ...result, gradients };
  });
}

/** The gradient of `fn`, all inputs' in one vector, as a function of dy and the inputs that can itself be differentiated. */
export function gradientField(fn: OpCase["fn"]): (...inputs: Tensor[]) => Tensor {
  return (dy, ...inputs) =>
    enableGrad(() =>
      tidy(() => {
        for (const input of inputs) if (isFloat(input.dtype) && input.isLeaf) input.requiresGrad = true;
        const wanted = inputs.filter((input) => input.requiresGrad);
        const gradients = gradientsOf(fn(...inputs), wanted, { gradients: [dy], createGraph: true });
        return concat(gradients.map((gradient) => flatten(gradient)));
      }),
    );
}

export function gradientFieldInputs({ fn, inputs }: OpCase): Input[] {
  const shape = tidy(
    () => fn(...inputs.map((input) => leafOf(input, "contiguous", oracleOptions, false))).shape,
  );
  return [{ shape, values: weights(product(shape)) }, ...inputs];
}

const oracleOptions = { device: oracle.device, dtype: oracle.dtype };

/** Gradients against finite differences in float64: of a plain leaf, through negative strides, through repeated rows. */
function checkNumerically({ name, fn, inputs, options }: OpCase): void {
  const limits = { absolute: options.numeric ?? 1e-7, relative: options.numeric ?? 1e-6 };
  for (const layout of ["contiguous", "flipped", "expanded"]) {
    expectNoLeak(`${name}: gradcheck`, () =>
      tidy(() => {
        const leaves = inputs.map((input) => leafOf(input, layout, oracleOptions, true));
        gradcheck((...given) => fn(...given.map((x, i) => viewOf(x, inputs[i], layout))), leaves, limits);
      }),
    );
  }
}

/** Gradients of gradients: finite differences in float64, or against the oracle's where there is no float64. */
function checkSecondOrder(given: OpCase, subject: Subject): ReadonlySet<string> {
  const { name, options } = given;
  const inputs = gradientFieldInputs(given);
  const second: OpCase = { name: `${name}, twice`, fn: gradientField(given.fn), inputs, options };
  if (subject === oracle) {
    tidy(() => {
      const leaves = inputs.map((input) => leafOf(input, "contiguous", oracleOptions, true));
      gradcheck(second.fn, leaves, { absolute: options.numeric ?? 1e-6, relative: options.numeric ?? 1e-5 });
    });
  }
  const tolerance = options.float32Second ?? 10 * (options.float32 ?? rounding.float32);
  return compare(second, subject, "contiguous", subject.dtype === "float32" ? tolerance : rounding.float64)
    .operations;
}

function compare(given: OpCase, subject: Subject, layout: string, tolerance: number): Outcome {
  const expected = run(given, oracle, layout);
  const actual = run(given, subject, layout);
  expect(actual.shape, `${given.name}, ${layout}: shape`).toEqual(expected.shape);
  expectClose(actual.output, expected.output, tolerance, `${given.name}, ${layout}: output`);
  expected.gradients.forEach((gradient, i) => {
    expectClose(actual.gradients[i], gradient, tolerance, `${given.name}, ${layout}: gradient ${i}`);
  });
  return actual;
}

/**
 * What else uses the operands adds to their gradients, whichever comes first: rules may write into a gradient that is there already. Of a
 * sum of the operands, which is walked before the operation, that is 1.
 */
function checkAdding({ name, fn, inputs }: OpCase, subject: Subject, tolerance: number): void {
  const once = (also: boolean): ArrayLike<number>[] =>
    expectNoLeak(`${name}: adding`, () =>
      tidy(() => {
        const creation = { device: subject.device, dtype: subject.dtype };
        const leaves = inputs.map((input) => leafOf(input, "contiguous", creation, true));
        const shared = leaves.map((leaf) => (leaf.requiresGrad ? mul(leaf, 1) : leaf));
        const output = fn(...shared);
        if (!output.requiresGrad) return [];
        const wanted = shared.filter((x) => x.requiresGrad);
        const sums = also ? wanted.map((x) => sum(x)) : [];
        const dy = tensor(weights(output.size), { ...creation, shape: output.shape });
        const gradients = [dy, ...sums.map(() => null)];
        return gradientsOf([output, ...sums], wanted, { gradients }).map((g) => g.dataSync());
      }),
    );
  const alone = once(false);
  once(true).forEach((gradient, i) => {
    const expected = Float64Array.from(alone[i], (value) => value + 1);
    expectClose(gradient, expected, tolerance, `${name}: gradient ${i}, added to another`);
  });
}

/**
 * Checks an operation on a backend: values and gradients against the float64 oracle in every layout, gradients against finite
 * differences, gradients of gradients, sums of gradients, no leak.
 * @returns the operations that were recorded, so that a suite can tell which gradient rules it has checked
 */
export function checkOp(given: OpCase, subject: Subject): Set<string> {
  const operations = new Set<string>();
  const tolerance =
    subject.dtype === "float32" ? (given.options.float32 ?? rounding.float32) : rounding.float64;
  for (const layout of layoutNames) {
    for (const name of compare(given, subject, layout, tolerance).operations) operations.add(name);
  }
  if (given.options.gradient ?? true) {
    if (subject === oracle) checkNumerically(given);
    checkAdding(given, subject, tolerance);
    for (const name of checkSecondOrder(given, subject)) operations.add(name);
  }
  return operations;
}

/** Floats from a named domain. */
function floats(make: (next: () => number) => number) {
  return (...shape: number[]): Input => {
    const size = product(shape);
    return { shape, values: values(size, 1 + shape.length * 131 + size, make) };
  };
}

const normal1 = (next: () => number) => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());

/** Standard normal. */
export const normal = floats(normal1);
/** Within [0.3, 2.3]. */
export const positive = floats((next) => 0.3 + 2 * next());
/** Magnitudes from 0.2 to 2.2, either sign: away from the kinks at 0. */
export const nonzero = floats((next) => (next() < 0.5 ? -1 : 1) * (0.2 + 2 * next()));
/** Between integers: away from the steps of floor, ceil and round. */
export const betweenIntegers = floats((next) => Math.floor(next() * 7 - 3) + 0.1 + 0.3 * next());

/** Distinct values at least 0.25 apart, shuffled: away from ties. */
export function distinct(...shape: number[]): Input {
  const size = product(shape);
  const next = random(size);
  const list = Array.from({ length: size }, (_, i) => (i - size / 2) * 0.25 + 0.125);
  for (let i = size - 1; i > 0; i--) {
    const j = Math.floor(next() * (i + 1));
    [list[i], list[j]] = [list[j], list[i]];
  }
  return { shape, values: list };
}

/** Integers 0 … below−1. */
export function indices(below: number, ...shape: number[]): Input {
  const size = product(shape);
  return { shape, values: values(size, size + below, (next) => Math.floor(next() * below)), dtype: "int32" };
}

export function flags(...shape: number[]): Input {
  const size = product(shape);
  return { shape, values: values(size, size + 5, (next) => (next() < 0.5 ? 0 : 1)), dtype: "bool" };
}

/** Given values. */
export function exactly(shape: number[], list: readonly number[]): Input {
  return { shape, values: list };
}
