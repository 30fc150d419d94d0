// Low-rank updates of several adapters in one pass, each for rows of its own, and of several layers that share their input: one
// differentiable operation over segments of rows, whose products of one kind run together, whatever the ranks.

import { clone, concat, matmul, mul, slice, type Tensor, zeros } from "@nomoat/core";
import {
  defineJointFunction,
  empty,
  type GroupedTarget,
  groupedMatmul,
  groupedWeightGradients,
  productsTogether,
  type RowGroup,
} from "@nomoat/core/extend";
import type { AdapterBranch } from "./branch.js";
import { asRows, type Mask } from "./low-rank.js";

/** Rows start … end − 1 (of x as a matrix), updated by factor pair `index`, or by none. */
export interface RowSegment {
  readonly start: number;
  readonly end: number;
  /** −1: none. */
  readonly index: number;
  readonly scaling: number;
}

/** What of a layer's output is updated, and by what. */
export interface SegmentedLayer {
  /** The base's output [..., outFeatures]. */
  readonly y: Tensor;
  /** A [r, inFeatures] and B [outFeatures, r] by turns; ranks may differ. */
  readonly factors: readonly Tensor[];
  /** One after the other. */
  readonly segments: readonly RowSegment[];
}

interface Attributes {
  /** Of each layer: how many factors it has, and its segments. */
  readonly layers: readonly { readonly factors: number; readonly segments: readonly RowSegment[] }[];
  /** null: no dropout. */
  readonly mask: Mask | null;
}

/** One layer's part of a pass. */
interface Part {
  /** Number of its first factor among those of all layers. */
  readonly first: number;
  readonly as: readonly Tensor[];
  readonly bs: readonly Tensor[];
  readonly segments: readonly RowSegment[];
  /** The segments with their scaling as factor of the product. */
  readonly scaled: readonly RowGroup[];
  /** Its columns of the narrow matrices that all layers share. */
  readonly columns: readonly [from: number, to: number];
}

function partsOf(factors: readonly Tensor[], { layers }: Attributes): Part[] {
  let first = 0;
  let column = 0;
  return layers.map(({ factors: count, segments }) => {
    const [as, bs] = inTurns(factors.slice(first, first + count));
    const width = Math.max(0, ...as.map(({ shape }) => shape[0]));
    const scaled = segments.map(({ start, end, index, scaling }) => ({ start, end, index, alpha: scaling }));
    const part: Part = { first, as, bs, segments, scaled, columns: [column, column + width] };
    first += count;
    column += width;
    return part;
  });
}

/** True when each layer has one pair of factors, for all rows: then what layers share can be one product. */
function isPlain(parts: readonly Part[], rows: number): boolean {
  return parts.every(
    ({ as, segments: [one, ...more] }) =>
      as.length === 1 && one && more.length === 0 && one.start === 0 && one.end === rows,
  );
}

/** Every layer's columns of a matrix that is as wide as all their ranks; products fill what is read of it. */
function columnsOf(matrix: Tensor, parts: readonly Part[]): Tensor[] {
  return parts.length === 1 ? [matrix] : parts.map(({ columns }) => slice(matrix, null, [...columns]));
}

/** The A of all layers, one below the other. */
function joined(parts: readonly Part[]): Tensor {
  const all = parts.map(({ as }) => as[0]);
  return all.length === 1 ? all[0] : concat(all, 0);
}

