#!/usr/bin/env node
// `npm test`: installs, builds, type-checks, lints, tests all packages from their sources, and
// checks the packages as they would be published. Needs Node and npm alone. Arguments go to Vitest
// (`npm test -- packages/quant`); the last line counts the tests and checks.

import { rmSync } from "node:fs";
import { join } from "node:path";
import { bin, install, main, readJson, root, run, ScriptError, step } from "./lib.mjs";

const failures = [];
let passed = 0;
let failed = 0;
let skipped = 0;

/** Runs one check; a failure is noted, and the others still run. */
async function check(name, body) {
  step(name);
  const started = performance.now();
  try {
    const result = await body();
    passed += result?.passed ?? 1;
    failed += result?.failed ?? 0;
    skipped += result?.skipped ?? 0;
    if (result?.failed) failures.push(name);
  } catch (error) {
    process.stderr.write(`${error instanceof ScriptError ? error.message : error.stack}\n`);
    failed += 1;
    failures.push(name);
  }
  process.stderr.write(`  ${((performance.now() - started) / 1000).toFixed(1)} s\n`);
}

async function vitest(args) {
  const report = join(root, "node_modules/.cache/vitest-report.json");
  rmSync(report, { force: true });
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${report}`];
  const { code } = await run(process.execPath, [bin("vitest"), "run", ...reporters, ...args], {
    check: false,
    input: "ignore",
  });
  const result = readJson(report);
  if (!result) throw new ScriptError(`vitest wrote no report (exit code ${code})`);
  const counts = {
    passed: result.numPassedTests,
    failed: result.numFailedTests,
    skipped: result.numPendingTests + result.numTodoTests,
  };
  // A file that does not load, or an error outside of a test, fails no test but the run.
  const broken = result.testResults.filter(
    (file) => file.status === "failed" && !file.assertionResults.some((test) => test.status === "failed"),
  ).length;
  counts.failed += broken;
  if (code !== 0 && counts.failed === 0) counts.failed = 1;
  return counts;
}

// In a log, colours are noise; Vitest and Biome use them there when CI is set.
const colours = process.stdout.isTTY || process.env.FORCE_COLOR;
const plain = colours ? [] : ["--colors=off"];
if (!colours) process.env.NO_COLOR = "1";

await main(async () => {
  const args = process.argv.slice(2);
  await install();
  const { build, buildExample } = await import("./build.mjs");
  await check("Building", async () => {
    await build();
    await buildExample("finetune");
  });
  await check("Type-checking", () =>
    run(process.execPath, [bin("typescript", "tsc"), "--noEmit", "-p", "."]),
  );
  await check("Linting", () => run(process.execPath, [bin("@biomejs/biome", "biome"), "ci", ...plain, "."]));
  await check("Testing", () => vitest(args));
  if (args.length === 0) {
    const { checkPackages } = await import("./check-packages.mjs");
    await check("Checking packages", () => checkPackages());
  }
  if (failures.length > 0) console.log(`\nFailed: ${failures.join(", ")}`);
  console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`);
  if (failed > 0) process.exitCode = 1;
});
