// Low-rank updates of several adapters in one pass, each for rows of its own: one differentiable operation over segments of rows.

import { clone, defineFunction, matmul, slice, type Tensor, zeros } from "@nomoat/core";

/** Rows start … end − 1 (of x as a matrix), updated by factor pair `index`, or by none. */
export interface RowSegment {
  readonly start: number;
  readonly end: number;
  /** −1: none. */
  readonly index: number;
  readonly scaling: number;
}

function asRows(x: Tensor): Tensor {
  const n = x.shape[x.rank - 1];
  return x.reshape([n === 0 ? 0 : x.size / n, n]);
}

const apply = defineFunction<{ segments: readonly RowSegment[] }>({
  name: "lora segments",
  forward(context, [x, y, ...factors], { segments }) {
    const out = y.storage.exclusive && y.isContiguous ? y.detach() : clone(y);
    const [xRows, outRows] = [asRows(x), asRows(out)];
    const us = segments.map(({ start, end, index, scaling }) => {
      const u = matmul(slice(xRows, [start, end]), factors[2 * index], { transB: true });
      const target = slice(outRows, [start, end]);
      matmul(u, factors[2 * index + 1], { transB: true, alpha: scaling, beta: 1, out: target });
      return u;
    });
    context.save(x, ...factors, ...us);
    return out;
  },
  backward(context, dy, { segments }) {
    const [x, ...saved] = context.saved();
    const count = saved.length - segments.length;
    const [factors, us] = [saved.slice(0, count), saved.slice(count)];
    const gradients: (Tensor | undefined)[] = Array.from({ length: count + 2 });
    if (context.wants[0])
      gradients[0] = context.accumulate(0) ?? zeros(x.shape, { dtype: x.dtype, device: x.device });
    if (context.wants[1]) gradients[1] = dy;
    const [xRows, dyRows] = [asRows(x), asRows(dy)];
    const dxRows = gradients[0] && asRows(gradients[0]);
    /** Adds alpha · leftᵀ · right to the gradient of input `i`. */
    const add = (i: number, left: Tensor, right: Tensor, alpha: number) => {
      const existing = gradients[i] ?? context.accumulate(i);
      const options = existing ? { beta: 1, out: existing } : {};
      gradients[i] = matmul(left, right, { transA: true, alpha, ...options });
    };
    segments.forEach(({ start, end, index, scaling }, k) => {
      const [a, b] = [factors[2 * index], factors[2 * index + 1]];
      const dySegment = slice(dyRows, [start, end]);
      if (context.wants[2 + 2 * index + 1]) add(2 + 2 * index + 1, dySegment, us[k], scaling);
      if (!dxRows && !context.wants[2 + 2 * index]) return;
      const du = matmul(dySegment, b, { alpha: scaling });
      if (context.wants[2 + 2 * index]) add(2 + 2 * index, du, slice(xRows, [start, end]), 1);
      if (dxRows) matmul(du, a, { beta: 1, out: slice(dxRows, [start, end]) });
    });
    return gradients;
  },
});

/**
 * `y` with rows start … end − 1 of each segment updated by scaling · x · Aᵀ · Bᵀ of its factors; other rows as they are. As for
 * `lowRankUpdate`, the storage of `y` is reused where nobody else holds it.
 *
 * @param x - [..., inFeatures]
 * @param y - [..., outFeatures]
 * @param factors - A [r, inFeatures] and B [outFeatures, r] by turns; ranks may differ
 */
export function segmentedUpdate(
  x: Tensor,
  y: Tensor,
  factors: readonly Tensor[],
  segments: readonly RowSegment[],
): Tensor {
  const used = segments.filter((segment) => segment.index >= 0 && segment.end > segment.start);
  return apply([x, y, ...factors], { segments: used });
}
