// The product of activations with a quantized weight, and its gradient. Kernels where there are some; elsewhere, and as
// their definition, the weight is dequantized and multiplied by core's operations.

import {
  ArgumentError,
  defineFunction,
  matmul,
  noGrad,
  ShapeError,
  type Tensor,
  tidy,
  zeros,
} from "@nomoat/core";
import { empty, operand, type PackedWeight, requireOptions, use } from "@nomoat/core/extend";
import type { BlockFormat, WeightShape } from "./formats/format.js";
import { addressOf, type Kernels, kernelsFor, packedWeight, weightArguments } from "./kernels.js";
import {
  checkStaticActivations,
  hasIntegerProduct,
  multiplyIntegers,
  type StaticActivations,
} from "./matmul-integers.js";
import { dequantizeParts, type QuantizedTensor, requirePacked } from "./quantized-tensor.js";

export interface QuantizedMatmulOptions extends StaticActivations {
  /**
   * How activations enter the product. "float32" (default): as they are; the result is that of the dequantized weight.
   * "int8": rounded to eight bits, where no gradient is recorded and there are kernels for it (not on other backends, not for more than
   * four rows with q2_K, not for codebook formats whose rows are no multiple of 32): by default in blocks of 32 to 128 elements with a scale each (as llama.cpp
   * does), with an error of about 0.5 % of the result's spread; or with one given scale. Dot products of integers are exact on every
   * host; their scaled sums in float32 do not depend on threads, but are fused where there is relaxed SIMD, as all float32 products are.
   */
  readonly activations?: "float32" | "int8";
}

/** Most rows that are multiplied one by one in float32; more go through tiles of the matrix product. Measured. */
export const fewRows = 12;

interface Attributes {
  readonly format: BlockFormat;
  readonly shape: WeightShape;
  readonly parts: readonly Tensor[];
  /** How activations are rounded; null when they are not. */
  readonly range: StaticActivations | null;
}

const product = defineFunction<Attributes>({
  name: "quantizedMatmul",
  forward(context, [x], { format, shape, parts, range }) {
    context.save(...parts);
    const kernels = x.dtype === "float32" ? kernelsFor(parts[0], format) : null;
    const packed = kernels || x.dtype !== "float32" ? null : packedWeight(format, shape, parts);
    if (packed) return multiplyPacked(packed, x, false, undefined);
    if (!kernels) return matmul(x, dequantizeParts(format, shape, parts), { transB: true });
    const rounds = range && !context.wants[0] && hasIntegerProduct(format, shape, rowsOf(x));
    return forwardByKernels(kernels, { format, shape, parts }, x, rounds ? range : null);
  },
  backward(context, dy, { format, shape }) {
    const parts = context.saved();
    const existing = context.accumulate(0);
    const kernels = dy.dtype === "float32" ? kernelsFor(parts[0], format) : null;
    const packed = kernels || dy.dtype !== "float32" ? null : packedWeight(format, shape, parts);
    if (packed) return [multiplyPacked(packed, dy, true, existing)];
    if (!kernels) return [backwardByReference(dequantizeParts(format, shape, parts), dy, existing)];
    return [backwardByKernels(kernels, { format, shape, parts }, dy, context.shape(0), existing)];
  },
});

/**
 * Multiplies `x` by a frozen quantized weight: `y = x · dequantize(w)ᵀ`.
 *
 * The weight receives no gradient; `x` receives `dy · dequantize(w)`, added in place to the gradient that was gathered
 * for it so far where the engine allows that.
 *
 * @param x - activations, float `[..., inFeatures]`; 16-bit floats are computed in float32
 * @param w - packed weight, `[outFeatures, inFeatures]`, on the backend of `x`
 * @returns float32 (float64 for float64 `x`) `[..., outFeatures]`
 * @throws {ShapeError} when the last axis of `x` is not `w`'s `inFeatures`
 * @throws {ArgumentError} for a range of activations that is none, or one without `activations: "int8"`
 */
