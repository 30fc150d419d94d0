// What this host can do at most, measured in the run whose kernels are compared with it: multiply-adds in registers, integer
// dot products in registers, and bytes moved per second from a cache and from memory.

import { init, type Tensor, zeros } from "@nomoat/core";
import { operand, wasmRuntime } from "@nomoat/core/extend";
import { dotChains, dotRounds, peakKernels, streamUnit } from "./emitter.js";
import { type Effort, timeEntry } from "./timing.js";
import { workersRunning } from "./workers.js";

/** Bandwidth of streams whose places together take `bytes`. */
export interface Bandwidth {
  readonly bytes: number;
  /** Bytes a second; the best of reading, copying and adding. */
  readonly rate: number;
  readonly kind: "read" | "copy" | "add";
}

export interface Peaks {
  readonly threads: number;
  /** Operations a second, float32 multiply-adds in registers. */
  readonly float32: number;
  /** Operations a second, integer dot products in registers: int8 with relaxed SIMD, else int16 as int8 kernels must. */
  readonly int8: number;
  /** By growing size. */
  readonly bandwidth: readonly Bandwidth[];
}

/** Sizes that lie in the second-level cache, in the last one of most machines, and in memory. */
const sizes = [256 << 10, 4 << 20, 16 << 20, 128 << 20];

/** Units whose work is cut into a few chunks for each thread. */
const chunksOfThread = 4;

const operationsOfPeakUnit = 96_000;

/** Milliseconds of samples of each kernel, and of warming it up: a peak is one fast sample, and several rounds look for it. */
const turn = 15;
const warmup = 40;

/** Best seconds of one call. */
async function best(run: () => void, effort: Effort, first: boolean): Promise<number> {
  const brief = {
    ...effort,
    milliseconds: Math.min(turn, effort.milliseconds),
    warmup: Math.min(warmup, effort.warmup),
  };
  const { seconds } = await timeEntry({ run, dispose: () => undefined }, brief, first);
  return Math.min(...seconds);
}

/**
 * Measures with `threads` threads of the wasm backend, which becomes the active one.
 *
 * @param first - whether these kernels have not run before
 */
export async function measurePeaks(threads: number, effort: Effort, first: boolean): Promise<Peaks> {
  await init({ backend: "wasm", threads });
  // Fresh memory is dear: all streams lie in one piece, side by side.
  const place = zeros([Math.max(...sizes) / 4]);
  const runtime = wasmRuntime(place)!;
  await workersRunning(threads);
  const module = runtime.registerKernels("@nomoat/bench", peakKernels());
  const address = (tensor: Tensor): number => runtime.address(operand(tensor));
  try {
    const units = 64 * threads * chunksOfThread;
    const options = { grain: units / threads / chunksOfThread, scratchBytes: 64 };
    const float = await best(
      () => runtime.core.launch("peak", units, [address(place)], [0.5], options),
      effort,
      first,
    );
    const integer = await best(() => module.launch("dot", units, [0x01010101], [], options), effort, first);
    const products = runtime.relaxed ? 16 : 8;
    const dotOperations = 2 * products * dotChains * dotRounds;
    const bandwidth: Bandwidth[] = [];
    for (const bytes of sizes) bandwidth.push(await measureBandwidth(bytes));
    return {
      threads,
      float32: (units * operationsOfPeakUnit) / float,
      int8: (units * dotOperations) / integer,
      bandwidth,
    };
  } finally {
    place.dispose();
  }

  async function measureBandwidth(bytes: number): Promise<Bandwidth> {
    let fastest: Bandwidth | null = null;
    for (const [kind, streams] of [
      ["read", 1],
      ["copy", 2],
      ["add", 3],
    ] as const) {
      const units = Math.max(1, Math.floor(bytes / streams / streamUnit));
      const addresses = Array.from({ length: streams }, (_, i) => address(place) + i * units * streamUnit);
      const grain = Math.max(1, Math.ceil(units / threads / chunksOfThread));
      const seconds = await best(
        () => module.launch(kind, units, addresses, [], { grain, scratchBytes: 64 }),
        effort,
        first,
      );
      const rate = (streams * units * streamUnit) / seconds;
      if (!fastest || rate > fastest.rate) fastest = { bytes, rate, kind };
    }
    return fastest!;
  }
}

/** The higher of each rate: a peak is what was seen at best. */
export function bestPeaks(a: Peaks, b: Peaks): Peaks {
  return {
    threads: a.threads,
    float32: Math.max(a.float32, b.float32),
    int8: Math.max(a.int8, b.int8),
    bandwidth: a.bandwidth.map((one, i) => (one.rate >= b.bandwidth[i].rate ? one : b.bandwidth[i])),
  };
}
