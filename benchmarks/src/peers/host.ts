// The process of a peer that is written in JavaScript: reads requests from stdin, answers on stdout.

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import type { Adapter, PeerContext, PeerJob, PeerSession } from "./adapter.js";
import { gpuJs, plain, stdlibBlas } from "./adapters/javascript.js";
import { onnxruntimeNode, onnxruntimeWeb } from "./adapters/onnxruntime.js";
import { jaxJs, tfjs } from "./adapters/tensors.js";
import type { Answer, Request } from "./protocol.js";

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
};

let session: PeerSession | null = null;
let job: PeerJob | null = null;

/** A module in the peer's folder, whose imports are resolved from there. */
async function contextOf(folder: string, threads: number): Promise<PeerContext> {
  const loader = join(folder, "load.mjs");
  let load: PeerContext["load"] = (name) => Promise.reject(new Error(`${name} is not installed`));
  if (folder) {
    writeFileSync(loader, "export const load = (name) => import(name);\n");
    ({ load } = (await import(pathToFileURL(loader).href)) as { load: PeerContext["load"] });
  }
  return {
    load,
    folder,
    threads,
    version(name) {
      const file = join(folder, "node_modules", ...name.split("/"), "package.json");
      return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
    },
  };
}

function base64(values: ArrayLike<number>): string {
  const floats = Float32Array.from(values);
  return Buffer.from(floats.buffer).toString("base64");
}

async function answer(request: Request): Promise<Answer> {
  switch (request.do) {
    case "start": {
      session = await adapters[request.peer](await contextOf(request.folder, request.threads));
      return { version: session.version };
    }
    case "prepare":
      job = await session!.prepare(request.task);
      return {};
    case "time": {
      const { run } = job!;
      const started = performance.now();
      for (let i = 0; i < request.calls; i++) {
        const result = run();
        if (result instanceof Promise) await result;
      }
      return { seconds: (performance.now() - started) / 1000 };
    }
    case "result":
      return { values: base64(await job!.result()) };
    case "dispose":
      job?.dispose();
      job = null;
      return {};
  }
}

/** Answers in the order of the requests. */
let last: Promise<void> = Promise.resolve();

createInterface({ input: process.stdin })
  .on("line", (line) => {
    last = last.then(async () => {
      const reply = await answer(JSON.parse(line) as Request).catch(
        (error: unknown): Answer => ({
          error: String((error as Error)?.message ?? error).split("\n")[0] || "failed",
        }),
      );
      process.stdout.write(`${JSON.stringify({ nomoat: reply })}\n`);
    });
  })
  // Libraries leave workers behind that would keep the process.
  .on("close", () => process.exit(0));
