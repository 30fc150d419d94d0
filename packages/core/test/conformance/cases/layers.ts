// Cases of normalisation, convolution, pooling, dropout, masks and the element-by-element losses.

import * as ops from "../../../src/index.js";
import {
  distinct,
  exactly,
  flags,
  nonzero,
  normal,
  type OpCase,
  op,
  positive,
} from "../../support/check-op.js";

// float32 loses some digits where a variance is small.
const normed = { float32: 1e-5, float32Second: 2e-4 };
const shares = exactly([2, 3], [0.25, 0.5, 0.25, 0, 0.375, 0.625]);
const additive = exactly([1, 1, 2, 3], [0, -0.5, 1, Number.NEGATIVE_INFINITY, 0.25, 0]);
const onlyInputs = { ...additive, values: additive.values.map((v) => (Number.isFinite(v) ? v : -2)) };

/** The same elements dropped on every run. */
const seeded = (x: ops.Tensor) => ops.dropout(x, 0.4, { generator: new ops.Generator(3) });

const everyPooling = { stride: 2, padding: [1, 0], dilation: [1, 2], ceilMode: true };

export const layerCases: OpCase[] = [
  op("layerNorm", (x, w, b) => ops.layerNorm(x, w, b), [normal(3, 5), positive(5), normal(5)], normed),
  op("layerNorm over two axes", (x, w) => ops.layerNorm(x, w), [normal(2, 3, 4), positive(3, 4)], normed),
  op("layerNorm, plain", (x) => ops.layerNorm(x, null, null, 0.1), [normal(2, 4)], normed),
  op("layerNorm of no rows", (x, w) => ops.layerNorm(x, w), [normal(0, 3), positive(3)]),
  op("groupNorm", (x, w, b) => ops.groupNorm(x, 2, w, b), [normal(2, 4, 3), positive(4), normal(4)], normed),
  op("groupNorm, plain", (x) => ops.groupNorm(x, 1, null, null, 0.1), [normal(2, 2, 2, 2)], normed),
  op("dropout", seeded, [nonzero(3, 4)]),
  op("dropout of all", (x) => ops.dropout(x, 1), [nonzero(3, 4)]),
  op("dropout in evaluation", (x) => ops.dropout(x, 0.5, { training: false }), [nonzero(3, 4)]),
  op("unfold", (x) => ops.unfold(x, 1, 3, 2), [normal(2, 8)]),
  op("unfold, overlapping and dilated", (x) => ops.unfold(x, 0, 2, 1, 3), [normal(6, 2)]),
  op("unfold side by side", (x) => ops.unfold(x, -1, 2, 2), [normal(2, 6)]),
  op("conv1d", (x, w, b) => ops.conv1d(x, w, b, { stride: 2, padding: 1 }), [
    normal(2, 3, 7),
    normal(4, 3, 3),
    normal(4),
  ]),
  op("conv1d, dilated, in groups", (x, w) => ops.conv1d(x, w, null, { dilation: 2, groups: 2 }), [
    normal(1, 4, 6),
    normal(2, 2, 2),
  ]),
  op("conv2d", (x, w, b) => ops.conv2d(x, w, b), [normal(2, 2, 4, 5), normal(3, 2, 3, 2), normal(3)]),
  op(
    "conv2d, every option",
    (x, w) => ops.conv2d(x, w, null, { stride: [2, 1], padding: [1, 2], dilation: [1, 2] }),
    [normal(1, 2, 5, 4), normal(2, 2, 3, 2)],
  ),
  op("conv2d, depthwise", (x, w) => ops.conv2d(x, w, null, { groups: 3, padding: 1 }), [
    normal(1, 3, 3, 3),
    normal(3, 1, 3, 3),
  ]),
  op("conv2d, 1 × 1", (x, w) => ops.conv2d(x, w), [normal(2, 3, 2, 2), normal(2, 3, 1, 1)]),
  op("conv2d of no images", (x, w) => ops.conv2d(x, w), [normal(0, 2, 3, 3), normal(2, 2, 2, 2)]),
  op("maxPool1d", (x) => ops.maxPool1d(x, 2), [distinct(2, 1, 6)]),
  op("maxPool1d, padded", (x) => ops.maxPool1d(x, 3, { stride: 2, padding: 1 }), [distinct(1, 2, 5)]),
  op("maxPool2d", (x) => ops.maxPool2d(x, [2, 3], { stride: 1 }), [distinct(1, 2, 3, 4)]),
  op("maxPool1d, dilated", (x) => ops.maxPool1d(x, 2, { stride: 1, dilation: 3 }), [distinct(1, 2, 7)]),
  op("maxPool2d, every option", (x) => ops.maxPool2d(x, [3, 2], everyPooling), [distinct(1, 2, 6, 5)]),
  op("maxPool1dWithIndices", (x) => ops.tidy(() => ops.maxPool1dWithIndices(x, 2).values), [
    distinct(2, 2, 5),
  ]),
  op(
    "maxPool1dWithIndices, indices",
    (x) => ops.tidy(() => ops.maxPool1dWithIndices(x, 3, { stride: 2, padding: 1 }).indices),
    [distinct(2, 2, 5)],
    { gradient: false },
  ),
  op("maxPool2dWithIndices", (x) => ops.tidy(() => ops.maxPool2dWithIndices(x, 2, everyPooling).values), [
    distinct(1, 2, 6, 5),
  ]),
  op(
    "maxPool2dWithIndices, indices",
    (x) => ops.tidy(() => ops.maxPool2dWithIndices(x, [3, 2], everyPooling).indices),
    [distinct(1, 2, 6, 5)],
    { gradient: false },
  ),
  op("adaptiveAvgPool1d", (x) => ops.adaptiveAvgPool1d(x, 2), [normal(2, 1, 6)]),
  op("adaptiveAvgPool1d, overlapping", (x) => ops.adaptiveAvgPool1d(x, 3), [normal(1, 2, 7)]),
  op("adaptiveAvgPool1d, longer", (x) => ops.adaptiveAvgPool1d(x, 5), [normal(1, 2, 3)]),
  op("adaptiveAvgPool2d", (x) => ops.adaptiveAvgPool2d(x, [2, 3]), [normal(1, 2, 5, 3)]),
  op("adaptiveMaxPool1d", (x) => ops.adaptiveMaxPool1d(x, 3), [distinct(1, 2, 7)]),
  op("adaptiveMaxPool2d", (x) => ops.adaptiveMaxPool2d(x, 2), [distinct(1, 2, 5, 4)]),
  op("avgPool1d, ceiling", (x) => ops.avgPool1d(x, 3, { stride: 2, padding: 1, ceilMode: true }), [
    normal(1, 2, 6),
  ]),
  op("avgPool1d", (x) => ops.avgPool1d(x, 2, { stride: 1 }), [normal(2, 2, 4)]),
  op("avgPool2d", (x) => ops.avgPool2d(x, 3, { stride: 2, padding: 1 }), [normal(1, 2, 5, 4)]),
  op(
    "avgPool2d, without padding",
    (x) => ops.avgPool2d(x, 3, { stride: 2, padding: 1, countIncludePad: false }),
    [normal(1, 2, 5, 4)],
  ),
  op("mse", (x, t) => ops.mse(x, t), [normal(3, 4), nonzero(3, 4)]),
  op("mse, each", (x, t) => ops.mse(x, t, { reduction: "none" }), [normal(2, 3), nonzero(2, 3)]),
  op("mse of nothing, sum", (x, t) => ops.mse(x, t, { reduction: "sum" }), [normal(0), normal(0)]),
  op("bceWithLogits", (x, t) => ops.bceWithLogits(x, t), [normal(2, 3), shares]),
  op(
    "bceWithLogits, weighted",
    (x, t, weight, posWeight) => ops.bceWithLogits(x, t, { weight, posWeight, reduction: "sum" }),
    [normal(2, 3), shares, positive(2, 1), positive(3)],
  ),
  op("klDivergence", (x, t) => ops.tidy(() => ops.klDivergence(ops.logSoftmax(x), t)), [
    normal(2, 3),
    positive(2, 3),
  ]),
  op(
    "klDivergence, a zero target",
    (x) => {
      const t = ops.tensor(shares.values, { shape: [2, 3], dtype: x.dtype, device: x.device });
      const loss = ops.tidy(() => ops.klDivergence(ops.logSoftmax(x), t, { reduction: "none" }));
      t.dispose();
      return loss;
    },
    [normal(2, 3)],
  ),
  op("klDivergence, log target", (x, t) => ops.klDivergence(x, t, { logTarget: true, reduction: "mean" }), [
    normal(2, 3),
    normal(2, 3),
  ]),
  op("attention, bool mask", (q, k, v, mask) => ops.scaledDotProductAttention(q, k, v, { mask }), [
    normal(1, 2, 2, 2),
    nonzero(1, 1, 3, 2),
    normal(1, 1, 3, 2),
    { ...flags(2, 3), values: [1, 0, 1, 0, 0, 0] },
  ]),
  op(
    "attention, bool mask, dropout",
    (q, k, v, mask) =>
      ops.scaledDotProductAttention(q, k, v, { mask, dropoutP: 0.3, generator: new ops.Generator(5) }),
    [
      normal(1, 2, 2, 2),
      nonzero(1, 1, 3, 2),
      normal(1, 1, 3, 2),
      { ...flags(2, 3), values: [1, 1, 0, 1, 0, 1] },
    ],
  ),
  op(
    "attention, causal, dropout",
    (q, k, v) =>
      ops.scaledDotProductAttention(q, k, v, {
        causal: true,
        dropoutP: 0.4,
        generator: new ops.Generator(2),
      }),
    [normal(1, 2, 3, 2), nonzero(1, 1, 3, 2), normal(1, 1, 3, 2)],
  ),
  op(
    "attention, additive mask",
    (q, k, v, mask) => ops.scaledDotProductAttention(q, k, v, { mask, causal: true }),
    [normal(1, 2, 2, 2), nonzero(1, 2, 3, 2), normal(1, 2, 3, 2), onlyInputs],
  ),
  op(
    "attention, additive mask, grouped heads",
    (q, k, v, mask) => ops.scaledDotProductAttention(q, k, v, { mask }),
    [normal(1, 4, 2, 2), nonzero(1, 2, 3, 2), normal(1, 2, 3, 2), normal(2, 3)],
  ),
];