export function quantizedMatmul(x: Tensor, w: QuantizedTensor, options: QuantizedMatmulOptions = {}): Tensor {
  use("quantizedMatmul", x);
  requirePacked("quantizedMatmul", w);
  requireOptions("quantizedMatmul", options);
  const activations = options.activations ?? "float32";
  if (activations !== "float32" && activations !== "int8") {
    throw new ArgumentError(`quantizedMatmul: activations must be "float32" or "int8", not "${activations}"`);
  }
  checkStaticActivations("quantizedMatmul", options);
  const { activationScale, activationZeroPoint } = options;
  if (activations === "float32" && activationScale !== undefined) {
    throw new ArgumentError('quantizedMatmul: an activationScale needs activations: "int8"');
  }
  const parts = w.partList("quantizedMatmul");
  if (x.rank === 0 || x.shape[x.rank - 1] !== w.inFeatures) {
    throw new ShapeError(
      `quantizedMatmul: the last axis of x [${x.shape.join(", ")}] should be ${w.inFeatures}, that of the weight [${w.shape.join(", ")}]`,
    );
  }
  if (x.device !== w.device) {
    throw new ArgumentError(
      `quantizedMatmul: x is on ${x.device}, the weight on ${w.device}; move x with to("${w.device}")`,
    );
  }
  const range = activations === "int8" ? { activationScale, activationZeroPoint } : null;
  const attributes = { format: w.format, shape: w.shape, parts, range };
  if (x.dtype === "float32" || x.dtype === "float64") return product([x], attributes);
  return tidy(() => product([x.cast("float32")], attributes));
}

type Weight = Pick<Attributes, "format" | "shape" | "parts">;

/** dy · w, added to `existing` where there is one. */
function backwardByReference(w: Tensor, dy: Tensor, existing: Tensor | undefined): Tensor {
  return existing ? noGrad(() => existing.copyFrom(existing.add(matmul(dy, w)))) : matmul(dy, w);
}

/** x · wᵀ, or with `transposed` x · w, by a backend that decodes the weight itself; added to `existing` where there is one. */
function multiplyPacked(
  weight: PackedWeight,
  x: Tensor,
  transposed: boolean,
  existing: Tensor | undefined,
): Tensor {
  const [inner, columns] = transposed ? weight.shape : [weight.shape[1], weight.shape[0]];
  const rows = rowsOf(x);
  const { backend } = x.storage;
  const out = existing ?? empty(backend, "float32", [...x.shape.slice(0, -1), columns]);
  const matrix = (each: Tensor, width: number) => ({
    ...operand(each),
    shape: [rows, width],
    strides: [width, 1],
  });
  const given = matrix(contiguous(x), inner);
  backend.fused.packedMatmul!(given, weight, transposed, existing ? 1 : 0, matrix(out, columns));
  if (existing) existing.storage.version++;
  return out;
}

function contiguous(x: Tensor): Tensor {
  return x.isContiguous ? x : x.clone();
}

function rowsOf(x: Tensor): number {
  return x.shape.slice(0, -1).reduce((product, extent) => product * extent, 1);
}

function forwardByKernels(
  kernels: Kernels,
  weight: Weight,
  x: Tensor,
  range: StaticActivations | null,
): Tensor {
  const [outFeatures, inFeatures] = weight.shape;
  const shape = [...x.shape.slice(0, -1), outFeatures];
  const rows = rowsOf(x);
  if (inFeatures === 0 || rows * outFeatures === 0) return zeros(shape, { device: x.device });
  const { backend } = x.storage;
  const out = empty(backend, "float32", shape);
  const rowsOfX = contiguous(x);
  if (range) multiplyIntegers(kernels, weight, rowsOfX, rows, out, range);
  else if (rows === 1 && hasRowKernel(weight)) multiplyRow(kernels, weight, rowsOfX, out);
  else if (rows <= fewRows) multiplyFewRows(kernels, weight, rowsOfX, rows, out);
  else multiplyTiles(kernels, weight, rowsOfX, rows, out, true, 0);
  return out;
}

