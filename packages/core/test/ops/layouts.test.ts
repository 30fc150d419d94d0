// How results lie in memory: as their operands do, by PyTorch's rule. Values, gradients and operations in place are the same either way.

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import * as nm from "../../src/index.js";
import { memoryOrder, orderedLayout } from "../../src/layout.js";
import { AdamW, SGD } from "../../src/optim/index.js";
import golden from "../fixtures/layouts.json" with { type: "json" };
import { toTensor, views } from "../support/arbitraries.js";
import { backends, on } from "../support/backends.js";

interface Laid {
  readonly shape: readonly number[];
  readonly strides: readonly number[];
}

const [one, two] = [1, 2].map((count) => golden.cases.filter(({ inputs }) => inputs.length === count));
const three = golden.cases.filter(({ inputs }) => inputs.length === 3);

/** Zeros laid out as PyTorch laid the operand. */
function laidOut({ shape, strides }: Laid, options: nm.CreationOptions): nm.Tensor {
  const order = shape.map((_, axis) => axis).sort((a, b) => strides[b] - strides[a] || a - b);
  // From the slowest axis to the fastest, each with the gap that its stride leaves; broadcast ones are 1 long and then repeated.
  const extents = order.map((axis, i) => {
    if (strides[axis] === 0) return 1;
    const above = order
      .slice(0, i)
      .reverse()
      .find((other) => strides[other] > 0);
    return above === undefined ? shape[axis] : strides[above] / strides[axis];
  });
  const fastest = order.findLast((axis) => strides[axis] > 0);
  const gap = fastest === undefined ? 1 : strides[fastest];
  const memory = nm.zeros([...extents, gap], options);
  const rows = memory.slice(
    ...extents.map((_, i) => (strides[order[i]] === 0 ? null : ([0, shape[order[i]]] as const))),
    0,
  );
  return rows.permute(shape.map((_, axis) => order.indexOf(axis))).expand(shape);
}

test("orders are PyTorch's", () => {
  expect(golden.cases.length).toBeGreaterThan(200);
  for (const { inputs, strides } of golden.cases) {
    const shape = inputs.reduce<readonly number[]>(
      (common, each) => nm.zeros(common).add(nm.zeros(each.shape)).shape,
      [],
    );
    const layouts = inputs.map((each) => {
      const lead = shape.length - each.shape.length;
      return {
        shape,
        strides: shape.map((extent, i) => (each.shape[i - lead] === extent ? each.strides[i - lead] : 0)),
        offset: 0,
      };
    });
    const order = memoryOrder(layouts) ?? shape.map((_, axis) => axis);
    expect({ inputs, strides: orderedLayout(shape, order).strides }).toEqual({ inputs, strides });
  }
});

