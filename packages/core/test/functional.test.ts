// grad, valueAndGrad, gradientsOf, checkpoint, defineFunction, gradcheck.

import { beforeAll, describe, expect, test } from "vitest";
import * as nm from "../src/index.js";
import { on, oracle, wasm } from "./support/backends.js";
import { expectClose, expectNoLeak } from "./support/numbers.js";

beforeAll(() => nm.init({ backend: "reference" }));

const float64 = on(oracle);
const data = (values: nm.NestedArray): nm.Tensor => nm.tensor(values, float64);
const leaf = (values: nm.NestedArray): nm.Tensor => nm.tensor(values, { ...float64, requiresGrad: true });
const list = (x: nm.Tensor): number[] => Array.from(x.dataSync());

describe("grad", () => {
  test("gives the gradients of all arguments, or of those asked for", () => {
    const f = (a: nm.Tensor, b: nm.Tensor) => nm.sum(nm.mul(nm.mul(a, a), b));
    const [da, db] = nm.grad(f)(data([1, 2]), data([3, 4]));
    expect(list(da)).toEqual([6, 16]);
    expect(list(db)).toEqual([1, 4]);
    const [only] = nm.grad(f, 1)(data([1, 2]), data([3, 4]));
    expect(list(only)).toEqual([1, 4]);
  });

  test("leaves the grad fields of parameters alone", () => {
    const w = leaf([5]);
    const [dx] = nm.grad((x) => nm.sum(nm.mul(x, w)))(data([2]));
    expect(list(dx)).toEqual([5]);
    expect(w.grad).toBeNull();
  });

  test("leaks nothing but its results", () => {
    const x = data([1, 2]);
    expectNoLeak("valueAndGrad", () => {
      const { value, gradients } = nm.valueAndGrad((t) => nm.sum(nm.exp(t)))(x);
      expectClose(list(gradients[0]), [Math.E, Math.exp(2)], 1e-12);
      for (const t of [value, ...gradients]) t.dispose();
    });
  });

  test("of a power of 0 is 0 in every order, at 0 too", () => {
    const power = (x: nm.Tensor) => nm.sum(nm.pow(x, 0));
    const first = nm.grad((x) => nm.sum(nm.grad(power)(x)[0]));
    expect(list(first(data([0, 2]))[0])).toEqual([0, 0]);
  });

  test("of grad is the second derivative", () => {
    const cube = (x: nm.Tensor) => nm.sum(nm.pow(x, 3));
    const [second] = nm.grad((x) => nm.sum(nm.grad(cube)(x)[0]))(data([2, -1]));
    expectClose(list(second), [12, -6], 1e-12);
    const third = nm.grad((y) => nm.sum(nm.grad((x) => nm.sum(nm.grad(cube)(x)[0]))(y)[0]));
    expectClose(list(third(data([2]))[0]), [6], 1e-12);
  });

  test("of a linear or constant function twice is zero", () => {
    const [second] = nm.grad((x) => nm.sum(nm.grad((y) => nm.sum(nm.mul(y, 3)))(x)[0]))(data([1, 2]));
    expect(list(second)).toEqual([0, 0]);
    expect(list(nm.grad(() => data(1))(data([Infinity]))[0])).toEqual([0]);
  });

  test("inside grad sees what its function refers to", () => {
    // f(x) = d/dy (x·y²) at y = 3 = 6x, so f' = 6.
    const inner = (x: nm.Tensor) => nm.grad((y) => nm.sum(nm.mul(x, nm.mul(y, y))))(data([3]))[0];
    const [outer] = nm.grad((x) => nm.sum(inner(x)))(data([2]));
    expect(list(outer)).toEqual([6]);
  });

  test("wants one element", () => {
    expect(() => nm.grad((x) => nm.mul(x, 2))(data([1, 2]))).toThrow(/must return one element, not \[2\]/);
  });

  test("stays cheap through long chains of fused operations, twice", () => {
    // A walk that goes on past its inputs would take 2^24 steps here.
    const x = nm.tensor([[0.1, 0.4, -0.3]], { ...on(wasm), requiresGrad: true });
    nm.tidy(() => {
      let y: nm.Tensor = x;
      for (let i = 0; i < 24; i++) y = nm.softmax(nm.mul(y, 2));
      const [first] = nm.gradientsOf(nm.sum(nm.mul(y, y)), [x], { createGraph: true });
      const [second] = nm.gradientsOf(nm.sum(first), [x]);
      expect(second.shape).toEqual([1, 3]);
    });
  });
});

