// ggml's Q5_0, byte for byte as its reference quantizer writes it: 32 elements in 22 bytes, float16 scale d, the fifth
// bits of the codes as a little-endian 32-bit number, then 16 bytes of their low halves, laid out as in Q4_0.
// x ≈ d·(code − 16).
//
// quantize(dequantize(q)) gives the bytes of q where d ≠ 0, for the same reason as in Q4_0.

import {
  fifthBits,
  fiveBitElement,
  ggmlFormat,
  halfBits,
  halfElement,
  inverse,
  signedExtreme,
  storeFiveBits,
  storeHalf,
} from "./ggml.js";
import { fromHalf } from "./half.js";

const { fround } = Math;

export const q5_0 = ggmlFormat({
  name: "q5_0",
  blockSize: 32,
  bytesPerBlock: 22,
  limit: 16 * 65520,
  kernel: 11,
  codes: {
    least: -16,
    most: 15,
    minimum: false,
    store: (bytes, at, code) => storeFiveBits(bytes, at + 2, (j) => code(j) + 16),
  },
  encode(values, from, bytes, at) {
    const d = fround(signedExtreme(values, from, 32) / -16);
    const id = inverse(d);
    storeHalf(bytes, at, d);
    storeFiveBits(bytes, at + 2, (j) =>
      Math.min(31, Math.trunc(fround(fround(values[from + j] * id) + 16.5))),
    );
  },
  decode(bytes, at, out, to) {
    const d = fromHalf(halfBits(bytes, at));
    const high = fifthBits(bytes, at + 2);
    for (let j = 0; j < 16; j++) {
      const byte = bytes[at + 6 + j];
      out[to + j] = d * ((byte & 15) + 16 * ((high >>> j) & 1) - 16);
      out[to + 16 + j] = d * ((byte >> 4) + 16 * ((high >>> (j + 16)) & 1) - 16);
    }
  },
  element: (scope, byte, place) =>
    `${halfElement(scope, byte, 0)} * (${fiveBitElement(scope, byte, 2, place)} - 16.0)`,
  // The end away from the extreme is cut at code 31, a step short of +16.
  errorBound: (absmax) => (absmax / 16) * (1 + 2 ** -6),
});
