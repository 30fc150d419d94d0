// What the wasm backend does where it runs: in a page, or in a page's worker.

import { wasmRuntime } from "../../../src/extend.js";
import { init, matmul, ones, shutdown, sum, tidy } from "../../../src/index.js";

export interface WasmReport {
  readonly isolated: boolean;
  /** Threads that compute, the caller's included. */
  readonly threads: number;
  readonly sum: number;
}

/** A product of two matrices, in `wanted` threads where memory can be shared. */
export async function wasmReport(wanted: number): Promise<WasmReport> {
  await init({ backend: "wasm", threads: wanted });
  const a = ones([256, 256]);
  const report = {
    isolated: crossOriginIsolated,
    threads: wasmRuntime(a)!.threads,
    sum: tidy(() => sum(matmul(a, a)).item()),
  };
  a.dispose();
  shutdown();
  return report;
}
