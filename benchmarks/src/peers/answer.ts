// What a peer's process or page answers to requests, whatever it runs in.

import { type Places, valuesAt } from "../accuracy.js";
import type { Adapter, PeerContext, PeerJob, PeerSession } from "./adapter.js";
import type { Answer, Request } from "./protocol.js";

/** float32 values in base64, little-endian. */
function base64(values: ArrayLike<number>): string {
  const bytes = new Uint8Array(Float32Array.from(values).buffer);
  if (typeof Buffer === "function") return Buffer.from(bytes.buffer).toString("base64");
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
}

function at(values: ArrayLike<number>, places: Places | null): ArrayLike<number> {
  return places ? valuesAt(values, places) : values;
}

/** The first line of what went wrong. */
function reason(error: unknown): string {
  return String((error as Error)?.message ?? error).split("\n")[0] || "failed";
}

/** Answers requests in their order; never throws. */
export function answerer(
  adapters: Readonly<Record<string, Adapter>>,
  contextOf: (folder: string, threads: number) => Promise<PeerContext>,
): (request: Request) => Promise<Answer> {
  let session: PeerSession | null = null;
  let job: PeerJob | null = null;
  const answer = async (request: Request): Promise<Answer> => {
    switch (request.do) {
      case "start":
        session = await adapters[request.peer](await contextOf(request.folder, request.threads));
        return { version: session.version };
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
        return { values: base64(at(await job!.result(), request.places)) };
      case "memory":
        throw new Error("does not tell its memory");
      case "dispose": {
        const done = job;
        job = null;
        await done?.dispose();
        return {};
      }
    }
  };
  let last: Promise<unknown> = Promise.resolve();
  return (request) => {
    const next = last.then(() => answer(request).catch((error): Answer => ({ error: reason(error) })));
    last = next;
    return next;
  };
}