describe("gradientsOf", () => {
  test("takes results within the graph as inputs", () => {
    const x = leaf([2]);
    const y = nm.mul(x, x);
    const z = nm.sum(nm.mul(y, 5));
    const [dy, dx] = nm.gradientsOf(z, [y, x]);
    expect(list(dy)).toEqual([5]);
    expect(list(dx)).toEqual([20]);
    expect(x.grad).toBeNull();
  });

  test("weighs several outputs, and gives zeros where there is no way", () => {
    const x = leaf([1, 2]);
    const apart = leaf([7]);
    const [dx, none] = nm.gradientsOf([nm.mul(x, 2), nm.exp(x)], [x, apart], {
      gradients: [data([1, 1]), data([0, 0])],
    });
    expect(list(dx)).toEqual([2, 2]);
    expect(list(none)).toEqual([0]);
  });

  test.each(["reference", "wasm"] as const)(
    "asked for one of two gradients gives that one (%s)",
    (device) => {
      const options = { device, requiresGrad: true };
      const x = nm.tensor(
        [
          [1, 2],
          [3, 4],
        ],
        options,
      );
      const w = nm.tensor(
        [
          [0.5, -1],
          [2, 0],
        ],
        options,
      );
      const targets = nm.tensor([0, 1], { device, dtype: "int32" });
      const both = nm.gradientsOf(nm.linearCrossEntropy(x, w, targets), [x, w]);
      const [dx] = nm.gradientsOf(nm.linearCrossEntropy(x, w, targets), [x]);
      const [dw] = nm.gradientsOf(nm.linearCrossEntropy(x, w, targets), [w]);
      expect(list(dx)).toEqual(list(both[0]));
      expect(list(dw)).toEqual(list(both[1]));
    },
  );
});

describe("checkpoint", () => {
  const block = (w: nm.Tensor) => (x: nm.Tensor) =>
    nm.tidy(() => {
      const mask = nm.rand(x.shape, { dtype: x.dtype, device: x.device });
      return nm.tanh(nm.matmul(nm.mul(x, mask), w));
    });

  test("gives the gradients of the plain function, for the same random numbers", () => {
    const run = (through: (fn: (x: nm.Tensor) => nm.Tensor, x: nm.Tensor) => nm.Tensor) => {
      const x = leaf([[1, -2]]);
      const w = leaf([
        [0.3, 0.1],
        [-0.2, 0.5],
      ]);
      nm.manualSeed(7);
      const loss = nm.sum(nm.square(through(block(w), through(block(w), x))));
      const next = nm.rand([1], float64).item();
      loss.backward();
      return [loss.item(), next, nm.rand([1], float64).item(), ...list(x.grad!), ...list(w.grad!)];
    };
    expect(run(nm.checkpoint)).toEqual(run((fn, x) => fn(x)));
  });

  test("draws the same numbers again from generators of the function's own, nested and in attention", () => {
    const run = (through: (fn: (x: nm.Tensor) => nm.Tensor, x: nm.Tensor) => nm.Tensor) => {
      nm.manualSeed(3);
      const generator = new nm.Generator(4);
      const q = leaf([
        [
          [
            [0.5, -1],
            [2, 0.25],
            [1, 1],
          ],
        ],
      ]);
      const attend = (x: nm.Tensor) =>
        nm.scaledDotProductAttention(x, x, x, { dropoutP: 0.5, causal: true, generator });
      const both = (x: nm.Tensor) =>
        nm.tidy(() =>
          nm.dropout(
            through((y) => attend(attend(y)), nm.dropout(x, 0.25)),
            0.25,
            { generator },
          ),
        );
      const loss = nm.sum(nm.square(through(both, q)));
      const next = [generator.uniform(), nm.defaultGenerator().uniform()];
      loss.backward();
      return [loss.item(), ...next, generator.uniform(), ...list(q.grad!)];
    };
    expect(run(nm.checkpoint)).toEqual(run((fn, x) => fn(x)));
  });

  test("keeps its gradients inside grad, for inputs and for parameters", () => {
    const w = leaf([
      [0.3, 0.1],
      [-0.2, 0.5],
    ]);
    const plain = (x: nm.Tensor, v: nm.Tensor) => nm.sum(nm.square(nm.tanh(nm.matmul(x, v))));
    const x = data([[1, -2]]);
    const expected = nm.grad(plain)(x, w.detach());
    const [dx] = nm.grad((t) => nm.checkpoint((u) => plain(u, w), t))(x);
    expect(list(dx)).toEqual(list(expected[0]));
    expect(w.grad).toBeNull();
    const [dw] = nm.gradientsOf(
      nm.checkpoint((u) => plain(u, w), x),
      [w],
    );
    expect(list(dw)).toEqual(list(expected[1]));
  });

  test("gives parameters inside their gradients though its input wants none", () => {
    const w = leaf([2, 3]);
    nm.sum(nm.checkpoint((x) => nm.mul(x, w), data([5, 7]))).backward();
    expect(list(w.grad!)).toEqual([5, 7]);
  });

  test("keeps less between forward and backward", () => {
    const x = leaf([[1, 2, 3, 4]]);
    const deep = (t: nm.Tensor) => nm.tidy(() => nm.exp(nm.sin(nm.cos(nm.tanh(t)))));
    const held = (run: () => nm.Tensor) => {
      const before = nm.memoryStats().storages;
      const y = run();
      const kept = nm.memoryStats().storages - before;
      y.dispose();
      return kept;
    };
    expect(held(() => nm.checkpoint(deep, x))).toBe(1);
    expect(held(() => deep(x))).toBe(3);
  });

  test("of a function that hands its input through leaves the input alone", () => {
    const x = leaf([1, 2]);
    const y = nm.checkpoint((t) => t, x);
    expect(x.isLeaf).toBe(true);
    nm.sum(y).backward();
    expect(list(x.grad!)).toEqual([1, 1]);
  });

  test("refuses gradients of its gradients, and leaks nothing", () => {
    const x = leaf([1]);
    const y = nm.checkpoint((t) => nm.exp(t), x);
    expect(() => nm.gradientsOf(y, [x], { createGraph: true })).toThrow(
      /checkpoint: has no gradient of its gradient/,
    );
    y.dispose();
    expectNoLeak("checkpoint", () => {
      const t = leaf([[1, 2]]);
      const loss = nm.tidy(() => nm.sum(nm.checkpoint((u) => nm.exp(nm.sin(u)), t)));
      loss.backward();
      t.dispose();
      loss.dispose();
    });
  });
});

