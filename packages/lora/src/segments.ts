// Low-rank updates of several adapters in one pass, each for rows of its own: one differentiable operation over segments of rows, whose
// products of one kind run together, whatever the ranks.

import { clone, defineFunction, mul, type Tensor, zeros } from "@nomoat/core";
import {
  empty,
  type GroupedTarget,
  groupedMatmul,
  groupedWeightGradients,
  type RowGroup,
} from "@nomoat/core/extend";
import { asRows, type Mask } from "./low-rank.js";

/** Rows start … end − 1 (of x as a matrix), updated by factor pair `index`, or by none. */
export interface RowSegment {
  readonly start: number;
  readonly end: number;
  /** −1: none. */
  readonly index: number;
  readonly scaling: number;
}

interface Attributes {
  readonly segments: readonly RowSegment[];
  /** null: no dropout. */
  readonly mask: Mask | null;
}

const apply = defineFunction<Attributes>({
  name: "lora segments",
  forward(context, [x, y, ...factors], { segments, mask }) {
    const out = y.storage.exclusive && y.isContiguous ? y.detach() : clone(y);
    const [as, bs] = inTurns(factors);
    const rows = asRows(mask ? mul(x, mask(x)) : x);
    const u = narrow(rows, as);
    groupedMatmul(rows, as, segments, { transB: true, out: u });
    groupedMatmul(u, bs, scaled(segments), { transB: true, beta: 1, out: asRows(out) });
    context.save(x, u, ...factors);
    return out;
  },
  backward(context, dy, { segments, mask }) {
    const [x, u, ...factors] = context.saved();
    const [as, bs] = inTurns(factors);
    const [wantsX, wantsY, ...wants] = context.wants;
    const [wantsA, wantsB] = inTurns(wants);
    const dyRows = asRows(dy);
    const gradients: (Tensor | undefined)[] = factors.map(() => undefined);
    /** Σ alpha · leftᵀ · right for every A (`which` 0) or B (1) that wants it, added to what there is. */
    const gather = (which: 0 | 1, left: Tensor, right: Tensor, groups: readonly RowGroup[]): void => {
      const list = which === 0 ? as : bs;
      const wanted = which === 0 ? wantsA : wantsB;
      const targets = list.map((factor, i): GroupedTarget | undefined => {
        if (!wanted[i]) return undefined;
        const existing = context.accumulate(2 + 2 * i + which);
        const out = existing ?? empty(factor.storage.backend, factor.dtype, factor.shape);
        gradients[2 * i + which] = out;
        return { out, beta: existing ? 1 : 0 };
      });
      const used = groups.filter(({ index }) => targets[index]);
      if (used.length > 0) groupedWeightGradients(left, right, used, targets);
    };
    gather(1, dyRows, u, scaled(segments));
    if (!wantsX && !wantsA.includes(true)) return [undefined, wantsY ? dy : undefined, ...gradients];
    const du = narrow(dyRows, as);
    groupedMatmul(dyRows, bs, scaled(segments), { out: du });
    const drawn = mask ? mask(x) : null;
    gather(0, du, asRows(drawn ? mul(x, drawn) : x), segments);
    let dx: Tensor | undefined;
    if (wantsX) {
      const existing = drawn ? undefined : context.accumulate(0);
      dx = existing ?? zeros(x.shape, { dtype: x.dtype, device: x.device });
      groupedMatmul(du, as, segments, { beta: 1, out: asRows(dx) });
      if (drawn) dx = mul(dx, drawn);
    }
    return [dx, wantsY ? dy : undefined, ...gradients];
  },
});

/** Every other entry, from the first and from the second. */
function inTurns<T>(list: readonly T[]): [T[], T[]] {
  return [list.filter((_, i) => i % 2 === 0), list.filter((_, i) => i % 2 === 1)];
}

/** The segments with their scaling as factor of the product. */
function scaled(segments: readonly RowSegment[]): RowGroup[] {
  return segments.map(({ start, end, index, scaling }) => ({ start, end, index, alpha: scaling }));
}

/** A matrix with the rows of `rows` and the largest rank as columns; products fill what is read of it. */
function narrow(rows: Tensor, as: readonly Tensor[]): Tensor {
  const width = Math.max(...as.map(({ shape }) => shape[0]));
  return empty(rows.storage.backend, rows.dtype, [rows.shape[0], width]);
}

/**
 * `y` with rows start … end − 1 of each segment updated by scaling · (x·m) · Aᵀ · Bᵀ of its factors; other rows as they are. As for
 * `lowRankUpdate`, the storage of `y` is reused where nobody else holds it. Gradients of gradients are refused.
 *
 * @param x - [..., inFeatures]
 * @param y - [..., outFeatures]
 * @param factors - A [r, inFeatures] and B [outFeatures, r] by turns; ranks may differ
 * @param segments - one after the other
 * @param mask - m, dropout of all rows together; 1 where a row has none
 */
export function segmentedUpdate(
  x: Tensor,
  y: Tensor,
  factors: readonly Tensor[],
  segments: readonly RowSegment[],
  mask: Mask | null = null,
): Tensor {
  const used = segments.filter((segment) => segment.index >= 0 && segment.end > segment.start);
  return apply([x, y, ...factors], { segments: used, mask });
}
