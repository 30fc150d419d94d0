// ggml's Q8_0, byte for byte as its reference quantizer writes it: 32 elements in 34 bytes, float16 scale d, then the
// codes as int8. x ≈ d·code, codes −127 … 127, rounded half away from zero.
//
// quantize(dequantize(q)) gives the bytes of q where d ≠ 0: the largest magnitude has code ±127 and d = |x|/127 returns
// exactly. In a block whose d underflows (magnitudes below 127·2⁻²⁵) all values return as 0, and so do the codes.

import { ggmlFormat, halfBits, halfElement, inverse, storeHalf } from "./ggml.js";
import { fromHalf } from "./half.js";

export const q8_0 = ggmlFormat({
  name: "q8_0",
  blockSize: 32,
  bytesPerBlock: 34,
  // 65520 and more round to infinity in float16.
  limit: 127 * 65520,
  kernel: 1,
  codes: {
    least: -127,
    most: 127,
    minimum: false,
    store(bytes, at, code) {
      for (let j = 0; j < 32; j++) bytes[at + 2 + j] = code(j);
    },
  },
  encode(values, from, bytes, at) {
    let absmax = 0;
    for (let j = 0; j < 32; j++) absmax = Math.max(absmax, Math.abs(values[from + j]));
    const d = Math.fround(absmax / 127);
    const id = inverse(d);
    storeHalf(bytes, at, d);
    for (let j = 0; j < 32; j++) {
      const scaled = Math.fround(values[from + j] * id);
      bytes[at + 2 + j] = Math.sign(scaled) * Math.floor(Math.abs(scaled) + 0.5);
    }
  },
  decode(bytes, at, out, to) {
    const d = fromHalf(halfBits(bytes, at));
    for (let j = 0; j < 32; j++) out[to + j] = d * ((bytes[at + 2 + j] << 24) >> 24);
  },
  element: (scope, byte, place) => `${halfElement(scope, byte, 0)} * ${scope.signed(byte(`2 + ${place}`))}`,
  // Half a step, and the scale's rounding (2⁻¹¹ of it) times the largest code.
  errorBound: (absmax) => (absmax / 127) * (0.5 + 127 * 2 ** -11 + 2 ** -10),
});
