// The page of a peer: what host.ts is for a process.

import type { Adapter, PeerContext } from "../peers/adapter.js";
import { jaxJs } from "../peers/adapters/jax.js";
import { wllama } from "../peers/adapters/wllama.js";
import { answerer } from "../peers/answer.js";

const adapters: Readonly<Record<string, Adapter>> = { "jax-js-chromium": jaxJs, wllama };

/** The modules that pages import. */
const entries: Readonly<Record<string, string>> = {
  "@jax-js/jax": "dist/index.js",
  "@wllama/wllama": "esm/index.js",
};

const packages = new URLSearchParams(location.search).get("packages") ?? "";

async function bytesOf(address: string): Promise<Response> {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`${address}: ${response.status}`);
  return response;
}

async function contextOf(_: string, threads: number): Promise<PeerContext> {
  // Libraries that ask how many processors there are take as many threads.
  Object.defineProperty(navigator, "hardwareConcurrency", { value: threads, configurable: true });
  const place = (name: string, file: string): string => `${packages}/${name}/${file}`;
  const browser = /Chrome\/[\d.]+/.exec(navigator.userAgent)?.[0].replace("/", " ") ?? "browser";
  return {
    load: (name) => import(/* @vite-ignore */ place(name, entries[name])),
    place,
    threads,
    async version(name) {
      const { version } = (await (await bytesOf(place(name, "package.json"))).json()) as { version: string };
      return `${version} in ${browser}`;
    },
    async tensors({ file, tensors }) {
      const buffer = await (await bytesOf(file)).arrayBuffer();
      return new Map(
        Object.entries(tensors).map(([name, { offset, shape }]) => {
          const count = shape.reduce((product, extent) => product * extent, 1);
          return [name, { values: new Float32Array(buffer, offset, count), shape }];
        }),
      );
    },
    blob: async (file) => (await bytesOf(file)).blob(),
  };
}

(globalThis as { answer?: unknown }).answer = answerer(adapters, contextOf);
