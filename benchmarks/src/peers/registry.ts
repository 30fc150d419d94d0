// The peers: what they are called, what they are installed from, and what they can do.

import { BenchError } from "../model.js";

export interface Peer {
  readonly name: string;
  /** What computes: shown beside the name. */
  readonly backend: string;
  /** npm packages with versions; empty for what is installed otherwise or not at all. */
  readonly packages: readonly string[];
  readonly language: "javascript" | "python";
  /** Most threads that it can use here. */
  readonly mostThreads: number;
  /** True where code for the processor runs, with its wider vectors: no browser could. */
  readonly native: boolean;
  /** Whether it has products with weights in integer formats. */
  readonly quantized: boolean;
}

const javascript = { language: "javascript", mostThreads: 1, native: false, quantized: false } as const;
const python = {
  packages: [],
  language: "python",
  mostThreads: 256,
  native: true,
  quantized: false,
} as const;
const tfjs = ["@tensorflow/tfjs-core@4.22.0"];

export const peers: readonly Peer[] = [
  { ...javascript, name: "plain", backend: "javascript", packages: [] },
  { ...javascript, name: "stdlib-blas", backend: "javascript", packages: ["@stdlib/blas@0.4.1"] },
  { ...javascript, name: "gpu.js-cpu", backend: "javascript", packages: ["gpu.js@2.24.1"] },
  { ...javascript, name: "gpu.js-webasm", backend: "wasm", packages: ["gpu.js@2.24.1"] },
  {
    ...javascript,
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
  },
  { ...javascript, name: "jax-js", backend: "wasm", packages: ["@jax-js/jax@0.1.25"] },
  {
    ...javascript,
    name: "onnxruntime-web",
    backend: "wasm",
    packages: ["onnxruntime-web@1.30.0"],
    ...{ mostThreads: 256, quantized: true },
  },
  {
    ...javascript,
    name: "onnxruntime-node",
    backend: "native",
    packages: ["onnxruntime-node@1.30.0"],
    ...{ mostThreads: 256, quantized: true, native: true },
  },
  { ...python, name: "numpy", backend: "native" },
  { ...python, name: "pytorch", backend: "native" },
];

/** @throws {BenchError} listing the known peers */
export function peersByName(names: readonly string[]): Peer[] {
  return names.map((name) => {
    const found = peers.find((peer) => peer.name === name);
    if (found) return found;
    throw new BenchError(`unknown peer "${name}" (known: ${peers.map((peer) => peer.name).join(", ")})`);
  });
}
