#!/usr/bin/env node
// `npm run fuzz`: runs the files with property tests for many fresh seeds, and says which seeds fail
// and how to repeat them. `-- --seeds 100` for each property, `--seconds 60` at most for each,
// `--seed 1` to begin with one; other arguments go to Vitest (`npm run fuzz -- packages/quant`).

import { randomInt } from "node:crypto";
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { bin, filesBelow, install, main, root, run, ScriptError, step, workspaceFolders } from "./lib.mjs";

/** A whole number that was given as an option. */
function count(values, name, least) {
  const value = Number(values[name]);
  if (Number.isSafeInteger(value) && value >= least && value < 2 ** 31) return value;
  throw new ScriptError(`--${name} ${values[name]}: it must be an integer from ${least} below 2147483648`);
}

/** Test files that draw from fast-check, among those whose path contains one of `filters`. */
function propertyTests(filters) {
  return workspaceFolders()
    .flatMap((folder) => filesBelow(`${folder}/test`))
    .filter(
      (path) => path.endsWith(".test.ts") && readFileSync(`${root}/${path}`, "utf8").includes('"fast-check"'),
    )
    .filter((path) => filters.length === 0 || filters.some((filter) => path.includes(filter)));
}

function readArguments() {
  try {
    return parseArgs({
      options: {
        seeds: { type: "string", default: "30" },
        seconds: { type: "string", default: "20" },
        seed: { type: "string", default: String(randomInt(2 ** 31)) },
        testNamePattern: { type: "string", short: "t" },
      },
      allowPositionals: true,
    });
  } catch (error) {
    throw new ScriptError(error.message);
  }
}

await main(async () => {
  const { values, positionals } = readArguments();
  const seeds = count(values, "seeds", 1);
  const seconds = count(values, "seconds", 1);
  const seed = count(values, "seed", 0);
  const files = propertyTests(positionals);
  if (files.length === 0) throw new ScriptError(`no property tests in ${positionals.join(" ")}`);
  await install();
  step(`${files.length} files, ${seeds} seeds from ${seed}, at most ${seconds} s for each property`);
  const name = values.testNamePattern === undefined ? [] : ["-t", values.testNamePattern];
  const { code } = await run(process.execPath, [bin("vitest"), "run", ...name, ...files], {
    check: false,
    input: "ignore",
    env: {
      NOMOAT_TEST_SEED: String(seed),
      NOMOAT_FUZZ_SEEDS: String(seeds),
      NOMOAT_FUZZ_SECONDS: String(seconds),
    },
  });
  process.exitCode = code;
});
