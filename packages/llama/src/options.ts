// Checks of the options that a public function is called with.

import { ArgumentError } from "@nomoat/core";
import { describe, requireOptions } from "@nomoat/core/extend";
import { Module } from "@nomoat/core/nn";
import type { LlamaForCausalLM } from "./model/model.js";
import type { Tokenizer } from "./tokenizer.js";

/** Throws unless `model` is a LLaMA, of any copy of this package. */
export function requireLlama(operation: string, model: unknown): asserts model is LlamaForCausalLM {
  if (typeof (model as LlamaForCausalLM | null)?.hidden !== "function")
    throw new ArgumentError(`${operation}: expected a model, as loadLlama gives, not ${describe(model)}`);
}

/** Throws unless `tokenizer` is one, of any copy of this package. */
export function requireTokenizer(operation: string, tokenizer: unknown): asserts tokenizer is Tokenizer {
  if (typeof (tokenizer as Tokenizer | null)?.createDecodeStream !== "function")
    throw new ArgumentError(
      `${operation}: expected a tokenizer, as loadLlama gives, not ${describe(tokenizer)}`,
    );
}

/** Checks the options of one call; every message names the option. */
export class OptionChecker {
  readonly #operation: string;

  constructor(operation: string) {
    this.#operation = operation;
  }

  fail(option: string, wanted: string, value: unknown): never {
    throw new ArgumentError(`${this.#operation}: ${option} must be ${wanted}, not ${describe(value)}`);
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

  /** Refuses what is no object of options, and options that nobody knows: misspelt ones would have no effect. */
  known(options: object, names: readonly string[]): void {
    if (options instanceof Module)
      throw new ArgumentError(`${this.#operation}: takes one object, { model, ... }, not a model`);
    requireOptions(this.#operation, options, names);
  }

  /** The options `model` and, where it is `needed` or given, `tokenizer`. */
  subjects({ model, tokenizer }: { model: unknown; tokenizer?: unknown }, needed: boolean): void {
    requireLlama(`${this.#operation}: model`, model);
    if (needed || tokenizer !== undefined) requireTokenizer(`${this.#operation}: tokenizer`, tokenizer);
  }

  function(option: string, value: unknown): void {
    if (value !== undefined && typeof value !== "function") this.fail(option, "a function", value);
  }
}
