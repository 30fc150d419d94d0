// What the scripts in this folder share. Plain Node: these run before anything is installed.

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import {
  accessSync,
  existsSync,
  constants as files,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { constants, homedir, tmpdir } from "node:os";
import { dirname, join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";

/** The repository's folder. */
export const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** The library packages, each after those it depends on. */
export const libraries = ["core", "quant", "lora", "llama"];

/** Ends a script with one line of explanation and exit code 1. */
export class ScriptError extends Error {}

/**
 * Runs a program and waits for it.
 *
 * @param options.quiet - keep the output back, and print it only if the program fails
 * @param options.capture - keep the output back and return it
 * @returns its exit code and what it wrote, where that was kept back
 */
export function run(command, args, options = {}) {
  const { cwd = root, env = {}, quiet = false, capture = false, check = true, input = "inherit" } = options;
  const keep = quiet || capture;
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      cwd,
      env: { ...process.env, ...env },
      stdio: [input, keep ? "pipe" : "inherit", keep ? "pipe" : "inherit"],
      shell: process.platform === "win32" && (command === "npx" || command === "npm"),
    });
    let stdout = "";
    let output = "";
    child.stdout?.setEncoding("utf8").on("data", (text) => {
      stdout += text;
      output += text;
    });
    child.stderr?.setEncoding("utf8").on("data", (text) => {
      output += text;
    });
    child.on("error", (error) => reject(new ScriptError(`cannot run ${command}: ${error.message}`)));
    child.on("close", (exitCode, signal) => {
      const code = exitCode ?? 128 + (constants.signals[signal] ?? 0);
      if (code !== 0 && quiet) process.stderr.write(output);
      if (code !== 0 && check) {
        reject(new ScriptError(`\`${[command, ...args].join(" ")}\` ended with exit code ${code}`));
      } else {
        resolve({ code, stdout, output });
      }
    });
  });
}

/** Another home for npm and pnpm, which keep caches there, where there is none or it cannot be written. */
export function homeForCaches() {
  try {
    accessSync(homedir(), files.W_OK);
    return {};
  } catch {
    const home = join(tmpdir(), `nomoat-home-${process.getuid?.() ?? ""}`);
    mkdirSync(home, { recursive: true });
    // `npm test` has told where its own configuration is.
    return { HOME: home, npm_config_cache: join(home, ".npm") };
  }
}

/** Runs pnpm 10, which need not be installed. */
export function pnpm(args, options = {}) {
  const env = { ...homeForCaches(), ...options.env };
  return run("npx", ["--yes", "pnpm@10", ...args], { input: "ignore", ...options, env });
}

/** Does again what needs the network, which may be away for a moment. */
export async function again(what, body, { attempts = 3, seconds = 10 } = {}) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await body();
    } catch (error) {
      if (attempt === attempts) throw error;
      step(`${what} failed (${error.message}); once more in ${seconds} s`);
      await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
    }
  }
}

/** The program of an installed package, as arguments for `node`. */
export function bin(packageName, name = packageName, from = root) {
  const folder = join(from, "node_modules", ...packageName.split("/"));
  const manifest = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const path = typeof manifest.bin === "string" ? manifest.bin : manifest.bin[name];
  return join(folder, path);
}

/** Installs what the lockfile lists, unless node_modules already has exactly that. */
export async function install() {
  const stamp = join(root, "node_modules", ".nomoat-installed");
  const hash = createHash("sha256").update(`${process.platform} ${process.arch}\n`);
  const manifests = ["package.json", "pnpm-lock.yaml", "pnpm-workspace.yaml"];
  for (const folder of workspaceFolders()) manifests.push(`${folder}/package.json`);
  for (const path of manifests) hash.update(readFileSync(join(root, path)));
  const wanted = hash.digest("hex");
  const installed = existsSync(stamp) && readFileSync(stamp, "utf8") === wanted;
  const complete = workspaceFolders().every((folder) => {
    const { dependencies = {} } = JSON.parse(readFileSync(join(root, folder, "package.json"), "utf8"));
    return Object.keys(dependencies).every((name) => existsSync(join(root, folder, "node_modules", name)));
  });
  if (installed && complete) return;
  step("Installing dependencies");
  await again("Installing", () =>
    pnpm(["install", "--frozen-lockfile"], { quiet: true, env: { CI: "true" } }),
  );
  writeFileSync(stamp, wanted);
}

/** The folders of all packages in the workspace. */
export function workspaceFolders() {
  const folders = [];
  for (const group of ["packages", "examples"]) {
    for (const name of readdirSync(join(root, group)).sort()) {
      if (existsSync(join(root, group, name, "package.json"))) folders.push(`${group}/${name}`);
    }
  }
  if (existsSync(join(root, "benchmarks/package.json"))) folders.push("benchmarks");
  return folders;
}

/** Every file below `folder`, sorted, as paths relative to the root with forward slashes. */
export function filesBelow(folder) {
  return readdirSync(join(root, folder), { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) =>
      relative(root, join(entry.parentPath ?? entry.path, entry.name))
        .split(sep)
        .join("/"),
    )
    .sort();
}

/** The hash of some files' names and contents. */
export function hashFiles(paths, salt = "") {
  const hash = createHash("sha256").update(salt);
  for (const path of paths) {
    hash.update(`\0${path}\0`);
    hash.update(readFileSync(join(root, path)));
  }
  return hash.digest("hex");
}

/** Reads a JSON file, or gives `undefined` where there is none that is readable. */
export function readJson(path) {
  try {
    return JSON.parse(readFileSync(path, "utf8"));
  } catch {
    return undefined;
  }
}

export function writeJson(path, value) {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, `${JSON.stringify(value)}\n`);
}

/** Says what a script does now. */
export function step(text) {
  process.stderr.write(`${text} ...\n`);
}

/** Runs a script's main function; an error ends it with a line and exit code 1. */
export async function main(body) {
  try {
    await body();
  } catch (error) {
    process.stderr.write(`${error instanceof ScriptError ? error.message : error.stack}\n`);
    process.exitCode = 1;
  }
}