describe("defineFunction", () => {
  const scale = nm.defineFunction<number>({
    name: "scale",
    forward: (context, [x], factor) => {
      context.save(x);
      return nm.mul(x, factor);
    },
    backward: (context, dy, factor) => {
      expect(context.saved()[0].shape).toEqual(dy.shape);
      return [nm.mul(dy, factor)];
    },
  });

  test("differentiates by its backward, under the name in messages", () => {
    expect(nm.gradcheck((x) => scale([x], 3), [leaf([1, 2])])).toBeLessThan(1e-8);
    const gone = leaf([1]);
    gone.dispose();
    expect(() => scale([gone], 2)).toThrow(/^scale: .*disposed/);
  });

  test("refuses second order without a reference, and has it with one", () => {
    const x = leaf([2]);
    expect(() => nm.gradientsOf(scale([x], 2), [x], { createGraph: true })).toThrow(
      "scale: has no gradient of its gradient",
    );
    const cube = nm.defineFunction<void>({
      name: "cube",
      forward: (context, [t]) => {
        context.save(t);
        return nm.pow(t, 3);
      },
      backward: (context, dy) => [nm.mul(dy, nm.mul(nm.square(context.saved()[0]), 3))],
      reference: ([t]) => nm.mul(t, nm.mul(t, t)),
    });
    const [first] = nm.gradientsOf(cube([x]), [x], { createGraph: true });
    expect(list(nm.gradientsOf(first, [x])[0])).toEqual([12]);
  });

  test("a gradient of the wrong shape, and a forward that returns its input, are errors", () => {
    const wrong = nm.defineFunction<void>({
      name: "wrong",
      forward: (_, [x]) => nm.mul(x, 1),
      backward: () => [nm.zeros([3], float64)],
    });
    expect(() => wrong([leaf([1, 2])]).backward(data([1, 1]))).toThrow("gradient 0 of wrong is [3], not [2]");
    const same = nm.defineFunction<void>({ name: "same", forward: (_, [x]) => x, backward: (_, dy) => [dy] });
    expect(() => same([leaf([1])])).toThrow("same: forward returned one of its inputs");
  });
});

test("gradcheck takes functions that differentiate themselves", () => {
  const slope = (x: nm.Tensor) =>
    nm.tidy(() => nm.gradientsOf(x.pow(3).mul(x.sin()).sum(), [x], { createGraph: true })[0]);
  expect(nm.gradcheck(slope, [leaf([0.5, -1.25])], { absolute: 1e-4 })).toBeLessThan(1e-4);
});

test("gradcheck finds a wrong gradient and names the place", () => {
  const wrong = nm.defineFunction<void>({
    name: "wrong",
    forward: (_, [x]) => nm.square(x),
    backward: (_, dy) => [nm.mul(dy, 2)],
  });
  expect(() => nm.gradcheck((x) => wrong([x]), [leaf([1, 4])])).toThrow(
    /gradcheck: input 0, entry 1: analytic .*, numeric/,
  );
});
