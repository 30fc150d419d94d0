// Some rows (or columns) of a tensor replaced by others, as one differentiable operation (PyTorch's index_copy): what is replaced gets no
// gradient, what replaces it gets the gradient of its places.

import { clone, concat, defineFunction, slice, type Tensor } from "@nomoat/core";

interface Attributes {
  /** Distinct places along the axis; the i-th takes the i-th of the source. */
  readonly indices: readonly number[];
  /** The first axis or the last. */
  readonly axis: 0 | -1;
}

/** Neighbours that stay neighbours are copied together. */
function runs(indices: readonly number[]): { to: number; from: number; length: number }[] {
  const found: { to: number; from: number; length: number }[] = [];
  indices.forEach((to, from) => {
    const last = found.at(-1);
    if (last && last.to + last.length === to) last.length++;
    else found.push({ to, from, length: 1 });
  });
  return found;
}

function part(x: Tensor, axis: 0 | -1, start: number, length: number): Tensor {
  const range = [start, start + length] as const;
  return axis === 0 ? slice(x, range) : slice(x, ...x.shape.slice(1).map(() => null), range);
}

const apply = defineFunction<Attributes>({
  name: "overwrite",
  forward(_context, [x, source], { indices, axis }) {
    const out = clone(x);
    for (const { to, from, length } of runs(indices))
      part(out, axis, to, length).copyFrom(part(source, axis, from, length));
    return out;
  },
  backward(context, dy, { indices, axis }) {
    const [wantsX, wantsSource] = context.wants;
    const places = runs(indices);
    let dx: Tensor | undefined;
    if (wantsX) {
      dx = clone(dy);
      for (const { to, length } of places) part(dx, axis, to, length).fill_(0);
    }
    const parts = wantsSource ? places.map(({ to, length }) => part(dy, axis, to, length)) : [];
    return [dx, wantsSource ? concat(parts, axis) : undefined];
  },
});

/**
 * A copy of `x` with the slices at `indices` of its first or last axis replaced by those of `source`. Gradients of gradients are refused.
 * @param indices - distinct, within the axis
 * @param source - of x's dtype and shape, but as long as `indices` along the axis
 */
export function overwrite(x: Tensor, source: Tensor, indices: readonly number[], axis: 0 | -1): Tensor {
  return apply([x, source], { indices, axis });
}