const apply = defineJointFunction<Attributes>({
  name: "lora segments",
  forward(context, [x, ...others], attributes) {
    const { layers, mask } = attributes;
    const [ys, factors] = [others.slice(0, layers.length), others.slice(layers.length)];
    const parts = partsOf(factors, attributes);
    const outs = ys.map((y) => (y.storage.exclusive && y.isContiguous ? y.detach() : clone(y)));
    const rows = asRows(mask ? mul(x, mask(x)) : x);
    const u = narrow(rows, parts);
    const us = columnsOf(u, parts);
    if (isPlain(parts, rows.shape[0])) {
      matmul(rows, joined(parts), { transB: true, out: u });
      parts.forEach(({ bs, scaled }, i) => {
        matmul(us[i], bs[0], { transB: true, alpha: scaled[0].alpha, beta: 1, out: asRows(outs[i]) });
      });
    } else {
      productsTogether(() => {
        parts.forEach(({ as, segments }, i) => {
          groupedMatmul(rows, as, segments, { transB: true, out: us[i] });
        });
      });
      productsTogether(() => {
        parts.forEach(({ bs, scaled }, i) => {
          groupedMatmul(us[i], bs, scaled, { transB: true, beta: 1, out: asRows(outs[i]) });
        });
      });
    }
    // u serves the gradients of B alone, x those of A (and, with dropout, the drawing of the mask again).
    const [wantsA, wantsB] = inTurns(context.wants.slice(1 + layers.length));
    const keepsX = wantsA.includes(true) || mask !== null;
    context.save(...factors, ...(wantsB.includes(true) ? [u] : []), ...(keepsX ? [x] : []));
    return outs;
  },
  backward(context, dys, attributes) {
    const { layers, mask } = attributes;
    const saved = context.saved();
    const count = layers.reduce((sum, { factors }) => sum + factors, 0);
    const parts = partsOf(saved.slice(0, count), attributes);
    // u and x, either of which may be missing: then nobody asks for it.
    const [u, x] = [saved[count], saved[saved.length - 1]];
    const [wantsX, ...wanted] = context.wants;
    const wantsFactor = wanted.slice(layers.length);
    const gradients: (Tensor | undefined)[] = wantsFactor.map(() => undefined);
    /** Σ alpha · leftᵀ · right for every A (`which` 0) or B (1) of a layer that wants it, added to what there is. */
    const gather = (
      part: Part,
      which: 0 | 1,
      left: Tensor,
      right: Tensor,
      groups: readonly RowGroup[],
    ): void => {
      const targets = (which === 0 ? part.as : part.bs).map((factor, i): GroupedTarget | undefined => {
        const at = part.first + 2 * i + which;
        if (!wantsFactor[at]) return undefined;
        const existing = context.accumulate(1 + layers.length + at);
        const out = existing ?? empty(factor.storage.backend, factor.dtype, factor.shape);
        gradients[at] = out;
        return { out, beta: existing ? 1 : 0 };
      });
      const used = groups.filter(({ index }) => targets[index]);
      if (used.length > 0) groupedWeightGradients(left, right, used, targets);
    };
    const [wantsA, wantsB] = inTurns(wantsFactor);
    const dyRows = dys.map((dy) => dy && asRows(dy));
    const each = (work: (part: Part, dy: Tensor, i: number) => void): void =>
      productsTogether(() => {
        parts.forEach((part, i) => {
          const dy = dyRows[i];
          if (dy) work(part, dy, i);
        });
      });
    if (wantsB.includes(true)) {
      const us = columnsOf(u, parts);
      each((part, dy, i) => gather(part, 1, dy, us[i], part.scaled));
    }
    const result = (dx?: Tensor) => [dx, ...dys.map((dy, i) => (wanted[i] ? dy : undefined)), ...gradients];
    if (!wantsX && !wantsA.includes(true)) return result();
    const [like] = dyRows.filter((dy) => dy !== undefined);
    const du = narrow(like, parts, dys.includes(undefined));
    const dus = columnsOf(du, parts);
    each(({ bs, scaled }, dy, i) => groupedMatmul(dy, bs, scaled, { out: dus[i] }));
    const plain = isPlain(parts, like.shape[0]);
    const drawn = mask ? mask(x) : null;
    if (wantsA.includes(true)) {
      const rows = asRows(drawn ? mul(x, drawn) : x);
      if (plain && parts.length > 1) {
        const all = matmul(du, rows, { transA: true });
        parts.forEach(({ first, columns }) => {
          if (wantsFactor[first]) gradients[first] = slice(all, [...columns]);
        });
      } else each((part, _, i) => gather(part, 0, dus[i], rows, part.segments));
    }
    if (!wantsX) return result();
    const existing = drawn ? undefined : context.accumulate(0);
    if (plain) {
      const a = joined(parts);
      if (existing) return result(matmulInto(existing, du, a));
      const dx = matmul(du, a).reshape(context.shape(0));
      return result(drawn ? mul(dx, drawn) : dx);
    }
    const dx = existing ?? zeros(context.shape(0), { dtype: du.dtype, device: du.device });
    parts.forEach(({ as, segments }, i) => {
      if (dys[i]) groupedMatmul(dus[i], as, segments, { beta: 1, out: asRows(dx) });
    });
    return result(drawn ? mul(dx, drawn) : dx);
  },
});

