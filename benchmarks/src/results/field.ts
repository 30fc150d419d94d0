// One value of a JSON file with the way to it, so that whatever is wrong is said with the field's name.

import { BenchError } from "../model.js";

/** Longest text that a file may carry in one field. */
const longestText = 4096;

export class Field {
  readonly #value: unknown;
  readonly #file: string;
  readonly #path: string;

  constructor(value: unknown, file: string, path: string) {
    this.#value = value;
    this.#file = file;
    this.#path = path;
  }

  fail(expected: string): never {
    const shown = JSON.stringify(this.#value) ?? "nothing";
    const short = shown.length > 60 ? `${shown.slice(0, 60)}…` : shown;
    throw new BenchError(`${this.#file}: ${this.#path || "the file"}: expected ${expected}, found ${short}`);
  }

  #object(): Record<string, unknown> {
    const value = this.#value;
    if (typeof value !== "object" || value === null || Array.isArray(value)) return this.fail("an object");
    return value as Record<string, unknown>;
  }

  #child(value: unknown, step: string): Field {
    return new Field(value, this.#file, this.#path + step);
  }

  #named(name: string, value: unknown): Field {
    return this.#child(value, this.#path === "" ? name : `.${name}`);
  }

  /** The value of a member, which need not exist: reading it then fails. */
  member(name: string): Field {
    const object = this.#object();
    return this.#named(name, Object.hasOwn(object, name) ? object[name] : undefined);
  }

  /** Fails for a member that is not among `known`. */
  members(known: readonly string[]): void {
    for (const name of Object.keys(this.#object())) {
      if (!known.includes(name)) this.member(name).fail("no such field");
    }
  }

  text(): string {
    const value = this.#value;
    if (typeof value !== "string" || value.length > longestText) return this.fail("a text");
    return value;
  }

  number(low = Number.NEGATIVE_INFINITY): number {
    const value = this.#value;
    if (typeof value !== "number" || !Number.isFinite(value) || value < low) {
      return this.fail(low === Number.NEGATIVE_INFINITY ? "a number" : `a number of at least ${low}`);
    }
    return value;
  }

  positive(): number {
    const value = this.number(0);
    return value > 0 ? value : this.fail("a number above 0");
  }

  integer(low: number): number {
    const value = this.number(low);
    return Number.isSafeInteger(value) ? value : this.fail("an integer");
  }

  scalar(): string | number | boolean {
    const value = this.#value;
    if (typeof value === "boolean") return value;
    if (typeof value === "string") return this.text();
    return typeof value === "number" ? this.number() : this.fail("a text, a number or a boolean");
  }

  oneOf<T extends string>(known: readonly T[]): T {
    const value = this.text() as T;
    return known.includes(value) ? value : this.fail(`one of ${known.join(", ")}`);
  }

  orNull<T>(read: (field: Field) => T): T | null {
    return this.#value === null ? null : read(this);
  }

  list<T>(read: (field: Field) => T): T[] {
    const value = this.#value;
    if (!Array.isArray(value)) return this.fail("a list");
    return value.map((one, i) => read(this.#child(one, `[${i}]`)));
  }

  /** An object with free names. */
  record<T>(read: (field: Field) => T): Record<string, T> {
    return Object.fromEntries(
      Object.entries(this.#object()).map(([name, value]) => [name, read(this.#named(name, value))]),
    );
  }
}
