// The peers: what they are called, what they are installed from, and what they can do.

import { BenchError } from "../model.js";
import type { Task } from "./protocol.js";

type Kind = Task["kind"];

export interface Peer {
  readonly name: string;
  /** What computes: shown beside the name. */
  readonly backend: string;
  /** npm packages with versions; empty for what is installed otherwise or not at all. */
  readonly packages: readonly string[];
  /** Where its adapter runs; "browser": in a page of an installed Chromium. */
  readonly language: "javascript" | "python" | "browser";
  /** Most threads that it can use here. */
  readonly mostThreads: number;
  /** True where code for the processor runs, with its wider vectors: no browser could. */
  readonly native: boolean;
  /** Tasks that it has. */
  readonly kinds: readonly Kind[];
  /** Operations a second on one thread, roughly: for guesses of how long a run takes, nothing else. */
  readonly rate: number;
}

const any = Number.POSITIVE_INFINITY;
const products: readonly Kind[] = ["gemm"];
const windows: readonly Kind[] = ["convolution", "pooling"];
const gradients: readonly Kind[] = ["gemm", "lora-mlp"];
const common = { mostThreads: any, native: false, rate: 2e10 } as const;
const javascript = { ...common, language: "javascript", mostThreads: 1, kinds: products } as const;
const slow = { ...javascript, rate: 1e9 } as const;
const python = { ...common, packages: [], language: "python", native: true, rate: 9e10 } as const;
const browser = { ...common, language: "browser" } as const;
const tfjs = ["@tensorflow/tfjs@4.22.0", "@tensorflow/tfjs-core@4.22.0"];
const jax = ["@jax-js/jax@0.1.25"];

export const peers: readonly Peer[] = [
  { ...slow, name: "plain", backend: "javascript", packages: [], rate: 2.6e9 },
  { ...slow, name: "stdlib-blas", backend: "javascript", packages: ["@stdlib/blas@0.4.1"] },
  { ...slow, name: "gpu.js-cpu", backend: "javascript", packages: ["gpu.js@2.24.1"] },
  { ...slow, name: "gpu.js-webasm", backend: "wasm", packages: ["gpu.js@2.24.1"] },
  {
    ...slow,
    name: "tfjs-cpu",
    backend: "javascript",
    packages: [...tfjs, "@tensorflow/tfjs-backend-cpu@4.22.0"],
  },
  // Its threads do not work in Node.
  {
    ...javascript,
    name: "tfjs-wasm",
    backend: "wasm",
    packages: [...tfjs, "@tensorflow/tfjs-backend-wasm@4.22.0"],
    kinds: [...gradients, ...windows],
  },
  // One thread in Node. A convolution takes it seconds.
  { ...javascript, name: "jax-js", backend: "wasm", packages: jax, kinds: gradients },
  // It chooses its threads itself, by the processors: no figure for one thread can be had.
  { ...browser, name: "jax-js-chromium", backend: "wasm", packages: jax, kinds: gradients },
  {
    ...javascript,
    name: "onnxruntime-web",
    backend: "wasm",
    packages: ["onnxruntime-web@1.30.0"],
    ...{ mostThreads: any, kinds: ["gemm", "quant", ...windows] },
  },
  {
    ...javascript,
    name: "onnxruntime-node",
    backend: "native",
    packages: ["onnxruntime-node@1.30.0"],
    ...{ mostThreads: any, kinds: ["gemm", "quant", ...windows], native: true, rate: 8e10 },
  },
  { ...python, name: "numpy", backend: "native", kinds: products },
  { ...python, name: "pytorch", backend: "native", kinds: [...gradients, ...windows, "train-step"] },
  {
    ...javascript,
    name: "node-llama-cpp",
    backend: "native",
    // The prebuilt library comes as a package of its own; the others' are left out (see install.ts).
    packages: ["node-llama-cpp@3.22.1", `@node-llama-cpp/${prebuilt()}@3.22.1`],
    ...{ mostThreads: any, kinds: ["generate"], native: true, rate: 5e10 },
  },
  {
    ...browser,
    name: "wllama",
    backend: "wasm",
    packages: ["@wllama/wllama@2.4.0"],
    ...{ kinds: ["generate"], rate: 2e9 },
  },
];

/** How node-llama-cpp calls this machine's kind. */
function prebuilt(): string {
  const { platform, arch } = process;
  if (platform === "darwin") return arch === "arm64" ? "mac-arm64-metal" : "mac-x64";
  return `${platform === "win32" ? "win" : platform}-${arch}`;
}

/** @throws {BenchError} listing the known peers */
export function peersByName(names: readonly string[]): Peer[] {
  return names.map((name) => {
    const found = peers.find((peer) => peer.name === name);
    if (found) return found;
    throw new BenchError(`unknown peer "${name}" (known: ${peers.map((peer) => peer.name).join(", ")})`);
  });
}
