// Products of groups of rows, each with a matrix of its own, in one go: what layers of several adapters or experts are made of. As
// PyTorch's grouped_mm, but the matrices may differ in size, and rows may belong to none.

import { requireFunction } from "../arguments.js";
import { defineFunction } from "../autograd/function.js";
import { needsGraph } from "../autograd/graph.js";
import type { Backend, MatmulProduct, Operand } from "../backend/types.js";
import { zeros } from "../creation.js";
import { AutogradError, DTypeError, ShapeError } from "../errors.js";
import { formatShape } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { commonBackend, operand } from "./dispatch.js";
import { fusedKernels } from "./fused.js";
import { matmul } from "./matmul.js";
import { pad } from "./rearrange.js";
import { concat, slice } from "./view.js";

/** Rows `start` to `end` − 1, which meet matrix number `index`. */
export interface RowGroup {
  readonly start: number;
  readonly end: number;
  readonly index: number;
  /** Factor of the product (default 1). */
  readonly alpha?: number;
}

export interface GroupedMatmulArguments {
  /** Take every matrix transposed. */
  transB?: boolean;
  /** Factor of what `out` held before (default 0), where a product is written. Needs `out`. */
  beta?: number;
  /** Where to put the products, [rows, columns], last stride 1; what they do not cover stays. No gradient is recorded through it. */
  out?: Tensor;
}

/** Rows from `start` on and columns from 0 on of a matrix. */
function block(x: Operand, start: number, rows: number, columns: number): Operand {
  return { ...x, shape: [rows, columns], offset: x.offset + start * x.strides[0] };
}

function transposed(x: Operand): Operand {
  return { ...x, shape: [x.shape[1], x.shape[0]], strides: [x.strides[1], x.strides[0]] };
}

/** Products that wait for the end of {@link productsTogether}, by rounds; null outside. */
let waiting: { tensors: Tensor[]; rounds: MatmulProduct[][] } | null = null;

/** Runs products of which none reads or writes what another writes; those of a later round after all of an earlier one. */
function multiply(tensors: readonly Tensor[], products: readonly MatmulProduct[], round = 0): void {
  if (waiting) {
    waiting.tensors.push(...tensors);
    (waiting.rounds[round] ??= []).push(...products);
    return;
  }
  const { backend } = tensors[0].storage;
  const kernels = products.length > 1 ? fusedKernels(tensors, "matmulGroup") : null;
  if (kernels) kernels.matmulGroup(products);
  else for (const { a, b, out, ...options } of products) backend.matmul(a, b, options, out);
}

/**
 * Runs `fn`, and at its end, in one go, the products of all its calls of {@link groupedMatmul} with `out` and of
 * {@link groupedWeightGradients}, which are of one backend; none of them reads or writes what another writes. Not to be nested.
 */
export function productsTogether(fn: () => void): void {
  requireFunction("productsTogether", fn);
  const { tensors, rounds } = (waiting = { tensors: [] as Tensor[], rounds: [] as MatmulProduct[][] });
  try {
    fn();
  } finally {
    waiting = null;
  }
  rounds.forEach((products) => {
    multiply(tensors, products);
  });
}

/** @throws {ShapeError} for groups that do not lie one after the other within the rows, or meet no matrix */
function checkGroups(operation: string, groups: readonly RowGroup[], rows: number, count: number): void {
  let last = 0;
  for (const { start, end, index } of groups) {
    if (!(Number.isInteger(start) && Number.isInteger(end) && start >= last && end >= start && end <= rows))
      throw new ShapeError(
        `${operation}: group of rows ${start} to ${end}: groups must follow each other within ${rows} rows`,
      );
    if (!(Number.isInteger(index) && index >= 0 && index < count))
      throw new ShapeError(`${operation}: group of rows ${start} to ${end}: no matrix ${index} of ${count}`);
    last = end;
  }
}

