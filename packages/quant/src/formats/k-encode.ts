// Writing K-quants, byte for byte as ggml's reference quantizers do it (quantize_row_q2_K_ref … quantize_row_q6_K_ref, without an
// importance matrix): sub-blocks are searched on their own (k-search.ts), their scales and minima rounded to the block's, and then
// all codes chosen anew. The records are described in k-quants.ts.

import { halfBits, storeHalf } from "./ggml.js";
import { fromHalf } from "./half.js";
import { roundEven } from "./integer.js";
import {
  clampCode,
  type MinimumSearch,
  searchSymmetric,
  searchThreeBits,
  searchWithMinimum,
} from "./k-search.js";

const { fround } = Math;
const size = 256;

/** Stores `value` as float16 and gives back what stands there. */
function storedHalf(bytes: Uint8Array, at: number, value: number): number {
  storeHalf(bytes, at, value);
  return fromHalf(halfBits(bytes, at));
}

/** most / largest in float32; 0 where there is nothing to scale, or too little for float32. */
function inverseOf(most: number, largest: number): number {
  const inverse = largest > 0 ? fround(most / largest) : 0;
  return Number.isFinite(inverse) ? inverse : 0;
}

interface Searched {
  readonly codes: Uint8Array;
  readonly scales: Float32Array;
  readonly minima: Float32Array;
  readonly largestScale: number;
  readonly largestMinimum: number;
}

/** Scales and minima of sub-blocks of `length` elements. */
function searchMinima(
  x: Float32Array,
  length: number,
  search: MinimumSearch,
  weigh: (part: Float32Array) => Float32Array,
): Searched {
  const count = size / length;
  const codes = new Uint8Array(size);
  const scales = new Float32Array(count);
  const minima = new Float32Array(count);
  for (let j = 0; j < count; j++) {
    const part = x.subarray(j * length, (j + 1) * length);
    const found = codes.subarray(j * length, (j + 1) * length);
    [scales[j], minima[j]] = searchWithMinimum(part, weigh(part), found, search);
  }
  const largest = (values: Float32Array) => values.reduce((a, b) => Math.max(a, b), 0);
  return { codes, scales, minima, largestScale: largest(scales), largestMinimum: largest(minima) };
}

/** Codes of sub-block j anew, for what its scale and minimum have become; with scale 0 those of the search stay. */
function recode(
  x: Float32Array,
  codes: Uint8Array,
  from: number,
  length: number,
  line: { scale: number; minimum?: number; least: number; most: number; bias?: number },
): void {
  const { scale, minimum = 0, least, most, bias = 0 } = line;
  if (scale === 0) return;
  for (let i = from; i < from + length; i++) {
    codes[i] = bias + clampCode(roundEven(fround(fround(x[i] + minimum) / scale)), least, most);
  }
}

/** 2 bits each of four elements 32 apart, in 64 bytes. */
function storePairs(bytes: Uint8Array, at: number, codes: Uint8Array): void {
  for (let i = 0; i < 64; i++) {
    const first = (i >> 5) * 128 + (i & 31);
    bytes[at + i] =
      (codes[first] & 3) |
      ((codes[first + 32] & 3) << 2) |
      ((codes[first + 64] & 3) << 4) |
      ((codes[first + 96] & 3) << 6);
  }
}

export function encodeQ2_K(values: Float32Array, from: number, bytes: Uint8Array, at: number): void {
  const x = values.subarray(from, from + size);
  const search = { most: 3, first: -0.5, step: 0.1, steps: 15, absolute: true };
  const { codes, scales, minima, largestScale, largestMinimum } = searchMinima(x, 16, search, (part) =>
    part.map(Math.abs),
  );
  const [inverseScale, inverseMinimum] = [inverseOf(15, largestScale), inverseOf(15, largestMinimum)];
  const d = storedHalf(bytes, at + 80, inverseScale === 0 ? 0 : fround(largestScale / 15));
  const dmin = storedHalf(bytes, at + 82, inverseMinimum === 0 ? 0 : fround(largestMinimum / 15));
  for (let j = 0; j < 16; j++) {
    const scale = roundEven(fround(inverseScale * scales[j]));
    const minimum = roundEven(fround(inverseMinimum * minima[j]));
    bytes[at + j] = scale | (minimum << 4);
    const line = { scale: fround(d * scale), minimum: fround(dmin * minimum), least: 0, most: 3 };
    recode(x, codes, 16 * j, 16, line);
  }
  storePairs(bytes, at + 16, codes);
}

