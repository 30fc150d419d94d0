// ggml's K-quants: blocks of 256 elements, in sub-blocks of 16 or 32 with scales (and minima) of 4 to 8 bits, under one
// float16 scale (and one for the minima). Values come out as ggml's reference dequantizers compute them, every product and
// sum rounded to float32. k-encode.ts writes them.
//
// quantize(dequantize(q)) need not give the bytes of q: the search weighs elements by their size and may prefer another line for
// what lies on one exactly. It stays within the error bound again.

import type { ElementScope } from "@nomoat/core/extend";
import { ggmlFormat, halfBits, halfElement } from "./ggml.js";
import { fromHalf } from "./half.js";
import { encodeQ2_K, encodeQ3_K, encodeQ4_K, encodeQ5_K, encodeQ6_K } from "./k-encode.js";

const { fround } = Math;

/** Their scales are some of these apart from float16's largest number, 65504, whatever the search finds. */
const limit = 2 ** 18;
const common = { blockSize: 256, limit } as const;

/** ⌊place / by⌋ and what is left over, for codes of elements. */
function split(scope: ElementScope, place: string, by: number): [quotient: string, rest: string] {
  const quotient = scope.divide(place, by);
  return [quotient, scope.position(`${place} - ${by} * ${quotient}`)];
}

/** The code of 2 bits of element `place`: each half of 128 in 32 bytes from `at` on, four elements 32 apart in a byte. */
function pairElement(scope: ElementScope, byte: (at: string) => string, at: number, place: string): string {
  const [half, within] = split(scope, place, 128);
  const [quarter, i] = split(scope, within, 32);
  return scope.bits(byte(`${at} + 32 * ${half} + ${i}`), `2 * ${quarter}`, 2);
}

/** 84 bytes: 16 bytes of scale (low half) and minimum (high half), 64 of 2-bit codes, d, dmin. x = d·scale·code − dmin·minimum. */
export const q2_K = ggmlFormat({
  ...common,
  name: "q2_K",
  encode: encodeQ2_K,
  errorBound: (absmax) => absmax * 1.1,
  bytesPerBlock: 84,
  kernel: 13,
  // Two offsets in 32 elements: the kernels' tiles take one.
  integerDot: "few rows",
  decode(bytes, at, out, to) {
    const d = fromHalf(halfBits(bytes, at + 80));
    const dmin = fromHalf(halfBits(bytes, at + 82));
    for (let i = 0; i < 256; i++) {
      const scale = bytes[at + (i >> 4)];
      const code = (bytes[at + 16 + (i >> 7) * 32 + (i & 31)] >> (((i >> 5) & 3) * 2)) & 3;
      out[to + i] = fround(fround(d * (scale & 15)) * code) - fround(dmin * (scale >> 4));
    }
  },
  element(scope, byte, place) {
    const [d, dmin] = [halfElement(scope, byte, 80), halfElement(scope, byte, 82)];
    const scales = byte(scope.divide(place, 16));
    const code = pairElement(scope, byte, 16, place);
    return `${d} * ${scope.half(scales, "0")} * ${code} - ${dmin} * ${scope.half(scales, "1")}`;
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
  element(scope, byte, place) {
    const j = scope.divide(place, 16);
    const [upper, lower] = split(scope, j, 8);
    const low = scope.half(byte(`96 + ${lower}`), upper);
    const [quarter, last] = split(scope, j, 4);
    const high = scope.bits(byte(`104 + ${last}`), `2 * ${quarter}`, 2);
    const [eighth, i] = split(scope, place, 32);
    const third = scope.bits(byte(i), eighth, 1);
    const code = `(${pairElement(scope, byte, 32, place)} + 4.0 * ${third} - 4.0)`;
    return `${halfElement(scope, byte, 108)} * (${low} + 16.0 * ${high} - 32.0) * ${code}`;
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
  element: (scope, byte, place) =>
    elementWithMinimum(scope, byte, place, (pair, upper, i) =>
      scope.half(byte(`16 + 32 * ${pair} + ${i}`), upper),
    ),
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
  element: (scope, byte, place) =>
    elementWithMinimum(scope, byte, place, (pair, upper, i, eighth) => {
      const low = scope.half(byte(`48 + 32 * ${pair} + ${i}`), upper);
      return `(${low} + 16.0 * ${scope.bits(byte(`16 + ${i}`), eighth, 1)})`;
    }),
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

/** As {@link decodeWithMinima}; `code` of element i of 32, of those number `eighth`, which is the `upper` one of 64 number `pair`. */
function elementWithMinimum(
  scope: ElementScope,
  byte: (at: string) => string,
  place: string,
  code: (pair: string, upper: string, i: string, eighth: string) => string,
): string {
  const [eighth, i] = split(scope, place, 32);
  const [pair, upper] = split(scope, eighth, 2);
  // As scaleAndMinimum: the pairs from 4 on have their upper bits in the bytes of the first.
  const [late] = split(scope, eighth, 4);
  const [own, next] = [byte(`4 + ${eighth}`), byte(`8 + ${eighth}`)];
  const before = byte(`4 + ${eighth} - 4 * ${late}`);
  const six = (of: string) => scope.bits(of, "0", 6);
  const four = (low: string, high: string) => `(${low} + 16.0 * ${scope.bits(high, "6", 2)})`;
  const scale = scope.choose(late, four(scope.half(next, "0"), before), six(own));
  const minimum = scope.choose(late, four(scope.half(next, "1"), own), six(next));
  const [d, dmin] = [halfElement(scope, byte, 0), halfElement(scope, byte, 2)];
  return `${d} * ${scale} * ${code(pair, upper, i, eighth)} - ${dmin} * ${minimum}`;
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
  element(scope, byte, place) {
    const [half, within] = split(scope, place, 128);
    const [upper, i] = split(scope, within, 64);
    const low = scope.half(byte(`64 * ${half} + ${i}`), upper);
    const [quarter, j] = split(scope, within, 32);
    const high = scope.bits(byte(`128 + 32 * ${half} + ${j}`), `2 * ${quarter}`, 2);
    const scale = scope.signed(byte(`192 + ${scope.divide(place, 16)}`));
    return `${halfElement(scope, byte, 208)} * ${scale} * (${low} + 16.0 * ${high} - 32.0)`;
  },
});
