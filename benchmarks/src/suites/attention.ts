// Scaled-dot-product attention: causal over a whole text, backward too, grouped heads, and one query over a cache.

import { noGrad, scaledDotProductAttention, type Tensor, tidy } from "@nomoat/core";
import type { Accuracy, Prepared } from "../model.js";
import { compareWithReference } from "../reference.js";
import { arithmetic, type Case, type Suite, seeded, sizesOf } from "./suite.js";

interface Shape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly queries: number;
  readonly keys: number;
  readonly backward: boolean;
}

/** Softmax in float32 over up to 2048 keys, and gradients through it. */
const tolerance = 2e-5;
/** Score elements that the reference may compute. */
const mostScores = 1 << 20;

function gradientsOf(shape: Shape, [q, k, v, dy]: readonly Tensor[]): Tensor[] {
  const inputs = [q, k, v];
  for (const x of inputs) x.requiresGrad = shape.backward;
  const out = scaledDotProductAttention(q, k, v, { causal: true });
  if (!shape.backward) return [out];
  out.mul(dy).sum().backward();
  return inputs.map((x) => {
    const { grad } = x;
    x.grad = null;
    return grad!;
  });
}

function inputsOf({ heads, kvHeads, headDim, queries, keys }: Shape): Tensor[] {
  return [
    seeded("q", [1, heads, queries, headDim], -2, 2),
    seeded("k", [1, kvHeads, keys, headDim], -2, 2),
    seeded("v", [1, kvHeads, keys, headDim]),
    seeded("dy", [1, heads, queries, headDim]),
  ];
}

/** The same kernel on as many heads as the reference computes in a moment. */
function verify(shape: Shape): Accuracy {
  const group = shape.heads / shape.kvHeads;
  const kvHeads = Math.max(
    1,
    Math.min(shape.kvHeads, Math.floor(mostScores / (shape.queries * shape.keys * group))),
  );
  const part = { ...shape, kvHeads, heads: kvHeads * group };
  return tidy(() => {
    const inputs = inputsOf(part);
    const results = gradientsOf(part, inputs);
    const key = `attention ${JSON.stringify(part)}`;
    return compareWithReference(results, inputs, (given) => gradientsOf(part, given), tolerance, key);
  });
}

function prepare(shape: Shape): Prepared {
  const inputs = inputsOf(shape);
  return {
    run() {
      if (shape.backward) tidy(() => void gradientsOf(shape, inputs));
      else
        noGrad(() => scaledDotProductAttention(inputs[0], inputs[1], inputs[2], { causal: true })).dispose();
    },
    verify: () => verify(shape),
    dispose() {
      for (const x of inputs) x.dispose();
    },
  };
}

function caseOf(shape: Shape): Case {
  const { heads, kvHeads, headDim, queries, keys, backward } = shape;
  // A causal query sees half of its text; two products forward, five more backward.
  const seen = queries === 1 ? keys : keys - (queries - 1) / 2;
  const operations = 2 * (backward ? 7 : 2) * heads * queries * seen * headDim;
  const values = headDim * (2 * heads * queries + 2 * kvHeads * keys);
  const grouped = heads === kvHeads ? "" : ` of ${kvHeads}`;
  const kind = queries === 1 ? "decode" : backward ? "forward+backward" : "forward";
  return {
    suite: "attention",
    name: `${kind} ${keys} keys, ${heads}${grouped} heads of ${headDim}`,
    parameters: { kind, queries, keys, heads, kvHeads, headDim },
    work: arithmetic(operations, 4 * values * (backward ? 3 : 1)),
    prepare: () => prepare(shape),
  };
}

export const attention: Suite = {
  name: "attention",
  about: "causal attention over 128 to 2048 positions, forward and backward, grouped heads, decoding",
  cases(sweep) {
    const sizes = sizesOf(sweep, {
      quick: [256],
      standard: [128, 512, 1024],
      long: [128, 256, 512, 1024, 2048],
    });
    return sizes.flatMap((keys) => {
      const whole = { heads: 12, kvHeads: 12, headDim: 64, queries: keys, keys, backward: false };
      const shapes = [
        whole,
        { ...whole, backward: true },
        { ...whole, kvHeads: 4 },
        { ...whole, queries: 1 },
      ];
      return shapes.map(caseOf);
    });
  },
};
