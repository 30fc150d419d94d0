// Differentiation as users meet it: graphs and their life, modes, gradients of gradients, errors.

import { beforeAll, describe, expect, test } from "vitest";
import * as nm from "../src/index.js";
import { backends, on, oracle } from "./support/backends.js";
import { expectClose, expectNoLeak } from "./support/numbers.js";

beforeAll(() => nm.init({ backend: "reference" }));

const float64 = on(oracle);

/** A float64 leaf that wants a gradient. */
function leaf(values: nm.NestedArray): nm.Tensor {
  return nm.tensor(values, { ...float64, requiresGrad: true });
}

function data(values: nm.NestedArray): nm.Tensor {
  return nm.tensor(values, float64);
}

const list = (x: nm.Tensor | null): number[] => Array.from(x!.dataSync());

describe("backward", () => {
  test("adds up the gradients of every use of a leaf", () => {
    const x = leaf([1, 2]);
    const y = nm.tidy(() => nm.keep(nm.sum(nm.add(nm.mul(x, x), nm.mul(x, 3)))));
    y.backward();
    expect(list(x.grad)).toEqual([5, 7]);
  });

  test("adds to the gradient of an earlier backward", () => {
    const x = leaf([1, 2]);
    nm.tidy(() => nm.sum(nm.mul(x, 2)).backward());
    const first = x.grad;
    nm.tidy(() => nm.sum(nm.mul(x, 5)).backward());
    expect(list(x.grad)).toEqual([7, 7]);
    expect(x.grad).toBe(first);
    x.zeroGrad();
    expect(x.grad).toBeNull();
    expect(first!.disposed).toBe(true);
  });

  test("does not write over a gradient that somebody else sees", () => {
    const x = leaf([1, 2]);
    nm.tidy(() => nm.sum(nm.mul(x, 2)).backward());
    const seen = x.grad!.detach();
    nm.tidy(() => nm.sum(nm.mul(x, 5)).backward());
    expect(list(seen)).toEqual([2, 2]);
    expect(list(x.grad)).toEqual([7, 7]);
  });

  test("does not keep or change the gradient that it was given", () => {
    const x = leaf([1, 2]);
    const dy = data([3, 4]);
    const y = nm.mul(x, 1);
    y.backward(dy);
    nm.tidy(() => nm.sum(x).backward());
    expect(list(dy)).toEqual([3, 4]);
    expect(list(x.grad)).toEqual([4, 5]);
  });

  test("gathers through views: parts, transposes and the whole of one leaf", () => {
    const x = leaf([
      [1, 2],
      [3, 4],
    ]);
    nm.tidy(() => {
      const row = nm.slice(x, 0);
      const turned = nm.mul(
        nm.transpose(x),
        data([
          [1, 10],
          [100, 1000],
        ]),
      );
      nm.add(nm.add(nm.sum(row), nm.sum(turned)), nm.sum(x)).backward();
    });
    expect(list(x.grad)).toEqual([3, 102, 11, 1001]);
  });

  test("adds a matrix product's gradient in place, for a leaf used many times", () => {
    const w = leaf([
      [1, 2],
      [3, 4],
    ]);
    const x = data([
      [1, 0],
      [0, 1],
    ]);
    nm.tidy(() => {
      const a = nm.matmul(x, w);
      const b = nm.matmul(a, w);
      nm.sum(nm.matmul(b, w, { transB: true })).backward();
    });
    const f = (t: nm.Tensor) => nm.sum(nm.matmul(nm.matmul(nm.matmul(x, t), t), t, { transB: true }));
    expect(nm.gradcheck(f, [w])).toBeLessThan(1e-6);
    const [expected] = nm.grad(f)(w.detach());
    expectClose(list(w.grad), list(expected), 1e-12);
  });

  test("lets go of the parts of a sum of gradients", () => {
    expectNoLeak("sum of gradients", () => {
      const x = leaf([1, 2]);
      nm.tidy(() => nm.sum(nm.add(nm.add(nm.sin(x), nm.exp(x)), nm.mul(nm.exp(nm.square(x)), x))).backward());
      x.grad!.dispose();
      x.dispose();
    });
  });

  test("a rule that gives one tensor to two inputs gives each its own gradient", () => {
    const both = nm.defineFunction<null>({
      name: "both",
      forward: (_, [a, b]) => nm.add(a, b),
      backward(_, dy) {
        const twice = nm.mul(dy, 2);
        return [twice, twice];
      },
    });
    const [a, b] = [leaf([1, 2]), leaf([3, 4])];
    nm.tidy(() => nm.sum(both([a, b], null)).backward());
    expect(a.grad).not.toBe(b.grad);
    nm.tidy(() => nm.sum(a).backward());
    expect(list(a.grad)).toEqual([3, 3]);
    expect(list(b.grad)).toEqual([2, 2]);
  });

  test("of powers of 0 is PyTorch's: 0 for any exponent that is not negative", () => {
    const [base, exponent] = [leaf([0, 0, 0]), leaf([0, 1, 2])];
    nm.tidy(() => nm.sum(nm.pow(base, exponent)).backward());
    expect(list(base.grad)).toEqual([0, 1, 0]);
    expect(list(exponent.grad)).toEqual([0, 0, 0]);
  });

  test("of a leaf alone is one", () => {
    const x = leaf(3);
    x.backward();
    expect(x.grad!.item()).toBe(1);
  });

  test("survives graphs far deeper than the call stack", () => {
    const x = leaf([1]);
    let y = nm.mul(x, 1);
    for (let i = 0; i < 20_000; i++) {
      const next = nm.add(y, 0);
      y.dispose();
      y = next;
    }
    y.backward();
    expect(list(x.grad)).toEqual([1]);
    y.dispose();
  });

  test("gives a leaf a gradient of its own, dense", () => {
    const x = leaf([1, 2, 3]);
    nm.tidy(() => nm.sum(x).backward());
    expect(x.grad!.isContiguous).toBe(true);
    expect(list(x.grad)).toEqual([1, 1, 1]);
  });
});

