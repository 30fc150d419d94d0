// GPU.js: the same tensors on WebGL and WebGPU. `await init({ backend: "gpu", mode })` starts it; this entry tells about it.

import { BackendError } from "../../errors.js";
import { runtime } from "../../runtime.js";
import type { GpuBackend } from "./backend.js";

export { createGpuBackend, type GpuBackend } from "./backend.js";
export { type GpuMode, gpuModes } from "./library.js";

/**
 * The started gpu backend: its `mode` is the one that truly runs.
 * @throws {BackendError} before `await init({ backend: "gpu" })`
 */
export function gpuBackend(): GpuBackend {
  const backend = runtime.backends.get("gpu");
  if (!backend) throw new BackendError('gpuBackend: call `await init({ backend: "gpu" })` first');
  return backend as GpuBackend;
}
