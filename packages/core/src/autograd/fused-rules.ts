// Gradients of the fused operations: by their kernels, or, while gradients are recorded, through the composition that defines each.

import { swigluReference } from "../ops/activation.js";
import { attentionReference } from "../ops/attention.js";
import { operand } from "../ops/dispatch.js";
import { recordsBackward } from "../ops/fused.js";
import * as ops from "../ops/index.js";
import { crossEntropyReference } from "../ops/loss.js";
import { layerNormReference, rmsNormReference } from "../ops/norm.js";
import { emptyLike, ropeReference } from "../ops/rope.js";
import { logSoftmaxReference, softmaxReference } from "../ops/softmax.js";
import { gradientsThrough } from "./backward.js";
import { dense, fused, like, type RuleTable } from "./rule.js";

type FusedOperation =
  | "softmax"
  | "logSoftmax"
  | "rmsNorm"
  | "layerNorm"
  | "rope"
  | "swiglu"
  | "attention"
  | "crossEntropy";

export const fusedRules: Pick<RuleTable, FusedOperation> = {
  softmax: fused(
    ["output"],
    [0],
    ([x]) => softmaxReference(x),
    (c, dy) => {
      const dx = like(dy);
      dy.storage.backend.fused.softmaxBackward!(operand(c.output()), operand(dy), operand(dx));
      return [dx];
    },
  ),
  logSoftmax: fused(
    ["output"],
    [0],
    ([x]) => logSoftmaxReference(x),
    (c, dy) => {
      const dx = like(dy);
      dy.storage.backend.fused.logSoftmaxBackward!(operand(c.output()), operand(dy), operand(dx));
      return [dx];
    },
  ),
  rmsNorm: fused(
    ["extras"],
    [0, 1],
    ([x, weight], { eps }) => rmsNormReference(x, weight, eps),
    (c, dy) => {
      const x = c.input(0);
      const dx = c.wants[0] ? like(x) : undefined;
      const dWeight = c.wants[1] ? like(x, c.shape(1)) : undefined;
      dy.storage.backend.fused.rmsNormBackward!(
        operand(x),
        operand(c.input(1)),
        operand(c.extra(0)),
        operand(dy),
        dx ? operand(dx) : null,
        dWeight ? operand(dWeight) : null,
      );
      return [dx, dWeight];
    },
    (input, { eps }) => ops.rmsNorm(input(0), input(1), eps),
  ),
  layerNorm: fused(
    ["extras"],
    [0, 1, 2],
    ([x, weight, bias], { eps }) => layerNormReference(x, weight, bias, eps),
    (c, dy) => {
      const x = c.input(0);
      const gradients = c.wants.map((wanted, i) => (wanted ? like(x, c.shape(i)) : undefined));
      const [dx, dWeight, dBias] = gradients.map((t) => (t ? operand(t) : null));
      dy.storage.backend.fused.layerNormBackward!(
        operand(x),
        operand(c.input(1)),
        operand(c.extra(0)),
        operand(c.extra(1)),
        operand(dy),
        dx,
        dWeight,
        dBias,
      );
      return gradients;
    },
  ),
  rope: {
    needs: (i) => (i === 0 ? [1, 2] : [0, 1, 2]),
    backward: (c, dy) => {
      if (!c.wants[1] && !c.wants[2]) return [ops.rope(dy, c.input(1), c.input(2), !c.attributes.inverse)];
      const values = [c.input(0), c.input(1), c.input(2)];
      return gradientsThrough(
        (x) => ropeReference(x[0], x[1], x[2], c.attributes.inverse),
        values,
        dy,
        c.wants,
      );
    },
  },
  swiglu: fused(
    [],
    [0, 1],
    ([gate, up]) => swigluReference(gate, up),
    (c, dy) => {
      const dGate = c.wants[0] ? like(dy) : undefined;
      const dUp = c.wants[1] ? like(dy) : undefined;
      dy.storage.backend.fused.swigluBackward!(
        operand(c.input(0)),
        operand(c.input(1)),
        operand(dy),
        dGate ? operand(dGate) : null,
        dUp ? operand(dUp) : null,
      );
      return [dGate, dUp];
    },
    (input) => ops.swiglu(input(0), input(1)),
  ),
  attention: {
    // The fourth input, if there is one, is the mask, which never wants a gradient here.
    needs: (_, count) => [0, 1, 2, ...(count > 3 ? [3] : []), "output", "extras"],
    backward: (c, dy) => {
      const [q, k, v] = [c.input(0), c.input(1), c.input(2)];
      const mask = c.wants.length > 3 ? c.input(3) : undefined;
      if (recordsBackward()) {
        return gradientsThrough(
          (x) => attentionReference(x[0], x[1], x[2], { ...c.attributes, mask }),
          [q, k, v],
          dy,
          c.wants,
        );
      }
      const dOut = dy.strides[3] === 1 ? dy : ops.clone(dy);
      const [dq, dk, dv] = [q, k, v].map((x) => emptyLike(x));
      dy.storage.backend.fused.attentionBackward!(
        operand(q),
        operand(k),
        operand(v),
        operand(c.output()),
        operand(c.extra(0)),
        operand(dOut),
        { ...c.attributes, mask: mask ? operand(mask) : null },
        operand(dq),
        operand(dk),
        operand(dv),
      );
      return [dq, dk, dv];
    },
  },
  crossEntropy: fused(
    [],
    [0, 1],
    ([logits, targets], { ignoreIndex }) => crossEntropyReference(logits, targets, ignoreIndex),
    (c, dy) => {
      // The kernel overwrites logits by their gradient, so it gets a copy.
      const dLogits = ops.clone(c.input(0));
      const losses = like(dy);
      dy.storage.backend.fused.crossEntropy!(
        operand(dLogits),
        operand(dense(c.input(1))),
        c.attributes.ignoreIndex,
        operand(losses),
        operand(dy),
      );
      return [dLogits, undefined];
    },
  ),
};