function backwardByKernels(
  kernels: Kernels,
  weight: Weight,
  dy: Tensor,
  shape: readonly number[],
  existing: Tensor | undefined,
): Tensor {
  const [outFeatures, inFeatures] = weight.shape;
  const rows = rowsOf(dy);
  if (outFeatures === 0 || rows * inFeatures === 0) return existing ?? zeros(shape, { device: dy.device });
  const out = existing ?? empty(dy.storage.backend, "float32", [...shape]);
  multiplyTiles(kernels, weight, contiguous(dy), rows, out, false, existing ? 1 : 0);
  if (existing) existing.storage.version++;
  return out;
}

/** Multiply-adds of one unit of work that is worth handing to a thread. */
const unitWork = 32768;

/** Numbers of the formats whose codes meet one row of x without being written anywhere: assembly/exact-row.ts. */
const rowKernels: ReadonlySet<number | null> = new Set([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);

function hasRowKernel({ format, shape }: Weight): boolean {
  // Blocks that are counted along the flattened weight begin with its rows where those are whole blocks of 32.
  return (
    rowKernels.has(format.kernel) &&
    (format.rowWise || !Number.isFinite(format.blockSize) || shape[1] % 32 === 0)
  );
}

/** One row of x, put into the order in which a format's codes come apart. */
function multiplyRow(kernels: Kernels, weight: Weight, x: Tensor, out: Tensor): void {
  const { format, shape, parts } = weight;
  const [outFeatures, inFeatures] = shape;
  const arranged = empty(x.storage.backend, "float32", [Math.ceil(inFeatures / 32) * 33]);
  const arrange = [addressOf(kernels, x), addressOf(kernels, arranged), inFeatures, format.kernel as number];
  kernels.module.launch("arrangeRow", 1, arrange, [], { scratchBytes: 32 });
  const args = weightArguments(kernels, format, parts, inFeatures);
  args.push(addressOf(kernels, arranged), addressOf(kernels, out));
  const grain = Math.max(1, Math.ceil(unitWork / inFeatures));
  kernels.module.launch("multiplyRow", outFeatures, args, [], { grain, scratchBytes: 128 });
}

/** One output feature after the other, rows of x in the cache. */
function multiplyFewRows(kernels: Kernels, weight: Weight, x: Tensor, rows: number, out: Tensor): void {
  const { format, shape, parts } = weight;
  const [outFeatures, inFeatures] = shape;
  const args = weightArguments(kernels, format, parts, inFeatures);
  args.push(addressOf(kernels, x), rows, addressOf(kernels, out), outFeatures);
  const grain = Math.max(1, Math.ceil(unitWork / (inFeatures * rows)));
  kernels.module.launch("multiplyFewRows", outFeatures, args, [], { grain, scratchBytes: 16384 });
}

/** Depth of a packed block, as in core's GEMM (assembly/pack.ts). */
const depth = 384;
/** Rows that share what a unit decodes, and of a group that is packed: multiples of 12, so that panels of six and of four rows tile them. */
const rowsOfUnit = 288;
const rowsOfGroup = 48;

/** The tiled product, by the weight's transpose (x · wᵀ) or the weight itself (dy · w); with `beta` 1 it adds to out. */
function multiplyTiles(
  kernels: Kernels,
  weight: Weight,
  x: Tensor,
  rows: number,
  out: Tensor,
  transposed: boolean,
  beta: 0 | 1,
): void {
  const { format, shape, parts } = weight;
  const [columns, inner] = transposed ? shape : [shape[1], shape[0]];
  const groupColumns = columns <= 1024 ? 32 : 64;
  const units = Math.ceil(columns / groupColumns) * Math.ceil(rows / rowsOfUnit);
  const options = { grain: 1, scratchBytes: 192 + 1024 + 8 * depth * 4 + groupColumns * depth * 4 };
  const { packedRows, allocator } = kernels.runtime;
  const matrix = [addressOf(kernels, x), rows, inner, rowsOfGroup] as const;
  const shared = packedRows.shared(...matrix);
  const packed = shared || packedRows.pack(...matrix);
  try {
    const args = weightArguments(kernels, format, parts, shape[1]);
    args.push(packed, addressOf(kernels, out), rows, columns, inner);
    args.push(groupColumns, rowsOfUnit, transposed ? 1 : 0);
    kernels.module.launch("multiplyTiles", units, args, [beta], options);
  } finally {
    if (!shared) allocator.freeUncounted(packed);
  }
}
