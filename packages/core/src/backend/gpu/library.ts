// gpu.js as far as it is used here, its loading on demand, and the choice of a mode that truly runs.

import { ArgumentError, BackendError } from "../../errors.js";

/** How gpu.js computes, best first. */
export const gpuModes = ["webgpu", "webgl2", "webgl", "headlessgl", "webasm", "cpu"] as const;

export type GpuMode = (typeof gpuModes)[number];

/** What a kernel run with `pipeline` gives: a texture, a buffer, or in modes on the host a plain array. */
export type KernelResult = Float32Array | DeviceResult;

export interface DeviceResult {
  delete(): void;
  toArray(): Float32Array | Promise<Float32Array>;
}

/** A GL texture with gpu.js's count of its owners. */
export interface CountedTexture {
  _refs: number;
}

/** The parts of gpu.js's kernel objects that running, reading and freeing touch. */
export interface KernelInternals {
  readonly constructor: unknown;
  readonly fallbackReason?: string | null;
  /** WebGL: what the last run drew into. */
  texture?: { texture: CountedTexture } | null;
  textureCache?: unknown[];
  context?: { isContextLost?(): boolean; isLost?: boolean } | null;
  /** WebGPU: what the last run wrote to. */
  outputBuffer?: { _refs: number; destroy(): void } | null;
  bindGroupDirty?: boolean;
  _device?: unknown;
  readBufferResult?(result: DeviceResult): Promise<Float32Array>;
}

export interface RunnableKernel {
  (...values: unknown[]): KernelResult | Promise<KernelResult>;
  readonly kernel: KernelInternals;
  destroy(removeCanvas?: boolean): void;
}

export interface KernelFunction {
  readonly source: string;
  readonly settings: { argumentTypes: string[]; returnType: string };
}

export interface KernelSettings {
  output: number[];
  pipeline: true;
  immutable: true;
  precision: "single";
  tactic: "precision";
  strictIntegers: true;
  argumentTypes?: string[];
  functions: readonly KernelFunction[];
}

export interface GpuInstance {
  readonly mode: string;
  readonly Kernel: { readonly mode?: string; readonly features?: { readonly maxTextureSize?: number } };
  readonly kernels: unknown[];
  /** WebGL: what all kernels draw with. */
  readonly context?: { isContextLost?(): boolean; getParameter?(name: number): number | null } | null;
  createKernel(source: string, settings: KernelSettings): RunnableKernel;
  destroy(): Promise<void>;
}

interface WebGpuDevice {
  createBuffer(options: { size: number; usage: number }): { _refs?: number; destroy(): void };
  readonly limits: {
    readonly maxStorageBufferBindingSize: number;
    readonly maxBufferSize: number;
    readonly maxStorageBuffersPerShaderStage?: number;
  };
  /** Resolves when the device is lost. */
  readonly lost: Promise<unknown>;
  readonly queue: { writeBuffer(buffer: unknown, offset: number, values: Float32Array): void };
}

export interface WebGpuContext {
  readonly device: WebGpuDevice;
  readonly isLost: boolean;
}

export interface GpuLibrary {
  readonly GPU: new (settings: { mode: string }) => GpuInstance;
  readonly WebGPUKernel: unknown;
  readonly WebGL2Kernel: unknown;
  readonly WebGLKernel: unknown;
  readonly HeadlessGLKernel: unknown;
  readonly WebAssemblyKernel: unknown;
  readonly CPUKernel: unknown;
  readonly WebGPUContext: { acquire(): Promise<WebGpuContext>; destroy(): Promise<void> };
  readonly WebGPUBufferResult: new (settings: {
    buffer: unknown;
    output: number[];
    context: WebGpuContext;
    kernel: KernelInternals;
  }) => DeviceResult;
}

const advice: Readonly<Record<GpuMode, string>> = {
  webgpu:
    "in a browser it needs WebGPU and an adapter (navigator.gpu), in Node the package webgpu (npm install webgpu)",
  webgl2: "it needs a browser with WebGL 2 and float textures that can be drawn to",
  webgl: "it needs a browser with WebGL and float textures",
  headlessgl: "it needs Node and the package gl (npm install gl), whose native part must have been built",
  webasm: "it needs WebAssembly",
  cpu: "it needs `new Function`, which a content security policy may forbid",
};

