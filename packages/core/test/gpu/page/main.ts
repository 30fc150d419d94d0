// The page that the browser tests drive: each function runs in the page and reports in plain values.

import { createGpuBackend, type GpuMode, gpuBackend } from "../../../src/backend/gpu/index.js";
import * as nm from "../../../src/index.js";
import { runtime } from "../../../src/runtime.js";
import { computedCases } from "../cases.js";
import { checkOnGpu } from "../check.js";
import { type Edges, edges } from "../edges.js";
import { liveResources, loseContexts } from "./devices.js";
import { type WasmReport, wasmReport } from "./wasm.js";

const page = {
  /** The mode that truly runs. */
  async start(mode?: "webgpu" | "webgl2" | "webgl" | "webasm" | "cpu"): Promise<string> {
    nm.shutdown();
    await nm.init({ backend: "gpu", mode });
    return gpuBackend().mode;
  },

  caseNames: (): string[] => computedCases.map(({ name }) => name),

  /** What is wrong with each of the cases at `from` to `to`. */
  async check(from: number, to: number, layouts: string[]): Promise<string[]> {
    const faults: string[] = [];
    for (const each of computedCases.slice(from, to)) {
      try {
        await checkOnGpu(each, layouts);
      } catch (error) {
        faults.push(`${each.name}: ${error instanceof Error ? error.message.slice(0, 600) : String(error)}`);
        if (gpuBackend().failure) break;
      }
    }
    return faults;
  },

  /** Special values and large arguments, as the device computes them. */
  async specials(): Promise<Record<string, number[]>> {
    // WebGL 1 counts positions in floats.
    const far = gpuBackend().mode !== "webgl";
    // The product adds eight terms a turn.
    const n = 10_000;
    const computed = nm.tidy(() => {
      const x = nm.tensor([-1e30, -1000, -50, 0, 50, 1000, 1e30]);
      const wide = nm.add(nm.zeros([2, 128_256]), nm.tensor([[1], [2]]));
      const masked = nm.where(nm.tensor([true, false]), Number.NEGATIVE_INFINITY, nm.tensor([5, 0]));
      return {
        tanh: nm.tanh(x),
        sigmoid: nm.sigmoid(x),
        loop: nm.matmul(nm.mul(nm.ones([1, n]), 1), nm.ones([n, 1])),
        wide: nm.sum(wide, -1),
        infinity: nm.exp(masked),
        ...(far && {
          positions: nm.clone(nm.slice(nm.transpose(positionsPast24Bits()), [columns - 2, columns])),
        }),
      };
    });
    const found: Record<string, number[]> = {};
    for (const [name, result] of Object.entries(computed)) {
      found[name] = Array.from(await result.data());
      result.dispose();
    }
    return found;
  },

  /** What becomes of numbers that a GPU need not hold. */
  edges: (): Promise<Edges> => edges(),

  /**
   * logits[i][j] = i + j/1024 for a vocabulary of 128,256 and so many rows that they are more than one texture or buffer holds, by a
   * product over 2; some of them, the greatest of each row, and a product with them.
   */
  async vocabulary(): Promise<{ tiles: number; values: number[]; greatest: number[]; sums: number[] }> {
    const [rows, classes, picked] = [525, 128_256, 4];
    const device = "gpu";
    const place = (values: Float32Array, shape: number[]) => nm.tensor(values, { shape, device });
    const found = nm.tidy(() => {
      const h = place(
        Float32Array.from({ length: 2 * rows }, (_, i) => (i % 2 === 0 ? i / 2 : 1)),
        [rows, 2],
      );
      const w = place(
        Float32Array.from({ length: 2 * classes }, (_, i) => (i % 2 === 0 ? 1 : (i - 1) / 2048)),
        [classes, 2],
      );
      const logits = nm.matmul(h, w, { transB: true });
      // Zeros but for the last classes, whose columns of logits are added.
      const last = place(
        Float32Array.from({ length: classes }, (_, j) => (j < classes - picked ? 0 : 1)),
        [classes, 1],
      );
      const ends = [0, 523, 524].map((row) =>
        nm.slice(logits, [row, row + 1], [30_974, 30_978]).reshape([-1]),
      );
      return {
        values: nm.concat([...ends, nm.slice(logits, [524, 525], [classes - 2, classes]).reshape([-1])], 0),
        greatest: nm.argmax(logits, -1),
        sums: nm.matmul(logits, last).reshape([-1]),
      };
    });
    const [values, greatest, sums] = await Promise.all(
      [found.values, found.greatest, found.sums].map((each) => each.data()),
    );
    for (const each of Object.values(found)) each.dispose();
    return {
      tiles: Math.ceil((rows * classes) / gpuBackend().largestTile),
      values: Array.from(values, Number),
      greatest: Array.from(new Set(Array.from(greatest, Number))),
      sums: [sums[0], sums[523], sums[524]].map(Number),
    };
  },

  /** What is held after 20 and after `steps` steps of training, and the last loss. */
  async train(steps: number): Promise<{ first: Held; last: Held; loss: number }> {
    const w = nm.keep(nm.full([4, 3], 0.1, { requiresGrad: true }));
    let first = held();
    let loss = 0;
    for (let step = 0; step < steps; step++) {
      const value = nm.tidy(() => {
        const x = nm.tensor(
          Float32Array.from({ length: 8 }, (_, i) => Math.sin(i + step)),
          { shape: [2, 4] },
        );
        const result = nm.crossEntropy(nm.tanh(nm.matmul(x, w)), nm.tensor([0, 2], { dtype: "int32" }));
        result.backward();
        nm.noGrad(() => w.copyFrom(nm.sub(w, nm.mul(w.grad!, 0.1))));
        w.zeroGrad();
        return result.detach();
      });
      loss = (await value.data())[0];
      value.dispose();
      if (step === 19) first = held();
    }
    const last = held();
    w.dispose();
    return { first, last, loss };
  },

  /** How many more textures or buffers there are while a result lives, and after it was disposed; its kernel ran before. */
  async heldByKernels(): Promise<[alive: number, after: number]> {
    const x = nm.mul(nm.tensor([1, 2, 3]), 2);
    nm.sin(x).dispose();
    await gpuBackend().finish();
    const before = liveResources();
    const y = nm.sin(x);
    await gpuBackend().finish();
    const alive = liveResources();
    y.dispose();
    await gpuBackend().finish();
    const after = liveResources();
    x.dispose();
    return [alive - before, after - before];
  },

  /** The wasm backend in this page. */
  wasm: (wanted: number): Promise<WasmReport> => wasmReport(wanted),

  /** The wasm backend in a worker of this page. */
  async wasmInWorker(wanted: number): Promise<WasmReport> {
    const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
    try {
      return await new Promise((resolve, reject) => {
        worker.onmessage = ({ data }) => ("error" in data ? reject(new Error(data.error)) : resolve(data));
        worker.onerror = (event) => reject(new Error(`the worker failed: ${event.message}`));
        worker.postMessage(wanted);
      });
    } finally {
      worker.terminate();
    }
  },

  /** The greatest of 2²³ + 3 numbers and the sum of four, in arrays of tiles. */
  async tiles(mode: GpuMode): Promise<number[]> {
    nm.shutdown();
    runtime.backends.set("gpu", await createGpuBackend({ mode, largestTile: 2 ** 14 }));
    const device = "gpu";
    const x = nm.tensor(
      Float32Array.from({ length: 2 ** 16 + 3 }, (_, i) => i),
      { device },
    );
    const y = nm.mul(x, 2);
    const result = [
      nm.max(y),
      nm.sum(nm.slice(y, [2 ** 14 - 2, 2 ** 14 + 2])),
      nm.sum(nm.gather(y, nm.tensor([1, 40_000, 2 ** 16], { dtype: "int32", device }))),
    ];
    const values = await Promise.all(result.map(async (each) => (await each.data())[0]));
    nm.shutdown();
    return values as number[];
  },

  /** Ends the device under a read, computes on it, and starts anew. */
  async lose(): Promise<{ pending: string; later: string; again: number[] }> {
    const x = nm.mul(nm.tensor([1, 2]), 3);
    await x.data();
    const { mode } = gpuBackend();
    await gpuBackend().finish();
    const lose = await deviceLoser();
    // At once, so that the read cannot be done before.
    const pending = failureOf(() => x.data());
    lose();
    await new Promise((resolve) => setTimeout(resolve, 50));
    const found = { pending: await pending, later: await failureOf(() => nm.mul(x, 2).data()) };
    await nm.init({ backend: "gpu", mode });
    return { ...found, again: Array.from(await nm.mul(nm.tensor([1, 2]), 3).data()) };
  },
};

