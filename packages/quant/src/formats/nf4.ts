// NF4 as bitsandbytes defines it: 16 quantiles of the normal distribution, blocks of 64 elements of the flattened
// tensor, scaled by their largest magnitude (absmax). Two codes a byte, the first in the high half. A last block may be
// short; an odd last code shares its byte with the code of 0.
//
// "nf4" quantizes the scales too (double quantization): blocks of 256 scales, less the mean of all (offset), as codes of
// the 8-bit dynamic map, scaled by their largest magnitude (nestedAbsmax). "nf4_single" keeps them in float32.
//
// quantize(dequantize(q)) gives the bytes of q for "nf4_single" (scales above 2⁻¹²⁶). For "nf4" it gives the same 4-bit
// codes wherever the decoded scale is positive and the same decoded scales to within the map's resolution, but not the
// same bytes of scales: their mean, and so every code of the second level, moves with the rounding of the first pass.

import { dynamicCode, dynamicMap } from "./dynamic-map.js";
import type { BlockFormat, PartArray, Parts, WeightShape } from "./format.js";

const { fround } = Math;

/** The 16 values, as in bitsandbytes' `get_4bit_type("nf4")`. */
export const nf4Codebook: Float32Array = Float32Array.of(
  -1.0,
  -0.6961928009986877,
  -0.5250730514526367,
  -0.39491748809814453,
  -0.28444138169288635,
  -0.18477343022823334,
  -0.09105003625154495,
  0.0,
  0.07958029955625534,
  0.16093020141124725,
  0.24611230194568634,
  0.33791524171829224,
  0.44070982933044434,
  0.5626170039176941,
  0.7229568362236023,
  1.0,
);

/** Bounds between neighbouring codes, as in bitsandbytes' `dQuantizeNF4`: a value above bound i has a code above i. */
export const nf4Bounds: Float32Array = Float32Array.from({ length: 15 }, (_, i) =>
  fround((nf4Codebook[i] + nf4Codebook[i + 1]) / 2),
);

export const nf4BlockSize = 64;
export const nestedBlockSize = 256;

function nf4Code(x: number): number {
  let code = 0;
  while (code < 15 && x > nf4Bounds[code]) code++;
  return code;
}

/** x/absmax as bitsandbytes computes it, by the reciprocal; by division where that overflows. */
function normalizer(absmax: number): (x: number) => number {
  if (absmax === 0) return () => 0;
  const reciprocal = fround(1 / absmax);
  if (Number.isFinite(reciprocal)) return (x) => fround(x * reciprocal);
  return (x) => fround(x / absmax);
}

function blocksOf([rows, columns]: WeightShape): number {
  return Math.ceil((rows * columns) / nf4BlockSize);
}

function encodeBlock(values: Float32Array, from: number, count: number, data: PartArray): number {
  let absmax = 0;
  for (let i = from; i < from + count; i++) absmax = Math.max(absmax, Math.abs(values[i]));
  const normalize = normalizer(absmax);
  for (let i = from; i < from + count; i += 2) {
    const second = i + 1 < from + count ? normalize(values[i + 1]) : 0;
    data[i >> 1] = (nf4Code(normalize(values[i])) << 4) | nf4Code(second);
  }
  return absmax;
}

function decodeBlock(data: PartArray, absmax: number, out: Float32Array, to: number, count: number): void {
  for (let i = to; i < to + count; i++) {
    const byte = data[i >> 1];
    out[i] = nf4Codebook[i % 2 === 0 ? byte >> 4 : byte & 15] * absmax;
  }
}

/** Half the widest gap of the codebook; the least value, −0.696, is 0.304 from −1. */
function errorBound(absmax: number): number {
  return absmax * ((nf4Codebook[1] - nf4Codebook[0]) / 2 + 2 ** -20);
}

export const nf4Single: BlockFormat = {
  name: "nf4_single",
  blockSize: nf4BlockSize,
  bytesPerBlock: 36,
  limit: Infinity,
  kernel: 3,
  integerDot: false,
  checkShape() {},
  parts: (shape) => [
    { name: "data", dtype: "uint8", shape: [Math.ceil((shape[0] * shape[1]) / 2)] },
    { name: "absmax", dtype: "float32", shape: [blocksOf(shape)] },
  ],
  quantizeBlock(values, from, count, parts, block) {
    parts.absmax[block] = encodeBlock(values, from, count, parts.data);
  },
  dequantizeBlock(parts, block, out, to, count) {
    decodeBlock(parts.data, parts.absmax[block], out, to, count);
  },
  errorBound,
};

/** Scale of block `block` of double-quantized parts: map[code] · nestedAbsmax + offset. */
export function decodeAbsmax(parts: Parts, block: number): number {
  const nested = parts.nestedAbsmax[Math.floor(block / nestedBlockSize)];
  return fround(fround(dynamicMap[parts.absmax[block]] * nested) + parts.offset[0]);
}

/** Second quantization: float32 scales `absmax` into `parts.absmax`, `parts.nestedAbsmax` and `parts.offset`. */
export function quantizeAbsmax(absmax: Float32Array, parts: Parts): void {
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

export const nf4: BlockFormat = {
  name: "nf4",
  blockSize: nf4BlockSize,
  bytesPerBlock: 33,
  limit: Infinity,
  kernel: 4,
  integerDot: false,
  checkShape() {},
  parts: (shape) => [
    { name: "data", dtype: "uint8", shape: [Math.ceil((shape[0] * shape[1]) / 2)] },
    { name: "absmax", dtype: "uint8", shape: [blocksOf(shape)] },
    { name: "nestedAbsmax", dtype: "float32", shape: [Math.ceil(blocksOf(shape) / nestedBlockSize)] },
    { name: "offset", dtype: "float32", shape: [1] },
  ],
  scratch: (shape) => ({ floatAbsmax: new Float32Array(blocksOf(shape)) }),
  quantizeBlock(values, from, count, parts, block) {
    parts.floatAbsmax[block] = encodeBlock(values, from, count, parts.data);
  },
  finish(parts) {
    quantizeAbsmax(parts.floatAbsmax as Float32Array, parts);
  },
  dequantizeBlock(parts, block, out, to, count) {
    decodeBlock(parts.data, decodeAbsmax(parts, block), out, to, count);
  },
  errorBound,
};
