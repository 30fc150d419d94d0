// Convolution and pooling against plain loops, masks, and what the layers' operations refuse.

import { describe, expect, test } from "vitest";
import * as ops from "../../src/index.js";
import { tensor, tidy, zeros } from "../../src/index.js";
import { backends, on } from "../support/backends.js";
import { expectClose, rounding, values } from "../support/numbers.js";

const normal = (count: number, seed: number) => values(count, seed, (next) => next() * 2 - 1);

/** conv2d by its definition. */
function convolve(
  x: number[],
  [n, c, h, w]: number[],
  k: number[],
  [o, , kh, kw]: number[],
  {
    stride,
    padding,
    dilation,
    groups,
  }: { stride: number[]; padding: number[]; dilation: number[]; groups: number },
): { shape: number[]; data: number[] } {
  const out = (i: number, extent: number, size: number) =>
    Math.floor((extent + 2 * padding[i] - dilation[i] * (size - 1) - 1) / stride[i]) + 1;
  const [oh, ow] = [out(0, h, kh), out(1, w, kw)];
  const data: number[] = [];
  const [cg, og] = [c / groups, o / groups];
  for (let b = 0; b < n; b++)
    for (let f = 0; f < o; f++)
      for (let y = 0; y < oh; y++)
        for (let z = 0; z < ow; z++) {
          let sum = 0;
          for (let ci = 0; ci < cg; ci++)
            for (let i = 0; i < kh; i++)
              for (let j = 0; j < kw; j++) {
                const r = y * stride[0] + i * dilation[0] - padding[0];
                const s = z * stride[1] + j * dilation[1] - padding[1];
                if (r < 0 || r >= h || s < 0 || s >= w) continue;
                const channel = Math.floor(f / og) * cg + ci;
                sum += x[((b * c + channel) * h + r) * w + s] * k[((f * cg + ci) * kh + i) * kw + j];
              }
          data.push(sum);
        }
  return { shape: [n, o, oh, ow], data };
}

describe.each(backends)("$name", (subject) => {
  const make = (data: number[], shape: readonly number[]) => tensor(data, on(subject, { shape } as object));

  test.each([
    { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1 },
    { stride: [2, 3], padding: [1, 2], dilation: [1, 1], groups: 2 },
    { stride: [1, 2], padding: [3, 0], dilation: [2, 1], groups: 4 },
  ])("conv2d, $stride $padding $dilation $groups", (options) => {
    const shapes = [
      [2, 4, 7, 8],
      [8, 4 / options.groups, 3, 2],
    ];
    const [x, k] = shapes.map((shape, i) =>
      normal(
        shape.reduce((a, b) => a * b),
        i + 5,
      ),
    );
    const expected = convolve(x, shapes[0], k, shapes[1], options);
    tidy(() => {
      const y = ops.conv2d(make(x, shapes[0]), make(k, shapes[1]), null, options);
      expect(y.shape).toEqual(expected.shape);
      expectClose(y.dataSync(), expected.data, rounding[subject.dtype]);
    });
  });

  test("pooling of known numbers", () => {
    tidy(() => {
      const x = make([1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 1, 3, 3]);
      expect(ops.maxPool2d(x, 2, { stride: 1 }).toArray()).toEqual([
        [
          [
            [5, 6],
            [8, 9],
          ],
        ],
      ]);
      expect(ops.maxPool2d(x, 3, { stride: 2, padding: 1 }).toArray()).toEqual([
        [
          [
            [5, 6],
            [8, 9],
          ],
        ],
      ]);
      const line = make([-1, -2, -3], [1, 1, 3]);
      expect(ops.maxPool1d(line, 2, { padding: 1 }).toArray()).toEqual([[[-1, -2]]]);
      expect(ops.avgPool1d(line, 2, { padding: 1 }).toArray()).toEqual([[[-0.5, -2.5]]]);
      expect(ops.avgPool1d(line, 2, { padding: 1, countIncludePad: false }).toArray()).toEqual([
        [[-1, -2.5]],
      ]);
    });
  });

  test("a mask hides keys, and a query that sees none gets zeros", () => {
    tidy(() => {
      const [q, k, v] = [1, 2, 3].map((seed) => make(normal(12, seed), [1, 1, 3, 4]));
      const last = tensor([[true, true, false]], { device: subject.device });
      const some = ops.scaledDotProductAttention(q, k, v, { mask: last });
      const without = ops.scaledDotProductAttention(
        q,
        k.slice(null, null, [0, 2]),
        v.slice(null, null, [0, 2]),
      );
      expectClose(some.dataSync(), without.dataSync(), rounding[subject.dtype]);
      const causal = ops.scaledDotProductAttention(q, k, v, { causal: true });
      const triangle = ops.tril(ops.ones([3, 3], on(subject))).cast("bool");
      const masked = ops.scaledDotProductAttention(q, k, v, { mask: triangle });
      expectClose(masked.dataSync(), causal.dataSync(), rounding[subject.dtype]);
      const none = zeros([3, 3], on(subject)).cast("bool");
      q.requiresGrad = true;
      const blind = ops.scaledDotProductAttention(q, k, v, { mask: none });
      blind.sum().backward();
      expect([...blind.dataSync(), ...q.grad!.dataSync()]).toEqual(Array(24).fill(0));
    });
  });

  test("losses stay finite far out", () => {
    tidy(() => {
      const logits = make([800, -800], [2]);
      expect([...ops.bceWithLogits(logits, make([0, 1], [2]), { reduction: "none" }).dataSync()]).toEqual([
        800, 800,
      ]);
      expect([...ops.bceWithLogits(logits, make([1, 0], [2]), { reduction: "none" }).dataSync()]).toEqual([
        0, 0,
      ]);
    });
  });

  test("dropout keeps the mean, repeats with its generator and leaves evaluation alone", () => {
    tidy(() => {
      const x = ops.ones([10_000], on(subject));
      const draw = () => ops.dropout(x, 0.25, { generator: new ops.Generator(1) });
      const y = draw().dataSync();
      expect(new Set(y).size).toBe(2);
      expect(ops.mean(draw()).item()).toBeCloseTo(1, 1);
      expect([...draw().dataSync()]).toEqual([...y]);
      expect([...ops.dropout(x, 0.25, { training: false }).dataSync().slice(0, 3)]).toEqual([1, 1, 1]);
    });
  });
});