describe("errors of backward", () => {
  test("nothing to differentiate for", () => {
    expect(() => data([1]).backward()).toThrow(nm.AutogradError);
    expect(() => data([1]).backward()).toThrow("does not depend on any tensor that requires a gradient");
  });

  test("more than one element and no gradient; a gradient of the wrong shape", () => {
    const y = nm.mul(leaf([1, 2]), 2);
    expect(() => y.backward()).toThrow("a gradient is needed for a tensor of shape [2]");
    expect(() => y.backward(data([1, 2, 3]))).toThrow("gradient [3] does not fit [2]");
    expect(() => y.backward(data([1, 2, 3]))).toThrow(nm.ShapeError);
  });

  test("backward twice through a freed graph; retainGraph keeps it", () => {
    const x = leaf([2]);
    const y = nm.exp(x);
    y.backward(undefined, { retainGraph: true });
    y.backward();
    expectClose(list(x.grad), [2 * Math.exp(2)], 1e-12);
    expect(() => y.backward()).toThrow(/graph through exp was already freed.*retainGraph/);
  });

  test("a saved tensor that was changed in place", () => {
    const x = leaf([1, 2]);
    const w = data([3, 4]);
    const y = nm.sum(nm.mul(x, w));
    w.copyFrom(Float64Array.of(5, 6));
    expect(() => y.backward()).toThrow(/mul: a tensor of shape \[2\].*changed in place/);
  });

  test("changed through a view, or by matmul's out, too", () => {
    const x = leaf([
      [1, 2],
      [3, 4],
    ]);
    const w = data([
      [1, 0],
      [0, 1],
    ]);
    const y = nm.sum(nm.mul(x, w));
    nm.slice(w, 0).copyFrom(Float64Array.of(9, 9));
    expect(() => y.backward()).toThrow("changed in place");
    const z = nm.sum(nm.mul(x, w));
    nm.matmul(
      nm.clone(w),
      data([
        [1, 0],
        [0, 1],
      ]),
      { out: w },
    );
    expect(() => z.backward()).toThrow("changed in place");
  });

  test("a failing backward leaks nothing", () => {
    expectNoLeak("failing backward", () => {
      const x = leaf([1, 2]);
      const w = data([3, 4]);
      const y = nm.tidy(() => nm.sum(nm.mul(nm.exp(x), w)));
      w.copyFrom(Float64Array.of(5, 6));
      expect(() => y.backward()).toThrow("changed in place");
      for (const t of [x, w, y]) t.dispose();
    });
  });

  test("writing over what is differentiated", () => {
    const x = leaf([1, 2]);
    expect(() => x.copyFrom(Float64Array.of(1, 1))).toThrow(nm.AutogradError);
    expect(() => x.copyFrom(Float64Array.of(1, 1))).toThrow("noGrad()");
    nm.noGrad(() => x.copyFrom(Float64Array.of(7, 8)));
    expect(list(x)).toEqual([7, 8]);
  });

  test("requiresGrad on integers and on results", () => {
    expect(() => nm.tensor([1], { dtype: "int32", requiresGrad: true })).toThrow(nm.DTypeError);
    const y = nm.exp(leaf([1]));
    expect(() => {
      y.requiresGrad = false;
    }).toThrow("use detach()");
  });

  test("matmul into out records nothing, and says so", () => {
    const w = leaf([[1]]);
    const out = nm.zeros([1, 1], float64);
    expect(() => nm.matmul(w, w, { out })).toThrow(nm.AutogradError);
    nm.noGrad(() => nm.matmul(w, w, { out, alpha: 2 }));
    expect(list(out)).toEqual([2]);
  });
});

