// Peers are installed on request, each into a folder of its own in the user's cache; they are nobody's dependency.

import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { BenchError } from "../model.js";
import type { Peer } from "./registry.js";

const run = promisify(execFile);

/** Where peers live: NOMOAT_BENCH_CACHE, else the user's cache folder. */
export function cacheFolder(): string {
  const base = process.env.XDG_CACHE_HOME || join(homedir(), ".cache");
  return process.env.NOMOAT_BENCH_CACHE || join(base, "nomoat-bench");
}

/** Folder of a peer; peers with the same packages share one. */
export function folderOf({ packages }: Peer): string {
  if (packages.length === 0) return "";
  return join(cacheFolder(), packages.join("+").replaceAll(/[^A-Za-z0-9.@+-]/g, "_"));
}

const marker = "installed.json";

export function isInstalled(peer: Peer): boolean {
  return peer.packages.length === 0 || existsSync(join(folderOf(peer), marker));
}

/**
 * Installs a peer's packages without running their scripts.
 *
 * @throws {BenchError} with npm's reason
 */
export async function installPeer(peer: Peer): Promise<void> {
  if (isInstalled(peer)) return;
  const folder = folderOf(peer);
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "package.json"), '{ "private": true }\n');
  // Optional dependencies are native builds for every platform, hundreds of megabytes; what is needed of them is named.
  const flags = ["--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund", "--no-progress"];
  const args = ["install", ...flags, ...peer.packages];
  const windows = process.platform === "win32";
  try {
    await run(windows ? "npm.cmd" : "npm", args, { cwd: folder, shell: windows, timeout: 600_000 });
  } catch (error) {
    const { stderr = "", message } = error as { stderr?: string; message: string };
    const reason =
      stderr.split("\n").find((line) => /npm err|npm error/i.test(line)) ?? message.split("\n")[0];
    throw new BenchError(`cannot be installed: ${reason.replace(/^npm err(or)?!?\s*/i, "")}`);
  }
  await writeFile(join(folder, marker), await readFile(join(folder, "package.json")));
}
