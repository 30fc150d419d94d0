/**
 * Vitest's set-up under `npm run fuzz`: every `fc.assert` without a seed of its own runs for many
 * seeds, each with the number of runs that the test asks for (fast-check tries edge cases mostly in
 * the first runs after a seed, so many seeds find more than many runs).
 */
import { relative } from "node:path";
import { expect, vi } from "vitest";
import { seed as first, reseed } from "./scripts/seeded-randomness.mjs";

const seeds = Number(process.env.NOMOAT_FUZZ_SEEDS);
const milliseconds = 1000 * Number(process.env.NOMOAT_FUZZ_SECONDS);

/** The host's random numbers begin anew, core's default generator with them: a failure repeats, whatever ran before it. */
function restart(seed: number): void {
  reseed(seed);
  const runtime = (globalThis as { [key: symbol]: { generator: unknown } | undefined })[
    Symbol.for("@nomoat/core/runtime/1")
  ];
  if (runtime) runtime.generator = null;
}

vi.mock("fast-check", async (importOriginal) => {
  const original = await importOriginal<typeof import("fast-check")>();

  function assert<T>(
    property: Parameters<typeof original.assert<T>>[0],
    parameters: Parameters<typeof original.assert<T>>[1] = {},
  ): Promise<void> | undefined {
    if (parameters.seed !== undefined) return original.assert(property, parameters) as Promise<void>;
    const end = performance.now() + milliseconds;
    const { testPath, currentTestName } = expect.getState();
    const repeat = (seed: number) => (error: unknown) => {
      const file = relative(process.cwd(), testPath ?? "");
      const name = JSON.stringify(currentTestName?.split(" > ").at(-1));
      process.stderr.write(
        `\nFailed with seed ${seed}. Once more, in ${process.cwd()}:\n` +
          `  NOMOAT_TEST_SEED=${seed} NOMOAT_FUZZ_SEEDS=1 NOMOAT_FUZZ_SECONDS=1 npx vitest run ${file} -t ${name}\n`,
      );
      throw error;
    };
    const more = (tried: number) => tried < seeds && (tried === 0 || performance.now() < end);
    const next = (tried: number) => (first + tried) | 0;
    if (property.isAsync()) {
      return (async () => {
        for (let tried = 0; more(tried); tried += 1) {
          const seed = next(tried);
          restart(seed);
          await (original.assert(property, { ...parameters, seed }) as Promise<void>).catch(repeat(seed));
        }
      })();
    }
    for (let tried = 0; more(tried); tried += 1) {
      const seed = next(tried);
      restart(seed);
      try {
        original.assert(property, { ...parameters, seed });
      } catch (error) {
        repeat(seed)(error);
      }
    }
    return undefined;
  }

  return { ...original, assert, default: { ...original.default, assert } };
});
