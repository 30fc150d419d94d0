// Checks of the options that a public function is called with.

import { ArgumentError } from "@nomoat/core";

/** Checks the options of one call; every message names the option. */
export class OptionChecker {
  readonly #operation: string;

  constructor(operation: string) {
    this.#operation = operation;
  }

  fail(option: string, wanted: string, value: unknown): never {
    const shown = typeof value === "string" ? JSON.stringify(value.slice(0, 60)) : String(value).slice(0, 60);
    throw new ArgumentError(`${this.#operation}: ${option} must be ${wanted}, not ${shown}`);
  }

  integer(option: string, value: unknown, low: number, high = Number.MAX_SAFE_INTEGER): number {
    if (!Number.isSafeInteger(value) || (value as number) < low || (value as number) > high) {
      const range =
        high === Number.MAX_SAFE_INTEGER
          ? `an integer of at least ${low}`
          : `an integer from ${low} to ${high}`;
      this.fail(option, range, value);
    }
    return value as number;
  }

  /** A number that `holds`; `wanted` says which in words. */
  number(option: string, value: unknown, wanted: string, holds: (value: number) => boolean): number {
    if (typeof value !== "number" || !holds(value)) this.fail(option, wanted, value);
    return value;
  }

  boolean(option: string, value: unknown): boolean {
    if (typeof value !== "boolean") this.fail(option, "true or false", value);
    return value;
  }

  /** Refuses options that nobody knows: misspelt ones would have no effect. */
  known(options: object, names: readonly string[]): void {
    for (const name of Object.keys(options)) {
      if (!names.includes(name))
        throw new ArgumentError(`${this.#operation}: unknown option "${name}" (known: ${names.join(", ")})`);
    }
  }
}
