// FP4 as bitsandbytes defines it: a sign, two bits of exponent, one of fraction, not in numeric order. The blocks and their
// scales are codebook.ts's.
//
// A value that rounds to zero from below has code 8, −0. When it is quantized again, its code is 0: the law of codebook.ts
// holds but for these codes.

import { codebookFormats } from "./codebook.js";

const magnitudes = [0, 0.0625, 8, 12, 4, 6, 2, 3];

/** The 16 values, as in bitsandbytes' `get_4bit_type("fp4")`: divided by the largest, 12. */
export const fp4Values: Float32Array = Float32Array.from([...magnitudes, ...magnitudes.map((m) => -m)], (m) =>
  Math.fround(m / 12),
);

/** Bounds between ascending magnitudes, and the codes between them, as in bitsandbytes' `dQuantizeFP4`. */
export const fp4Bounds: Float32Array = Float32Array.of(
  0.00260417,
  0.0859375,
  0.20833333,
  0.29166667,
  0.4166667,
  0.583333,
  0.8333333,
);
const fp4Codes: readonly number[] = [0, 1, 6, 7, 4, 5, 2, 3];

export const { double: fp4, single: fp4Single } = codebookFormats({
  name: "fp4",
  values: fp4Values,
  code(x) {
    const magnitude = Math.abs(x);
    let place = 0;
    while (place < 7 && magnitude > fp4Bounds[place]) place++;
    return fp4Codes[place] | (x < 0 ? 8 : 0);
  },
  kernel: 8,
  // From 2/3 to 1.
  halfGap: 1 / 6 + 1e-6,
});
