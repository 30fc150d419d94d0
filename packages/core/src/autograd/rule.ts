// What a gradient rule is, which operations have theirs in the table of rules.ts, and what rules of fused operations share.

import type { BackendName } from "../backend/registry.js";
import type { BinaryKind, BitwiseKind, Operand, ReduceKind, ScanKind, UnaryKind } from "../backend/types.js";
import type { DType } from "../dtype.js";
import { empty, operand } from "../ops/dispatch.js";
import { recordsBackward } from "../ops/fused.js";
import * as ops from "../ops/index.js";
import type { Shape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { gradientsThrough } from "./backward.js";
import type { RuleContext } from "./record.js";

export type ReduceAttributes = { axes: readonly number[] };

/** Attributes of every operation whose rule stands in the table. */
export interface OperationAttributes
  extends Record<UnaryKind | Exclude<BinaryKind, BitwiseKind>, null>,
    Record<ReduceKind, ReduceAttributes>,
    Record<ScanKind, { axis: number }> {
  alias: null;
  copy: null;
  cast: { from: DType };
  move: { from: BackendName };
  where: null;
  reshape: null;
  permute: { order: readonly number[] };
  expand: null;
  slice: { starts: readonly number[]; steps: readonly number[] };
  sliceBackward: { starts: readonly number[]; steps: readonly number[] };
  concat: { axis: number };
  matmul: { transA: boolean; transB: boolean; alpha: number };
  gather: { rows: number };
  scatterAdd: null;
}

export type OperationName = keyof OperationAttributes;

/** A value to keep: an input by its index, the output, or the extras that a kernel made for its backward. */
export type Need = number | "output" | "extras";

export interface Rule<A> {
  /** What the gradient of input `index` of `count` needs. */
  needs(index: number, count: number): readonly Need[];
  /** Gradients by input; undefined is zero, and for inputs that want none. */
  backward(context: RuleContext<A>, dy: Tensor): readonly (Tensor | undefined)[];
  /**
   * Makes the output again from inputs that are kept anyway, or made again themselves. For operations that cost next to nothing beside
   * those that use their output: these keep nothing of it then.
   */
  remake?(input: (index: number) => Tensor, attributes: A, shape: Shape): Tensor;
}

/**
 * A rule that stands beside its operation instead of in the table, and is exported there: so a program that does not use the operation
 * does not carry it.
 */
export interface OwnRule<A> extends Rule<A> {
  readonly name: string;
}

/** A rule for every operation of {@link OperationAttributes}. */
export type RuleTable = { readonly [K in OperationName]: Rule<OperationAttributes[K]> };

/**
 * Gradients of a fused operation: `fast`, by kernels, which take `dy` contiguous; or, while gradients are recorded, those of the first
 * `count` inputs through the composition that defines it.
 */
export function fusedBackward<A>(
  c: RuleContext<A>,
  dy: Tensor,
  count: number,
  reference: (inputs: Tensor[]) => Tensor,
  fast: (dy: Tensor) => readonly (Tensor | undefined)[],
): readonly (Tensor | undefined)[] {
  if (!recordsBackward()) return fast(dense(dy));
  return gradientsThrough(
    reference,
    Array.from({ length: count }, (_, i) => c.input(i)),
    dy,
    c.wants,
  );
}

/** For each input that wants a gradient a contiguous tensor of its shape, for a kernel to write; and all of them as kernels take them. */
export function gradientPlaces<A>(
  c: RuleContext<A>,
  dy: Tensor,
): [places: (Tensor | undefined)[], operands: (Operand | null)[]] {
  const places = c.wants.map((wanted, i) => (wanted ? like(dy, c.shape(i)) : undefined));
  return [places, places.map((place) => (place ? operand(place) : null))];
}

/** `dy` contiguous, as kernels take it. */
export function dense(dy: Tensor): Tensor {
  return dy.isContiguous ? dy : ops.clone(dy);
}

/** A contiguous tensor for a kernel to write. */
export const like = (x: Tensor, shape = x.shape): Tensor => empty(x.storage.backend, x.dtype, shape);