function checkMatrices(operation: string, x: Tensor, others: readonly Tensor[]): Backend {
  const backend = commonBackend(operation, [x, ...others]);
  for (const tensor of [x, ...others]) {
    if (tensor.rank !== 2)
      throw new ShapeError(`${operation}: ${formatShape(tensor.shape)} should be a matrix`);
    if (tensor.dtype !== x.dtype || !backend.arithmetic.has(tensor.dtype))
      throw new DTypeError(
        `${operation}: ${tensor.dtype} and ${x.dtype} (one dtype that is computed in is needed)`,
      );
  }
  return backend;
}

/** Writes the products into `out`. */
function productsInto(
  x: Tensor,
  matrices: readonly Tensor[],
  groups: readonly RowGroup[],
  transB: boolean,
  beta: number,
  out: Tensor,
): void {
  const [from, to] = [operand(x), operand(out)];
  const rights = matrices.map((matrix) => (transB ? transposed(operand(matrix)) : operand(matrix)));
  const products = groups
    .filter(({ start, end }) => end > start)
    .map(({ start, end, index, alpha = 1 }): MatmulProduct => {
      const b = rights[index];
      const [k, n] = b.shape;
      return { a: block(from, start, end - start, k), b, out: block(to, start, end - start, n), alpha, beta };
    });
  multiply([x, ...matrices, out], products);
  out.storage.version++;
}

interface Attributes {
  readonly groups: readonly RowGroup[];
  readonly transB: boolean;
}

/** Rows and columns of a matrix as it is multiplied. */
function sizeOf(matrix: Tensor, transB: boolean): [k: number, n: number] {
  const [rows, columns] = matrix.shape;
  return transB ? [columns, rows] : [rows, columns];
}

const widest = (matrices: readonly Tensor[], transB: boolean): number =>
  Math.max(0, ...matrices.map((matrix) => sizeOf(matrix, transB)[1]));

const product = /* @__PURE__ */ defineFunction<Attributes>({
  name: "groupedMatmul",
  forward(context, [x, ...matrices], { groups, transB }) {
    const out = zeros([x.shape[0], widest(matrices, transB)], { dtype: x.dtype, device: x.device });
    productsInto(x, matrices, groups, transB, 0, out);
    context.save(x, ...matrices);
    return out;
  },
  backward(context, dy, { groups, transB }) {
    const [x, ...matrices] = context.saved();
    const [wantsX, ...wants] = context.wants;
    const dx = wantsX ? zeros(x.shape, { dtype: x.dtype, device: x.device }) : undefined;
    if (dx) productsInto(dy, matrices, groups, !transB, 0, dx);
    const gradients = matrices.map((matrix, i) =>
      wants[i] ? zeros(matrix.shape, { dtype: matrix.dtype, device: matrix.device }) : undefined,
    );
    const wanted = groups.filter(({ index }) => gradients[index]);
    const targets = gradients.map((out) => out && { out, beta: 1 as const });
    if (transB) groupedWeightGradients(dy, x, wanted, targets);
    else groupedWeightGradients(x, dy, wanted, targets);
    return [dx, ...gradients];
  },
  reference([x, ...matrices], { groups, transB }) {
    const n = widest(matrices, transB);
    const parts: Tensor[] = [];
    let last = 0;
    const gap = (until: number): void => {
      if (until > last) parts.push(zeros([until - last, n], { dtype: x.dtype, device: x.device }));
    };
    for (const { start, end, index, alpha = 1 } of groups) {
      gap(start);
      const [k, columns] = sizeOf(matrices[index], transB);
      const part = matmul(slice(x, [start, end], [0, k]), matrices[index], { transB, alpha });
      parts.push(
        pad(part, [
          [0, 0],
          [0, n - columns],
        ]),
      );
      last = end;
    }
    gap(x.shape[0]);
    return concat(parts, 0);
  },
});

/**
 * Multiplies groups of rows of `x`, each by a matrix of its own: row i of a group is alpha · x[i, : k] · matrices[index], with the
 * matrix's own k and n. Columns from n on, and rows of no group, are 0.
 *
 * @param x - [rows, at least every k]
 * @param matrices - [k, n] each, sizes may differ; with `transB` [n, k]
 * @param groups - one after the other; several may share a matrix
 * @returns [rows, largest n]
 * @throws {ShapeError} for groups out of order or range, and matrices that are larger than `x` or `out`
 */
