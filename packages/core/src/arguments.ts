// What every public function asks of its arguments first, so that a wrong one ends in an error that names it. Packages that
// build on this one import it as @nomoat/core/extend.

import { describe } from "./describe.js";
import { ArgumentError } from "./errors.js";
import type { Storage } from "./storage.js";
import type { Tensor } from "./tensor.js";

export { describe };

/**
 * The storage of `x`.
 * @throws {ArgumentError} when `x` is not a tensor
 * @throws {DisposedError} when it was disposed
 */
export function use(operation: string, x: Tensor): Storage {
  if (typeof x?.use !== "function")
    throw new ArgumentError(`${operation}: expected a tensor, not ${describe(x)}`);
  return x.use(operation);
}

/** Throws unless argument `name` is `valid`: it must be what `rule` says. */
export function requireThat(
  valid: boolean,
  operation: string,
  name: string,
  rule: string,
  value: unknown,
): asserts valid {
  if (!valid) throw new ArgumentError(`${operation}: ${name} must be ${rule}, not ${describe(value)}`);
}

/** Throws unless `value` is true or false: what JavaScript takes for one, an object of options say, is a mistake. */
export function requireBoolean(operation: string, name: string, value: unknown): void {
  requireThat(typeof value === "boolean", operation, name, "true or false", value);
}

/** Throws unless `list` is an array. */
export function requireList(operation: string, name: string, list: unknown): void {
  requireThat(Array.isArray(list), operation, name, "an array", list);
}

/** Throws unless `options` is an object of named values; of `known` names where they are given: misspelt ones would have no effect. */
export function requireOptions(operation: string, options: unknown, known?: readonly string[]): void {
  const plain = typeof options === "object" && options !== null && !Array.isArray(options);
  const valid = plain && typeof (options as Tensor).use !== "function";
  requireThat(valid, operation, "options", "an object", options);
  if (known)
    for (const name of Object.keys(options as object)) requireOneOf(operation, "option", name, known);
}

/** Throws unless `value` is a finite number. */
export function requireFinite(operation: string, name: string, value: unknown): asserts value is number {
  requireThat(Number.isFinite(value), operation, name, "a finite number", value);
}

/** Throws unless `value` is finite and at least 0. */
export function requireNonNegative(operation: string, name: string, value: unknown): asserts value is number {
  const valid = Number.isFinite(value) && (value as number) >= 0;
  requireThat(valid, operation, name, "finite and not negative", value);
}

/** Throws unless `value` is an integer, of at least `least` where that is given. */
export function requireInteger(operation: string, name: string, value: unknown, least?: number): void {
  const rule =
    least === undefined
      ? "an integer"
      : least === 1
        ? "a positive integer"
        : `an integer of at least ${least}`;
  requireThat(Number.isInteger(value) && !((value as number) < least!), operation, name, rule, value);
}

/** Throws unless `value` is a probability. */
export function requireProbability(operation: string, name: string, value: number): void {
  requireThat(typeof value === "number" && value >= 0 && value <= 1, operation, name, "within 0 … 1", value);
}

/** Throws unless `value` is among the known ones. */
export function requireOneOf(
  operation: string,
  name: string,
  value: unknown,
  known: readonly unknown[],
): void {
  if (!known.includes(value))
    throw new ArgumentError(`${operation}: unknown ${name} ${describe(value)} (known: ${known.join(", ")})`);
}

/** Throws unless `path` is a text. */
export function requirePath(operation: string, path: unknown): void {
  if (typeof path !== "string")
    throw new ArgumentError(`${operation}: expected a path, not ${describe(path)}`);
}

/** Throws unless `map` is a Map, or another object that is read like one. */
export function requireMap(operation: string, name: string, map: unknown): void {
  if (typeof (map as Map<unknown, unknown> | null)?.get !== "function")
    throw new ArgumentError(`${operation}: ${name} must be a Map, not ${describe(map)}`);
}

/** Throws unless `fn` can be called. */
export function requireFunction(operation: string, fn: unknown): void {
  if (typeof fn !== "function")
    throw new ArgumentError(`${operation}: expected a function, not ${describe(fn)}`);
}
