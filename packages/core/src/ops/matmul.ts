// Matrix products. Transposes are strides, so all four forms take the same way; batches broadcast.

import { requireOptions } from "../arguments.js";
import { needsGraph, withGradMode } from "../autograd/graph.js";
import type { OwnRule } from "../autograd/rule.js";
import type { Backend, Operand } from "../backend/types.js";
import { isFloat, promote } from "../dtype.js";
import { AutogradError, DTypeError, ShapeError } from "../errors.js";
import { contiguousLayout, expandLayout, layoutsMeet, permuteLayout, reshapeLayout } from "../layout.js";
import { tidy } from "../memory.js";
import { broadcastShapes, formatShape, sameShape, sizeOf } from "../shape.js";
import type { Tensor } from "../tensor.js";
import { commonBackend, empty, finish, finishBy, operand } from "./dispatch.js";
import { add, cast } from "./elementwise.js";
import { sumTo } from "./reduce.js";
import { reshape } from "./view.js";

export interface MatmulArguments {
  /** Take `a` with its last two axes swapped. */
  transA?: boolean;
  /** Take `b` with its last two axes swapped. */
  transB?: boolean;
  /** Factor of the product (default 1). */
  alpha?: number;
  /** Factor of what `out` held before (default 0: overwritten). Needs `out`. */
  beta?: number;
  /** Where to put the result, last stride 1. It is returned; no gradient is recorded through it. */
  out?: Tensor;
}

function swapLast(layout: Tensor["layout"]): Tensor["layout"] {
  const order = layout.shape.map((_, i) => i);
  const last = order.length - 1;
  order[last] = last - 1;
  order[last - 1] = last;
  return permuteLayout(layout, order);
}

/**
 * alpha · a · b (+ beta · out) for a [batch…, m, k] and b [batch…, k, n]; batch axes broadcast. A vector on the left counts
 * as [1, k], on the right as [k, 1], and the added axis is dropped again, as in NumPy.
 *
 * @returns [batch…, m, n]; int32 for integers and bool, modulo 2³²
 * @throws {ShapeError} when inner dimensions or batch axes do not fit
 */
