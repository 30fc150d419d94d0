import type { GpuMode } from "../../src/backend/gpu/index.js";

const { GPU_MODES } = (globalThis as { process?: { env?: Record<string, string> } }).process?.env ?? {};

/** Modes that Node runs, or those that GPU_MODES names: "webgpu" and "headlessgl" need packages and a driver. */
export const nodeModes = (GPU_MODES?.split(",") ?? ["webasm", "cpu"]) as readonly GpuMode[];
