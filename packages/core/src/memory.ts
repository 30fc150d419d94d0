// Who frees what: scopes (`tidy`), `keep`, counters. The garbage collector is only a net that frees and counts leaks.

import { requireFunction, use } from "./arguments.js";
import type { GraphNode } from "./autograd/graph.js";
import { activeBackend } from "./backend/registry.js";
import { ArgumentError } from "./errors.js";
import { runtime } from "./runtime.js";
import type { Storage } from "./storage.js";
import { Tensor } from "./tensor.js";

/** What a tensor holds, apart from the tensor, so that it can be let go after the tensor was collected. */
export class TensorHold {
  storage: Storage | null;
  node: GraphNode | null = null;
  /** Known to the collector's registry. */
  watched = false;

  constructor(storage: Storage) {
    this.storage = storage;
    runtime.liveTensors++;
  }

  release(): void {
    if (!this.storage) return;
    runtime.liveTensors--;
    this.storage.release();
    this.storage = null;
    if (this.watched) leakNet.unregister(this);
    this.node?.release();
    this.node = null;
  }
}

const leakNet = new FinalizationRegistry<TensorHold>((hold) => {
  if (!hold.storage) return;
  runtime.leakedTensors++;
  hold.release();
});

/** Tensors that were made lately, and what they hold, place by place. */
const freshTensors: Tensor[] = [];
const freshHolds: TensorHold[] = [];
const mostFresh = 256;
let watchPlanned = false;

/**
 * Puts the tensor under the collector's watch when the job ends or many more were made, if it is not disposed by then: to register and
 * unregister each one takes as long as a small kernel, and in between nothing can be collected anyway.
 */
export function watchLater(tensor: Tensor, hold: TensorHold): void {
  freshTensors.push(tensor);
  freshHolds.push(hold);
  if (freshHolds.length === mostFresh) watchFresh();
  else if (!watchPlanned) {
    watchPlanned = true;
    queueMicrotask(() => {
      watchPlanned = false;
      watchFresh();
    });
  }
}

function watchFresh(): void {
  for (let i = 0; i < freshHolds.length; i++) {
    const hold = freshHolds[i];
    if (!hold.storage) continue;
    hold.watched = true;
    leakNet.register(freshTensors[i], hold, hold);
  }
  freshTensors.length = 0;
  freshHolds.length = 0;
}

/** Adds the tensors in `value` to `found`, and the containers on the way, so that none is entered twice. */
function collectTensors(value: unknown, found: Set<unknown>): void {
  if (value === null || typeof value !== "object" || found.has(value)) return;
  found.add(value);
  if (value instanceof Tensor) return;
  if (Array.isArray(value) || value instanceof Set) for (const item of value) collectTensors(item, found);
  else if (value instanceof Map) for (const item of value.values()) collectTensors(item, found);
  else if (Object.getPrototypeOf(value) === Object.prototype) {
    for (const item of Object.values(value)) collectTensors(item, found);
  }
}

/**
 * Runs `fn` and disposes every tensor made inside that is neither returned (alone or in arrays, plain objects, Maps,
 * Sets) nor kept. Returned tensors pass to the enclosing scope.
 * @throws {ArgumentError} when `fn` returns a promise: a scope cannot outlive its call
 */
export function tidy<T>(fn: () => T): T {
  requireFunction("tidy", fn);
  const scope: Tensor[] = [];
  runtime.scopes.push(scope);
  let single: unknown = null;
  let several: Set<unknown> | null = null;
  try {
    const result = fn();
    if (result instanceof Tensor) {
      single = result;
      return result;
    }
    if (
      result !== null &&
      typeof result === "object" &&
      typeof (result as { then?: unknown }).then === "function"
    ) {
      throw new ArgumentError(
        "tidy: the function returned a promise; await outside and dispose by hand, or tidy the synchronous parts",
      );
    }
    several = new Set();
    collectTensors(result, several);
    return result;
  } finally {
    const { scopes } = runtime;
    scopes.pop();
    const outer = scopes[scopes.length - 1];
    for (let i = 0; i < scope.length; i++) {
      const tensor = scope[i];
      if (tensor.disposed || tensor.kept) continue;
      if (tensor === single || several?.has(tensor)) outer?.push(tensor);
      else tensor.dispose();
    }
  }
}

/** Takes `tensor` out of every enclosing `tidy`: from now on its owner disposes it. */
export function keep<T extends Tensor>(tensor: T): T {
  use("keep", tensor);
  tensor.kept = true;
  return tensor;
}

export interface MemoryStats {
  /** Tensors not disposed. */
  tensors: number;
  /** Storages in use, those that only the graph holds included. */
  storages: number;
  /** Bytes that those storages asked for, on all backends. */
  bytes: number;
  /** Tensors that the garbage collector found undisposed since start: a leak in the program. */
  leaked: number;
  /** The active backend's own figures, in bytes: `used` includes rounding and what is used internally. */
  backend: { name: string; used: number; peak: number; reserved: number };
}

/** Live tensors and bytes. */
export function memoryStats(): MemoryStats {
  const backend = activeBackend();
  return {
    tensors: runtime.liveTensors,
    storages: runtime.liveStorages,
    bytes: runtime.liveBytes,
    leaked: runtime.leakedTensors,
    backend: { name: backend.name, ...backend.memory() },
  };
}

/** Starts the measurement of the active backend's peak anew. */
export function resetPeakMemory(): void {
  activeBackend().resetPeak();
}
