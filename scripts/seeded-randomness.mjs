// Replaces the host's random numbers by those of a seed, NOMOAT_TEST_SEED or 20261124: core seeds the generator of functions that
// were given none from them. Imported by the tests' set-up, and by `node --import` in programs that tests start.

/** Where everything random begins in tests. */
export const seed = Number(process.env.NOMOAT_TEST_SEED ?? 20_261_124);
if (!Number.isInteger(seed) || seed < -(2 ** 31) || seed >= 2 ** 31) {
  throw new Error(`NOMOAT_TEST_SEED is "${process.env.NOMOAT_TEST_SEED}": it must be an integer of 32 bits`);
}

let state = seed >>> 0;

/** Begins anew, from `first`. */
export function reseed(first) {
  state = first >>> 0;
}

Object.defineProperty(globalThis.crypto, "getRandomValues", {
  configurable: true,
  value: (array) => {
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    // The high bytes of a linear congruential generator (Numerical Recipes).
    for (let i = 0; i < bytes.length; i += 1) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      bytes[i] = state >>> 24;
    }
    return array;
  },
});
