// The formats by name. A new format is one file and one line here.

import { ArgumentError } from "@nomoat/core";
import type { BlockFormat } from "./format.js";
import { int8 } from "./int8.js";
import { nf4, nf4Single } from "./nf4.js";
import { q4_0 } from "./q4_0.js";
import { q8_0 } from "./q8_0.js";

export const formats = {
  nf4,
  nf4_single: nf4Single,
  q4_0,
  q8_0,
  int8,
} as const satisfies Record<string, BlockFormat>;

export type FormatName = keyof typeof formats;

/**
 * The format of that name.
 * @throws {ArgumentError} listing the known names
 */
export function formatByName(name: string): BlockFormat {
  if (!Object.hasOwn(formats, name)) {
    throw new ArgumentError(`unknown format "${name}" (known: ${Object.keys(formats).join(", ")})`);
  }
  return formats[name as FormatName];
}
