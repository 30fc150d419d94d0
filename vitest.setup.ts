/**
 * Vitest's set-up of every test file: takes out what would differ from run to run. All that tests draw by chance
 * comes from one seed (`NOMOAT_TEST_SEED` is another; `npm run fuzz` tries many), and what the garbage collector
 * finds is freed between tests.
 */
import fc from "fast-check";
import { beforeEach } from "vitest";
import { seed } from "./scripts/seeded-randomness.mjs";

fc.configureGlobal({ ...fc.readConfigureGlobal(), seed });

const found: (() => void)[] = [];

/** Does what finalization registries are told to do for the objects that were collected so far. */
export function freeCollected(): void {
  for (const cleanup of found.splice(0)) cleanup();
}

// A test that counts tensors before and after it waits would count those of the tests before it less when they are
// collected meanwhile.
const Native = globalThis.FinalizationRegistry;
globalThis.FinalizationRegistry = class<T> extends Native<T> {
  constructor(cleanup: (held: T) => void) {
    super((held) => found.push(() => cleanup(held)));
  }
};
beforeEach(freeCollected);
