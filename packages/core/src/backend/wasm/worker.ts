// Starting a thread from source text, in Node (and what follows its API) and in browsers. Knows nothing of kernels.

import type { WorkerData } from "./worker-source.js";
import { workerSource } from "./worker-source.js";

export interface WorkerHandle {
  terminate(): void;
  /** True once it is known that the thread has ended. */
  dead(): boolean;
}

/**
 * Starts a worker of the pool. It does not keep the process alive.
 *
 * @param onEnd - called when the worker has ended for whatever reason, as soon as the event loop gets to it
 */
export function startWorker(data: WorkerData, onEnd: () => void): WorkerHandle {
  let ended = false;
  const end = () => {
    if (ended) return;
    ended = true;
    onEnd();
  };
  const threads = globalThis.process?.getBuiltinModule?.("node:worker_threads");
  if (threads) {
    const worker = new threads.Worker(workerSource, {
      eval: true,
      workerData: data,
      env: threads.SHARE_ENV,
      // Loaders and inspectors of the host are of no use to a kernel loop.
      execArgv: [],
      name: `nomoat-${data.index}`,
    });
    worker.on("error", end);
    worker.on("exit", end);
    worker.unref();
    return { terminate: () => void worker.terminate(), dead: () => ended };
  }
  const url = URL.createObjectURL(new Blob([workerSource], { type: "text/javascript" }));
  const worker = new Worker(url, { name: `nomoat-${data.index}` });
  URL.revokeObjectURL(url);
  worker.onerror = end;
  worker.postMessage(data);
  return { terminate: () => worker.terminate(), dead: () => ended };
}

/** The number of processors that this process may use. */
export function availableProcessors(): number {
  const os = globalThis.process?.getBuiltinModule?.("node:os");
  const count = os
    ? (os.availableParallelism?.() ?? os.cpus().length)
    : globalThis.navigator?.hardwareConcurrency;
  return Math.max(1, count || 1);
}
