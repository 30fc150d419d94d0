// The page that the browser tests drive: each function runs in the page and reports in plain values.

import { gpuBackend } from "../../../src/backend/gpu/index.js";
import * as nm from "../../../src/index.js";
import { computedCases } from "../cases.js";
import { checkOnGpu } from "../check.js";

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
    const n = 5000;
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
        positions: nm.clone(nm.slice(positionsPast24Bits(), [2 ** 24, 2 ** 24 + 4])),
      };
    });
    const found: Record<string, number[]> = {};
    for (const [name, result] of Object.entries(computed)) {
      found[name] = Array.from(await result.data());
      result.dispose();
    }
    return found;
  },

  /** Bytes on the device after 10 and after `steps` steps of training, and the last loss. */
  async train(steps: number): Promise<{ first: number; last: number; loss: number }> {
    const w = nm.keep(nm.full([4, 3], 0.1, { requiresGrad: true }));
    let first = 0;
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
      if (step === 9) first = gpuBackend().memory().used;
    }
    const last = gpuBackend().memory().used;
    w.dispose();
    return { first, last, loss };
  },

  /** The wasm backend in this page: a product of two matrices, in threads where memory can be shared. */
  async wasm(wanted: number): Promise<{ isolated: boolean; threads: number; sum: number }> {
    nm.shutdown();
    await nm.init({ backend: "wasm", threads: wanted });
    const a = nm.ones([256, 256]);
    const sum = nm.sum(nm.matmul(a, a)).item();
    return { isolated: crossOriginIsolated, threads: nm.wasmRuntime(a)!.threads, sum };
  },

  /** Ends the device under a read, and starts anew. */
  async lose(): Promise<{ error: string; again: number[] }> {
    const x = nm.mul(nm.tensor([1, 2]), 3);
    await x.data();
    const { mode } = gpuBackend();
    const pending = x.data().then(
      () => "none",
      (reason: Error) => `${reason.name}: ${reason.message}`,
    );
    await loseDevice();
    const error = await pending;
    await nm.init({ backend: "gpu", mode });
    return { error, again: Array.from(await nm.mul(nm.tensor([1, 2]), 3).data()) };
  },
};

/** 0, 1, …, each modulo 1024, for more elements than float32 has integers. */
function positionsPast24Bits(): nm.Tensor {
  const count = 2 ** 24 + 8;
  return nm.mul(nm.tensor(Float32Array.from({ length: count }, (_, i) => i % 1024)), 1);
}

async function loseDevice(): Promise<void> {
  const { loadLibrary } = await import("../../../src/backend/gpu/library.js");
  const library = await loadLibrary();
  if (gpuBackend().mode === "webgpu") {
    const { device } = await library.WebGPUContext.acquire();
    (device as unknown as { destroy(): void }).destroy();
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export type Page = typeof page;

(globalThis as unknown as { page: Page }).page = page;
