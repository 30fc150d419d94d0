#!/usr/bin/env node
// Checks the packages as they would be published: packs them, asks publint and "are the types wrong", installs the
// tarballs with npm into an empty folder, and runs the programs of scripts/smoke there, as ES module, as CommonJS and
// through the type checker, and the benchmarks' command. Expects a build of the libraries.

import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual } from "node:util";
import ts from "typescript";
import {
  again,
  bin,
  homeForCaches,
  libraries,
  main,
  pnpm,
  readJson,
  root,
  run,
  ScriptError,
} from "./lib.mjs";

/** What may stand in a tarball besides dist. */
const besides = new Set(["package.json", "LICENSE", "README.md", "CHANGELOG.md"]);

/** A published manifest has the workspace's exports without the private condition. */
function checkManifest(name) {
  const manifest = readJson(join(root, "packages", name, "package.json"));
  const expected = Object.fromEntries(
    Object.entries(manifest.exports).map(([path, target]) => {
      if (typeof target === "string") return [path, target];
      const { "@nomoat/source": _, ...published } = target;
      return [path, published];
    }),
  );
  if (!isDeepStrictEqual(manifest.publishConfig.exports, expected)) {
    throw new ScriptError("exports and publishConfig.exports differ in more than @nomoat/source");
  }
  for (const dependency of Object.keys(manifest.dependencies ?? {})) {
    if (name !== "llama" && dependency !== "@nomoat/core") {
      throw new ScriptError(`${name} may not depend on ${dependency}`);
    }
  }
}

/** Packs the package of a folder (pnpm adds the workspace's licence); returns the tarball's path and its files. */
async function pack(cwd, folder) {
  const options = { cwd: join(root, cwd), capture: true };
  const { stdout } = await pnpm(["pack", "--json", "--pack-destination", folder], options);
  const packed = JSON.parse(stdout.slice(stdout.indexOf("{")));
  return { tarball: packed.filename, files: packed.files.map((file) => file.path) };
}

/** A library's tarball has its dist and nothing else. */
async function packLibrary(name, folder) {
  const { tarball, files } = await pack(join("packages", name), folder);
  const extra = files.filter((path) => !path.startsWith("dist/") && !besides.has(path));
  if (extra.length > 0) throw new ScriptError(`the tarball has ${extra.join(", ")}`);
  return tarball;
}

/** Modules of Node and packages that `code` loads by name: from, import and require; `guarded` where that may fail. */
function* loadsOf(path) {
  const source = ts.createSourceFile(path, readFileSync(path, "utf8"), ts.ScriptTarget.Latest, true);
  const within = (node) =>
    node &&
    ((ts.isTryStatement(node.parent ?? node) && node.parent.tryBlock === node) || within(node.parent));
  function* walk(node) {
    if (ts.isImportDeclaration(node) || (ts.isExportDeclaration(node) && node.moduleSpecifier))
      yield { name: node.moduleSpecifier.text, guarded: false };
    const dynamic = ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword;
    const required = ts.isCallExpression(node) && node.expression.getText() === "require";
    if (dynamic || required) {
      const [argument] = node.arguments;
      if (ts.isStringLiteral(argument)) yield { name: argument.text, guarded: within(node) };
      else if (dynamic) yield { text: node.getText() };
    }
    const children = [];
    ts.forEachChild(node, (child) => void children.push(child));
    for (const child of children) yield* walk(child);
  }
  yield* walk(source);
}

/**
 * Bundlers resolve what code loads by name. webpack fails where it finds nothing, unless the code says itself that it may fail, by
 * `try`; it fails at `node:` in a page's bundle; and it takes a name in a variable for any file of the folder, unless told to leave it.
 */
function checkLoads(name) {
  const { dependencies = {} } = readJson(join(root, "packages", name, "package.json"));
  const dist = join(root, "packages", name, "dist");
  let optional = 0;
  for (const file of readdirSync(dist).filter((each) => /\.c?js$/.test(each))) {
    for (const { name: loaded, guarded, text } of loadsOf(join(dist, file))) {
      if (text !== undefined) {
        if (!(text.includes("@vite-ignore") && text.includes("webpackIgnore: true")))
          throw new ScriptError(`${file}: bundlers would look for the target of ${text}`);
      } else if (
        !loaded.startsWith(".") &&
        !Object.keys(dependencies).some((own) => loaded.startsWith(own))
      ) {
        // CommonJS asks Node by `require`: pages take the ES modules.
        if (loaded.startsWith("node:") && file.endsWith(".cjs")) continue;
        if (!guarded)
          throw new ScriptError(`${file}: loads "${loaded}", which may not be there, outside of try`);
        optional += 1;
      }
    }
  }
  if (name === "core" && optional === 0) throw new ScriptError("gpu.js is loaded nowhere");
}

/** What the benchmarks' command starts, reads or serves. */
const benchFiles = ["dist/main.js", "dist/host.js", "dist/page/index.html", "dist/page/peers.html"].concat([
  "javascript/startup.mjs",
  "python/host.py",
]);

