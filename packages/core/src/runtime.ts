// The state of which there is one per process: backends, gradient mode, ownership scopes, counters.
// It hangs on globalThis, so that two copies of this library (ESM and CJS, quant's and the application's) share it.

import type { LeafSink } from "./autograd/backward.js";
import type { Backend } from "./backend/types.js";
import type { Generator, GeneratorState } from "./random.js";
import type { Tensor } from "./tensor.js";

interface Runtime {
  /** The backend that new tensors go to; null until the first use or `init`. */
  active: Backend | null;
  /** Every backend that was started and not shut down, by name. */
  readonly backends: Map<string, Backend>;
  gradEnabled: boolean;
  /** Where the walk back puts leaves' gradients; null for their `grad` fields. */
  sink: LeafSink | null;
  /** How many `grad` functions are running, one within the other. */
  gradDepth: number;
  /** Name the operation that first makes a NaN or an infinity. */
  anomalyMode: boolean;
  /** Open ownership scopes, innermost last. */
  readonly scopes: Tensor[][];
  liveTensors: number;
  liveStorages: number;
  liveBytes: number;
  /** Tensors that the garbage collector found undisposed. */
  leakedTensors: number;
  /** What draws random numbers where no generator is given; made on first use. */
  generator: Generator | null;
  /** Where each generator stood when it was first used, one map for each `checkpoint` that is running. */
  readonly randomUses: Map<Generator, GeneratorState>[];
  /** Order of creation of graph nodes. */
  nextNode: number;
}

const key = Symbol.for("@nomoat/core/runtime/1");
const holder = globalThis as { [key]?: Runtime };

export const runtime: Runtime = (holder[key] ??= {
  active: null,
  backends: new Map(),
  gradEnabled: true,
  sink: null,
  gradDepth: 0,
  anomalyMode: false,
  scopes: [],
  liveTensors: 0,
  liveStorages: 0,
  liveBytes: 0,
  leakedTensors: 0,
  generator: null,
  randomUses: [],
  nextNode: 0,
});
