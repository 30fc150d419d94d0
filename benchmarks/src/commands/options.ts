// Readers of option values.

import { InvalidArgumentError } from "commander";
import { type Effort, efforts } from "../measure/timing.js";
import { BenchError } from "../model.js";

/** Reads "1,2,4". */
export function integerList(text: string): number[] {
  const values = text.split(",").map(Number);
  if (values.some((value) => !Number.isInteger(value) || value < 1)) {
    throw new InvalidArgumentError("Give positive integers, separated by commas.");
  }
  return values;
}

/** Reads "a,b". */
export function nameList(text: string): string[] {
  const names = text.split(",").map((name) => name.trim());
  if (names.some((name) => name === "")) throw new InvalidArgumentError("Give names, separated by commas.");
  return names;
}

/** Of --quick and --long at most one. */
export function effortOf(options: { quick?: boolean; long?: boolean }, fallback: Effort["name"]): Effort {
  if (options.quick && options.long) throw new BenchError("--quick and --long exclude each other");
  return efforts[options.quick ? "quick" : options.long ? "long" : fallback];
}
