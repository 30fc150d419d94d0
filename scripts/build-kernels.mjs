#!/usr/bin/env node
// Compiles a package's AssemblyScript kernels (packages/NAME/assembly/index.ts) to a wasm
// module and writes it packed into a TypeScript file that git ignores. Does nothing when the inputs have not changed since: the file's header carries
// their hash.
//
//   node scripts/build-kernels.mjs --all
//   node scripts/build-kernels.mjs --package quant --memory-base 65536

import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, realpathSync } from "node:fs";
import { mkdir, open, rename } from "node:fs/promises";
import { dirname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { packKernels } from "./pack-kernels.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** Where each package's kernels go, and where their static data starts in the shared memory. */
const targets = {
  core: { memoryBase: 1024, output: "packages/core/src/backend/wasm/generated/kernels.ts" },
  quant: { memoryBase: 65536, output: "packages/quant/src/generated/kernels.ts" },
};

/** The compiler's flags. 65536 pages of 64 KiB are 4 GiB, the most that 32-bit addresses reach. */
function flags(memoryBase) {
  return [
    "--optimizeLevel=3",
    // Copies less code about: a fifth smaller, and no slower.
    "--shrinkLevel=1",
    "--noAssert",
    "--runtime=stub",
    "--importMemory",
    "--sharedMemory",
    // Through it, kernels call others by number.
    "--exportTable",
    "--initialMemory=16",
    "--maximumMemory=65536",
    `--memoryBase=${memoryBase}`,
    "--enable=simd,threads,relaxed-simd",
    "--use=abort=",
  ];
}

/** What unpacks the modules of all packages; it stands beside core's. */
const unpacker = {
  entry: "packages/core/assembly/unpack/index.ts",
  flags: ["--optimizeLevel=2", "--shrinkLevel=2", "--converge", "--noAssert", "--runtime=stub"].concat(
    "--memoryBase=16384",
    "--use=abort=",
  ),
};

/** Every TypeScript file below `folder`, sorted, as paths relative to the root. */
function sources(folder) {
  return readdirSync(join(root, folder), { withFileTypes: true })
    .flatMap((entry) => {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) return entry.name === "node_modules" ? [] : sources(path);
      return entry.name.endsWith(".ts") ? [path] : [];
    })
    .sort();
}

/** The hash of all that the output depends on: sources, flags, compiler version, this script. */
function inputsHash(packageName, memoryBase) {
  const hash = createHash("sha256");
  hash.update(compilerVersion());
  for (const script of ["build-kernels.mjs", "pack-kernels.mjs", "order-functions.mjs", "lzma.mjs"]) {
    hash.update(readFileSync(join(root, "scripts", script)));
  }
  hash.update(JSON.stringify([flags(memoryBase), unpacker]));
  // Other packages' kernels may import core's by source.
  const folders = new Set(["packages/core/assembly", `packages/${packageName}/assembly`]);
  for (const folder of folders) {
    if (!existsSync(join(root, folder))) continue;
    for (const path of sources(folder)) {
      hash.update(`\0${path.split(sep).join("/")}\0`);
      hash.update(readFileSync(join(root, path)));
    }
  }
  return hash.digest("hex");
}

function compilerVersion() {
  const manifest = join(root, "node_modules/assemblyscript/package.json");
  return JSON.parse(readFileSync(manifest, "utf8")).version;
}

/** The hash in the header of an earlier output, if there is one. */
function writtenHash(output) {
  try {
    return /^\/\/ inputs: ([0-9a-f]{64})$/m.exec(readFileSync(output, "utf8").slice(0, 2000))?.[1];
  } catch {
    return undefined;
  }
}

