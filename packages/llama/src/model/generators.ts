// Random generators that modules own (dropout's, where one was given), and computing the same again with the same numbers.

import { Generator } from "@nomoat/core";
import type { Module } from "@nomoat/core/nn";

/** Generators that `module` and all below it own, each once, in the modules' order. */
export function ownGenerators(module: Module): Generator[] {
  const found = new Set<Generator>();
  for (const [, part] of module.namedModules()) {
    for (const value of Object.values(part)) if (value instanceof Generator) found.add(value);
  }
  return [...found];
}

/**
 * `fn` for a checkpoint: when it is called again, for backward, the generators that `module` owns give the numbers of the first call once
 * more, and stand where they stood afterwards. (The default generator is `checkpoint`'s own matter.)
 */
export function replayable<A extends unknown[], R>(
  module: Module,
  fn: (...input: A) => R,
): (...input: A) => R {
  const generators = ownGenerators(module);
  if (generators.length === 0) return fn;
  const start = generators.map((generator) => generator.state());
  const place = (states: typeof start): void => {
    generators.forEach((generator, i) => {
      generator.setState(states[i]);
    });
  };
  let first = true;
  return (...input) => {
    if (first) {
      first = false;
      return fn(...input);
    }
    const outside = generators.map((generator) => generator.state());
    place(start);
    try {
      return fn(...input);
    } finally {
      place(outside);
    }
  };
}
