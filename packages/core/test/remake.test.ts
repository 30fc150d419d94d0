// Outputs that backward makes again instead of keeping them: those of norms and swiglu, also through reshapes.

import { beforeAll, describe, expect, test } from "vitest";
import * as nm from "../src/index.js";
import { withReferenceOperations } from "../src/ops/fused.js";
import { expectClose, expectNoLeak } from "./support/numbers.js";

beforeAll(() => nm.init({ backend: "wasm" }));

const random = (seed: number, ...shape: number[]) =>
  nm.randn(shape, { generator: new nm.Generator(seed), device: "wasm" });
const leaf = (seed: number, ...shape: number[]) => {
  const x = random(seed, ...shape);
  x.requiresGrad = true;
  return x;
};
const numbers = (x: nm.Tensor) => Array.from(x.dataSync(), Number);

/** Gradients of Σ f(made)·W over everything that wants one. */
const operations: [string, (leaves: nm.Tensor[]) => nm.Tensor][] = [
  ["rmsNorm", ([x, weight]) => nm.rmsNorm(x, weight)],
  ["swiglu", ([x, , y]) => nm.swiglu(x, y)],
  ["swiglu of a norm", ([x, weight, y]) => nm.swiglu(nm.rmsNorm(x, weight), y)],
  ["a reshaped norm", ([x, weight]) => nm.rmsNorm(x, weight).reshape(2, 48).alias().reshape(6, 16)],
];

describe("outputs that are made again", () => {
  test.each(operations)("%s: gradients are those of the composition", (_, make) => {
    const gradients = (reference: boolean) =>
      nm.tidy(() => {
        const leaves = [leaf(1, 6, 16), leaf(2, 16), leaf(3, 6, 16), leaf(4, 16, 5)];
        const run = () => {
          const out = nm.tidy(() => nm.sum(nm.square(nm.matmul(make(leaves), leaves[3]))));
          out.backward();
        };
        if (reference) withReferenceOperations(run);
        else run();
        return leaves.map(({ grad }) => (grad ? numbers(grad) : null));
      });
    const [fast, slow] = [gradients(false), gradients(true)];
    expect(fast[3]).not.toBeNull();
    fast.forEach((each, i) => {
      if (each) expectClose(each, slow[i] as number[], 1e-4);
      else expect(slow[i]).toBeNull();
    });
  });

  test("nothing of them is held between forward and backward", () => {
    expectNoLeak("forward and backward", () => {
      const [x, weight, w] = [leaf(1, 64, 256), leaf(2, 256), leaf(3, 256, 4)];
      const before = nm.memoryStats().bytes;
      const y = nm.tidy(() => nm.sum(nm.matmul(nm.rmsNorm(x, weight), w)));
      // The factors of the norm's rows and the sum, but not the 64 KiB of its output.
      expect(nm.memoryStats().bytes - before).toBeLessThan(4096);
      y.backward();
      for (const t of [x, weight, w, y]) t.dispose();
    });
  });

  test("what was written into the output before it was used counts, what comes after does not", () => {
    nm.tidy(() => {
      const [x, weight, w] = [leaf(1, 3, 8), leaf(2, 8), leaf(3, 8, 2)];
      const made = nm.rmsNorm(x, weight);
      const other = random(5, 3, 8);
      nm.noGrad(() => made.detach().copyFrom(other));
      nm.sum(nm.matmul(made, w)).backward();
      const expected = numbers(
        nm.noGrad(() => nm.matmul(other, nm.ones([3, 2], { device: "wasm" }), { transA: true })),
      );
      expectClose(numbers(w.grad!), expected, 1e-5);
    });
  });

  test("a graph that was freed is told as ever", () => {
    nm.tidy(() => {
      const [x, weight, w] = [leaf(1, 3, 8), leaf(2, 8), leaf(3, 8, 2)];
      const made = nm.rmsNorm(x, weight);
      const [first, second] = [nm.sum(nm.matmul(made, w)), nm.sum(nm.square(nm.matmul(made, w)))];
      first.backward();
      expect(() => second.backward()).toThrow(/graph through rmsNorm was already freed/);
    });
  });

  test("gradients of gradients go through them", () => {
    nm.tidy(() => {
      const [x, weight, w] = [random(1, 3, 8), random(2, 8), random(3, 8, 2)];
      const f = (v: nm.Tensor) => nm.sum(nm.square(nm.matmul(nm.rmsNorm(v, weight), w)));
      const twice = (v: nm.Tensor) => nm.grad((u: nm.Tensor) => nm.sum(nm.square(nm.grad(f)(u)[0])))(v)[0];
      const fast = numbers(twice(x));
      const slow = withReferenceOperations(() => numbers(twice(x)));
      expectClose(fast, slow, 1e-2);
    });
  });
});