export function matmul(a: Tensor, b: Tensor, options: MatmulArguments = {}): Tensor {
  requireOptions("matmul", options, ["transA", "transB", "alpha", "beta", "out"]);
  const backend = commonBackend("matmul", options.out ? [a, b, options.out] : [a, b]);
  if (a.rank === 0 || b.rank === 0) throw new ShapeError("matmul: scalars have no matrix product; use mul");
  const common = promote(a.dtype, b.dtype);
  const dtype = isFloat(common) ? common : "int32";
  if (a.dtype !== dtype || b.dtype !== dtype || !backend.arithmetic.has(dtype)) {
    const work = backend.arithmetic.has(dtype) ? dtype : "float32";
    if (options.out)
      throw new DTypeError(`matmul: with out, operands must share its dtype (${a.dtype}, ${b.dtype})`);
    return tidy(() => cast(matmul(cast(a, work), cast(b, work), options), dtype));
  }
  // A vector is a matrix of one row or column. A stack of rows against one matrix is one large product: [batch·m, k] · [k, n].
  const stacked = b.rank === 2 && a.rank > 2 && !options.transA && !options.out;
  const seen = a.rank === 1 || b.rank === 1 || stacked;
  let left = a.layout;
  let right = b.layout;
  if (seen) {
    const ends = a.shape[a.rank - 1];
    // Not −1 for the rows: with k = 0 there would be none to infer.
    const shapeA = a.rank === 1 ? [1, ends] : stacked ? [sizeOf(a.shape.slice(0, -1)), ends] : a.shape;
    const shapeB = b.rank === 1 ? [b.shape[0], 1] : b.shape;
    const rows = reshapeLayout(left, shapeA);
    if (!rows || options.out || needsGraph([a, b])) {
      return tidy(() => {
        const product = matmul(reshape(a, shapeA), reshape(b, shapeB), options);
        return reshape(product, seenShape(a, b, stacked, product.shape));
      });
    }
    left = rows;
    right = reshapeLayout(right, shapeB)!;
  }
  if (options.transA) left = swapLast(left);
  if (options.transB) right = swapLast(right);
  const [m, k] = left.shape.slice(-2);
  const [inner, n] = right.shape.slice(-2);
  if (k !== inner) {
    throw new ShapeError(
      `matmul: inner dimensions differ: ${formatShape(left.shape)} · ${formatShape(right.shape)} (${k} ≠ ${inner})`,
    );
  }
  const batch = broadcastShapes("matmul", left.shape.slice(0, -2), right.shape.slice(0, -2));
  const shape = [...batch, m, n];
  const alpha = options.alpha ?? 1;
  const beta = options.beta ?? 0;
  if (!isFloat(dtype) && (alpha !== 1 || beta !== 0))
    throw new DTypeError(`matmul: ${common} takes no alpha and no beta`);
  const out = options.out ?? empty(backend, dtype, seen ? seenShape(a, b, stacked, shape) : shape);
  if (options.out) checkOut(options.out, shape, dtype, [a, b]);
  else if (beta !== 0) throw new ShapeError("matmul: beta needs out");
  const rows = operand(
    a,
    left.shape.length === 2 && batch.length === 0 ? left : expandLayout("matmul", left, [...batch, m, k]),
  );
  const columns = operand(
    b,
    right.shape.length === 2 && batch.length === 0 ? right : expandLayout("matmul", right, [...batch, k, n]),
  );
  const place = operand(out, seen ? contiguousLayout(shape) : out.layout);
  if (isFloat(dtype)) backend.matmul(rows, columns, { alpha, beta }, place);
  else addOuterProducts(rows, columns, place, backend);
  if (options.out) {
    out.storage.version++;
    return out;
  }
  return finish(
    "matmul",
    [a, b],
    { transA: options.transA ?? false, transB: options.transB ?? false, alpha },
    out,
  );
}

/** The shape of the result where the kernel's, `shape`, has axes added for vectors, or those of a stack as one. */
function seenShape(a: Tensor, b: Tensor, stacked: boolean, shape: readonly number[]): readonly number[] {
  const last = b.rank === 1 ? [] : shape.slice(-1);
  if (stacked) return [...a.shape.slice(0, -1), ...last];
  return [...shape.slice(0, a.rank === 1 ? -2 : -1), ...last];
}

/** out = a · b of whole numbers, which kernels of products do not know: outer products added up, modulo 2³². */
function addOuterProducts(a: Operand, b: Operand, out: Operand, backend: Backend): void {
  const { shape, dtype } = out;
  const product = empty(backend, dtype, shape);
  // Column p of a, or row p of b, repeated along the other axis.
  const at = (x: Operand, axis: number, p: number): Operand => ({
    ...x,
    shape,
    strides: x.strides.with(axis, 0),
    offset: x.offset + p * x.strides.at(axis)!,
  });
  backend.fill(out, 0);
  for (let p = 0; p < a.shape.at(-1)!; p++) {
    backend.binary("mul", at(a, -1, p), at(b, -2, p), operand(product));
    backend.binary("add", out, operand(product), out);
  }
  product.dispose();
}

function checkOut(out: Tensor, shape: readonly number[], dtype: string, inputs: readonly Tensor[]): void {
  if (!sameShape(out.shape, shape))
    throw new ShapeError(`matmul: out ${formatShape(out.shape)} should be ${formatShape(shape)}`);
  if (out.dtype !== dtype) throw new DTypeError(`matmul: out is ${out.dtype}, the product ${dtype}`);
  if (out.size > 0 && shape[shape.length - 1] > 1 && out.strides[out.rank - 1] !== 1)
    throw new ShapeError("matmul: the last stride of out must be 1");
  if (inputs.some((input) => input.storage === out.storage && layoutsMeet(input.layout, out.layout)))
    throw new ShapeError(
      "matmul: out shares memory with an operand, which would be written while it is read",
    );
  if (needsGraph([...inputs, out]))
    throw new AutogradError("matmul: gradients are not recorded through out; wrap the call in noGrad()");
}

