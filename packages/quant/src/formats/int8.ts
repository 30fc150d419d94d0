// int8 per output channel, symmetric: codes [out, in] int8 within ±127, one float32 scale a row, x ≈ scale · code,
// scale = absmax/127, codes rounded half to even (as torch.round). Any shape.
//
// quantize(dequantize(q)) gives the bytes of q. For that the scale is rounded once more, to one that survives
// scale → 127·scale → scale in float32; this moves one scale in 128 by one unit in the last place.

import type { BlockFormat } from "./format.js";

const { fround } = Math;

/** The scale of a row whose largest magnitude is `absmax`. */
function scaleOf(absmax: number): number {
  const scale = fround(absmax / 127);
  const again = fround(fround(scale * 127) / 127);
  // Next to the largest float, 127·scale overflows: one unit less does not.
  return Number.isFinite(again) ? again : fround(scale * (1 - 2 ** -24));
}

/** Nearest integer, ties to even. */
export function roundEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}

export const int8: BlockFormat = {
  name: "int8",
  blockSize: Infinity,
  bytesPerBlock: Infinity,
  limit: Infinity,
  kernel: 2,
  integerDot: true,
  checkShape() {},
  parts: ([rows, columns]) => [
    { name: "data", dtype: "int8", shape: [rows, columns] },
    { name: "scales", dtype: "float32", shape: [rows] },
  ],
  quantizeBlock(values, from, count, parts, block) {
    let absmax = 0;
    for (let i = from; i < from + count; i++) absmax = Math.max(absmax, Math.abs(values[i]));
    const scale = scaleOf(absmax);
    parts.scales[block] = scale;
    for (let i = from; i < from + count; i++) {
      const code = scale === 0 ? 0 : roundEven(fround(values[i] / scale));
      parts.data[i] = Math.max(-127, Math.min(127, code));
    }
  },
  dequantizeBlock(parts, block, out, to, count) {
    const scale = parts.scales[block];
    for (let i = to; i < to + count; i++) out[i] = scale * parts.data[i];
  },
  errorBound: (absmax) => (absmax / 127) * (0.5 + 2 ** -15),
};
