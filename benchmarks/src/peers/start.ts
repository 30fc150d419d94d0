// Start-up: from nothing to the first product, each time in a fresh process; and what a page would have to download.

import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { compareArrays } from "../accuracy.js";
import { packageFile } from "../machine.js";
import { BenchError, type Entry, type Prepared } from "../model.js";
import { items } from "../suites/suite.js";
import { onnxModel } from "./adapters/onnx-model.js";
import { folderOf, isInstalled } from "./install.js";
import { type Peer, peers } from "./registry.js";

const execute = promisify(execFile);

interface Starter {
  readonly name: string;
  /** What a page imports of it. */
  readonly source: string;
  /** Files besides that its code loads, within node_modules. */
  readonly wasm: readonly string[];
}

const starters: readonly Starter[] = [
  { name: "nomoat", source: 'export * from "@nomoat/core";', wasm: [] },
  { name: "jax-js", source: 'export * from "@jax-js/jax";', wasm: [] },
  {
    name: "tfjs-wasm",
    source: 'export * from "@tensorflow/tfjs-core"; import "@tensorflow/tfjs-backend-wasm";',
    wasm: ["@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm-threaded-simd.wasm"],
  },
  {
    name: "onnxruntime-web",
    source: 'export * from "onnxruntime-web/wasm";',
    wasm: ["onnxruntime-web/dist/ort-wasm-simd-threaded.wasm"],
  },
];

/** [2, 2] · [2, 2], for runtimes that need a model. */
function productModel(): string {
  const matrix = (name: string) => ({ name, type: "float32", shape: [2, 2] }) as const;
  const inputs = [matrix("a"), matrix("b")];
  const model = onnxModel({ type: "MatMul", domain: "", inputs, output: matrix("y") });
  return Buffer.from(model).toString("base64");
}

async function start(name: string, folder: string): Promise<{ seconds: number; product: number[] }> {
  const script = packageFile("javascript", "startup.mjs");
  try {
    const { stdout } = await execute(process.execPath, [script, name, folder, productModel()], {
      timeout: 300_000,
    });
    return JSON.parse(stdout.split("\n").find((line) => line.startsWith('{"seconds"')) ?? "");
  } catch (error) {
    const { stderr = "", message } = error as { stderr?: string; message: string };
    throw new BenchError(/^\w*Error.*/m.exec(stderr)?.[0] ?? message.split("\n")[0]);
  }
}

/**
 * Bytes of the minified bundle and of the wasm files beside it, gzipped: what is loaded at once, without the parts that code asks for
 * later (`import()`). Nothing where esbuild is not installed.
 */
async function sizes({ source, wasm }: Starter, folder: string): Promise<Record<string, number>> {
  const esbuild = await import("esbuild").catch(() => null);
  if (!esbuild) return {};
  const { outputFiles, metafile } = await esbuild.build({
    stdin: { contents: source, resolveDir: folder },
    ...{ bundle: true, minify: true, format: "esm", platform: "browser", target: "es2022", write: false },
    ...{ external: ["node:*", "fs", "path", "util", "crypto", "os", "worker_threads", "perf_hooks"] },
    ...{ logLevel: "silent", outdir: "out", treeShaking: true, splitting: true, metafile: true },
  });
  const loaded = new Set<string>();
  const load = (path: string): void => {
    if (loaded.has(path)) return;
    loaded.add(path);
    for (const { kind, path: next } of metafile.outputs[path]?.imports ?? []) {
      if (kind === "import-statement") load(next);
    }
  };
  // Parts that are asked for later have an entry point too.
  for (const [path, { entryPoint }] of Object.entries(metafile.outputs)) {
    if (entryPoint === "<stdin>") load(path);
  }
  const atOnce = outputFiles.filter(({ path }) =>
    [...loaded].some((name) => path.replaceAll("\\", "/").endsWith(`/${name}`)),
  );
  const gzipped = (bytes: Uint8Array): number => gzipSync(bytes, { level: 9 }).length;
  let wasmBytes = 0;
  for (const file of wasm) wasmBytes += gzipped(await readFile(join(folder, "node_modules", file)));
  const scriptBytes = atOnce.reduce((sum, file) => sum + gzipped(file.contents), 0);
  return { scriptBytes, wasmBytes };
}

function prepare(starter: Starter, folder: string): Prepared {
  const { name } = starter;
  let product: number[] = [];
  const time = async (calls: number): Promise<number> => {
    let seconds = 0;
    for (let i = 0; i < calls; i++) {
      const started = await start(name, folder);
      seconds += started.seconds;
      product = started.product;
    }
    return seconds;
  };
  return {
    run: () => time(1),
    time,
    verify: () => compareArrays(product, [7, 10, 15, 22], 0),
    details: () => sizes(starter, folder),
    dispose: () => undefined,
  };
}

/** Entries of the start-up of this library and of those peers that can be told apart from their work. */
export function startEntries(chosen: readonly Peer[], version: string): Entry[] {
  return starters.flatMap((starter) => {
    const peer = peers.find(({ name }) => name === starter.name);
    if (peer && !chosen.includes(peer)) return [];
    const own = dirname(fileURLToPath(import.meta.url));
    return [
      {
        suite: "start",
        name: "import, initialise, first product",
        parameters: {},
        work: items(1, "starts", 0, 0),
        implementation: { name: starter.name, version: peer?.packages.at(-1)?.split("@").at(-1) ?? version },
        backend: "wasm",
        threads: 1,
        prepare() {
          if (peer && !isInstalled(peer)) throw new BenchError("is not installed; --install does that");
          return prepare(starter, peer ? folderOf(peer) : own);
        },
      },
    ];
  });
}
