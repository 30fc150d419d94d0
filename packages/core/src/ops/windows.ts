// Sliding windows along an axis as a view, and their adjoint, which adds windows up where they overlap. Convolutions and pooling
// are made of them.

import { requireInteger, use } from "../arguments.js";
import type { OwnRule } from "../autograd/rule.js";
import { ShapeError } from "../errors.js";
import { type Layout, sliceLayout } from "../layout.js";
import { tidy } from "../memory.js";
import { formatShape, normalizeAxis } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { commonBackend, filled, finishBy, operand, withLayout } from "./dispatch.js";
import { cast } from "./elementwise.js";

/**
 * Every window of `size` elements along `axis`, `step` apart, as torch.Tensor.unfold: a view in which `axis` counts windows and a
 * new last axis the elements of one. With a dilation d a window takes every d-th element.
 * @throws {ShapeError} when no window fits
 */
export function unfold(x: Tensor, axis: number, size: number, step = 1, dilation = 1): Tensor {
  use("unfold", x);
  const at = normalizeAxis("unfold", axis, x.rank);
  for (const [name, value] of Object.entries({ size, step, dilation }))
    requireInteger("unfold", name, value, 1);
  const span = dilation * (size - 1) + 1;
  const extent = x.shape[at];
  if (span > extent) {
    throw new ShapeError(
      `unfold: a window of ${span} does not fit axis ${at} of ${formatShape(x.shape)} (${span} > ${extent})`,
    );
  }
  const { shape, strides, offset } = x.layout;
  const layout: Layout = {
    shape: [...shape.with(at, Math.floor((extent - span) / step) + 1), size],
    strides: [...strides.with(at, strides[at] * step), strides[at] * dilation],
    offset,
  };
  return finishBy(unfoldRule, [x], { axis: at, step, dilation }, withLayout(x, layout));
}

interface WindowAttributes {
  readonly axis: number;
  readonly step: number;
  readonly dilation: number;
}

export const unfoldRule: OwnRule<WindowAttributes> = {
  name: "unfold",
  needs: () => [],
  backward: (c, dy) => {
    const { axis, step, dilation } = c.attributes;
    return [fold(dy, axis, c.shape(0)[axis], step, dilation)];
  },
};

export const foldRule: OwnRule<WindowAttributes> = {
  name: "fold",
  needs: () => [],
  backward: (c, dy) => {
    const { axis, step, dilation } = c.attributes;
    return [unfold(dy, axis, c.shape(0)[c.shape(0).length - 1], step, dilation)];
  },
};

/** The adjoint of {@link unfold}: windows of `x` (elements in the last axis) added up along an axis of length `extent`. */
export function fold(x: Tensor, axis: number, extent: number, step: number, dilation: number): Tensor {
  const backend = commonBackend("fold", [x]);
  if (!backend.arithmetic.has(x.dtype))
    return tidy(() => cast(fold(cast(x, "float32"), axis, extent, step, dilation), x.dtype));
  const size = x.shape[x.rank - 1];
  const one = x.shape.slice(0, -1);
  const zeros = () => filled(backend, x.dtype, one.with(axis, extent), 0);
  const out = zeros();
  // Places of neighbouring elements do not overlap within a step, so these are copied side by side and added at once.
  const together = dilation === 1 ? step : 1;
  for (let first = 0; first < size && x.size > 0; first += together) {
    const target = first === 0 ? out : zeros();
    for (let i = first; i < Math.min(first + together, size); i++) {
      const { strides, offset } = x.layout;
      const part = { shape: one, strides: strides.slice(0, -1), offset: offset + i * strides[x.rank - 1] };
      const starts = one.map((_, k) => (k === axis ? i * dilation : 0));
      const steps = one.map((_, k) => (k === axis ? step : 1));
      backend.copy(operand(x, part), operand(target, sliceLayout(target.layout, starts, one, steps)));
    }
    if (first > 0) {
      backend.binary("add", operand(out), operand(target), operand(out));
      target.dispose();
    }
  }
  return finishBy(foldRule, [x], { axis, step, dilation }, out);
}
