// How much a device can hold in one piece, and how many pieces one kernel can read.

import type { GpuInstance, WebGpuContext } from "./library.js";

export interface DeviceLimits {
  /** Elements of the largest array in one piece. */
  readonly largest: number;
  /** Pieces that one kernel can read. */
  readonly mostInputs: number;
}

/** The largest power of two of elements that fits one texture or buffer. */
export function largestTile(gpu: GpuInstance, context: WebGpuContext | null): number {
  const edge = gpu.Kernel.features?.maxTextureSize ?? Number.POSITIVE_INFINITY;
  const { maxStorageBufferBindingSize = Number.POSITIVE_INFINITY, maxBufferSize = Number.POSITIVE_INFINITY } =
    context?.device.limits ?? {};
  const most = Math.min(edge ** 2, maxStorageBufferBindingSize / 4, maxBufferSize / 4);
  return Number.isFinite(most) ? 2 ** Math.floor(Math.log2(most)) : most;
}

/** What WebGL calls the number of textures that one kernel reads. */
const maxTextureImageUnits = 0x8872;

/** Textures, or storage buffers beside the output's, that one kernel reads. */
export function inputsOf(gpu: GpuInstance, context: WebGpuContext | null): number {
  const textures = gpu.context?.getParameter?.(maxTextureImageUnits);
  const buffers = context?.device.limits.maxStorageBuffersPerShaderStage;
  return Math.min(textures ?? Number.POSITIVE_INFINITY, (buffers ?? Number.POSITIVE_INFINITY) - 1);
}
