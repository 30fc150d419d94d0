// Right calls of every function that takes numbers, each number with wrong ones beside it.

import * as nm from "../../src/index.js";
import * as nn from "../../src/nn/index.js";
import { f, i32 } from "./wrong.js";

type Kind = new (good: number, wrong: readonly number[]) => object;
const { NaN: nan, POSITIVE_INFINITY: inf } = Number;
const tooLarge = 2 ** 53;

/** By function, lists of arguments in which numbers are marked by `Wrong`. */
export function calls(Wrong: Kind): Record<string, (() => unknown[])[]> {
  /** An axis of a tensor of `rank`. */
  const axis = (good: number, rank = 2) => new Wrong(good, [rank, -rank - 1, 0.5, nan, inf, -inf, tooLarge]);
  /** How many, or how long: 0 is possible. */
  const count = (good: number) => new Wrong(good, [-1, 0.5, nan, inf, tooLarge]);
  /** As `count`, but 0 is not possible. */
  const positive = (good: number) => new Wrong(good, [0, -1, 0.5, nan, inf]);
  const integer = (good: number) => new Wrong(good, [0.5, nan, inf, -inf]);
  /** An extent: −1 has a meaning of its own. */
  const extent = (good: number) => new Wrong(good, [-2, 0.5, nan, inf, tooLarge]);
  const probability = (good: number) => new Wrong(good, [-0.1, 1.1, nan, inf]);
  const number = (good: number) => new Wrong(good, [nan]);
  const finite = (good: number) => new Wrong(good, [nan, inf, -inf]);
  /** Finite and at least 0. */
  const amount = (good: number) => new Wrong(good, [-1, nan, inf, -inf]);
  const x = () => f(2, 3);
  const parameter = () => [nn.parameter(f(2))];
  const overAxis = [() => [x(), axis(0)], () => [x(), [axis(0), axis(1)]]];
  const oneAxis = [() => [x(), axis(-1)]];
  const shape = () => [[count(2), count(3)]];
  const windows = (of: () => nm.Tensor) => [
    () => [of(), positive(2)],
    () => [of(), 2, { stride: positive(1), padding: new Wrong(1, [-1, 2, 0.5, nan, inf]) }],
  ];
  const [sequence, image] = [() => f(1, 2, 4), () => f(1, 2, 4, 4)];

  return {
    ...{ sum: overAxis, prod: overAxis, max: overAxis, min: overAxis, mean: overAxis, logsumexp: overAxis },
    ...{ any: overAxis, all: overAxis, argmax: oneAxis, argmin: oneAxis, cumsum: oneAxis, cumprod: oneAxis },
    ...{ softmax: oneAxis, logSoftmax: oneAxis, argsort: oneAxis, sort: oneAxis },
    variance: [...overAxis, () => [x(), 0, false, number(1)]],
    std: [...overAxis, () => [x(), 0, false, number(1)]],
    norm: [() => [x(), 2, axis(0)], () => [x(), number(2)]],
    topk: [() => [x(), new Wrong(1, [-1, 4, 0.5, nan, inf]), axis(1)]],

    ...{ zeros: [shape], ones: [shape], rand: [shape], randn: [shape] },
    fullLike: [() => [i32(1), finite(1)]],
    full: [() => [[count(2)], 0.5], () => [[2], finite(1), { dtype: "int32" }]],
    eye: [() => [count(2)]],
    arange: [() => [finite(0), finite(3), new Wrong(1, [nan, inf, 0])]],
    linspace: [() => [finite(0), finite(1), count(3)]],
    tensor: [
      () => [[1, 2], { shape: [count(2)] }],
      () => [[new Wrong(1, [nan, 0.5, 300, -1])], { dtype: "uint8" }],
    ],
    fromBuffer: [() => [new Float32Array(2), { shape: [count(2)] }]],
    uniform: [() => [[count(2)], finite(0), finite(1)]],
    randint: [() => [integer(0), integer(5), [count(2)]]],
    bernoulli: [() => [[count(2)], probability(0.5)]],
    permutation: [() => [count(3)]],
    multinomial: [() => [f(3), count(2)], () => [nm.tensor([1, 2]), count(1)]],
    manualSeed: [() => [new Wrong(1, [-1, 0.5, nan, inf, tooLarge * 2 ** 12])]],
    Generator: [() => [new Wrong(1, [-1, 0.5, nan, inf]), new Wrong(1, [-1, 0.5, nan, inf])]],

    reshape: [() => [x(), [extent(3), extent(2)]]],
    view: [() => [x(), [extent(3), extent(2)]]],
    flatten: [() => [x(), axis(0), axis(1)]],
    permute: [() => [x(), [axis(1), axis(0)]]],
    transpose: [() => [x(), axis(0), axis(1)]],
    squeeze: [() => [f(1, 2), axis(0)]],
    unsqueeze: [() => [x(), axis(0, 3)]],
    expand: [() => [f(1, 3), [extent(2), extent(3)]]],
    broadcastTo: [() => [f(1, 3), [extent(2), extent(3)]]],
    slice: [
      () => [x(), new Wrong(1, [2, -3, 0.5, nan, inf])],
      () => [x(), [integer(0), integer(2), new Wrong(1, [0, 0.5, nan, inf])]],
    ],
    index: [
      () => [x(), new Wrong(1, [2, -3, 0.5, nan, inf]), i32(0)],
      () => [x(), i32(0), new Wrong(1, [3, -4, 0.5, nan, inf])],
      () => [x(), [integer(0), integer(2), new Wrong(1, [0, 0.5, nan])], i32(0)],
    ],
    concat: [() => [[x(), x()], axis(0)]],
    stack: [() => [[x(), x()], axis(0, 3)]],
    split: [() => [x(), positive(1), axis(1)], () => [x(), [count(1), count(2)], 1]],
    chunk: [() => [x(), positive(2), axis(1)]],
    flip: [() => [x(), axis(0)], () => [x(), [axis(0), axis(1)]]],
    roll: [() => [x(), integer(1), axis(1)], () => [x(), integer(1)]],
    repeat: [() => [x(), count(2), axis(0)]],
    tile: [() => [x(), count(2)], () => [x(), [count(1), count(2)]]],
    pad: [
      () => [x(), [[count(1), count(0)]]],
      () => [x(), [[new Wrong(1, [-1, 3, 0.5, nan]), 0]], "reflect"],
    ],
    diag: [() => [x(), integer(0)], () => [f(3), integer(1)]],
    diagonal: [() => [x(), integer(0), axis(0), axis(1)]],
    trace: [() => [x(), integer(1)]],
    moveaxis: [() => [x(), axis(0), axis(1)], () => [x(), [axis(0), 1], [1, axis(0)]]],
    unbind: [() => [x(), axis(0)]],
    allclose: [() => [x(), x(), amount(1e-5), amount(1e-8)]],
    isclose: [() => [x(), x(), amount(1e-5), amount(1e-8)]],
    tril: [() => [x(), integer(0)]],
    triu: [() => [x(), integer(0)]],
    unfold: [() => [x(), axis(1), positive(2), positive(1), positive(1)]],
    take: [() => [x(), i32(0), axis(0)]],
    takeAlongAxis: [() => [x(), nm.zeros([2, 3], { dtype: "int32" }), axis(1)]],
    scatter: [() => [x(), nm.zeros([2, 3], { dtype: "int32" }), x(), axis(1)]],
    scatterAdd: [() => [count(3), i32(0, 1), x()]],
    oneHot: [() => [i32(0, 1), new Wrong(2, [-1, 0.5, nan, inf])]],

    clip: [() => [x(), number(0), number(1)]],
    leakyRelu: [() => [x(), number(0.1)]],
    dropout: [() => [x(), probability(0.5)]],
    rmsNorm: [() => [x(), f(3), amount(1e-6)]],
    layerNorm: [() => [x(), null, null, amount(1e-6)]],
    groupNorm: [() => [sequence(), positive(2), null, null, amount(1e-6)]],
    scaledDotProductAttention: [
      () => {
        const q = f(1, 1, 2, 2);
        return [q, q, q, { scale: finite(1), dropoutP: probability(0.5) }];
      },
    ],
    conv1d: [
      () => [
        sequence(),
        f(2, 1, 2),
        null,
        { stride: positive(1), padding: count(1), dilation: positive(1), groups: positive(2) },
      ],
    ],
    conv2d: [() => [image(), f(2, 2, 2, 2), null, { stride: [positive(1), positive(1)], padding: count(1) }]],
    ...{
      maxPool1d: windows(sequence),
      avgPool1d: windows(sequence),
      maxPool1dWithIndices: windows(sequence),
    },
    ...{ maxPool2d: windows(image), avgPool2d: windows(image), maxPool2dWithIndices: windows(image) },
    ...{
      adaptiveAvgPool1d: [() => [sequence(), count(2)]],
      adaptiveMaxPool1d: [() => [sequence(), count(2)]],
    },
    ...{
      adaptiveAvgPool2d: [() => [image(), count(2)]],
      adaptiveMaxPool2d: [() => [image(), [count(2), count(2)]]],
    },
    crossEntropy: [
      () => [x(), i32(0, 1), { labelSmoothing: probability(0.1) }],
      () => [x(), i32(0, 1), { ignoreIndex: integer(-100) }],
    ],
    linearCrossEntropy: [
      () => [x(), f(4, 3), i32(0, 1), { labelSmoothing: probability(0.1), ignoreIndex: integer(-100) }],
    ],

    "Linear.create": [() => [count(3), count(2)]],
    "Embedding.create": [() => [count(3), count(2)]],
    "RMSNorm.create": [() => [count(3), amount(1e-6)]],
    "LayerNorm.create": [() => [count(3)], () => [[count(2), count(3)]]],
    "GroupNorm.create": [() => [positive(2), count(4)]],
    "Conv1d.create": [() => [count(2), count(2), positive(3), { groups: positive(2) }]],
    "Conv2d.create": [() => [count(2), count(2), positive(3), { groups: positive(2) }]],
    "MultiheadAttention.create": [() => [count(4), positive(2), { dropout: probability(0.1) }]],
    Dropout: [() => [probability(0.5)]],
    kaimingUniform: [() => [[count(2), count(3)], number(0)]],
    kaimingNormal: [() => [[count(2), count(3)], number(0)]],
    xavierUniform: [() => [[count(2), count(3)], finite(1)]],
    xavierNormal: [() => [[count(2), count(3)], finite(1)]],
    normal: [() => [[count(2)], amount(1)]],
    truncNormal: [() => [[count(2)], new Wrong(1, [0, -1, nan, inf]), { low: finite(-2), high: finite(2) }]],
    orthogonal: [() => [[count(2), count(3)], finite(1)]],

    SGD: [() => [parameter(), { learningRate: amount(0.1), momentum: amount(0.9), weightDecay: amount(0) }]],
    ...Object.fromEntries(
      ["Adam", "AdamW", "AdamW8bit"].map((name) => [
        name,
        [
          () => [
            parameter(),
            {
              learningRate: amount(0.1),
              epsilon: amount(1e-8),
              weightDecay: amount(0),
              betas: [new Wrong(0.9, [-0.1, 1, nan]), new Wrong(0.99, [-0.1, 1, nan])],
            },
          ],
        ],
      ]),
    ),
    Lion: [
      () => [
        parameter(),
        { learningRate: amount(0.1), weightDecay: amount(0), betas: [new Wrong(0.9, [-0.1, 1, nan]), 0.99] },
      ],
    ],
    Adafactor: [() => [parameter(), { learningRate: amount(0.1), weightDecay: amount(0) }]],
    clipGradNorm: [() => [parameter(), new Wrong(1, [-1, nan]), new Wrong(2, [nan])]],
    gradNorm: [() => [parameter(), new Wrong(2, [nan])]],
    clipGradValue: [() => [parameter(), new Wrong(1, [-1, nan])]],
    clipScale: [() => [1, new Wrong(1, [-1, nan])]],
    cosineSchedule: [
      () => [{ warmupSteps: amount(1), totalSteps: amount(4), minFactor: amount(0), cycles: finite(0.5) }],
    ],
    linearSchedule: [() => [{ warmupSteps: amount(1), totalSteps: amount(4), minFactor: amount(0) }]],
    constantSchedule: [() => [{ warmupSteps: amount(1) }]],
    polynomialSchedule: [() => [{ totalSteps: amount(4), power: new Wrong(1, [0, -1, nan, inf]) }]],
    oneCycleSchedule: [
      () => [
        {
          totalSteps: new Wrong(4, [0, -1, nan, inf]),
          warmupShare: probability(0.3),
          initialDivisor: new Wrong(25, [0, nan, inf]),
          finalDivisor: new Wrong(25, [0, nan, inf]),
        },
      ],
    ],
  };
}
