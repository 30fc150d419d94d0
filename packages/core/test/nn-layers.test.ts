// The layers beyond those of a LLaMA: their operations, names, modes and initial values.

import { describe, expect, test } from "vitest";
import * as nm from "../src/index.js";
import * as nn from "../src/nn/index.js";
import { backends, on } from "./support/backends.js";
import { expectClose, expectNoLeak, rounding } from "./support/numbers.js";

describe.each(backends)("$name", (subject) => {
  const options = () => ({ ...on(subject), generator: new nm.Generator(4) });
  const draw = (...shape: number[]) => nm.randn(shape, options());

  test("LayerNorm and GroupNorm have mean 0 and variance 1, by PyTorch's names", () => {
    nm.tidy(() => {
      const layer = nn.LayerNorm.create([3, 4], options());
      const y = layer.forward(draw(5, 3, 4));
      expectClose(nm.mean(y, [1, 2]).dataSync(), Array(5).fill(0), 1e-5);
      expectClose(nm.variance(y, [1, 2], false, 0).dataSync(), Array(5).fill(1), 1e-3);
      expect([...layer.stateDict().keys()]).toEqual(["weight", "bias"]);
      expect([
        ...nn.LayerNorm.create(4, { ...options(), bias: false })
          .stateDict()
          .keys(),
      ]).toEqual(["weight"]);
      const group = nn.GroupNorm.create(2, 6, options());
      const z = group.forward(draw(3, 6, 5));
      expectClose(nm.mean(z.reshape(3, 2, 15), -1).dataSync(), Array(6).fill(0), 1e-5);
      expect(() => nn.GroupNorm.create(4, 6)).toThrow("GroupNorm: 6 channels do not divide into 4 groups");
    });
  });

  test("convolutions are their operations and train", () => {
    expectNoLeak("Conv2d", () => {
      const conv = nn.Conv2d.create(2, 4, [3, 2], { ...options(), padding: 1, groups: 2 });
      nm.tidy(() => {
        const x = draw(2, 2, 4, 4);
        const y = conv.forward(x);
        expect(y.shape).toEqual([2, 4, 4, 5]);
        const direct = nm.conv2d(x, conv.weight, conv.bias, { padding: 1, groups: 2 });
        expect(y.toArray()).toEqual(direct.toArray());
        nm.sum(nm.square(y)).backward();
        expect(conv.weight.grad!.shape).toEqual([4, 1, 3, 2]);
      });
      conv.dispose();
      const line = nn.Conv1d.create(3, 2, 2, { ...options(), bias: false, stride: 2 });
      nm.tidy(() => expect(line.forward(draw(1, 3, 6)).shape).toEqual([1, 2, 3]));
      line.dispose();
    });
    expect(() => nn.Conv2d.create(3, 4, 2, { groups: 2 })).toThrow(
      "Conv2d: 3 input and 4 output channels do not divide into 2 groups",
    );
  });

  test("MultiheadAttention of one head is attention between its projections", () => {
    nm.tidy(() => {
      const layer = nn.MultiheadAttention.create(6, 1, options());
      const x = draw(2, 3, 6);
      const memory = draw(2, 5, 6);
      const [q, k, v] = [layer.q_proj.forward(x), layer.k_proj.forward(memory), layer.v_proj.forward(memory)];
      const scores = nm.softmax(nm.matmul(q, k, { transB: true }).div(Math.sqrt(6)));
      const expected = layer.out_proj.forward(nm.matmul(scores, v));
      expectClose(layer.forward(x, { memory }).dataSync(), expected.dataSync(), rounding[subject.dtype]);
      const names = [...layer.stateDict().keys()];
      expect(names).toContain("q_proj.weight");
      expect(names).toHaveLength(8);
    });
  });

  test("MultiheadAttention: causal and masked alike, heads apart", () => {
    nm.tidy(() => {
      const layer = nn.MultiheadAttention.create(8, 4, options());
      const x = draw(2, 3, 8);
      const mask = nm.tril(nm.ones([3, 3], on(subject))).cast("bool");
      const causal = layer.forward(x, { causal: true });
      expectClose(layer.forward(x, { mask }).dataSync(), causal.dataSync(), rounding[subject.dtype]);
      const first = layer.forward(x.slice(null, [0, 1]));
      expectClose(causal.slice(null, [0, 1]).dataSync(), first.dataSync(), rounding[subject.dtype]);
      nm.sum(causal).backward();
      expect(layer.parameters().every((p) => p.grad !== null)).toBe(true);
      expect(() => nn.MultiheadAttention.create(8, 3)).toThrow("8 features do not divide into 3 heads");
      expect(() => layer.forward(draw(3, 8))).toThrow("x must be [batch, length, embedDim], not [3, 8]");
    });
  });

  test("Sequential chains modules and functions, names by place, and can be searched and changed", () => {
    expectNoLeak("Sequential", () => {
      const make = () => nn.Linear.create(3, 3, options());
      const model = new nn.Sequential(make(), nm.relu, new nn.Dropout(0.5), make());
      expect(Array.from(model.namedParameters(), ([name]) => name)).toEqual([
        "0.weight",
        "0.bias",
        "3.weight",
        "3.bias",
      ]);
      model.eval();
      expect((model[2] as nn.Dropout).training).toBe(false);
      nm.tidy(() => {
        const x = draw(2, 3);
        const first = (model[0] as nn.Linear).forward(x);
        const expected = (model[3] as nn.Linear).forward(nm.relu(first));
        expect(model.forward(x).toArray()).toEqual(expected.toArray());
        expect(new nn.Sequential().forward(x).toArray()).toEqual(x.toArray());
      });
      model.replaceModule("3", make()).dispose();
      expect(model.getModule("3")).toBe(model[3]);
      model.dispose();
    });
    expect(() => new nn.Sequential(3 as never)).toThrow(
      "Sequential: layer 0 is 3, neither a module nor a function",
    );
  });

  test("initial values: bounds, spread, orthonormal rows or columns", () => {
    nm.tidy(() => {
      /** Of some 18,000 draws the standard deviation is within 0.5 % or so of what it estimates. */
      const expectSpread = (t: nm.Tensor, wanted: number) =>
        expect(Math.abs(nm.std(t).item() / wanted - 1)).toBeLessThan(0.02);
      const conv = [64, 32, 3, 3];
      expect(nn.fanIn(conv)).toBe(288);
      expect(nn.fanOut(conv)).toBe(576);
      expectSpread(nn.kaimingNormal(conv, 0, options()), Math.sqrt(2 / 288));
      expectSpread(nn.xavierNormal(conv, 2, options()), 2 * Math.sqrt(2 / 864));
      const bound = Math.sqrt(6 / 864);
      const uniform = nn.xavierUniform(conv, 1, options());
      expect(nm.max(nm.abs(uniform)).item()).toBeLessThanOrEqual(bound);
      expectSpread(uniform, bound / Math.sqrt(3));
      const cut = nn.truncNormal([20_000], 1, { ...options(), low: -0.5, high: 1 });
      expect(nm.min(cut).item()).toBeGreaterThanOrEqual(-0.5);
      expect(nm.max(cut).item()).toBeLessThanOrEqual(1);
      // (φ(−0.5) − φ(1)) / (Φ(1) − Φ(−0.5))
      expect(nm.mean(cut).item()).toBeCloseTo((0.352065 - 0.241971) / (0.841345 - 0.308538), 1);
      for (const shape of [
        [4, 6],
        [6, 4],
        [5, 2, 2],
      ]) {
        const w = nn.orthogonal(shape, 2, options()).reshape(shape[0], -1);
        const [rows, columns] = w.shape;
        const product =
          rows <= columns ? nm.matmul(w, w, { transB: true }) : nm.matmul(w, w, { transA: true });
        const identity = nm.eye(Math.min(rows, columns), on(subject)).mul(4);
        expectClose(product.dataSync(), identity.dataSync(), 10 * rounding[subject.dtype]);
      }
    });
    expect(() => nn.orthogonal([3])).toThrow("orthogonal: expected at least two axes, not [3]");
    expect(() => nn.truncNormal([1], 1, { low: 9, high: 10 })).toThrow(
      "truncNormal: [9, 10] holds too little",
    );
  });
});