/** Builds and packs the benchmarks, whose tarball has what the command needs, and neither results nor tests. */
async function packBench(folder) {
  const cwd = join(root, "benchmarks");
  await run(process.execPath, [bin("tsup")], { cwd, quiet: true, input: "ignore" });
  const { tarball, files } = await pack("benchmarks", folder);
  const missing = benchFiles.filter((path) => !files.includes(path));
  if (missing.length > 0) throw new ScriptError(`the tarball lacks ${missing.join(", ")}`);
  const extra = files.filter((path) => !/^(dist|javascript|python)\//.test(path) && !besides.has(path));
  if (extra.length > 0) throw new ScriptError(`the tarball has ${extra.join(", ")}`);
  return tarball;
}

/** The installed command, as a user calls it: its help, a run of two processes, and a peer in a process of its own. */
async function checkBench(project) {
  const bench = async (...args) => {
    const options = { cwd: project, capture: true, input: "ignore" };
    return (await run("npx", ["--no-install", "nomoat-bench", ...args], options)).stdout;
  };
  if (!(await bench("--help")).includes("Usage: nomoat-bench"))
    throw new ScriptError("--help shows no usage");
  const small = ["--quick", "--sizes", "16", "--threads", "1", "--filter", "NN"];
  await bench("run", "gemm", ...small, "--launches", "2", "--out", "bench.json");
  await bench("peers", "plain", ...small, "--out", "peers.json");
  const failures = ["bench.json", "peers.json"].flatMap((file) =>
    readJson(join(project, file)).runs.flatMap(({ results }) => results.map(({ failure }) => failure)),
  );
  if (failures.length < 3 || failures.some((one) => one !== null))
    throw new ScriptError(`it gave ${failures}`);
}

/** The programs of scripts/smoke in an empty project that has only the tarballs. */
async function smoke(tarballs, folder) {
  const project = join(folder, "project");
  mkdirSync(project);
  writeFileSync(join(project, "package.json"), '{ "private": true }\n');
  const npm = ["install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error", ...tarballs];
  await again("npm install", () =>
    run("npm", npm, { cwd: project, quiet: true, input: "ignore", env: homeForCaches() }),
  );
  const programs = readdirSync(join(root, "scripts/smoke")).sort();
  for (const program of programs) cpSync(join(root, "scripts/smoke", program), join(project, program));
  const copies = readdirSync(join(project, "node_modules"), { recursive: true, withFileTypes: true })
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name).replaceAll("\\", "/"))
    .filter((path) => path.endsWith("node_modules/@nomoat/core"));
  if (copies.length !== 1) throw new ScriptError(`core is installed ${copies.length} times`);
  return { project, programs };
}

/** Runs every check and tells which passed. */
export async function checkPackages() {
  const folder = mkdtempSync(join(tmpdir(), "nomoat-packages-"));
  const counts = { passed: 0, failed: 0 };
  const check = async (name, body) => {
    try {
      const value = await body();
      counts.passed += 1;
      console.log(`  ✓ ${name}`);
      return value;
    } catch (error) {
      counts.failed += 1;
      console.log(`  ✗ ${name}: ${error instanceof ScriptError ? error.message : error.stack}`);
      return undefined;
    }
  };
  const node = (args, options) => run(process.execPath, args, { quiet: true, input: "ignore", ...options });
  try {
    const tarballs = [];
    for (const name of libraries) {
      await check(`${name}: manifest`, () => checkManifest(name));
      await check(`${name}: bundlers find what it loads`, () => checkLoads(name));
      const tarball = await check(`${name}: packs`, () => packLibrary(name, folder));
      if (!tarball) continue;
      tarballs.push(tarball);
      await check(`${name}: publint`, () => node([bin("publint"), "run", tarball, "--strict"]));
      // Resolution of before Node 12 knows no subpath exports; everything else must work.
      const attw = [bin("@arethetypeswrong/cli", "attw"), tarball, "--profile", "node16", "--no-color"];
      await check(`${name}: are the types wrong`, () => node(attw));
    }
    const bench = await check("bench: packs", () => packBench(folder));
    if (bench) {
      tarballs.push(bench);
      await check("bench: publint", () => node([bin("publint"), "run", bench, "--strict"]));
    }
    if (tarballs.length <= libraries.length) return counts;
    const installed = await check("tarballs install into an empty folder", () => smoke(tarballs, folder));
    if (installed) {
      const { project, programs } = installed;
      for (const program of programs.filter((name) => /\.[cm]js$/.test(name))) {
        await check(`smoke: ${program}`, () => node([program], { cwd: project }));
      }
      await check("bench: the command runs", () => checkBench(project));
      const typed = programs.filter((name) => /\.[cm]?ts$/.test(name));
      if (typed.length > 0) {
        const types = ["--typeRoots", join(root, "node_modules/@types"), "--types", "node"];
        const options = ["--strict", "--noEmit", "--module", "nodenext", "--target", "es2022", ...types];
        const tsc = [bin("typescript", "tsc"), ...options, "--lib", "es2023,esnext.disposable,dom", ...typed];
        await check(`smoke: types of ${typed.join(", ")}`, () => node(tsc, { cwd: project }));
      }
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return counts;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main(async () => {
    const { failed } = await checkPackages();
    if (failed > 0) process.exitCode = 1;
  });
}
