// Linear layers that share their input, and what they are made of: shared packing, joint functions, products in one go.

import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { defineJointFunction, groupedMatmul, productsTogether } from "../src/extend.js";
import {
  AutogradError,
  Generator,
  grad,
  gradcheck,
  init,
  matmul,
  memoryStats,
  noGrad,
  randn,
  type Tensor,
  tidy,
  withBackend,
  zeros,
} from "../src/index.js";
import { Linear, linearGroup } from "../src/nn/index.js";

beforeAll(() => init({ threads: 2 }));

function layersOf(inFeatures: number, widths: readonly number[], generator: Generator): Linear[] {
  return widths.map((width, i) => Linear.create(inFeatures, width, { generator, bias: i === 1 }));
}

const values = (x: Tensor): Float32Array => x.dataSync() as Float32Array;

describe("linearGroup", () => {
  it("gives the bits of its layers, whatever the sizes", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 300 }),
        fc.integer({ min: 1, max: 600 }),
        fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1, maxLength: 3 }),
        fc.integer({ min: 0, max: 1000 }),
        (rows, inFeatures, widths, seed) => {
          const before = memoryStats().tensors;
          const generator = new Generator(seed);
          const layers = layersOf(inFeatures, widths, generator);
          tidy(() => {
            const x = randn([rows, inFeatures], { generator });
            const group = linearGroup(x, layers);
            layers.forEach((layer, i) => {
              expect(values(group[i])).toEqual(values(layer.forward(x)));
            });
            // A group within a group, and x of three axes.
            const wide = x.reshape(1, rows, inFeatures);
            const nested = linearGroup(wide, [...layers, ...layers]);
            expect(values(nested[layers.length])).toEqual(values(group[0]));
            expect(nested[0].shape).toEqual([1, rows, widths[0]]);
          });
          for (const layer of layers) layer.dispose();
          expect(memoryStats().tensors).toBe(before);
        },
      ),
      { numRuns: 25 },
    );
  });

  it("gives the gradients of its layers, and lets go of the packed copies", () => {
    const generator = new Generator(5);
    const layers = layersOf(96, [64, 128, 64], generator);
    const used = memoryStats().backend.used;
    const pass = (group: boolean): number[][] =>
      tidy(() => {
        const x = randn([130, 96], { generator: new Generator(9), requiresGrad: true });
        const ys = group ? linearGroup(x, layers) : layers.map((layer) => layer.forward(x));
        ys.map((y, i) => y.mul(i + 1).sum())
          .reduce((a, b) => a.add(b))
          .backward();
        const all = [x, ...layers.flatMap((layer) => layer.parameters())];
        return all.map((one) => {
          const gradient = [...values(one.grad!)];
          one.zeroGrad();
          return gradient;
        });
      });
    expect(pass(true)).toEqual(pass(false));
    expect(memoryStats().backend.used).toBe(used);
    for (const layer of layers) layer.dispose();
  });

  it("runs where nothing is packed, on views, and on no rows", () => {
    withBackend("reference", () => {
      const layers = layersOf(4, [3, 2], new Generator(1));
      const x = randn([5, 4], { dtype: "float32", generator: new Generator(2) });
      linearGroup(x, layers).forEach((y, i) => {
        expect(values(y)).toEqual(values(layers[i].forward(x)));
      });
    });
    const layers = layersOf(4, [3, 2], new Generator(1));
    const view = randn([4, 5], { generator: new Generator(2) }).transpose(0, 1);
    expect(values(linearGroup(view, layers)[1])).toEqual(values(layers[1].forward(view)));
    expect(linearGroup(zeros([0, 4]), layers).map(({ shape }) => shape)).toEqual([
      [0, 3],
      [0, 2],
    ]);
    expect(linearGroup(view, [])).toEqual([]);
    expect(() => linearGroup(view, null as never)).toThrow(/linearGroup: layers must be an array/);
    expect(() => linearGroup(zeros([2, 5]), layers)).toThrow(/Linear/);
    // The packed copies of a group that failed are gone, and the next one works.
    expect(values(linearGroup(view, layers)[0])).toEqual(values(layers[0].forward(view)));
  });
});

