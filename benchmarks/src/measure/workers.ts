// Threads that are started run before anything is timed.

import { zeros } from "@nomoat/core";
import { wasmRuntime } from "@nomoat/core/extend";

/** Waits until the wasm backend's workers run; a page may not block for them. */
export async function workersRunning(threads: number): Promise<void> {
  const probe = zeros([1]);
  const wasm = wasmRuntime(probe);
  probe.dispose();
  const deadline = performance.now() + 10_000;
  while (wasm && wasm.waitForWorkers(0) < threads - 1 && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}
