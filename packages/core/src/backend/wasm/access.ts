// How other packages reach the wasm runtime, to register kernels of their own over its memory and pool.

import type { Tensor } from "../../tensor.js";
import type { WasmBackend } from "./backend.js";
import type { WasmRuntime } from "./runtime.js";

/** The runtime that holds `tensor`, or null when it lives on another backend. */
export function wasmRuntime(tensor: Tensor): WasmRuntime | null {
  const { backend } = tensor.storage;
  // By name, not by class: another copy of this library may have made it.
  return backend.name === "wasm" ? (backend as WasmBackend).runtime : null;
}