describe("the life of a graph", () => {
  test("a loss disposed without backward frees everything", () => {
    const w = leaf([
      [1, 2],
      [3, 4],
    ]);
    expectNoLeak("forward only", () => {
      const x = data([[1, 2]]);
      const hidden = nm.matmul(x, w);
      const activated = nm.tanh(hidden);
      const loss = nm.sum(activated);
      for (const t of [x, hidden, activated, loss]) t.dispose();
    });
  });

  test("temporaries may be disposed before backward", () => {
    const x = leaf([1, 2]);
    const hidden = nm.exp(x);
    const loss = nm.sum(hidden);
    hidden.dispose();
    loss.backward();
    expectClose(list(x.grad), [Math.E, Math.exp(2)], 1e-12);
  });

  test("backward frees what it no longer needs though the loss lives on", () => {
    const x = leaf([1, 2]);
    const before = nm.memoryStats().storages;
    const loss = nm.tidy(() => nm.sum(nm.exp(nm.sin(x))));
    expect(nm.memoryStats().storages).toBeGreaterThan(before + 1);
    loss.backward();
    expect(nm.memoryStats().storages).toBe(before + 2); // the loss and x.grad
    loss.dispose();
  });

  test("a leaf disposed before backward gets no gradient, and leaks none", () => {
    expectNoLeak("disposed leaf", () => {
      const x = leaf([1, 2]);
      const y = leaf([1, 2]);
      const loss = nm.tidy(() => nm.sum(nm.mul(x, y)));
      x.dispose();
      loss.backward();
      expect(x.grad).toBeNull();
      expect(list(y.grad)).toEqual([1, 2]);
      y.dispose();
      loss.dispose();
    });
  });

  test("only what a gradient needs is saved", () => {
    const w = leaf([1, 2]);
    const x = data([3, 4]);
    const y = nm.mul(x, w); // needs x, not w
    nm.noGrad(() => w.copyFrom(Float64Array.of(5, 5)));
    y.backward(data([1, 1]));
    expect(list(w.grad)).toEqual([3, 4]);
  });
});

describe("modes", () => {
  test("noGrad records nothing, enableGrad within it does", () => {
    const x = leaf([1]);
    expect(nm.noGrad(() => nm.exp(x)).requiresGrad).toBe(false);
    expect(nm.noGrad(() => nm.enableGrad(() => nm.exp(x))).requiresGrad).toBe(true);
    expect(nm.exp(x.detach()).requiresGrad).toBe(false);
  });

  test("noGrad refuses a promise and restores the mode after an error", () => {
    expect(() => nm.noGrad(async () => 1)).toThrow(nm.AutogradError);
    expect(() =>
      nm.noGrad(() => {
        throw new Error("inner");
      }),
    ).toThrow("inner");
    expect(nm.exp(leaf([1])).requiresGrad).toBe(true);
  });

  test("anomalyMode names the operation that first made a NaN", () => {
    const x = data([-1, 1]);
    expectNoLeak("anomaly", () =>
      expect(() => nm.anomalyMode(() => nm.add(nm.log(x), 1))).toThrow(/^log: .*NaN.*\[2\]/),
    );
    expect(nm.log(x).dataSync()[0]).toBeNaN();
  });
});

test.each(backends)(
  "the gradient arrives where it came from after a move from and to $name",
  ({ device }) => {
    const x = nm.tensor([1, 2], { device: "reference", requiresGrad: true });
    const there = nm.mul(x, 2).to(device);
    nm.sum(nm.mul(there, there).to("reference")).backward();
    expect(x.grad!.device).toBe("reference");
    expect(list(x.grad)).toEqual([8, 16]);
  },
);

test.each(["wasm", "reference"] as const)(
  "gradients of linear layers that share their input add up once (%s)",
  (device) => {
    const on = { device, requiresGrad: true } as const;
    for (const shape of [
      [2, 3],
      [2, 2, 3],
    ]) {
      const [x, w, b] = [nm.ones(shape, on), nm.ones([4, 3], on), nm.ones([4], on)];
      const rows = x.size / 3;
      nm.tidy(() =>
        nm
          .linear(x, w, b)
          .sum()
          .add(nm.linear(x, w, b).sum())
          .backward(),
      );
      nm.tidy(() => nm.linear(x, w, b).sum().backward());
      expect(x.grad!.flatten().toArray()).toEqual(Array(x.size).fill(12));
      expect(w.grad!.flatten().toArray()).toEqual(Array(12).fill(3 * rows));
      expect(b.grad!.toArray()).toEqual(Array(4).fill(3 * rows));
      for (const each of [x, w, b]) each.dispose();
    }
  },
);