/** Adds left · right to `existing`, which it returns. */
function matmulInto(existing: Tensor, left: Tensor, right: Tensor): Tensor {
  matmul(left, right, { beta: 1, out: asRows(existing) });
  return existing;
}

/** Every other entry, from the first and from the second. */
function inTurns<T>(list: readonly T[]): [T[], T[]] {
  return [list.filter((_, i) => i % 2 === 0), list.filter((_, i) => i % 2 === 1)];
}

/** A matrix with the rows of `rows` and columns for the largest rank of each layer; zeros where it is not filled whole. */
function narrow(rows: Tensor, parts: readonly Part[], cleared = false): Tensor {
  const shape = [rows.shape[0], parts[parts.length - 1].columns[1]];
  const { dtype, device } = rows;
  return cleared ? zeros(shape, { dtype, device }) : empty(rows.storage.backend, dtype, shape);
}

/**
 * Every layer's `y` with rows start … end − 1 of each segment updated by scaling · (x·m) · Aᵀ · Bᵀ of its factors; other rows as they
 * are. As for `lowRankUpdate`, the storage of `y` is reused where nobody else holds it. Gradients of gradients are refused.
 *
 * Where every layer has one pair of factors for all rows, x meets all A in one product, and so do the gradients.
 *
 * @param x - [..., inFeatures]
 * @param mask - m, dropout of all rows together; 1 where a row has none. The same for all layers
 */
export function segmentedUpdates(
  x: Tensor,
  layers: readonly SegmentedLayer[],
  mask: Mask | null = null,
): Tensor[] {
  const used = (segments: readonly RowSegment[]) =>
    segments.filter((segment) => segment.index >= 0 && segment.end > segment.start);
  return apply([x, ...layers.map(({ y }) => y), ...layers.flatMap(({ factors }) => factors)], {
    layers: layers.map(({ factors, segments }) => ({ factors: factors.length, segments: used(segments) })),
    mask,
  });
}

/** {@link segmentedUpdates} of one layer. */
export function segmentedUpdate(
  x: Tensor,
  y: Tensor,
  factors: readonly Tensor[],
  segments: readonly RowSegment[],
  mask: Mask | null = null,
): Tensor {
  return segmentedUpdates(x, [{ y, factors, segments }], mask)[0];
}

/** Elements of x from which on one product for all layers saves more than joining their matrices costs. Measured. */
const worthJoining = 1 << 16;

/**
 * The outputs of layers that share the input `x`, each with the update of its branches; null where these are not one plain pair of
 * matrices each, in the dtype of all, without dropout, and where x is so small that joining them would take longer.
 *
 * @param ys - outputs of the bases, which may be written over
 */
export function sharedInputUpdates(
  x: Tensor,
  ys: readonly Tensor[],
  branches: readonly (readonly AdapterBranch[])[],
): Tensor[] | null {
  const rows = ys[0].shape.slice(0, -1).reduce((product, extent) => product * extent, 1);
  const layers: SegmentedLayer[] = [];
  if (x.size < worthJoining) return null;
  for (const [i, y] of ys.entries()) {
    const [branch, ...more] = branches[i];
    const pair = more.length === 0 ? branch?.lowRankPair() : null;
    if (!pair || pair.dropsOut || x.dtype !== y.dtype || pair.a.dtype !== y.dtype) return null;
    const scaling = branch.scaling * branch.weight;
    layers.push({ y, factors: [pair.a, pair.b], segments: [{ start: 0, end: rows, index: 0, scaling }] });
  }
  return segmentedUpdates(x, layers);
}
