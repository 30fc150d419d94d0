// The part of Vitest that the conformance checks use, for the page: Vitest itself does not run there.

class Expectation {
  readonly #actual: unknown;
  readonly #label: string;

  constructor(actual: unknown, label = "value") {
    this.#actual = actual;
    this.#label = label;
  }

  toBe(expected: unknown): void {
    if (!Object.is(this.#actual, expected)) {
      throw new Error(`${this.#label}: ${String(this.#actual)} instead of ${String(expected)}`);
    }
  }

  toEqual(expected: unknown): void {
    const [actual, wanted] = [JSON.stringify(this.#actual), JSON.stringify(expected)];
    if (actual !== wanted) throw new Error(`${this.#label}: ${actual} instead of ${wanted}`);
  }
}

export const expect = Object.assign((actual: unknown, label?: string) => new Expectation(actual, label), {
  fail(message: string): never {
    throw new Error(message);
  },
});