/**
 * x · weightᵀ + bias for x [..., in], weight [out, in], bias [out].
 * @throws {ShapeError} when they do not fit
 */
export function linear(x: Tensor, weight: Tensor, bias?: Tensor | null): Tensor {
  const backend = commonBackend("linear", bias ? [x, weight, bias] : [x, weight]);
  const fits = x.rank > 0 && weight.rank === 2 && x.shape[x.rank - 1] === weight.shape[1];
  if (!fits || (bias && !(bias.rank === 1 && bias.shape[0] === weight.shape[0]))) {
    throw new ShapeError(
      `linear: expected x [..., in], weight [out, in] and bias [out], not ${formatShape(x.shape)}, ${formatShape(weight.shape)}${bias ? ` and ${formatShape(bias.shape)}` : ""}`,
    );
  }
  if (!bias) return matmul(x, weight, { transB: true });
  const { dtype } = bias;
  if (promote(x.dtype, weight.dtype) !== dtype || !isFloat(dtype) || !backend.arithmetic.has(dtype))
    return tidy(() => add(matmul(x, weight, { transB: true }), bias));
  const out = withGradMode(false, () => matmul(x, weight, { transB: true }));
  const place = operand(out);
  backend.binary("add", place, operand(bias, expandLayout("linear", bias.layout, out.shape)), place);
  return finishBy(linearRule, [x, weight, bias], null, out);
}

export const linearRule: OwnRule<null> = {
  name: "linear",
  needs: (i) => (i === 2 ? [] : [1 - i]),
  backward: (c, dy) => {
    const rows = (t: Tensor) => reshape(t, [sizeOf(t.shape.slice(0, -1)), t.shape[t.rank - 1]]);
    const options = { transA: false, transB: true, alpha: 1 };
    const [dx, dWeight] = matmulBackward(
      () => rows(c.input(0)),
      () => c.input(1),
      rows(dy),
      options,
      c,
    );
    // Not another handle of the gradient that the product was added to: that would be added once more.
    const shape = c.shape(0);
    return [
      dx && (sameShape(dx.shape, shape) ? dx : reshape(dx, shape)),
      dWeight,
      c.wants[2] ? sumTo(dy, c.shape(2)) : undefined,
    ];
  },
};

/** The gradient of {@link matmul} for both operands, written into gradients at hand where that may be. */
export function matmulBackward(
  a: () => Tensor,
  b: () => Tensor,
  dy: Tensor,
  attributes: { transA: boolean; transB: boolean; alpha: number },
  context: {
    wants: readonly boolean[];
    shape(i: number): readonly number[];
    accumulate(i: number): Tensor | undefined;
  },
): (Tensor | undefined)[] {
  const { transA, transB, alpha } = attributes;
  /** `left · right` as the gradient of input `i`, added to what is there when the shapes are the same. */
  const product = (i: number, left: Tensor, leftT: boolean, right: Tensor, rightT: boolean): Tensor => {
    const options = { transA: leftT, transB: rightT, alpha };
    const shape = context.shape(i);
    const existing =
      shape.length === dy.rank && sameShape(shape.slice(0, -2), dy.shape.slice(0, -2))
        ? context.accumulate(i)
        : undefined;
    if (existing) return matmul(left, right, { ...options, beta: 1, out: existing });
    return matmul(left, right, options);
  };
  return [
    // y = a·b: da = dy·bᵀ; for a given transposed, daᵀ = b·dyᵀ.
    context.wants[0]
      ? transA
        ? product(0, b(), transB, dy, true)
        : product(0, dy, false, b(), !transB)
      : undefined,
    context.wants[1]
      ? transB
        ? product(1, dy, true, a(), transA)
        : product(1, a(), !transA, dy, false)
      : undefined,
  ];
}
