// float16 (IEEE 754 binary16) and bfloat16 as their 16 bits, to and from numbers. Rounds to nearest even, straight from
// float64, so no value is rounded twice.

import { roundHalfEven } from "./math.js";

const float64 = new Float64Array(1);
const words = new Uint32Array(float64.buffer);
const highWord = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1 ? 1 : 0;

/** The exponent e of a normal number, 2^e ≤ |x| < 2^(e+1). */
function exponentOf(x: number): number {
  float64[0] = x;
  return ((words[highWord] >>> 20) & 0x7ff) - 1023;
}

/**
 * Bits of `x` in a 16-bit format with `mantissa` fraction bits and the exponent bias `bias`; NaN becomes the positive quiet
 * NaN, what is too large becomes infinity.
 */
function encode(x: number, mantissa: number, bias: number): number {
  const infinity = (2 * bias + 1) * 2 ** mantissa;
  if (Number.isNaN(x)) return infinity + 2 ** (mantissa - 1);
  const sign = x < 0 || Object.is(x, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(x);
  const least = 1 - bias;
  // Below 2^least the spacing stays that of the least normal exponent (subnormal numbers).
  const exponent = magnitude < 2 ** least ? least : exponentOf(magnitude);
  if (exponent > bias) return sign + infinity;
  // In units of the last place; a carry out of the fraction raises the exponent, up to infinity, as it must.
  const units = roundHalfEven(magnitude * 2 ** (mantissa - exponent));
  return sign + (exponent - least) * 2 ** mantissa + units;
}

function decode(bits: number, mantissa: number, bias: number): number {
  const fraction = bits & (2 ** mantissa - 1);
  const field = (bits & 0x7fff) >>> mantissa;
  const sign = bits & 0x8000 ? -1 : 1;
  if (field === 2 * bias + 1) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  if (field === 0) return sign * fraction * 2 ** (1 - bias - mantissa);
  return sign * (1 + fraction * 2 ** -mantissa) * 2 ** (field - bias);
}

/** Bits of the float16 nearest to `x`. */
export function toFloat16Bits(x: number): number {
  return encode(x, 10, 15);
}

/** Value of float16 bits. */
export function fromFloat16Bits(bits: number): number {
  return decode(bits, 10, 15);
}

/** Bits of the bfloat16 nearest to `x`. */
export function toBfloat16Bits(x: number): number {
  return encode(x, 7, 127);
}

/** Value of bfloat16 bits. */
export function fromBfloat16Bits(bits: number): number {
  return decode(bits, 7, 127);
}
