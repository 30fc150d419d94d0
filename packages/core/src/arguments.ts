// What every public function asks of its arguments first, so that a wrong one ends in an error that names it. Packages that
// build on this one import it as @nomoat/core/arguments.

import { ArgumentError } from "./errors.js";
import type { Storage } from "./storage.js";
import type { Tensor } from "./tensor.js";

/** A wrong value in few words. */
export function describe(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value);
  if (typeof value === "function") return "a function";
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === "object" && value !== null) {
    if (typeof (value as Tensor).use === "function") return "a tensor";
    const names = ArrayBuffer.isView(value) ? [] : Object.keys(value).slice(0, 3);
    return names.length > 0 ? `an object with ${names.join(", ")}` : "an object";
  }
  return String(value);
}

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

/** Throws unless `list` is an array. */
export function requireList(operation: string, name: string, list: unknown): void {
  if (!Array.isArray(list))
    throw new ArgumentError(`${operation}: ${name} must be an array, not ${describe(list)}`);
}

/** Throws unless `options` is an object of named values; of `known` names where they are given: misspelt ones would have no effect. */
export function requireOptions(operation: string, options: unknown, known?: readonly string[]): void {
  if (typeof options !== "object" || options === null || Array.isArray(options))
    throw new ArgumentError(`${operation}: options must be an object, not ${describe(options)}`);
  const unknown = known && Object.keys(options).find((name) => !known.includes(name));
  if (unknown !== undefined)
    throw new ArgumentError(`${operation}: unknown option "${unknown}" (known: ${known!.join(", ")})`);
}

/** Throws unless `fn` can be called. */
export function requireFunction(operation: string, fn: unknown): void {
  if (typeof fn !== "function")
    throw new ArgumentError(`${operation}: expected a function, not ${describe(fn)}`);
}