export function encodeQ3_K(values: Float32Array, from: number, bytes: Uint8Array, at: number): void {
  const x = values.subarray(from, from + size);
  const codes = new Uint8Array(size);
  const scales = new Float32Array(16);
  let largest = 0;
  for (let j = 0; j < 16; j++) {
    scales[j] = searchThreeBits(x.subarray(16 * j, 16 * j + 16), codes.subarray(16 * j, 16 * j + 16));
    if (Math.abs(scales[j]) > Math.abs(largest)) largest = scales[j];
  }
  bytes.fill(0, at, at + 110);
  const inverse = largest === 0 ? 0 : fround(-32 / largest);
  const d = storedHalf(bytes, at + 108, inverse === 0 ? 0 : fround(1 / inverse));
  for (let j = 0; j < 16; j++) {
    // Without a scale ggml leaves the record at 0, which stands for −32.
    const scale = inverse === 0 ? -32 : clampCode(roundEven(fround(inverse * scales[j])), -32, 31);
    const code = scale + 32;
    bytes[at + 96 + (j & 7)] |= (code & 15) << (j < 8 ? 0 : 4);
    bytes[at + 104 + (j & 3)] |= (code >> 4) << (2 * (j >> 2));
    recode(x, codes, 16 * j, 16, { scale: fround(d * scale), least: -4, most: 3, bias: 4 });
  }
  for (let i = 0; i < size; i++) if (codes[i] > 3) bytes[at + (i & 31)] |= 1 << (i >> 5);
  storePairs(bytes, at + 32, codes);
}

/** Q4_K and Q5_K up to their codes: d, dmin and the twelve bytes of scales and minima. */
function encodeMinima(x: Float32Array, bytes: Uint8Array, at: number, search: MinimumSearch): Uint8Array {
  const { codes, scales, minima, largestScale, largestMinimum } = searchMinima(x, 32, search, (part) => {
    let squares = 0;
    for (const value of part) squares = fround(squares + fround(value * value));
    const mean = fround(Math.sqrt(fround(squares / 32)));
    return part.map((value) => mean + Math.abs(value));
  });
  const [inverseScale, inverseMinimum] = [inverseOf(63, largestScale), inverseOf(63, largestMinimum)];
  const d = storedHalf(bytes, at, inverseScale === 0 ? 0 : fround(largestScale / 63));
  const dmin = storedHalf(bytes, at + 2, inverseMinimum === 0 ? 0 : fround(largestMinimum / 63));
  const packed = bytes.subarray(at + 4, at + 16).fill(0);
  for (let j = 0; j < 8; j++) {
    const scale = Math.min(63, roundEven(fround(inverseScale * scales[j])));
    const minimum = Math.min(63, roundEven(fround(inverseMinimum * minima[j])));
    if (j < 4) {
      packed[j] = scale;
      packed[j + 4] = minimum;
    } else {
      packed[j + 4] = (scale & 15) | ((minimum & 15) << 4);
      packed[j - 4] |= (scale >> 4) << 6;
      packed[j] |= (minimum >> 4) << 6;
    }
    const line = { scale: fround(d * scale), minimum: fround(dmin * minimum), least: 0, most: search.most };
    recode(x, codes, 32 * j, 32, line);
  }
  return codes;
}

/** Low halves of the codes: byte i of each 32 holds elements i and i + 32 of 64. */
function storeLowHalves(bytes: Uint8Array, at: number, codes: Uint8Array): void {
  for (let i = 0; i < 128; i++) {
    const first = (i >> 5) * 64 + (i & 31);
    bytes[at + i] = (codes[first] & 15) | ((codes[first + 32] & 15) << 4);
  }
}

export function encodeQ4_K(values: Float32Array, from: number, bytes: Uint8Array, at: number): void {
  const search = { most: 15, first: -1, step: 0.1, steps: 20, absolute: false };
  const codes = encodeMinima(values.subarray(from, from + size), bytes, at, search);
  storeLowHalves(bytes, at + 16, codes);
}

export function encodeQ5_K(values: Float32Array, from: number, bytes: Uint8Array, at: number): void {
  const search = { most: 31, first: -0.5, step: 0.1, steps: 15, absolute: false };
  const codes = encodeMinima(values.subarray(from, from + size), bytes, at, search);
  const fifth = bytes.subarray(at + 16, at + 48).fill(0);
  for (let i = 0; i < size; i++) fifth[i & 31] |= (codes[i] >> 4) << (i >> 5);
  storeLowHalves(bytes, at + 48, codes);
}

export function encodeQ6_K(values: Float32Array, from: number, bytes: Uint8Array, at: number): void {
  const x = values.subarray(from, from + size);
  const codes = new Uint8Array(size);
  const scales = new Float32Array(16);
  let largest = 0;
  for (let j = 0; j < 16; j++) {
    scales[j] = searchSymmetric(x.subarray(16 * j, 16 * j + 16), 32, codes.subarray(16 * j, 16 * j + 16));
    if (Math.abs(scales[j]) > Math.abs(largest)) largest = scales[j];
  }
  bytes.fill(0, at, at + 210);
  if (Math.abs(largest) < fround(1e-15)) return;
  const inverse = fround(-128 / largest);
  const d = storedHalf(bytes, at + 208, fround(1 / inverse));
  for (let j = 0; j < 16; j++) {
    const scale = Math.min(127, roundEven(fround(inverse * scales[j])));
    bytes[at + 192 + j] = scale;
    recode(x, codes, 16 * j, 16, { scale: fround(d * scale), least: -32, most: 31, bias: 32 });
  }
  for (let i = 0; i < size; i++) {
    // As the decoder reads them: halves of 128, quarters of 32.
    const [half, within] = [i >> 7, i & 127];
    bytes[at + half * 64 + (within & 63)] |= (codes[i] & 15) << ((within >> 6) * 4);
    bytes[at + 128 + half * 32 + (within & 31)] |= (codes[i] >> 4) << ((within >> 5) * 2);
  }
}
