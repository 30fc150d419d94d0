// Conversion between float32 and float16, as ggml stores its scales. Rounds to nearest, ties to even.

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/** The bits of `value` (a float32) as float16; magnitudes of 65520 and more become infinity. */
export function toHalf(value: number): number {
  float[0] = value;
  const sign = (bits[0] >>> 16) & 0x8000;
  const magnitude = bits[0] & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Subnormal: units of 2⁻²⁴. The product is exact and below 1024, so rounding it is the only rounding.
    const units = Math.abs(value) * 16777216;
    const low = Math.floor(units);
    const rest = units - low;
    return sign | (low + (rest > 0.5 || (rest === 0.5 && low % 2 === 1) ? 1 : 0));
  }
  const rounded = magnitude + 0x0fff + ((magnitude >>> 13) & 1);
  return sign | ((rounded - 0x38000000) >>> 13);
}

/** The value of float16 `half`. */
export function fromHalf(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >>> 10) & 31;
  const fraction = half & 0x3ff;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : Number.NaN;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}
