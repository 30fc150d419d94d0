// What a gradient rule is, which operations have one, and the shapes that rules come in. The rules stand in rules.ts.

import type { BackendName } from "../backend/registry.js";
import type {
  AttentionOptions,
  BinaryKind,
  BitwiseKind,
  ReduceKind,
  ScanKind,
  UnaryKind,
} from "../backend/types.js";
import type { DType } from "../dtype.js";
import { empty } from "../ops/dispatch.js";
import { recordsBackward } from "../ops/fused.js";
import * as ops from "../ops/index.js";
import { sumTo } from "../ops/reduce.js";
import type { Shape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { gradientsThrough } from "./backward.js";
import type { RuleContext } from "./record.js";
export type ReduceAttributes = { axes: readonly number[] };

/** Attributes of every operation that can be recorded. */
export interface OperationAttributes
  extends Record<Exclude<UnaryKind, "logicalNot"> | Exclude<BinaryKind, BitwiseKind>, null>,
    Record<ReduceKind, ReduceAttributes>,
    Record<ScanKind, { axis: number }> {
  logicalNot: null;
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
  unfold: { axis: number; step: number; dilation: number };
  fold: { axis: number; step: number; dilation: number };
  concat: { axis: number };
  matmul: { transA: boolean; transB: boolean; alpha: number };
  gather: { rows: number };
  scatterAdd: null;
  softmax: null;
  logSoftmax: null;
  rmsNorm: { eps: number };
  layerNorm: { eps: number };
  rope: { inverse: boolean };
  swiglu: null;
  attention: Omit<AttentionOptions, "mask">;
  crossEntropy: { ignoreIndex: number };
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

/** A rule for every operation. */
export type RuleTable = { readonly [K in OperationName]: Rule<OperationAttributes[K]> };

/** A function of one input whose gradient is `gradient`. */
export function unary(
  needs: readonly Need[],
  gradient: (dy: Tensor, c: RuleContext<null>) => Tensor,
): Rule<null> {
  return { needs: () => needs, backward: (c, dy) => [gradient(dy, c)] };
}

/** A broadcasting function of two inputs; each gradient is summed back to its input's shape. */
export function binary(
  needs: readonly [readonly Need[], readonly Need[]],
  first: (dy: Tensor, c: RuleContext<null>) => Tensor,
  second: (dy: Tensor, c: RuleContext<null>) => Tensor,
): Rule<null> {
  return {
    needs: (i) => needs[i],
    backward: (c, dy) => [
      c.wants[0] ? sumTo(first(dy, c), c.shape(0)) : undefined,
      c.wants[1] ? sumTo(second(dy, c), c.shape(1)) : undefined,
    ],
  };
}

/** A step function: its gradient is zero wherever it has one. */
export const flat: Rule<null> = { needs: () => [], backward: () => [undefined] };

/** A fused operation: `fast` by kernels, or, while gradients are recorded, through the composition that defines it. */
export function fused<A>(
  needs: readonly Need[],
  inputs: readonly number[],
  reference: (inputs: Tensor[], attributes: A) => Tensor,
  fast: (c: RuleContext<A>, dy: Tensor) => (Tensor | undefined)[],
  remake?: Rule<A>["remake"],
): Rule<A> {
  return {
    remake,
    needs: () => [...needs, ...inputs],
    backward: (c, dy) => {
      if (!recordsBackward()) return fast(c, dense(dy));
      return gradientsThrough(
        (values) => reference(values, c.attributes),
        inputs.map((i) => c.input(i)),
        dy,
        c.wants,
      );
    },
  };
}

/** `dy` contiguous, as kernels take it. */
export function dense(dy: Tensor): Tensor {
  return dy.isContiguous ? dy : ops.clone(dy);
}

/** A contiguous tensor for a kernel to write. */
export const like = (x: Tensor, shape = x.shape): Tensor => empty(x.storage.backend, x.dtype, shape);
