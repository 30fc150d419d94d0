// Calls made slower by a known share, to test whether comparisons find it.

import type { Prepared } from "../model.js";

/** The same, whose calls take longer by `share` of what they take. */
export function slow(prepared: Prepared, share: number): Prepared {
  const wait = (began: number): void => {
    const end = began + (performance.now() - began) * (1 + share);
    while (performance.now() < end);
  };
  return {
    ...prepared,
    run() {
      const began = performance.now();
      const result = prepared.run();
      if (result instanceof Promise) return result.finally(() => wait(began));
      wait(began);
      return result;
    },
  };
}
