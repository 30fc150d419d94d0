// Scaled-dot-product attention with grouped heads.

import { requireFinite, requireOptions, requireProbability } from "../arguments.js";
import { fusedBackward, type OwnRule } from "../autograd/rule.js";
import type { AttentionOptions } from "../backend/types.js";
import { positions } from "../creation.js";
import { requireFloat } from "../dtype.js";
import { ShapeError } from "../errors.js";
import { tidy } from "../memory.js";
import type { Generator } from "../random.js";
import { broadcastShapes, formatShape, sameShape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { commonBackend, contiguous, empty, finishBy, operand } from "./dispatch.js";
import { dropout } from "./dropout.js";
import { add, cast, greater, less, mul, where } from "./elementwise.js";
import { fusedKernels } from "./fused.js";
import { matmul } from "./matmul.js";
import { max } from "./reduce.js";
import { emptyLike } from "./rope.js";
import { softmax } from "./softmax.js";
import { clone, expand, reshape, unsqueeze } from "./view.js";

/** A mask's float below which a key is not seen; near the lowest of float32 the softmax would know no differences. */
const hiddenBelow = -1e30;

export interface AttentionArguments {
  /** Query i sees keys up to i + (keys − queries) only: queries are aligned to the end of the keys. Default false. */
  causal?: boolean;
  /** Factor of q·kᵀ; default 1/√headDim. */
  scale?: number;
  /**
   * Which keys a query sees: bool (true where it does), or float numbers added to the scaled scores. Broadcasts to
   * [batch, heads, queries, keys]. A float below −1e30 hides its key as −∞ does; a query that sees no key gives zeros.
   * A mask that wants a gradient takes the composition, which stores the scores.
   */
  mask?: Tensor;
  /** Probability with which each weight of a key is dropped, the others scaled by 1/(1 − p), in training (default 0). Stores the scores. */
  dropoutP?: number;
  /** Source of dropout's random numbers; default the generator that `manualSeed` seeds. */
  generator?: Generator;
}

/**
 * softmax(scale · q·kᵀ + mask) · v, never storing queries × keys where a kernel runs.
 *
 * @param q - [batch, heads, queries, headDim]
 * @param k - [batch, kvHeads, keys, headDim]; heads is a multiple of kvHeads, each serves heads/kvHeads neighbours
 * @param v - [batch, kvHeads, keys, headDim]
 * @returns [batch, heads, queries, headDim], laid out as q is
 */
export function scaledDotProductAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: AttentionArguments = {},
): Tensor {
  const backend = commonBackend("scaledDotProductAttention", [q, k, v]);
  requireOptions("scaledDotProductAttention", options, ["causal", "scale", "mask", "dropoutP", "generator"]);
  const fits =
    q.rank === 4 &&
    k.rank === 4 &&
    v.rank === 4 &&
    k.shape.every((extent, i) => extent === v.shape[i]) &&
    q.shape[0] === k.shape[0] &&
    q.shape[3] === k.shape[3] &&
    k.shape[1] > 0 &&
    q.shape[1] % k.shape[1] === 0;
  if (!fits) {
    throw new ShapeError(
      `scaledDotProductAttention: expected q [batch, heads, queries, headDim] and k, v [batch, kvHeads, keys, headDim] with heads a multiple of kvHeads, not ${formatShape(q.shape)}, ${formatShape(k.shape)}, ${formatShape(v.shape)}`,
    );
  }
  const causal = options.causal ?? false;
  if (causal && q.shape[2] > k.shape[2]) {
    throw new ShapeError(
      `scaledDotProductAttention: causal attention needs as many keys as queries at least (${q.shape[2]} > ${k.shape[2]})`,
    );
  }
  const scale = options.scale ?? 1 / Math.sqrt(q.shape[3]);
  requireFinite("scaledDotProductAttention", "scale", scale);
  const { mask, dropoutP = 0, generator } = options;
  requireProbability("scaledDotProductAttention", "dropoutP", dropoutP);
  if (mask) {
    commonBackend("scaledDotProductAttention", [q, mask]);
    if (mask.dtype !== "bool") requireFloat("scaledDotProductAttention", "mask", mask.dtype);
    const scores = [...q.shape.slice(0, 3), k.shape[2]];
    if (!sameShape(broadcastShapes("scaledDotProductAttention", mask.shape, scores), scores)) {
      throw new ShapeError(
        `scaledDotProductAttention: mask ${formatShape(mask.shape)} does not broadcast to [batch, heads, queries, keys] ${formatShape(scores)}`,
      );
    }
  }
  const masks = mask ? (["attentionMasks"] as const) : [];
  const kernels = fusedKernels([q, k, v], "attention", "attentionBackward", ...masks);
  if (!kernels || mask?.requiresGrad || dropoutP > 0)
    return attentionReference(q, k, v, { scale, causal, mask, dropoutP, generator });
  return tidy(() => {
    const inputs = [q, k, v].map((x) => (x.strides[3] === 1 ? x : contiguous(x)));
    if (mask) {
      const laid = mask.dtype === "bool" ? mask : cast(mask, "float32");
      inputs.push(expand(laid, [...q.shape.slice(0, 3), k.shape[2]]));
    }
    const [queries, keys, values, seen] = inputs.map((x) => operand(x));
    const out = emptyLike(inputs[0]);
    const logSumExp = empty(backend, "float32", q.shape.slice(0, 3));
    const options = { scale, causal, mask: seen ?? null };
    kernels.attention(queries, keys, values, options, operand(out), operand(logSumExp));
    return finishBy(attentionRule, inputs, { scale, causal }, out, [logSumExp]);
  });
}

