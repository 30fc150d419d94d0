// Inputs that have a gradient already when another arrives, leaves or not: what comes twice is twice as much, by every operation. Rules
// may add to gradients in place, and fused ones hand out what they added to.

import { expect, test } from "vitest";
import * as nm from "../../src/index.js";
import { backends, on } from "../support/backends.js";
import { leafOf, type OpCase, weights } from "../support/check-op.js";
import { rounding } from "../support/numbers.js";
import { allCases } from "./cases/index.js";

const differentiable = allCases.filter(({ options }) => options.gradient ?? true);

/** Gradients of the leaves after `times` uses of `inputs`, which are made of them. */
function gradients(
  { fn }: OpCase,
  leaves: readonly nm.Tensor[],
  inputs: readonly nm.Tensor[],
  times: number,
): (number[] | null)[] {
  for (const leaf of leaves) leaf.zeroGrad();
  let total: nm.Tensor | undefined;
  for (let i = 0; i < times; i++) {
    const output = fn(...inputs);
    const { device, dtype, shape, size } = output;
    const sum = nm.sum(nm.mul(output, nm.tensor(weights(size), { device, dtype, shape })));
    total = total ? nm.add(total, sum) : sum;
  }
  if (total?.requiresGrad) total.backward();
  return leaves.map(({ grad }) => grad && Array.from(grad.dataSync(), Number));
}

test.each(backends)("gradients of inputs that are used twice add up ($name)", (subject) => {
  const wrong = new Set<string>();
  for (const each of differentiable) {
    nm.tidy(() => {
      const leaves = each.inputs.map((input) => leafOf(input, "contiguous", on(subject), true));
      if (leaves.length === 0) return;
      const once = gradients(each, leaves, leaves, 1);
      const made = leaves.map((leaf) => (leaf.requiresGrad ? nm.mul(leaf, 1) : leaf));
      for (const inputs of [leaves, made]) {
        const twice = gradients(each, leaves, inputs, 2);
        once.forEach((list, i) => {
          list?.forEach((value, j) => {
            const apart = Math.abs(twice[i]![j] - 2 * value);
            if (!(apart <= 8 * rounding[subject.dtype] * Math.max(1, Math.abs(value)))) wrong.add(each.name);
          });
        });
      }
    });
  }
  expect([...wrong]).toEqual([]);
});
