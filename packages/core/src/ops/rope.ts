// Rotary position embedding in Hugging Face's half-split convention (Su et al., arXiv:2104.09864).

import { gradientsThrough } from "../autograd/backward.js";
import type { OwnRule } from "../autograd/rule.js";
import { ShapeError } from "../errors.js";
import { permuteLayout } from "../layout.js";
import { tidy } from "../memory.js";
import { formatShape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { commonBackend, contiguous, empty, finishBy, operand, withLayout } from "./dispatch.js";
import { add, mul, sub } from "./elementwise.js";
import { fusedKernels } from "./fused.js";
import { concat, slice } from "./view.js";

/**
 * Rotates each pair (x[i], x[i + headDim/2]) of the last axis by its position's angle.
 *
 * @param x - [batch, heads, length, headDim]
 * @param cos - [length, headDim/2], cosines of the angles of the positions at hand
 * @param sin - [length, headDim/2]
 * @param inverse - rotate backwards
 * @returns x's shape; x's own order of axes in memory is kept, so that a transposed view costs no copy later
 */
export function rope(x: Tensor, cos: Tensor, sin: Tensor, inverse = false): Tensor {
  const backend = commonBackend("rope", [x, cos, sin]);
  const [, , length, headDim] = x.shape;
  if (x.rank !== 4 || headDim % 2 !== 0) {
    throw new ShapeError(`rope: x must be [batch, heads, length, even headDim], not ${formatShape(x.shape)}`);
  }
  checkTable("cos", cos, length, headDim);
  checkTable("sin", sin, length, headDim);
  if (!fusedKernels([x, cos, sin], "rope")) return ropeReference(x, cos, sin, inverse);
  return tidy(() => {
    const source = x.strides[3] === 1 ? x : contiguous(x);
    const out = emptyLike(source);
    backend.fused.rope!(
      operand(source),
      operand(contiguous(cos)),
      operand(contiguous(sin)),
      inverse ? -1 : 1,
      operand(out),
    );
    return finishBy(ropeRule, [source, cos, sin], { inverse }, out);
  });
}

function checkTable(name: string, table: Tensor, length: number, headDim: number): void {
  if (table.rank !== 2 || table.shape[0] !== length || table.shape[1] !== headDim / 2)
    throw new ShapeError(`rope: ${name} ${formatShape(table.shape)} should be [${length}, ${headDim / 2}]`);
}

export const ropeRule: OwnRule<{ inverse: boolean }> = {
  name: "rope",
  needs: (i) => (i === 0 ? [1, 2] : [0, 1, 2]),
  backward: (c, dy) => {
    const { inverse } = c.attributes;
    if (!c.wants[1] && !c.wants[2]) return [rope(dy, c.input(1), c.input(2), !inverse)];
    const values = [c.input(0), c.input(1), c.input(2)];
    return gradientsThrough(([x, cos, sin]) => ropeReference(x, cos, sin, inverse), values, dy, c.wants);
  },
};

/** Undefined contents in `x`'s shape, its last axis dense (stride 1) and the others in the same order in memory. */
export function emptyLike(x: Tensor): Tensor {
  if (x.isContiguous) return empty(x.storage.backend, x.dtype, x.shape);
  const last = x.rank - 1;
  // The last axis stays innermost: an expanded axis has the smaller stride, 0, but kernels want that of the last to be 1.
  const order = x.shape
    .map((_, i) => i)
    .sort((i, j) => Number(i === last) - Number(j === last) || x.strides[j] - x.strides[i] || i - j);
  const dense = empty(
    x.storage.backend,
    x.dtype,
    order.map((axis) => x.shape[axis]),
  );
  const back = order.map((_, i) => order.indexOf(i));
  const out = withLayout(dense, permuteLayout(dense.layout, back));
  dense.dispose();
  return out;
}

/** rope in primitives. */
export function ropeReference(x: Tensor, cos: Tensor, sin: Tensor, inverse: boolean): Tensor {
  return tidy(() => {
    const half = x.shape[3] / 2;
    const x1 = slice(x, null, null, null, [0, half]);
    const x2 = slice(x, null, null, null, [half]);
    const s = inverse ? mul(sin, -1) : sin;
    return concat([sub(mul(x1, cos), mul(x2, s)), add(mul(x2, cos), mul(x1, s))], 3);
  });
}
