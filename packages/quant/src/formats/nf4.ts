// NF4 as bitsandbytes defines it: 16 quantiles of the normal distribution (QLoRA, arXiv:2305.14314). The blocks and their
// scales are codebook.ts's.

import { codebookFormats } from "./codebook.js";

/** The 16 values, as in bitsandbytes' `get_4bit_type("nf4")`. */
export const nf4Values: Float32Array = Float32Array.of(
  -1.0,
  -0.6961928009986877,
  -0.5250730514526367,
  -0.39491748809814453,
  -0.28444138169288635,
  -0.18477343022823334,
  -0.09105003625154495,
  0.0,
  0.07958029955625534,
  0.16093020141124725,
  0.24611230194568634,
  0.33791524171829224,
  0.44070982933044434,
  0.5626170039176941,
  0.7229568362236023,
  1.0,
);

/** Bounds between neighbouring codes, as in bitsandbytes' `dQuantizeNF4`: a value above bound i has a code above i. */
export const nf4Bounds: Float32Array = Float32Array.from({ length: 15 }, (_, i) =>
  Math.fround((nf4Values[i] + nf4Values[i + 1]) / 2),
);

export const { double: nf4, single: nf4Single } = codebookFormats({
  name: "nf4",
  values: nf4Values,
  code(x) {
    let code = 0;
    while (code < 15 && x > nf4Bounds[code]) code++;
    return code;
  },
  kernel: 3,
  // The least value but one is 0.304 from −1.
  halfGap: (nf4Values[1] - nf4Values[0]) / 2,
});
