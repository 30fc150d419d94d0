// Runs and results to test with: of no machine, with round figures.

import type { Result, Run } from "../src/results/schema.js";

export function aResult(changes: Partial<Result> = {}): Result {
  return {
    suite: "gemm",
    name: "512x512x512 NN",
    parameters: { label: "square", m: 512, n: 512, k: 512, batch: 1, transposes: "NN" },
    implementation: { name: "nomoat", version: "1.0.0" },
    backend: "wasm",
    threads: 1,
    work: { operations: 2e9, bytes: 4e6, arithmetic: "float32", items: null, shown: "operations" },
    callsPerSample: 1,
    rounds: [
      [0.1, 0.11, 0.12],
      [0.1, 0.1, 0.2],
    ],
    launches: !changes.rounds ? [2] : changes.rounds.length > 0 ? [changes.rounds.length] : [],
    accuracy: { maxError: 1e-6, scale: 2, tolerance: 1e-5, compared: 1000 },
    details: {},
    failure: null,
    ...changes,
  };
}

export function aRun(results: readonly Result[], changes: Partial<Run> = {}): Run {
  return {
    id: "first",
    label: "",
    started: "2026-01-02T03:04:05.678Z",
    seconds: 12.5,
    interrupted: null,
    options: { effort: "quick", suites: ["gemm"], filter: null },
    machine: {
      cpu: "A processor",
      processors: 2,
      frequency: 3000,
      caches: ["L1d 32K", "L2 512K"],
      memoryBytes: 8 * 2 ** 30,
      system: "System 1.0",
      architecture: "x64",
      runtime: "Node 20.0.0",
      v8: "11.3",
      simd: "baseline",
      gpu: null,
      libraries: { "@nomoat/core": "1.0.0", tinybench: "6.0.0" },
      commit: "0123456789ab",
      load: { before: 0, after: 1 },
      power: null,
    },
    peaks: [
      {
        threads: 1,
        float32: 40e9,
        int8: 80e9,
        bandwidth: [
          { bytes: 262144, rate: 100e9, kind: "read" },
          { bytes: 134217728, rate: 20e9, kind: "add" },
        ],
      },
    ],
    results,
    ...changes,
  };
}
