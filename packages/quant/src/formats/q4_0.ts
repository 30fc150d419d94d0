// ggml's Q4_0, byte for byte as its reference quantizer writes it: 32 elements in 18 bytes, float16 scale d, then
// 16 bytes of codes 0 … 15; byte j has element j in its low and element j + 16 in its high half. x ≈ d·(code − 8).
//
// quantize(dequantize(q)) gives the bytes of q where d ≠ 0: the largest magnitude of a block has code 0 and returns as
// −8·d exactly. In a block whose d underflows (magnitudes below 2⁻²²) all values return as 0, and codes become 8.

import {
  ggmlFormat,
  halfBits,
  halfElement,
  inverse,
  nibbleElement,
  signedExtreme,
  storeHalf,
  storeNibbles,
} from "./ggml.js";
import { fromHalf } from "./half.js";

export const q4_0 = ggmlFormat({
  name: "q4_0",
  blockSize: 32,
  bytesPerBlock: 18,
  // 65520 and more round to infinity in float16.
  limit: 8 * 65520,
  kernel: 0,
  codes: {
    least: -8,
    most: 7,
    minimum: false,
    store: (bytes, at, code) => storeNibbles(bytes, at + 2, (j) => code(j) + 8),
  },
  encode(values, from, bytes, at) {
    const d = Math.fround(signedExtreme(values, from, 32) / -8);
    const id = inverse(d);
    storeHalf(bytes, at, d);
    storeNibbles(bytes, at + 2, (j) => code(values[from + j], id));
  },
  decode(bytes, at, out, to) {
    const d = fromHalf(halfBits(bytes, at));
    for (let j = 0; j < 16; j++) {
      const byte = bytes[at + 2 + j];
      out[to + j] = d * ((byte & 15) - 8);
      out[to + 16 + j] = d * ((byte >> 4) - 8);
    }
  },
  element: (scope, byte, place) =>
    `${halfElement(scope, byte, 0)} * (${nibbleElement(scope, byte, 2, place)} - 8.0)`,
  // The end away from the extreme is cut at code 15, a step short of +8. A scale rounds by at most 2⁻¹¹.
  errorBound: (absmax) => (absmax / 8) * (1 + 2 ** -7),
});

function code(value: number, id: number): number {
  return Math.min(15, Math.trunc(Math.fround(Math.fround(value * id) + 8.5)));
}