describe("joint functions", () => {
  /** x·a and x·b, whose gradients for x are added in one product's place. */
  const both = defineJointFunction<number>({
    name: "both",
    forward(context, [x, a, b], factor) {
      context.save(x, a, b);
      return [matmul(x, a, { alpha: factor }), matmul(x, b, { alpha: factor })];
    },
    backward(context, dys, factor) {
      const [x, a, b] = context.saved();
      const [da, db] = dys.map((dy) => dy && matmul(x, dy, { transA: true, alpha: factor }));
      const dx = [a, b].flatMap((w, i) => {
        const dy = dys[i];
        return dy ? [matmul(dy, w, { transB: true, alpha: factor })] : [];
      });
      return [dx.length > 1 ? dx[0].add(dx[1]) : dx[0], da, db];
    },
  });
  const inputs = (): Tensor[] =>
    [
      [3, 4],
      [4, 2],
      [4, 5],
    ].map((shape, i) =>
      randn(shape, {
        generator: new Generator(i),
        dtype: "float64",
        device: "reference",
        requiresGrad: true,
      }),
    );

  it("have the gradients of finite differences, of one output and of both, used once or twice", () => {
    gradcheck((x, a, b) => both([x, a, b], 2)[1].square(), inputs());
    gradcheck((x, a, b) => {
      const [one, other] = both([x.mul(1), a, b], 2);
      return one.sum().mul(other.sum()).add(one.square().sum());
    }, inputs());
  });

  it("keep their graph when asked to, and free it otherwise", () => {
    const before = memoryStats().tensors;
    tidy(() => {
      const [x, a, b] = inputs();
      const [one, other] = both([x, a, b], 1);
      const loss = one.sum().add(other.sum());
      loss.backward(undefined, { retainGraph: true });
      const first = [...values(x.grad!)];
      loss.backward();
      expect([...values(x.grad!)]).toEqual(first.map((value) => 2 * value));
      expect(() => loss.backward()).toThrow(AutogradError);
      for (const one of [x, a, b]) one.zeroGrad();
    });
    expect(memoryStats().tensors).toBe(before);
  });

  it("record nothing where nothing is wanted, and refuse gradients of gradients by name", () => {
    const [x, a, b] = inputs();
    expect(noGrad(() => both([x, a, b], 1)).map((y) => y.requiresGrad)).toEqual([false, false]);
    const twice = grad((w) => grad((v) => both([v, a, b], 1)[0].square().sum())(w)[0].sum());
    expect(() => twice(x)).toThrow(/both: has no gradient of its gradient/);
  });

  it("let go of gradients whose walk did not come to an end", () => {
    const failing = defineJointFunction({
      name: "failing",
      forward: (_, [x]) => [x.mul(1), x.mul(2)],
      backward: () => {
        throw new Error("no");
      },
    });
    const before = memoryStats().tensors;
    tidy(() => {
      const [x] = inputs();
      const [one, other] = failing([x], undefined);
      expect(() => one.sum().add(other.sum()).backward()).toThrow("no");
    });
    expect(memoryStats().tensors).toBe(before);
  });
});

it("productsTogether gives what its calls give one by one, and nothing after an error", () => {
  const generator = new Generator(3);
  const x = randn([6, 4], { generator });
  const matrices = [randn([4, 3], { generator }), randn([4, 2], { generator })];
  const groups = [
    { start: 0, end: 2, index: 1 },
    { start: 3, end: 6, index: 0 },
  ];
  const outs = [zeros([6, 3]), zeros([6, 3])];
  productsTogether(() => {
    for (const out of outs) groupedMatmul(x, matrices, groups, { out });
    // Not before the end.
    expect(values(outs[0])).toEqual(new Float32Array(18));
  });
  const alone = groupedMatmul(x, matrices, groups);
  for (const out of outs) expect(values(out)).toEqual(values(alone));
  const untouched = zeros([6, 3]);
  expect(() =>
    productsTogether(() => {
      groupedMatmul(x, matrices, groups, { out: untouched });
      throw new Error("stop");
    }),
  ).toThrow("stop");
  expect(values(untouched)).toEqual(new Float32Array(18));
  groupedMatmul(x, matrices, groups, { out: untouched });
  expect(values(untouched)).toEqual(values(alone));
});
