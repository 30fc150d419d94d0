// Reading and writing of result files.

import { readFile, stat } from "node:fs/promises";
import { writeFileAtomic } from "@nomoat/core/io";
import { BenchError } from "../model.js";
import { parseResultFile, type ResultFile, type Run } from "./schema.js";

/** Larger files are none of this tool's. */
const mostBytes = 256 << 20;

/** @throws {BenchError} when the file is missing, foreign or broken */
export async function readResults(path: string): Promise<ResultFile> {
  let text: string;
  try {
    const { size } = await stat(path);
    if (size > mostBytes) throw new BenchError(`${path}: ${size} bytes are more than a result file has`);
    text = await readFile(path, "utf8");
  } catch (error) {
    if (error instanceof BenchError) throw error;
    throw new BenchError(`${path}: cannot be read (${(error as NodeJS.ErrnoException).code ?? error})`);
  }
  return parseResultFile(text, path);
}

/** Writes to a temporary name and renames, so that a good file survives every fault. */
export async function writeText(path: string, text: string): Promise<void> {
  try {
    await writeFileAtomic(path, new TextEncoder().encode(text));
  } catch (error) {
    throw new BenchError(
      `${path}: cannot be written (${(error as NodeJS.ErrnoException).code ?? (error as Error).message})`,
    );
  }
}

/** Runs of all files, each once; the order of the files is kept. */
export async function readRuns(paths: readonly string[]): Promise<Run[]> {
  const runs = new Map<string, Run>();
  for (const path of paths) {
    for (const run of (await readResults(path)).runs) if (!runs.has(run.id)) runs.set(run.id, run);
  }
  return [...runs.values()];
}
