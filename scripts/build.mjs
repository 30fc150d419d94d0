#!/usr/bin/env node
// Builds the library packages: kernels first, then ESM, CommonJS and declarations by tsup. A
// package whose sources have not changed since its last build is left alone.
//
//   node scripts/build.mjs [core quant lora llama] [--no-dts] [--force]

import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { buildKernels } from "./build-kernels.mjs";
import {
  bin,
  filesBelow,
  hashFiles,
  libraries,
  main,
  readJson,
  root,
  run,
  ScriptError,
  writeJson,
} from "./lib.mjs";

function stampFile(name) {
  return join(root, "packages", name, "node_modules", ".cache", "nomoat-build.json");
}

/** The hash of all that a package's dist depends on (declarations see other packages' sources too). */
function inputsHash(name) {
  const own = `packages/${name}`;
  return hashFiles([
    ...filesBelow(`${own}/src`),
    `${own}/package.json`,
    `${own}/tsup.config.ts`,
    `${own}/tsconfig.json`,
    "tsup.shared.ts",
    "tsconfig.base.json",
    "pnpm-lock.yaml",
  ]);
}

async function buildPackage(name, { dts, force, quiet }) {
  const hash = inputsHash(name);
  const last = readJson(stampFile(name));
  const present = existsSync(join(root, "packages", name, "dist/index.js"));
  if (!force && present && last?.hash === hash && (last.dts || !dts)) return;
  const started = performance.now();
  await run(process.execPath, [bin("tsup")], {
    cwd: join(root, "packages", name),
    env: { NOMOAT_BUILD_DTS: dts ? "1" : "0" },
    quiet: true,
  });
  writeJson(stampFile(name), { hash, dts });
  if (!quiet) console.log(`built ${name} in ${((performance.now() - started) / 1000).toFixed(1)} s`);
}

/** Brings the kernels and the packages' dist folders up to date, two packages at a time. */
export async function build({ packages = libraries, dts = true, force = false, quiet = false } = {}) {
  for (const name of ["core", "quant"]) {
    if (packages.includes(name)) await buildKernels(name, { force, quiet });
  }
  const queue = [...packages];
  const worker = async () => {
    for (let name = queue.shift(); name !== undefined; name = queue.shift()) {
      await buildPackage(name, { dts, force, quiet });
    }
  };
  await Promise.all([worker(), worker()]);
}

/** Bundles an example's `src/main.ts` to `dist/main.js`, with the packages as imports. */
export async function buildExample(name, { quiet = false } = {}) {
  const folder = `examples/${name}`;
  if (!existsSync(join(root, folder, "src/main.ts")))
    throw new ScriptError(`${folder}/src/main.ts is missing`);
  const { build: bundle } = await import("esbuild");
  await bundle({
    absWorkingDir: join(root, folder),
    entryPoints: ["src/main.ts"],
    outfile: "dist/main.js",
    bundle: true,
    packages: "external",
    platform: "node",
    format: "esm",
    target: "node20",
    sourcemap: true,
    logLevel: "error",
  });
  if (!quiet) console.log(`built ${folder}`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main(async () => {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: { "no-dts": { type: "boolean", default: false }, force: { type: "boolean", default: false } },
    });
    await build({
      packages: positionals.length > 0 ? positionals : libraries,
      dts: !values["no-dts"],
      force: values.force,
    });
  });
}