const columns = 5_592_411;

/** 0, 1, …, each modulo 1024, in three rows of more elements together than float32 has integers. */
function positionsPast24Bits(): nm.Tensor {
  const values = Float32Array.from({ length: 3 * columns }, (_, i) => i % 1024);
  return nm.mul(nm.tensor(values, { shape: [3, columns] }), 1);
}

interface Held {
  /** Bytes of the tensors, and on the device. */
  bytes: number;
  device: number;
  /** Textures or buffers, as the browser has them. */
  resources: number;
  tensors: number;
  storages: number;
}

function held(): Held {
  const { tensors, storages, bytes, backend } = nm.memoryStats();
  return { bytes, device: backend.used, resources: liveResources(), tensors, storages };
}

const failureOf = async (fn: () => Promise<unknown>): Promise<string> => {
  try {
    await fn();
    return "none";
  } catch (error) {
    return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  }
};

/** What ends the device, or the contexts, that the backend computes on. */
async function deviceLoser(): Promise<() => void> {
  if (gpuBackend().mode !== "webgpu") return loseContexts;
  const { loadLibrary } = await import("../../../src/backend/gpu/library.js");
  const library = await loadLibrary();
  const { device } = await library.WebGPUContext.acquire();
  return () => (device as unknown as { destroy(): void }).destroy();
}

export type Page = typeof page;

(globalThis as unknown as { page: Page }).page = page;
