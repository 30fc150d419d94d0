// The most memory that training steps take, in processes of their own: this library's as an application would run it, bundled, and
// PyTorch's on the same weights. A process is the whole of it: the runtime's own code, loading, and every step.

import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { packageFile } from "../machine.js";
import { BenchError } from "../model.js";
import { trainCases } from "../peers/cases/train-step.js";
import { PeerPool } from "../peers/pool.js";
import { peersByName } from "../peers/registry.js";

const run = promisify(execFile);

/** Bytes. */
export interface OwnMemory {
  /** Largest resident memory of the process. */
  readonly process: number;
  /** Of the wasm memory: most in use, and taken from the system. */
  readonly peak: number;
  readonly reserved: number;
}

/** Runs `use` with a program that is one file, made by esbuild; loaders of sources would count as its memory. */
export async function withProgram<T>(use: (file: string) => Promise<T>): Promise<T> {
  const esbuild = await import("esbuild").catch(() => {
    throw new BenchError("needs esbuild beside it, to bundle the program that is measured");
  });
  const folder = await mkdtemp(join(tmpdir(), "nomoat-bench-memory-"));
  try {
    const file = join(folder, "program.mjs");
    await esbuild.build({
      entryPoints: [packageFile("src", "memory", "program.ts")],
      ...{ bundle: true, minify: true, format: "esm", platform: "node", target: "node20", outfile: file },
      ...{ conditions: ["@nomoat/source"], logLevel: "silent" },
      banner: {
        js: 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url);',
      },
    });
    return await use(file);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Of this library: `file` as {@link withProgram} gives it. */
export async function ownMemory(
  file: string,
  model: string,
  threads: number,
  steps: number,
): Promise<OwnMemory> {
  const { stdout } = await run(process.execPath, [file, model, String(threads), String(steps)]);
  return JSON.parse(stdout) as OwnMemory;
}

/**
 * Measures the largest resident memory of PyTorch's process, in bytes, by model and threads.
 * @param pythons - commands, of which the first that has it is taken
 */
export function pytorchMemory(
  model: string,
  pythons: readonly string[],
): (threads: number, steps: number) => Promise<{ process: number; version: string }> {
  const effort = model === "tiny" ? "quick" : "long";
  const found = trainCases({ effort, sizes: null, formats: null, dtypes: null }).find(
    ({ parameters }) => parameters.model === model,
  );
  return async (threads, steps) => {
    if (!found) throw new BenchError(`does not train "${model}"`);
    const pool = new PeerPool(pythons, new Map());
    try {
      const [peer] = peersByName(["pytorch"]);
      const { host, version } = await pool.get(peer, threads);
      await host.ask({ do: "prepare", task: await found.task() });
      await host.ask({ do: "time", calls: steps });
      const { bytes = 0 } = await host.ask({ do: "memory" });
      return { process: bytes, version };
    } finally {
      pool.close();
    }
  };
}
