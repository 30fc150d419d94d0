/**
 * Vitest's set-up of every test file: all that tests draw by chance comes from one seed, so that two
 * runs of `npm test` are the same. `NOMOAT_TEST_SEED` is another seed; `npm run fuzz` tries many.
 */
import fc from "fast-check";

/** Where fast-check's properties and the library's default generator start. */
export const seed = Number(process.env.NOMOAT_TEST_SEED ?? 20_261_124);
if (!Number.isInteger(seed) || seed < -(2 ** 31) || seed >= 2 ** 31) {
  throw new Error(`NOMOAT_TEST_SEED is "${process.env.NOMOAT_TEST_SEED}": it must be an integer of 32 bits`);
}

fc.configureGlobal({ ...fc.readConfigureGlobal(), seed });

// core seeds the generator of functions that were given none from these.
let state = seed >>> 0;
Object.defineProperty(globalThis.crypto, "getRandomValues", {
  configurable: true,
  value: <T extends ArrayBufferView>(array: T): T => {
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    // The high bytes of a linear congruential generator (Numerical Recipes).
    for (let i = 0; i < bytes.length; i += 1) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      bytes[i] = state >>> 24;
    }
    return array;
  },
});