/** gpu.js itself. @throws {BackendError} saying how to install it */
export async function loadLibrary(): Promise<GpuLibrary> {
  let loaded: unknown;
  try {
    // Within `try`, a bundler that finds no such package warns instead of failing.
    loaded = await import("gpu.js");
  } catch (cause) {
    throw new BackendError("the gpu backend needs the package gpu.js: npm install gpu.js@2", { cause });
  }
  // The Node build is CommonJS with GPU among its exports; the browser build is the class itself, with the rest as statics.
  const outer = loaded as Partial<GpuLibrary> & { default?: GpuLibrary };
  const library = outer.GPU ? (outer as GpuLibrary) : outer.default;
  if (typeof library?.GPU !== "function") {
    throw new BackendError("the gpu backend needs gpu.js 2.24 or later of version 2: npm install gpu.js@2");
  }
  return library;
}

interface NavigatorHolder {
  navigator?: { gpu?: unknown };
  process?: { versions?: { node?: string } };
}

/** In Node, WebGPU comes from the package `webgpu` (Dawn) where that is installed. */
async function provideWebGpu(): Promise<void> {
  const holder = globalThis as unknown as NavigatorHolder;
  if (holder.navigator?.gpu || typeof holder.process?.versions?.node !== "string") return;
  // In a variable, so that bundlers leave the import alone.
  const name = "webgpu";
  const dawn = (await import(/* @vite-ignore */ /* webpackIgnore: true */ name).catch(() => null)) as {
    create(flags: string[]): unknown;
    globals: object;
  } | null;
  if (!dawn) return;
  Object.assign(globalThis, dawn.globals);
  if (!holder.navigator) Object.defineProperty(globalThis, "navigator", { value: {}, configurable: true });
  Object.defineProperty(holder.navigator, "gpu", { value: dawn.create([]), configurable: true });
}

const kernelClasses = {
  webgpu: "WebGPUKernel",
  webgl2: "WebGL2Kernel",
  webgl: "WebGLKernel",
  headlessgl: "HeadlessGLKernel",
  webasm: "WebAssemblyKernel",
  cpu: "CPUKernel",
} as const satisfies Record<GpuMode, keyof GpuLibrary>;

/** The mode whose class `kernel` is: names do not tell, since all WebGL kernels call theirs "gpu". */
export function modeOf(library: GpuLibrary, kernel: KernelInternals): GpuMode | undefined {
  return gpuModes.find((mode) => kernel.constructor === library[kernelClasses[mode]]);
}

/** An instance that computed one kernel in `mode`. @throws the reason why there is none */
async function tryMode(library: GpuLibrary, mode: GpuMode): Promise<GpuInstance> {
  if (mode === "webgpu") await provideWebGpu();
  const gpu = new library.GPU({ mode });
  try {
    const probe = gpu.createKernel("function (x) { return x[this.thread.x] * 2; }", {
      output: [3],
      pipeline: true,
      immutable: true,
      precision: "single",
      tactic: "precision",
      strictIntegers: true,
      functions: [],
    });
    const result = await probe(new Float32Array([1, 2.5, -3]));
    const values = result instanceof Float32Array ? result : await result.toArray();
    const ran = modeOf(library, probe.kernel);
    if (ran !== mode) throw new Error(`gpu.js ran ${ran ?? "an unknown mode"} in its place`);
    if (values[0] !== 2 || values[1] !== 5 || values[2] !== -6) {
      throw new Error(`a kernel gave ${Array.from(values).join(", ")} instead of 2, 5, -6`);
    }
    if (!(result instanceof Float32Array)) result.delete();
    probe.destroy();
    return gpu;
  } catch (error) {
    await gpu.destroy().catch(() => undefined);
    throw error;
  }
}

/**
 * Starts gpu.js in `mode`, or in the best mode that runs here. The mode is what truly computed a kernel: gpu.js itself falls back
 * to the host without a word.
 * @throws {BackendError} saying what the mode needs
 */
export async function start(
  library: GpuLibrary,
  mode: GpuMode | undefined,
): Promise<{ gpu: GpuInstance; mode: GpuMode }> {
  if (mode !== undefined && !gpuModes.includes(mode)) {
    throw new ArgumentError(`init: unknown mode "${String(mode)}" (known: ${gpuModes.join(", ")})`);
  }
  const reasons: string[] = [];
  for (const candidate of mode ? [mode] : gpuModes) {
    try {
      return { gpu: await tryMode(library, candidate), mode: candidate };
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      if (mode) {
        throw new BackendError(`the gpu backend cannot run in mode ${mode}: ${advice[mode]} (${reason})`, {
          cause: error,
        });
      }
      reasons.push(`${candidate}: ${reason}`);
    }
  }
  throw new BackendError(`the gpu backend runs in no mode here (${reasons.join("; ")})`);
}
