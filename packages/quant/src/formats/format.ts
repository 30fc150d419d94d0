// What a format of quantized weights is: how blocks of floats become bytes and back, in plain TypeScript on typed
// arrays. This is the definition that the wasm kernels are tested against; it is not what runs on the fast path.

import { ArgumentError, ShapeError } from "@nomoat/core";

/** Logical shape of a quantized weight: [outFeatures, inFeatures]. */
export type WeightShape = readonly [outFeatures: number, inFeatures: number];

/** One array of a quantized tensor: codes, scales, ... */
export interface PartLayout {
  readonly name: string;
  readonly dtype: "uint8" | "int8" | "float32";
  readonly shape: readonly number[];
}

export type PartArray = Uint8Array | Int8Array | Float32Array;

/** The arrays of a quantized tensor by name. The codes are always called `data`. */
export type Parts = Readonly<Record<string, PartArray>>;

/**
 * How a weight is stored. A block is a run of elements that share a scale, counted along the flattened tensor; no
 * format of a row-wise kind lets a block cross the end of a row.
 */
export interface BlockFormat {
  readonly name: string;
  /** Elements of a block; Infinity when a block is a whole row. */
  readonly blockSize: number;
  /** Bytes of a block with its own scales, without what blocks share; Infinity when a block is a whole row. */
  readonly bytesPerBlock: number;
  /** Magnitudes of this and above do not fit; Infinity where every float32 does. */
  readonly limit: number;
  /** Number of its decoder in the wasm kernels (assembly/weight.ts); null when it has none. */
  readonly kernel: number | null;
  /** True when the kernels have integer dot products with int8 activations for it. */
  readonly integerDot: boolean;
  /** @throws {ShapeError} naming `tensor` when a weight of that shape cannot be stored in this format */
  checkShape(shape: WeightShape, tensor: string): void;
  /** The arrays that a weight of `shape` needs. */
  parts(shape: WeightShape): readonly PartLayout[];
  /**
   * Quantizes the block that starts at `values[from]`. Values must be finite.
   * @param count - elements of the block, fewer than `blockSize` in the last block of a flattened tensor
   * @param block - number of the block
   */
  quantizeBlock(values: Float32Array, from: number, count: number, parts: Parts, block: number): void;
  /** Writes `count` values of block number `block` to `out` from `to` on. */
  dequantizeBlock(parts: Parts, block: number, out: Float32Array, to: number, count: number): void;
  /** Called when all blocks are quantized: what blocks share. */
  finish?(parts: Parts): void;
  /** The one array for the time between `quantizeBlock` and `finish`: scales that are quantized in their turn. */
  scratch?(shape: WeightShape): Record<string, PartArray>;
  /**
   * Largest |x − dequantize(quantize(x))| of a block whose largest magnitude is `absmax`, for scales that are
   * normal numbers (and before scales are quantized themselves).
   */
  errorBound(absmax: number): number;
}

const arrays = { uint8: Uint8Array, int8: Int8Array, float32: Float32Array };

/** Zeroed arrays by name. */
export function allocateParts(layouts: readonly PartLayout[]): Record<string, PartArray> {
  const parts: Record<string, PartArray> = {};
  for (const part of layouts) parts[part.name] = new arrays[part.dtype](sizeOf(part.shape));
  return parts;
}

export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, extent) => product * extent, 1);
}

/** Blocks of a weight: by rows where a block is at most a row, else along the flattened tensor. */
function* blocks(
  format: BlockFormat,
  [rows, columns]: WeightShape,
): Generator<[from: number, count: number]> {
  const size = rows * columns;
  const step = format.blockSize === Infinity ? columns : format.blockSize;
  for (let from = 0; from < size; from += step) yield [from, Math.min(step, size - from)];
}

/**
 * Quantizes row-major `values` of `shape`.
 *
 * @param tensor - name of the tensor for messages
 * @throws {ShapeError} when the shape does not suit the format
 * @throws {ArgumentError} for a NaN, an infinity or a value beyond the format's range, naming tensor and index
 */
export function quantizeValues(
  format: BlockFormat,
  values: Float32Array,
  shape: WeightShape,
  tensor = "tensor",
): Parts {
  if (values.length !== sizeOf(shape)) {
    throw new ShapeError(`quantize: ${tensor}: ${values.length} values do not fit [${shape.join(", ")}]`);
  }
  format.checkShape(shape, tensor);
  for (let i = 0; i < values.length; i++) {
    if (!(Math.abs(values[i]) < format.limit)) throw doesNotFit(format, tensor, shape, i, values[i]);
  }
  const parts = { ...allocateParts(format.parts(shape)), ...format.scratch?.(shape) };
  let block = 0;
  for (const [from, count] of blocks(format, shape)) {
    format.quantizeBlock(values, from, count, parts, block++);
  }
  format.finish?.(parts);
  return Object.fromEntries(format.parts(shape).map(({ name }) => [name, parts[name]]));
}

/** The values of a quantized weight, row-major. */
export function dequantizeValues(format: BlockFormat, parts: Parts, shape: WeightShape): Float32Array {
  const out = new Float32Array(sizeOf(shape));
  let block = 0;
  for (const [from, count] of blocks(format, shape)) {
    format.dequantizeBlock(parts, block++, out, from, count);
  }
  return out;
}

/** The error for a NaN, an infinity or too large a value at flat index `index`. */
export function doesNotFit(
  format: BlockFormat,
  tensor: string,
  [, columns]: WeightShape,
  index: number,
  value: number,
): ArgumentError {
  const place = `[${Math.floor(index / columns)}, ${index % columns}]`;
  const reason = Number.isFinite(value)
    ? `is too large for ${format.name}, whose scales are float16 (limit ${format.limit})`
    : "cannot be quantized";
  return new ArgumentError(`quantize: ${tensor}: ${value} at index ${place} ${reason}`);
}
