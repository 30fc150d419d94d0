// The low-rank update as one differentiable operation, y + s · (x·m)·Aᵀ·Bᵀ, forward and backward in low-rank order: no product of
// the size of the weight is ever made, and y is added to in place where nobody else can see it.

import { clone, defineFunction, Generator, matmul, mul, type Tensor } from "@nomoat/core";
import { dropoutMask } from "@nomoat/core/nn";

/** Makes the mask of one forward pass, in the shape of `x`: 0 or 1/(1−p). It is called once in forward and again in backward. */
export type Mask = (x: Tensor) => Tensor;

interface Attributes {
  readonly scaling: number;
  /** null: no dropout. */
  readonly mask: Mask | null;
}

/**
 * A mask that is drawn from `generator` at the first call, and again from the same place in backward, so that it need not be kept.
 * @param p - probability of a zero
 */
export function replayableMask(p: number, generator: Generator): Mask {
  let state: ReturnType<Generator["state"]> | null = null;
  return (x) => {
    if (state) return dropoutMask(x, p, Generator.restore(state));
    state = generator.state();
    return dropoutMask(x, p, generator);
  };
}

/** `x` [..., n] as a matrix [rows, n]. */
export function asRows(x: Tensor): Tensor {
  const n = x.shape[x.rank - 1];
  return x.reshape([n === 0 ? 0 : x.size / n, n]);
}

const apply = defineFunction<Attributes>({
  name: "lora",
  forward(context, [x, y, a, b], { scaling, mask }) {
    const rows = asRows(mask ? mul(x, mask(x)) : x);
    const u = matmul(rows, a, { transB: true });
    // Saved tensors and views hold the storage too: then the sum needs memory of its own.
    const out = y.storage.exclusive && y.isContiguous ? y.detach() : clone(y);
    matmul(u, b, { transB: true, alpha: scaling, beta: 1, out: asRows(out) });
    // u serves the gradient of B alone, x that of A (and, with dropout, the drawing of the mask again).
    const keepsU = context.wants[3];
    const keepsX = context.wants[2] || mask !== null;
    context.save(a, b, ...(keepsU ? [u] : []), ...(keepsX ? [x] : []));
    return out;
  },
  backward(context, dy, { scaling, mask }) {
    const [a, b, ...others] = context.saved();
    const [wantsX, wantsY, wantsA, wantsB] = context.wants;
    // u is [rows, r]; x, of whatever rank, was saved last.
    const [u, x] = [others[0], others[others.length - 1]];
    const dyRows = asRows(dy);
    const du = wantsX || wantsA ? matmul(dyRows, b, { alpha: scaling }) : null;
    let dx: Tensor | undefined;
    const drawn = mask && du ? mask(x) : null;
    if (wantsX && du) {
      const existing = drawn ? undefined : context.accumulate(0);
      if (existing) {
        matmul(du, a, { beta: 1, out: asRows(existing) });
        dx = existing;
      } else {
        dx = matmul(du, a).reshape(context.shape(0));
        if (drawn) dx = mul(dx, drawn);
      }
    }
    const da =
      wantsA && du ? product(du, asRows(drawn ? mul(x, drawn) : x), 1, context.accumulate(2)) : undefined;
    const db = wantsB ? product(dyRows, u, scaling, context.accumulate(3)) : undefined;
    return [dx, wantsY ? dy : undefined, da, db];
  },
});

/** alpha · leftᵀ · right, added to `existing` where there is one. */
function product(left: Tensor, right: Tensor, alpha: number, existing: Tensor | undefined): Tensor {
  const options = existing ? { beta: 1, out: existing } : {};
  return matmul(left, right, { transA: true, alpha, ...options });
}

/**
 * `y + scaling · dropout(x) · Aᵀ · Bᵀ`. The storage of `y` is reused where nobody else holds it: the caller hands `y` over and
 * disposes its handle afterwards. Gradients of gradients are refused.
 *
 * @param x - [..., inFeatures]
 * @param y - [..., outFeatures], the output of the base, a fresh intermediate
 * @param a - A [r, inFeatures]
 * @param b - B [outFeatures, r]
 * @returns [..., outFeatures]
 */
export function lowRankUpdate(
  x: Tensor,
  y: Tensor,
  a: Tensor,
  b: Tensor,
  options: { scaling: number; mask?: Mask | null },
): Tensor {
  return apply([x, y, a, b], { scaling: options.scaling, mask: options.mask ?? null });
}
