// What a format of quantized weights is: how blocks of floats become bytes and back, in plain TypeScript on typed
// arrays. This is the definition that the wasm kernels are tested against; it is not what runs on the fast path.

import { ArgumentError, ShapeError } from "@nomoat/core";
import type { ElementScope } from "@nomoat/core/extend";

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

/** x ≈ scale · code + offset. */
export interface Grid {
  readonly scale: number;
  readonly offset: number;
}

/**
 * The codes of a format as whole numbers on a line, for methods that choose codes and lines themselves (GPTQ, HQQ). All
 * elements of a block share its line.
 */
export interface GridCodes {
  readonly least: number;
  readonly most: number;
  /** Offsets that can be stored: none, whole multiples of the scale (zero points from least to most), or any. */
  readonly offsets: "none" | "multiples" | "free";
  /** The line that is stored for `grid`. */
  nearest(grid: Grid): Grid;
  /** The line of block number `block`. */
  read(parts: Parts, block: number): Grid;
  /**
   * Stores a block.
   * @param grid - what `nearest` gave
   * @param codes - by flat element of the tensor, of which those from `from` to `from + count` are the block's
   */
  write(
    parts: Parts,
    block: number,
    grid: Grid,
    codes: ArrayLike<number>,
    from: number,
    count: number,
    columns: number,
  ): void;
}

/** How a weight is stored. A block is a run of elements that share a scale. */
export interface BlockFormat {
  readonly name: string;
  /** Elements of a block; Infinity when a block is a whole row, or the whole tensor. */
  readonly blockSize: number;
  /** Bytes of a block with its own scales, without what blocks share; Infinity as `blockSize`. */
  readonly bytesPerBlock: number;
  /** True when a block ends with its row; false when blocks are counted along the flattened tensor. */
  readonly rowWise: boolean;
  /** Where codes are whole numbers on a line. */
  readonly grid?: GridCodes;
  /** Magnitudes of this and above do not fit; Infinity where every float32 does. */
  readonly limit: number;
  /** Number of its decoder in the wasm kernels (assembly/weight.ts); null when it has none. */
  readonly kernel: number | null;
  /** Elements that share a scale and scales of a row, for kernels of formats that vary in them. */
  kernelOptions?(columns: number): readonly [groupSize: number, groupsOfRow: number];
  /** One element's code, for backends that write their kernels when they run (gpu); absent where there is none. */
  element?(scope: ElementScope): string;
  /** Whether the kernels have integer dot products with int8 activations for it, for any number of rows or for up to four. */
  readonly integerDot: boolean | "few rows";
  /** @throws {ShapeError} naming `tensor` when a weight of that shape cannot be stored in this format */
  checkShape(shape: WeightShape, tensor: string): void;
  /** The arrays that a weight of `shape` needs. */
  parts(shape: WeightShape): readonly PartLayout[];
  /**
   * Quantizes the block that starts at `values[from]`. Values must be finite.
   * @param count - elements of the block, fewer than `blockSize` in the last one of a row or tensor
   * @param block - number of the block
   * @param columns - length of a row
   */
  quantizeBlock(
    values: Float32Array,
    from: number,
    count: number,
    parts: Parts,
    block: number,
    columns: number,
  ): void;
  /** Writes the `count` values of block number `block` to `out` from `to` on. */
  dequantizeBlock(
    parts: Parts,
    block: number,
    out: Float32Array,
    to: number,
    count: number,
    columns: number,
  ): void;
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

/** Where the blocks of a weight start, and how long they are. */
export function* blocksOf(
  format: BlockFormat,
  [rows, columns]: WeightShape,
): Generator<[from: number, count: number]> {
  // A row-wise block starts anew with each row.
  const run = format.rowWise ? columns : rows * columns;
  const step = Math.min(format.blockSize, run);
  for (let start = 0; start < rows * columns; start += run) {
    for (let at = 0; at < run; at += step) yield [start + at, Math.min(step, run - at)];
  }
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
  for (const [from, count] of blocksOf(format, shape)) {
    format.quantizeBlock(values, from, count, parts, block++, shape[1]);
  }
  format.finish?.(parts);
  return Object.fromEntries(format.parts(shape).map(({ name }) => [name, parts[name]]));
}

/** The values of a quantized weight, row-major. */
export function dequantizeValues(format: BlockFormat, parts: Parts, shape: WeightShape): Float32Array {
  const out = new Float32Array(sizeOf(shape));
  let block = 0;
  for (const [from, count] of blocksOf(format, shape)) {
    format.dequantizeBlock(parts, block++, out, from, count, shape[1]);
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
    ? `is too large for ${format.name} (limit ${format.limit})`
    : "cannot be quantized";
  return new ArgumentError(`quantize: ${tensor}: ${value} at index ${place} ${reason}`);
}
