// checkOp for a backend that is read asynchronously: values, gradients and gradients of gradients against the float64 oracle, in
// every layout.

import { expect } from "vitest";
import { memoryStats, type Tensor, tensor } from "../../src/index.js";
import {
  gradientField,
  gradientFieldInputs,
  layoutNames,
  leafOf,
  type OpCase,
  viewOf,
  weights,
} from "../support/check-op.js";
import { disposeAll, expectClose, rounding } from "../support/numbers.js";

interface Outcome {
  readonly shape: readonly number[];
  readonly output: ArrayLike<number>;
  readonly gradients: readonly ArrayLike<number>[];
}

const oracle = { device: "reference", dtype: "float64" } as const;
const gpu = { device: "gpu", dtype: "float32" } as const;

async function run(
  { name, fn, inputs, options }: OpCase,
  place: typeof oracle | typeof gpu,
  layout: string,
): Promise<Outcome> {
  const { tensors, storages, bytes } = memoryStats();
  const differentiate = options.gradient ?? true;
  const leaves = inputs.map((input) => leafOf(input, layout, place, differentiate));
  const views = leaves.map((leaf, i) => viewOf(leaf, inputs[i], layout));
  const output = fn(...views);
  const { shape } = output;
  if (differentiate && output.requiresGrad) {
    const dy = tensor(weights(output.size), { ...place, shape });
    output.backward(dy);
    dy.dispose();
  }
  const values = await output.data();
  const gradients: ArrayLike<number>[] = [];
  for (const leaf of leaves) {
    if (leaf.requiresGrad) gradients.push(leaf.grad ? await leaf.grad.data() : new Float64Array(leaf.size));
  }
  disposeAll(output, ...views, ...leaves);
  const after = memoryStats();
  expect(
    { tensors: after.tensors, storages: after.storages, bytes: after.bytes },
    `${name}, ${layout}: live memory`,
  ).toEqual({ tensors, storages, bytes });
  return { shape, output: values, gradients };
}

async function compare(given: OpCase, layout: string, tolerance: number): Promise<void> {
  const expected = await run(given, oracle, layout);
  const actual = await run(given, gpu, layout);
  expect(actual.shape, `${given.name}, ${layout}: shape`).toEqual(expected.shape);
  expectClose(actual.output, expected.output, tolerance, `${given.name}, ${layout}: output`);
  expected.gradients.forEach((gradient, i) => {
    expectClose(actual.gradients[i], gradient, tolerance, `${given.name}, ${layout}: gradient ${i}`);
  });
}

/** Checks an operation on the started gpu backend, in `layouts` (default all). */
export async function checkOnGpu(given: OpCase, layouts: readonly string[] = layoutNames): Promise<void> {
  const tolerance = given.options.float32 ?? rounding.float32;
  for (const layout of layouts) await compare(given, layout, tolerance);
  if (given.options.gradient ?? true) {
    const twice: OpCase = {
      ...given,
      name: `${given.name}, twice`,
      fn: gradientField(given.fn) as (...inputs: Tensor[]) => Tensor,
      inputs: gradientFieldInputs(given),
    };
    await compare(twice, "contiguous", given.options.float32Second ?? 10 * tolerance);
  }
}
