// The formats by name. A new format is one file and one line here.

import { ArgumentError } from "@nomoat/core";
import type { BlockFormat } from "./format.js";
import { fp4, fp4Single } from "./fp4.js";
import { int8, integerFormat, integerFormatByName } from "./integer.js";
import { q2_K, q3_K, q4_K, q5_K, q6_K } from "./k-quants.js";
import { nf4, nf4Single } from "./nf4.js";
import { q4_0 } from "./q4_0.js";
import { q4_1 } from "./q4_1.js";
import { q5_0 } from "./q5_0.js";
import { q5_1 } from "./q5_1.js";
import { q8_0 } from "./q8_0.js";

export const formats = {
  nf4,
  nf4_single: nf4Single,
  fp4,
  fp4_single: fp4Single,
  int8,
  int8_tensor: integerFormat({ bits: 8, group: "tensor" }),
  int8_g128: integerFormat({ bits: 8, group: 128 }),
  int8_asym: integerFormat({ bits: 8, group: "row", asymmetric: true }),
  int4_g32: integerFormat({ bits: 4, group: 32 }),
  int4_g64: integerFormat({ bits: 4, group: 64 }),
  int4_g128: integerFormat({ bits: 4, group: 128 }),
  int4_asym_g32: integerFormat({ bits: 4, group: 32, asymmetric: true }),
  int4_asym_g64: integerFormat({ bits: 4, group: 64, asymmetric: true }),
  int4_asym_g128: integerFormat({ bits: 4, group: 128, asymmetric: true }),
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q2_K,
  q3_K,
  q4_K,
  q5_K,
  q6_K,
} as const satisfies Record<string, BlockFormat>;

/** The names of the registry, and of integer formats in groups of any multiple of 32. */
export type FormatName = keyof typeof formats | `int${4 | 8}${"" | "_asym"}_g${number}`;

/**
 * The format of that name. Integer formats of any group size that is a multiple of 32 have names too: `int4_asym_g256`.
 * @throws {ArgumentError} listing the known names
 */
export function formatByName(name: string): BlockFormat {
  if (Object.hasOwn(formats, name)) return formats[name as keyof typeof formats];
  const format = integerFormatByName(name);
  if (format) return format;
  throw new ArgumentError(`unknown format "${name}" (known: ${Object.keys(formats).join(", ")})`);
}
