// ggml's Q4_1, byte for byte as its reference quantizer writes it: 32 elements in 20 bytes, float16 scale d, float16
// minimum m, then 16 bytes of codes 0 … 15; byte j has element j in its low and element j + 16 in its high half.
// x ≈ code·d + m.
//
// quantize(dequantize(q)) gives the bytes of q where d ≠ 0, as long as m does not drown d (|m| below 2¹¹·d), and for
// constant blocks.

import {
  ggmlFormat,
  halfBits,
  halfElement,
  inverse,
  nibbleElement,
  range,
  storeHalf,
  storeNibbles,
} from "./ggml.js";
import { fromHalf } from "./half.js";

const { fround } = Math;

export const q4_1 = ggmlFormat({
  name: "q4_1",
  blockSize: 32,
  bytesPerBlock: 20,
  limit: 65520,
  kernel: 10,
  codes: {
    least: 0,
    most: 15,
    minimum: true,
    store: (bytes, at, code) => storeNibbles(bytes, at + 4, code),
  },
  encode(values, from, bytes, at) {
    const [min, max] = range(values, from, 32);
    const d = fround(fround(max - min) / 15);
    const id = inverse(d);
    storeHalf(bytes, at, d);
    storeHalf(bytes, at + 2, min);
    storeNibbles(bytes, at + 4, (j) =>
      Math.min(15, Math.trunc(fround(fround(fround(values[from + j] - min) * id) + 0.5))),
    );
  },
  decode(bytes, at, out, to) {
    const d = fromHalf(halfBits(bytes, at));
    const m = fromHalf(halfBits(bytes, at + 2));
    for (let j = 0; j < 16; j++) {
      const byte = bytes[at + 4 + j];
      out[to + j] = fround(d * (byte & 15)) + m;
      out[to + 16 + j] = fround(d * (byte >> 4)) + m;
    }
  },
  element: (scope, byte, place) =>
    `${halfElement(scope, byte, 0)} * ${nibbleElement(scope, byte, 4, place)} + ${halfElement(scope, byte, 2)}`,
  // Half a step of the range, which is at most twice absmax, and the rounding of d and m to float16.
  errorBound: (absmax) => absmax * (1 / 15 + 4 * 2 ** -11),
});
