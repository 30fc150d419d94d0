// A page that compares the gpu backend's products with quantized weights with wasm's.

import { init, shutdown } from "@nomoat/core";
import { gpuErrors } from "../gpu-outcome.js";

const page = {
  async start(mode: "webgl2" | "webgpu" | "webgl"): Promise<void> {
    shutdown();
    await init({ backend: "wasm", threads: 1 });
    await init({ backend: "gpu", mode });
  },
  errors: gpuErrors,
};

export type Page = typeof page;

(globalThis as unknown as { page: Page }).page = page;