export const attentionRule: OwnRule<Omit<AttentionOptions, "mask">> = {
  name: "attention",
  // The fourth input, if there is one, is the mask, which never wants a gradient here.
  needs: (_, count) => [0, 1, 2, ...(count > 3 ? [3] : []), "output", "extras"],
  backward: (c, dy) => {
    const mask = c.wants.length > 3 ? c.input(3) : undefined;
    return fusedBackward(
      c,
      dy,
      3,
      ([q, k, v]) => attentionReference(q, k, v, { ...c.attributes, mask }),
      () => {
        const inputs = [c.input(0), c.input(1), c.input(2)];
        const gradients = inputs.map((x) => emptyLike(x));
        const dOut = dy.strides[3] === 1 ? dy : clone(dy);
        const [q, k, v, out, logSumExp] = [...inputs, c.output(), c.extra(0)].map((t) => operand(t));
        const [dq, dk, dv] = gradients.map((t) => operand(t));
        const options = { ...c.attributes, mask: mask ? operand(mask) : null };
        dy.storage.backend.fused.attentionBackward!(
          q,
          k,
          v,
          out,
          logSumExp,
          operand(dOut),
          options,
          dq,
          dk,
          dv,
        );
        return gradients;
      },
    );
  },
};

/** Attention in primitives; stores the scores. */
export function attentionReference(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: AttentionArguments & { scale: number },
): Tensor {
  return tidy(() => {
    const [batch, heads, queries, headDim] = q.shape;
    const [, kvHeads, keys] = k.shape;
    const grouped = [batch, kvHeads, heads / kvHeads];
    // [batch, kvHeads, group, queries, headDim] against [batch, kvHeads, 1, keys, headDim]
    let scores = mul(
      matmul(reshape(q, [...grouped, queries, headDim]), unsqueeze(k, 2), { transB: true }),
      options.scale,
    );
    if (options.causal) {
      const last = add(reshape(positions(queries, q), [-1, 1]), keys - queries);
      scores = where(greater(positions(keys, q), last), Number.NEGATIVE_INFINITY, scores);
    }
    if (options.mask) scores = masked(scores, options.mask, [batch, heads, queries, keys]);
    let weights = options.mask ? softmaxOrZero(scores) : softmax(scores, -1);
    if (options.dropoutP) weights = dropout(weights, options.dropoutP, { generator: options.generator });
    const out = matmul(weights, expand(unsqueeze(v, 2), [...grouped, keys, headDim]));
    return reshape(out, [batch, heads, queries, headDim]);
  });
}

/** `mask` laid over scores [batch, kvHeads, group, queries, keys]. */
function masked(scores: Tensor, mask: Tensor, shape: readonly number[]): Tensor {
  const grouped = reshape(expand(mask, shape), scores.shape);
  return mask.dtype === "bool"
    ? where(grouped, scores, Number.NEGATIVE_INFINITY)
    : where(less(grouped, hiddenBelow), Number.NEGATIVE_INFINITY, add(scores, grouped));
}

/** Softmax over the last axis in which a row of −∞ alone, a query that sees no key, gives zeros. */
function softmaxOrZero(scores: Tensor): Tensor {
  if (scores.shape[scores.rank - 1] === 0) return softmax(scores, -1);
  const sees = greater(max(scores.detach(), -1, true), Number.NEGATIVE_INFINITY);
  return where(sees, softmax(where(sees, scores, 0), -1), 0);
}