describe.each(backends)("$name", (subject) => {
  test("results lie as PyTorch's do", () => {
    const sameShape = (cases: typeof golden.cases) =>
      cases.filter(({ inputs }) => inputs.every(({ shape }) => String(shape) === String(inputs[0].shape)));
    for (const { inputs, strides } of sameShape(one)) {
      nm.tidy(() => {
        const x = laidOut(inputs[0], on(subject));
        for (const y of [nm.neg(x), nm.exp(x), nm.cast(x, "int32"), nm.logicalNot(x), nm.add(x, 1)])
          expect(y.strides).toEqual(strides);
      });
    }
    for (const { inputs, strides } of sameShape(two)) {
      nm.tidy(() => {
        const [a, b] = inputs.map((each) => laidOut(each, on(subject)));
        for (const y of [nm.mul(a, b), nm.less(a, b), nm.maximum(a, b)]) expect(y.strides).toEqual(strides);
      });
    }
    for (const { inputs, strides } of sameShape(three)) {
      nm.tidy(() => {
        const [a, b] = inputs.slice(1).map((each) => laidOut(each, on(subject)));
        const condition = laidOut(inputs[0], { device: subject.device, dtype: "bool" });
        expect(nm.where(condition, a, b).strides).toEqual(strides);
      });
    }
  });

  test("values of operations on views, one after another, are those of operations on copies", () => {
    const formula = (a: nm.Tensor, b: nm.Tensor): nm.Tensor[] => [
      nm.sub(nm.mul(nm.neg(a), 2), b),
      nm.where(nm.less(a, b), nm.abs(b), nm.square(a)),
      nm.cast(nm.clip(nm.add(b, a), -2, 3), "int32"),
      nm.softmax(nm.reshape(nm.add(a, 1), [1, -1]), -1),
      nm.sum(nm.maximum(a, b)),
    ];
    fc.assert(
      fc.property(
        views().chain((viewed) =>
          fc.tuple(
            fc.constant(viewed),
            fc.shuffledSubarray([...viewed.result.shape.keys()], { minLength: viewed.result.shape.length }),
          ),
        ),
        ([viewed, order]) => {
          nm.tidy(() => {
            const { view } = toTensor(viewed, on(subject));
            // The same elements in another order of memory.
            const inverse = order.map((_, axis) => order.indexOf(axis));
            const other = nm.mul(nm.clone(view.permute(order)).permute(inverse), -0.5);
            const given = formula(view, other);
            const expected = formula(nm.clone(view), nm.clone(other));
            for (const [i, result] of given.entries())
              expect(result.dataSync()).toEqual(expected[i].dataSync());
          });
        },
      ),
      { numRuns: 100 },
    );
  });

  test("gradients through transposed results, and of transposed leaves, are those of contiguous ones", () => {
    nm.tidy(() => {
      const values = nm.randn([5, 7], { ...on(subject), generator: new nm.Generator(3) });
      const weights = nm.randn([7, 5], { ...on(subject), generator: new nm.Generator(4) });
      const loss = (x: nm.Tensor): nm.Tensor => {
        const y = nm.exp(x.transpose());
        // Two ways to x: gradients of different orders meet.
        return nm.sum(nm.add(nm.mul(y, weights), nm.square(x).transpose()));
      };
      const leaf = values.detach();
      const turned = nm.clone(values.transpose()).transpose().detach();
      for (const x of [leaf, turned]) {
        x.requiresGrad = true;
        loss(x).backward();
        // Once more on top of what is there.
        loss(x).backward();
      }
      const { data, shape } = { data: leaf.grad!.dataSync(), shape: leaf.grad!.shape };
      expect(shape).toEqual([5, 7]);
      expect(turned.grad!.dataSync()).toEqual(data);
      expect(leaf.grad!.strides).toEqual([7, 1]);
      expect(turned.grad!.strides).toEqual(turned.strides);
      leaf.zeroGrad();
      turned.zeroGrad();
    });
  });

  test("operations in place write a transposed tensor where it lies", () => {
    nm.tidy(() => {
      const base = nm.arange(0, 12, 1, on(subject)).reshape([3, 4]);
      const x = base.transpose();
      const step = nm.arange(0, 12, 1, on(subject)).reshape([4, 3]);
      const expected = nm.add(nm.clone(x), step).toArray();
      x.add_(step).mul_(2).div_(2);
      expect(x.toArray()).toEqual(expected);
      expect(base.toArray()).toEqual(x.transpose().toArray());
      expect(x.storage).toBe(base.storage);
      // Backwards and with gaps.
      const flipped = nm.slice(base, [null, null, -1], [0, null, 2]);
      const before = nm.clone(flipped).toArray() as number[][];
      flipped.sub_(nm.ones([3, 2], on(subject)));
      expect(flipped.toArray()).toEqual(before.map((row) => row.map((value) => value - 1)));
    });
  });
});

test("optimizers step transposed parameters as contiguous ones", () => {
  for (const make of [
    (list: nm.Tensor[]) => new AdamW(list, { learningRate: 0.1 }),
    (list: nm.Tensor[]) => new SGD(list, { learningRate: 0.1, momentum: 0.9 }),
  ]) {
    nm.tidy(() => {
      const values = nm.randn([6, 4], { generator: new nm.Generator(5) });
      const results = [values.detach(), nm.clone(values.transpose()).transpose().detach()].map((copy) => {
        const x = nm.mul(copy, 1).detach();
        x.requiresGrad = true;
        const optimizer = make([x]);
        for (let i = 0; i < 3; i++) {
          optimizer.zeroGrad();
          nm.sum(nm.square(nm.square(x))).backward();
          optimizer.step();
        }
        optimizer.dispose();
        x.zeroGrad();
        return x.dataSync();
      });
      results[0].forEach((value, i) => {
        expect(results[1][i]).toBeCloseTo(value, 5);
      });
    });
  }
});
