// ggml's K-quants: blocks of 256 elements, in sub-blocks of 16 or 32 with scales (and minima) of 4 to 8 bits, under one
// float16 scale (and one for the minima). Values come out as ggml's reference dequantizers compute them, every product and
// sum rounded to float32. k-encode.ts writes them.
//
// quantize(dequantize(q)) need not give the bytes of q: the search weighs elements by their size and may prefer another line for
// what lies on one exactly. It stays within the error bound again.

import { ggmlFormat, halfBits } from "./ggml.js";
import { fromHalf } from "./half.js";
import { encodeQ2_K, encodeQ3_K, encodeQ4_K, encodeQ5_K, encodeQ6_K } from "./k-encode.js";

const { fround } = Math;

/** Their scales are some of these apart from float16's largest number, 65504, whatever the search finds. */
const limit = 2 ** 18;
const common = { blockSize: 256, limit, kernelEncodes: false } as const;

/** 84 bytes: 16 bytes of scale (low half) and minimum (high half), 64 of 2-bit codes, d, dmin. x = d·scale·code − dmin·minimum. */
export const q2_K = ggmlFormat({
  ...common,
  name: "q2_K",
  encode: encodeQ2_K,
  errorBound: (absmax) => absmax * 1.1,
  bytesPerBlock: 84,
  kernel: 13,
  // Two offsets in 32 elements: the kernels take one.
  integerDot: false,
  decode(bytes, at, out, to) {
    const d = fromHalf(halfBits(bytes, at + 80));
    const dmin = fromHalf(halfBits(bytes, at + 82));
    for (let i = 0; i < 256; i++) {
      const scale = bytes[at + (i >> 4)];
      const code = (bytes[at + 16 + (i >> 7) * 32 + (i & 31)] >> (((i >> 5) & 3) * 2)) & 3;
      out[to + i] = fround(fround(d * (scale & 15)) * code) - fround(dmin * (scale >> 4));
    }
  },
});

/** 110 bytes: 32 of third bits, 64 of 2-bit codes, 12 of 6-bit scales, d. x = d·(scale − 32)·(code − 4). */
export const q3_K = ggmlFormat({
  ...common,
  name: "q3_K",
  encode: encodeQ3_K,
  errorBound: (absmax) => absmax * 0.5,
  bytesPerBlock: 110,
  kernel: 14,
  decode(bytes, at, out, to) {
    const d = fromHalf(halfBits(bytes, at + 108));
    const scales = at + 96;
    for (let i = 0; i < 256; i++) {
      const j = i >> 4;
      // Scale j: low 4 bits in byte j mod 8 (upper half from j = 8 on), high 2 bits in bytes 8 … 11.
      const low = j < 8 ? bytes[scales + j] & 15 : bytes[scales + j - 8] >> 4;
      const high = (bytes[scales + 8 + (j & 3)] >> (2 * (j >> 2))) & 3;
      const code = (bytes[at + 32 + (i >> 7) * 32 + (i & 31)] >> (((i >> 5) & 3) * 2)) & 3;
      const third = (bytes[at + (i & 31)] >> (i >> 5)) & 1;
      out[to + i] = fround(d * ((low | (high << 4)) - 32)) * (code + 4 * third - 4);
    }
  },
});

/** Scale and minimum j of the 12 bytes that Q4_K and Q5_K keep eight 6-bit pairs in. */
function scaleAndMinimum(bytes: Uint8Array, at: number, j: number): [scale: number, minimum: number] {
  if (j < 4) return [bytes[at + j] & 63, bytes[at + j + 4] & 63];
  return [
    (bytes[at + j + 4] & 15) | ((bytes[at + j - 4] >> 6) << 4),
    (bytes[at + j + 4] >> 4) | ((bytes[at + j] >> 6) << 4),
  ];
}

/** 144 bytes: d, dmin, 12 of scales and minima, 128 of 4-bit codes. x = d·scale·code − dmin·minimum. */
export const q4_K = ggmlFormat({
  ...common,
  name: "q4_K",
  encode: encodeQ4_K,
  errorBound: (absmax) => absmax * 0.25,
  bytesPerBlock: 144,
  kernel: 15,
  decode(bytes, at, out, to) {
    decodeWithMinima(
      bytes,
      at,
      out,
      to,
      (i) => (bytes[at + 16 + (i >> 6) * 32 + (i & 31)] >> (((i >> 5) & 1) * 4)) & 15,
    );
  },
});

/** 176 bytes: d, dmin, 12 of scales and minima, 32 of fifth bits, 128 of 4-bit codes. x as in Q4_K. */
export const q5_K = ggmlFormat({
  ...common,
  name: "q5_K",
  encode: encodeQ5_K,
  errorBound: (absmax) => absmax * 0.12,
  bytesPerBlock: 176,
  kernel: 16,
  decode(bytes, at, out, to) {
    decodeWithMinima(bytes, at, out, to, (i) => {
      const low = (bytes[at + 48 + (i >> 6) * 32 + (i & 31)] >> (((i >> 5) & 1) * 4)) & 15;
      return low | (((bytes[at + 16 + (i & 31)] >> (i >> 5)) & 1) << 4);
    });
  },
});

function decodeWithMinima(
  bytes: Uint8Array,
  at: number,
  out: Float32Array,
  to: number,
  code: (i: number) => number,
): void {
  const d = fromHalf(halfBits(bytes, at));
  const dmin = fromHalf(halfBits(bytes, at + 2));
  for (let j = 0; j < 8; j++) {
    const [scale, minimum] = scaleAndMinimum(bytes, at + 4, j);
    const step = fround(d * scale);
    const offset = fround(dmin * minimum);
    for (let i = 32 * j; i < 32 * (j + 1); i++) out[to + i] = fround(step * code(i)) - offset;
  }
}

/** 210 bytes: 128 of low 4 bits, 64 of high 2 bits, 16 int8 scales, d. x = d·scale·(code − 32). */
export const q6_K = ggmlFormat({
  ...common,
  name: "q6_K",
  encode: encodeQ6_K,
  errorBound: (absmax) => absmax * 0.06,
  bytesPerBlock: 210,
  kernel: 17,
  decode(bytes, at, out, to) {
    const d = fromHalf(halfBits(bytes, at + 208));
    for (let i = 0; i < 256; i++) {
      // Each half of 128: elements 0–63 in the low halves of 64 bytes, 64–127 in the high ones.
      const half = i >> 7;
      const within = i & 127;
      const low = (bytes[at + half * 64 + (within & 63)] >> ((within >> 6) * 4)) & 15;
      const high = (bytes[at + 128 + half * 32 + (within & 31)] >> ((within >> 5) * 2)) & 3;
      const scale = (bytes[at + 192 + (i >> 4)] << 24) >> 24;
      out[to + i] = fround(d * scale) * ((low | (high << 4)) - 32);
    }
  },
});