export function groupedMatmul(
  x: Tensor,
  matrices: readonly Tensor[],
  groups: readonly RowGroup[],
  options: GroupedMatmulArguments = {},
): Tensor {
  const { transB = false, beta = 0, out } = options;
  checkMatrices("groupedMatmul", x, out ? [...matrices, out] : matrices);
  checkGroups("groupedMatmul", groups, x.shape[0], matrices.length);
  for (const matrix of matrices) {
    const [k, n] = sizeOf(matrix, transB);
    if (k > x.shape[1] || (out && n > out.shape[1]))
      throw new ShapeError(
        `groupedMatmul: a matrix [${k}, ${n}] does not fit x ${formatShape(x.shape)}${out ? ` and out ${formatShape(out.shape)}` : ""}`,
      );
  }
  if (!out) {
    if (beta !== 0) throw new ShapeError("groupedMatmul: beta needs out");
    return product([x, ...matrices], { groups, transB });
  }
  if (out.shape[0] !== x.shape[0] || (out.shape[1] > 1 && out.strides[1] !== 1))
    throw new ShapeError(
      `groupedMatmul: out ${formatShape(out.shape)} should have ${x.shape[0]} rows, last stride 1`,
    );
  if ([x, ...matrices].some((input) => input.storage === out.storage))
    throw new ShapeError("groupedMatmul: out shares memory with an operand");
  if (needsGraph([x, ...matrices, out]))
    throw new AutogradError(
      "groupedMatmul: gradients are not recorded through out; wrap the call in noGrad()",
    );
  productsInto(x, matrices, groups, transB, beta, out);
  return out;
}

/** A matrix that {@link groupedWeightGradients} writes (beta 0) or adds to (beta 1). */
export interface GroupedTarget {
  readonly out: Tensor;
  readonly beta: 0 | 1;
}

/**
 * Adds up leftᵀ · right over the rows of the groups of each target: out = Σ alpha · left[rows, : p]ᵀ · right[rows, : q] + beta · out, for
 * an out of [p, q]. These are the gradients of {@link groupedMatmul}'s matrices. Nothing is recorded.
 *
 * @param targets - by the groups' index; undefined where no group has that index
 */
export function groupedWeightGradients(
  left: Tensor,
  right: Tensor,
  groups: readonly RowGroup[],
  targets: readonly (GroupedTarget | undefined)[],
): void {
  const operation = "groupedWeightGradients";
  const outs = targets.flatMap((target) => target?.out ?? []);
  const backend = checkMatrices(operation, left, [right, ...outs]);
  checkGroups(operation, groups, left.shape[0], targets.length);
  const [a, b] = [operand(left), operand(right)];
  // Groups of one target write to the same place: one after the other.
  const rounds: MatmulProduct[][] = [];
  const seen = targets.map(() => 0);
  for (const { start, end, index, alpha = 1 } of groups) {
    const target = targets[index];
    if (!target) throw new ShapeError(`${operation}: no target for index ${index}`);
    const [p, q] = target.out.shape;
    if (p > left.shape[1] || q > right.shape[1] || right.shape[0] !== left.shape[0])
      throw new ShapeError(
        `${operation}: out [${p}, ${q}] does not fit ${formatShape(left.shape)} and ${formatShape(right.shape)}`,
      );
    const round = seen[index]++;
    (rounds[round] ??= []).push({
      a: transposed(block(a, start, end - start, p)),
      b: block(b, start, end - start, q),
      out: operand(target.out),
      alpha,
      beta: round === 0 ? target.beta : 1,
    });
  }
  targets.forEach((target, i) => {
    if (!target) return;
    if (seen[i] === 0 && target.beta === 0) backend.fill(operand(target.out), 0);
    target.out.storage.version++;
  });
  rounds.forEach((products, round) => {
    multiply([left, right, ...outs], products, round);
  });
}
