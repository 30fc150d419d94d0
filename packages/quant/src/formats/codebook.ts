// bitsandbytes' 4-bit formats: 16 values, blocks of 64 elements of the flattened tensor, scaled by their largest
// magnitude (absmax). Two codes a byte, the first in the high half. A last block may be short; an odd last code shares
// its byte with the code of 0. nf4.ts and fp4.ts bring the values.
//
// Each comes in two kinds. The plain name quantizes the scales too (double quantization): blocks of 256 scales, less the
// mean of all (offset), as codes of the 8-bit dynamic map, scaled by their largest magnitude (nestedAbsmax). With "_single"
// they stay in float32.
//
// quantize(dequantize(q)) gives the bytes of q for "_single" (scales above 2⁻¹²⁶). With double quantization it gives the
// same 4-bit codes wherever the decoded scale is positive, and the same decoded scales to within the map's resolution, but
// not the same bytes of scales: their mean, and so every code of the second level, moves with the first pass's rounding.

import type { ElementScope } from "@nomoat/core/extend";
import { dynamicCode, dynamicMap } from "./dynamic-map.js";
import type { BlockFormat, PartArray, Parts, WeightShape } from "./format.js";

const { fround } = Math;

export const codebookBlockSize = 64;
export const nestedBlockSize = 256;

/** 16 values and how a number finds its own. */
export interface Codebook {
  readonly name: string;
  readonly values: Float32Array;
  /** Code of a float32 within ±1, as bitsandbytes' decision tree gives it. */
  code(x: number): number;
  /** Number of the kernels' decoder with float32 scales; the one with quantized scales comes next. */
  readonly kernel: number;
  /** Largest |x − value| for x within ±1. */
  readonly halfGap: number;
}

/** x/absmax as bitsandbytes computes it, by the reciprocal; by division where that overflows. */
function normalizer(absmax: number): (x: number) => number {
  if (absmax === 0) return () => 0;
  const reciprocal = fround(1 / absmax);
  if (Number.isFinite(reciprocal)) return (x) => fround(x * reciprocal);
  return (x) => fround(x / absmax);
}

function count64([rows, columns]: WeightShape): number {
  return Math.ceil((rows * columns) / codebookBlockSize);
}

function encodeBlock(
  book: Codebook,
  values: Float32Array,
  from: number,
  count: number,
  data: PartArray,
): number {
  let absmax = 0;
  for (let i = from; i < from + count; i++) absmax = Math.max(absmax, Math.abs(values[i]));
  const normalize = normalizer(absmax);
  for (let i = from; i < from + count; i += 2) {
    const second = i + 1 < from + count ? normalize(values[i + 1]) : 0;
    data[i >> 1] = (book.code(normalize(values[i])) << 4) | book.code(second);
  }
  return absmax;
}

function decodeBlock(
  book: Codebook,
  data: PartArray,
  absmax: number,
  out: Float32Array,
  to: number,
  count: number,
): void {
  for (let i = to; i < to + count; i++) {
    const byte = data[i >> 1];
    out[i] = book.values[i % 2 === 0 ? byte >> 4 : byte & 15] * absmax;
  }
}

/** Scale of block `block` of double-quantized parts: map[code] · nestedAbsmax + offset. */
export function decodeAbsmax(parts: Parts, block: number): number {
  const nested = parts.nestedAbsmax[Math.floor(block / nestedBlockSize)];
  return fround(fround(dynamicMap[parts.absmax[block]] * nested) + parts.offset[0]);
}

/** Second quantization: float32 scales `absmax` into `parts.absmax`, `parts.nestedAbsmax` and `parts.offset`. */
function quantizeAbsmax(absmax: Float32Array, parts: Parts): void {
  let sum = 0;
  for (const value of absmax) sum += value;
  const offset = absmax.length === 0 ? 0 : fround(sum / absmax.length);
  parts.offset[0] = offset;
  const centered = absmax.map((value) => value - offset);
  for (let from = 0; from < centered.length; from += nestedBlockSize) {
    const end = Math.min(from + nestedBlockSize, centered.length);
    let nested = 0;
    for (let i = from; i < end; i++) nested = Math.max(nested, Math.abs(centered[i]));
    parts.nestedAbsmax[from / nestedBlockSize] = nested;
    const normalize = normalizer(nested);
    for (let i = from; i < end; i++) parts.absmax[i] = dynamicCode(normalize(centered[i]));
  }
}

/** The formats of a codebook: with quantized scales, and with float32 scales. */
export function codebookFormats(book: Codebook): { double: BlockFormat; single: BlockFormat } {
  const common = {
    blockSize: codebookBlockSize,
    rowWise: false,
    limit: Infinity,
    integerDot: true,
    checkShape() {},
    errorBound: (absmax: number) => absmax * (book.halfGap + 2 ** -20),
  };
  const data = (shape: WeightShape) =>
    ({ name: "data", dtype: "uint8", shape: [Math.ceil((shape[0] * shape[1]) / 2)] }) as const;
  /** The value of an element's code; the first of a byte is in the high half. */
  const value = (scope: ElementScope): string => {
    const pair = scope.divide(scope.index, 2);
    const half = scope.half(scope.part(0, pair), `1 - ${scope.index} + 2 * ${pair}`);
    return scope.look(book.values, half);
  };
  const single: BlockFormat = {
    ...common,
    name: `${book.name}_single`,
    bytesPerBlock: 36,
    kernel: book.kernel,
    parts: (shape) => [data(shape), { name: "absmax", dtype: "float32", shape: [count64(shape)] }],
    element(scope) {
      const absmax = scope.part(1, scope.divide(scope.index, codebookBlockSize));
      return `${value(scope)} * ${absmax}`;
    },
    quantizeBlock(values, from, count, parts, block) {
      parts.absmax[block] = encodeBlock(book, values, from, count, parts.data);
    },
    dequantizeBlock(parts, block, out, to, count) {
      decodeBlock(book, parts.data, parts.absmax[block], out, to, count);
    },
  };
  const double: BlockFormat = {
    ...common,
    name: book.name,
    bytesPerBlock: 33,
    kernel: book.kernel + 1,
    parts: (shape) => [
      data(shape),
      { name: "absmax", dtype: "uint8", shape: [count64(shape)] },
      { name: "nestedAbsmax", dtype: "float32", shape: [Math.ceil(count64(shape) / nestedBlockSize)] },
      { name: "offset", dtype: "float32", shape: [1] },
    ],
    scratch: (shape) => ({ floatAbsmax: new Float32Array(count64(shape)) }),
    quantizeBlock(values, from, count, parts, block) {
      parts.floatAbsmax[block] = encodeBlock(book, values, from, count, parts.data);
    },
    element(scope) {
      const block = scope.divide(scope.index, codebookBlockSize);
      const scale = scope.look(dynamicMap, scope.part(1, block));
      const nested = scope.part(2, scope.divide(block, nestedBlockSize));
      return `${value(scope)} * (${scale} * ${nested} + ${scope.part(3, "0")})`;
    },
    finish(parts) {
      quantizeAbsmax(parts.floatAbsmax as Float32Array, parts);
    },
    dequantizeBlock(parts, block, out, to, count) {
      decodeBlock(book, parts.data, decodeAbsmax(parts, block), out, to, count);
    },
  };
  return { double, single };
}
