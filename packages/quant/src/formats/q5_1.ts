// ggml's Q5_1, byte for byte as its reference quantizer writes it: 32 elements in 24 bytes, float16 scale d, float16
// minimum m, the fifth bits of the codes as a little-endian 32-bit number, then 16 bytes of their low halves, laid out as
// in Q4_0. x ≈ code·d + m.
//
// quantize(dequantize(q)) gives the bytes of q under the conditions of Q4_1.

import {
  fifthBits,
  fiveBitElement,
  ggmlFormat,
  halfBits,
  halfElement,
  inverse,
  range,
  storeFiveBits,
  storeHalf,
} from "./ggml.js";
import { fromHalf } from "./half.js";

const { fround } = Math;

export const q5_1 = ggmlFormat({
  name: "q5_1",
  blockSize: 32,
  bytesPerBlock: 24,
  limit: 65520,
  kernel: 12,
  codes: {
    least: 0,
    most: 31,
    minimum: true,
    store: (bytes, at, code) => storeFiveBits(bytes, at + 4, code),
  },
  encode(values, from, bytes, at) {
    const [min, max] = range(values, from, 32);
    const d = fround(fround(max - min) / 31);
    const id = inverse(d);
    storeHalf(bytes, at, d);
    storeHalf(bytes, at + 2, min);
    storeFiveBits(bytes, at + 4, (j) =>
      Math.trunc(fround(fround(fround(values[from + j] - min) * id) + 0.5)),
    );
  },
  decode(bytes, at, out, to) {
    const d = fromHalf(halfBits(bytes, at));
    const m = fromHalf(halfBits(bytes, at + 2));
    const high = fifthBits(bytes, at + 4);
    for (let j = 0; j < 16; j++) {
      const byte = bytes[at + 8 + j];
      out[to + j] = fround(d * ((byte & 15) + 16 * ((high >>> j) & 1))) + m;
      out[to + 16 + j] = fround(d * ((byte >> 4) + 16 * ((high >>> (j + 16)) & 1))) + m;
    }
  },
  element: (scope, byte, place) =>
    `${halfElement(scope, byte, 0)} * ${fiveBitElement(scope, byte, 4, place)} + ${halfElement(scope, byte, 2)}`,
  errorBound: (absmax) => absmax * (1 / 31 + 4 * 2 ** -11),
});
