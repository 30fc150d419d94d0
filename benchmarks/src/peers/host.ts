// The process of a peer that is written in JavaScript: reads requests from stdin, answers on stdout.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import type { Adapter, PeerContext } from "./adapter.js";
import { gpuJs, plain, stdlibBlas } from "./adapters/javascript.js";
import { jaxJs } from "./adapters/jax.js";
import { nodeLlamaCpp } from "./adapters/llama-cpp.js";
import { onnxruntimeNode, onnxruntimeWeb } from "./adapters/onnxruntime.js";
import { tfjs } from "./adapters/tfjs.js";
import { answerer } from "./answer.js";
import type { Request } from "./protocol.js";
import { readTensors } from "./stored.js";

const adapters: Readonly<Record<string, Adapter>> = {
  plain,
  "stdlib-blas": stdlibBlas,
  "gpu.js-cpu": gpuJs("cpu"),
  "gpu.js-webasm": gpuJs("webasm"),
  "tfjs-cpu": tfjs("cpu"),
  "tfjs-wasm": tfjs("wasm"),
  "jax-js": jaxJs,
  "onnxruntime-web": onnxruntimeWeb,
  "onnxruntime-node": onnxruntimeNode,
  "node-llama-cpp": nodeLlamaCpp,
};

/** A module in the peer's folder, whose imports are resolved from there. */
async function contextOf(folder: string, threads: number): Promise<PeerContext> {
  const loader = join(folder, "load.mjs");
  let load: PeerContext["load"] = (name) => Promise.reject(new Error(`${name} is not installed`));
  if (folder) {
    writeFileSync(loader, "export const load = (name) => import(name);\n");
    ({ load } = (await import(pathToFileURL(loader).href)) as { load: PeerContext["load"] });
  }
  const place = (name: string, file: string): string =>
    join(folder, "node_modules", ...name.split("/"), ...file.split("/"));
  return {
    load,
    place,
    threads,
    version: async (name) =>
      (JSON.parse(readFileSync(place(name, "package.json"), "utf8")) as { version: string }).version,
    tensors: async (stored) => readTensors(stored),
    blob: async (file) => new Blob([readFileSync(file)]),
  };
}

const answer = answerer(adapters, contextOf);

createInterface({ input: process.stdin })
  .on("line", async (line) => {
    const reply = await answer(JSON.parse(line) as Request);
    process.stdout.write(`${JSON.stringify({ nomoat: reply })}\n`);
  })
  // Libraries leave workers behind that would keep the process.
  .on("close", () => process.exit(0));
