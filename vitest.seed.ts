/**
 * Vitest's set-up of every test file: all that tests draw by chance comes from one seed, so that two
 * runs of `npm test` are the same. `NOMOAT_TEST_SEED` is another seed; `npm run fuzz` tries many.
 */
import fc from "fast-check";
import { seed } from "./scripts/seeded-randomness.mjs";

fc.configureGlobal({ ...fc.readConfigureGlobal(), seed });
