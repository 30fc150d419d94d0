// The machine print: what a reader must know of where figures were measured. Nothing that names a person or a network.

import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import * as os from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { relaxedSimd } from "./measure/emitter.js";

export interface Machine {
  readonly cpu: string;
  /** Processors that this process may use. */
  readonly processors: number;
  /** MHz, as the system says; null where it does not. */
  readonly frequency: number | null;
  /** Such as "L2 512K", of the first processor. */
  readonly caches: readonly string[];
  readonly memoryBytes: number | null;
  readonly system: string;
  readonly architecture: string;
  /** Such as "Node 20.20.2". */
  readonly runtime: string;
  readonly v8: string;
  readonly simd: "relaxed" | "baseline";
  readonly gpu: string | null;
  /** Versions of what was measured and of what measured it. */
  readonly libraries: Readonly<Record<string, string>>;
  /** Of the repository, with "+" where files differ from it; null outside of one. */
  readonly commit: string | null;
  /** Mean of runnable processes over a minute, before and after the run; null where the system does not say. */
  readonly load: { readonly before: number; readonly after: number } | null;
  /** Such as "governor performance", where the system says. */
  readonly power: string | null;
}

function textOf(path: string): string | null {
  try {
    return readFileSync(path, "utf8").trim() || null;
  } catch {
    return null;
  }
}

function caches(): string[] {
  const folder = "/sys/devices/system/cpu/cpu0/cache";
  let names: string[];
  try {
    names = readdirSync(folder).filter((name) => name.startsWith("index"));
  } catch {
    return [];
  }
  return names.sort().flatMap((name) => {
    const [level, type, size] = ["level", "type", "size"].map((file) => textOf(`${folder}/${name}/${file}`));
    if (!level || !size) return [];
    return [`L${level}${type === "Data" ? "d" : type === "Instruction" ? "i" : ""} ${size}`];
  });
}

function power(): string | null {
  const governor = textOf("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
  const online = textOf("/sys/class/power_supply/AC/online");
  const parts = [governor && `governor ${governor}`, online && (online === "1" ? "mains" : "battery")].filter(
    Boolean,
  );
  return parts.length > 0 ? parts.join(", ") : null;
}

function gpu(): string | null {
  return textOf("/proc/driver/nvidia/version")?.split("\n")[0] ?? null;
}

function commit(): string | null {
  const git = (...args: string[]): string =>
    execFileSync("git", args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  try {
    const tracked = git("status", "--porcelain", "--untracked-files=no");
    return git("rev-parse", "--short=12", "HEAD") + (tracked ? "+" : "");
  } catch {
    return null;
  }
}

/** The nearest file of that name above this module: sources and what is built of them lie at different depths. */
export function packageFile(...path: string[]): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, ...path)) && dirname(folder) !== folder) folder = dirname(folder);
  return join(folder, ...path);
}

/** This package's version. */
export function ownVersion(): string {
  return (JSON.parse(readFileSync(packageFile("package.json"), "utf8")) as { version: string }).version;
}

/** The version of an installed package; "unknown" where it cannot be found. */
export function versionOf(name: string): string {
  // Not every package exports its package.json, so it is looked for where packages are.
  let folder = dirname(fileURLToPath(import.meta.url));
  for (;;) {
    const text = textOf(join(folder, "node_modules", ...name.split("/"), "package.json"));
    if (text) return (JSON.parse(text) as { version: string }).version;
    if (dirname(folder) === folder) return "unknown";
    folder = dirname(folder);
  }
}

/** Packages whose versions stand in the machine print. */
const measuredPackages = ["@nomoat/core", "@nomoat/quant", "@nomoat/lora", "@nomoat/llama", "tinybench"];

/** Versions of what is measured and of what measures. */
export function libraryVersions(): Record<string, string> {
  return Object.fromEntries(measuredPackages.map((name) => [name, versionOf(name)]));
}

function runtimeName(): string {
  const versions = process.versions as Record<string, string | undefined>;
  if (versions.bun) return `Bun ${versions.bun}`;
  if (versions.deno) return `Deno ${versions.deno}`;
  return `Node ${process.versions.node}`;
}

/** The print; the load after the run is filled in then. */
export function describeMachine(): Machine {
  const [processor] = os.cpus();
  const load = os.loadavg()[0];
  return {
    cpu: processor?.model.trim() || "unknown",
    processors: os.availableParallelism?.() ?? os.cpus().length,
    frequency: processor?.speed || null,
    caches: caches(),
    memoryBytes: os.totalmem(),
    system: `${os.type()} ${os.release()}`,
    architecture: os.arch(),
    runtime: runtimeName(),
    v8: process.versions.v8 ?? "none",
    simd: relaxedSimd() && process.env.NOMOAT_SIMD !== "baseline" ? "relaxed" : "baseline",
    gpu: gpu(),
    libraries: libraryVersions(),
    commit: commit(),
    load: { before: load, after: load },
    power: power(),
  };
}
