// Held-out data.

import { ArgumentError, Generator } from "@nomoat/core";
import { requireList, requireOptions } from "@nomoat/core/extend";
import type { Example, TextExample } from "./examples.js";

export interface SplitOptions {
  /** Share of the data to hold out, above 0 and below 1 (default 0.1). */
  fraction?: number;
  /** Which examples are held out (default 0). A single text is not affected: its end is. */
  seed?: number | bigint;
}

/**
 * Splits examples into those to train on and those to measure with. Of several, a random share is held out, and both parts keep their
 * order; a single text is cut at the line (or, without lines, the space) nearest before the held-out share of its end.
 *
 * @throws {ArgumentError} when one part would be empty
 */
export function splitData(
  examples: readonly Example[],
  options: SplitOptions = {},
): { train: Example[]; validation: Example[] } {
  requireList("splitData", "examples", examples);
  for (const example of examples) requireOptions("splitData: an example", example);
  requireOptions("splitData", options);
  const { fraction = 0.1, seed = 0 } = options;
  if (!(fraction > 0 && fraction < 1))
    throw new ArgumentError(`splitData: fraction must be above 0 and below 1, not ${fraction}`);
  if (examples.length === 1 && typeof (examples[0] as TextExample).text === "string") {
    const { text } = examples[0] as TextExample;
    const wanted = Math.floor(text.length * (1 - fraction));
    let at = text.lastIndexOf("\n", wanted - 1) + 1;
    if (at <= 0) at = text.lastIndexOf(" ", wanted - 1) + 1;
    const [train, validation] = [text.slice(0, at), text.slice(at)];
    if (train.trim() === "" || validation.trim() === "")
      throw new ArgumentError("splitData: the text is too short to be split");
    return { train: [{ text: train }], validation: [{ text: validation }] };
  }
  const count = Math.round(examples.length * fraction);
  if (count < 1 || count >= examples.length)
    throw new ArgumentError(`splitData: ${fraction} of ${examples.length} examples leaves one part empty`);
  const held = new Set(new Generator(seed).permutation(examples.length).subarray(0, count));
  return {
    train: examples.filter((_, i) => !held.has(i)),
    validation: examples.filter((_, i) => held.has(i)),
  };
}