async function compile(entry, args) {
  const { default: asc } = await import("assemblyscript/asc");
  let binary;
  const messages = [];
  const { error } = await asc.main([entry, "--outFile=kernels.wasm", "--baseDir", root, ...args], {
    stdout: { write: (text) => messages.push(text) },
    stderr: { write: (text) => messages.push(text) },
    readFile(name, baseDir) {
      try {
        return readFileSync(join(baseDir, name), "utf8");
      } catch {
        return null;
      }
    },
    writeFile(name, contents) {
      if (name.endsWith("kernels.wasm")) binary = Buffer.from(contents);
    },
    listFiles: () => [],
  });
  const text = messages.join("").trim();
  if (error) throw new Error(`asc: ${error.message}\n${text}`);
  if (!binary) throw new Error(`asc wrote no binary\n${text}`);
  if (text) console.error(text);
  return binary;
}

/** `compile` in a thread of its own: the compiler never yields. */
function compileInThread(entry, args) {
  return new Promise((resolve, reject) => {
    const worker = new Worker(fileURLToPath(import.meta.url), { workerData: { entry, args } });
    worker.once("message", ({ binary, error }) => {
      if (error) reject(new Error(error));
      else resolve(Buffer.from(binary));
    });
    worker.once("error", reject);
  });
}

async function writeAtomically(path, text) {
  await mkdir(dirname(path), { recursive: true });
  const temporary = `${path}.${process.pid}.tmp`;
  const file = await open(temporary, "w");
  await file.writeFile(text);
  await file.close();
  await rename(temporary, path);
}

/**
 * Compiles one package's kernels if they have changed.
 *
 * @returns whether a new file was written
 */
export async function buildKernels(packageName, { memoryBase, quiet = false, force = false } = {}) {
  const target = targets[packageName];
  if (!target) throw new Error(`build-kernels: no such package: ${packageName}`);
  const base = memoryBase ?? target.memoryBase;
  const entry = `packages/${packageName}/assembly/index.ts`;
  const say = quiet ? () => {} : (text) => console.log(`kernels of ${packageName}: ${text}`);
  if (!existsSync(join(root, entry))) {
    say(`nothing to build (no ${entry})`);
    return false;
  }
  const output = join(root, target.output);
  const hash = inputsHash(packageName, base);
  if (!force && writtenHash(output) === hash) {
    say("up to date");
    return false;
  }
  const started = performance.now();
  const kernels = await compileInThread(entry, flags(base));
  const sizes = `${kernels.length} bytes`;
  const packed = packKernels(kernels);
  const lines = [];
  if (packageName === "core") {
    const binary = await compileInThread(unpacker.entry, unpacker.flags);
    lines.push(`/** A wasm module that unpacks others, base64: ${binary.length} bytes. */`);
    lines.push(`export const unpacker = ${JSON.stringify(binary.toString("base64"))};`, "");
  }
  const text = [
    `// Made from ${entry} by scripts/build-kernels.mjs: do not edit.`,
    `// inputs: ${hash}`,
    "",
    ...lines,
    `/** A wasm module, packed: ${sizes}. */`,
    `export const builds = ${JSON.stringify(packed, null, 2)};`,
    "",
  ].join("\n");
  await writeAtomically(output, text);
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  say(`${sizes} in ${seconds} s → ${relative(root, output)}`);
  return true;
}

/** Compiles the kernels of every package that has some. */
export async function buildAllKernels(options = {}) {
  for (const name of Object.keys(targets)) await buildKernels(name, options);
}

if (!isMainThread && workerData?.entry) {
  try {
    parentPort.postMessage({ binary: await compile(workerData.entry, workerData.args) });
  } catch (error) {
    parentPort.postMessage({ error: error.message });
  }
} else if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: {
      all: { type: "boolean", default: false },
      package: { type: "string" },
      "memory-base": { type: "string" },
      force: { type: "boolean", default: false },
    },
  });
  try {
    if (values.package) {
      const memoryBase = values["memory-base"] === undefined ? undefined : Number(values["memory-base"]);
      await buildKernels(values.package, { memoryBase, force: values.force });
    } else {
      await buildAllKernels({ force: values.force });
    }
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  }
}
