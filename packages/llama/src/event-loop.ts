// Long jobs and the program around them: the event loop gets its turn, modes and random numbers are borrowed and given back.

import { defaultGenerator, type Generator } from "@nomoat/core";
import type { Module } from "@nomoat/core/nn";

/** A place in a stream of random numbers, as plain JSON. */
export type GeneratorState = ReturnType<Generator["state"]>;

/** Fulfilled after timers, input and output that are due have had their turn. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    if (typeof setImmediate === "function") setImmediate(resolve);
    else if (typeof MessageChannel === "function") {
      // Browsers hold nested timeouts back for 4 ms; messages are not.
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => {
        port1.close();
        resolve();
      };
      port2.postMessage(null);
    } else setTimeout(resolve, 0);
  });
}

/** Runs `fn` with every module of `model` in training or evaluation mode, and puts each back to its own mode after. */
export function inMode<T>(model: Module, training: boolean, fn: () => T): T {
  const changed: Module[] = [];
  for (const [, module] of model.namedModules()) {
    if (module.training === training) continue;
    module.training = training;
    changed.push(module);
  }
  try {
    return fn();
  } finally {
    for (const module of changed) module.training = !training;
  }
}

/** A place in a stream of random numbers that the default generator takes for the length of a call. */
export class BorrowedGenerator {
  /** The place. */
  state: GeneratorState;

  constructor(state: GeneratorState) {
    this.state = state;
  }

  /** Runs `fn`, which must be synchronous, with the default generator at this place; what others draw from it is not disturbed. */
  run<T>(fn: () => T): T {
    const generator = defaultGenerator();
    const outside = generator.state();
    generator.setState(this.state);
    try {
      return fn();
    } finally {
      this.state = generator.state();
      generator.setState(outside);
    }
  }
}