test("errors name the operation and the numbers", () => {
  const fails = (fn: () => unknown, message: string) => expect(() => tidy(() => void fn())).toThrow(message);
  const image = [1, 2, 4, 4];
  fails(
    () => ops.conv2d(zeros(image), zeros([1, 3, 2, 2])),
    "conv2d: weight [1, 3, 2, 2] with 1 groups does not fit x [1, 2, 4, 4] (channels 2, expected 3",
  );
  fails(
    () => ops.conv2d(zeros(image), zeros([1, 2, 5, 1])),
    "conv2d: a window of 5 does not fit axis 2 of the padded input [1, 2, 4, 4]",
  );
  fails(() => ops.conv2d(zeros(image), zeros([1, 2, 1, 1]), zeros([2])), "conv2d: bias [2] should be [1]");
  fails(() => ops.conv1d(zeros(image), zeros([1, 2, 1])), "conv1d: expected x [batch, inChannels, length]");
  fails(
    () => ops.conv2d(zeros(image), zeros([1, 2, 1, 1]), null, { stride: 0 }),
    "conv2d: stride must be a positive integer, not 0",
  );
  fails(
    () => ops.conv2d(zeros(image), zeros([1, 2, 1, 1]), null, { padding: [1] }),
    "conv2d: padding [1] should have 2 entries",
  );
  fails(
    () => ops.maxPool2d(zeros(image), 2, { padding: 2 }),
    "maxPool2d: padding 2 exceeds half of the window's size 2",
  );
  fails(() => ops.unfold(zeros([3]), 0, 4), "unfold: a window of 4 does not fit axis 0 of [3] (4 > 3)");
  fails(
    () => ops.layerNorm(zeros([2, 3]), zeros([2])),
    "layerNorm: weight [2] does not fit the last axes of x [2, 3]",
  );
  fails(
    () => ops.groupNorm(zeros([2, 3]), 2),
    "groupNorm: expected x [batch, channels, ...] with channels a multiple of groups, not [2, 3] and 2",
  );
  fails(() => ops.dropout(zeros([1]), 1.5), "dropout: p must be within 0 … 1, not 1.5");
  fails(() => ops.mse(zeros([2]), zeros([1, 2])), "mse: target [1, 2] should be [2], as the input");
  fails(
    () =>
      ops.scaledDotProductAttention(zeros([1, 1, 2, 2]), zeros([1, 1, 3, 2]), zeros([1, 1, 3, 2]), {
        mask: zeros([2, 2, 3]),
      }),
    "mask [2, 2, 3] does not broadcast to [batch, heads, queries, keys] [1, 1, 2, 3]",
  );
});
