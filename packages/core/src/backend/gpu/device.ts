// Arrays on the device, and the order in which kernels make them. An array is written once, by the kernel that makes it, and never
// changes: whoever overwrites a buffer gets a new array, so that no kernel can read what a later one wrote.

import { BackendError } from "../../errors.js";
import { type CachedKernel, KernelCache } from "./kernel-cache.js";
import {
  type GpuInstance,
  type GpuLibrary,
  type GpuMode,
  type KernelResult,
  modeOf,
  type WebGpuContext,
} from "./library.js";
import { type DeviceLimits, inputsOf, largestTile } from "./limits.js";

/** A stretch of an array, as long as the device can hold in one piece; counted by its holders. */
export interface Tile {
  readonly length: number;
  /** Null until the kernel that makes it ran. */
  result: KernelResult | null;
  references: number;
  /** What made it and reads it back; null for arrays that the host holds. */
  readonly maker: CachedKernel | null;
}

/** Float values on the device: tiles of {@link Device.largest} elements, and a last one of what is left. */
export interface DeviceArray {
  readonly length: number;
  readonly tiles: readonly Tile[];
}

/** A kernel's argument: a tile, or a number. */
export type KernelArgument =
  | { readonly tile: Tile }
  | { readonly type: "Integer" | "Float"; readonly value: number };

const deviceLost = "gpu: the WebGPU device was lost; call init() again";
const contextLost = "gpu: the WebGL context was lost; call init() again";

const storageAndCopies = 0x80 | 0x04 | 0x08;

export class Device {
  readonly mode: GpuMode;
  /** Elements of the largest array in one piece; a power of two, or Infinity. */
  readonly largest: number;
  /** Pieces that one kernel can read, or Infinity. */
  readonly mostInputs: number;
  /** Bytes of the arrays in use. */
  used = 0;
  peak = 0;
  readonly #library: GpuLibrary;
  readonly #gpu: GpuInstance;
  readonly #kernels: KernelCache;
  readonly #tables = new Map<Float32Array, DeviceArray>();
  /** WebGPU runs kernels in order, each after the one before was submitted. */
  #queue: Promise<void> = Promise.resolve();
  #context: WebGpuContext | null = null;
  #failure: BackendError | null = null;

  private constructor(library: GpuLibrary, gpu: GpuInstance, mode: GpuMode, limits: DeviceLimits) {
    this.#library = library;
    this.#gpu = gpu;
    this.mode = mode;
    this.largest = limits.largest;
    this.mostInputs = limits.mostInputs;
    this.#kernels = new KernelCache(gpu, mode, this.onHost);
  }

  /** @param limits - lower limits than the device's own */
  static async create(
    library: GpuLibrary,
    gpu: GpuInstance,
    mode: GpuMode,
    limits: Partial<DeviceLimits> = {},
  ): Promise<Device> {
    const context = mode === "webgpu" ? await library.WebGPUContext.acquire() : null;
    const { largest = Number.POSITIVE_INFINITY, mostInputs = Number.POSITIVE_INFINITY } = limits;
    const device = new Device(library, gpu, mode, {
      largest: Math.min(largest, largestTile(gpu, context)),
      mostInputs: Math.min(mostInputs, inputsOf(gpu, context)),
    });
    device.#context = context;
    void context?.device.lost.then(() => {
      device.#failure ??= new BackendError(deviceLost);
    });
    return device;
  }

  /** True when results lie in this process's memory. */
  get onHost(): boolean {
    return this.mode === "webasm" || this.mode === "cpu";
  }

  /** Why nothing can run any more; null while all is well. */
  get failure(): BackendError | null {
    if (this.#context?.isLost) this.#failure ??= new BackendError(deviceLost);
    if (this.#gpu.context?.isContextLost?.()) this.#failure ??= new BackendError(contextLost);
    return this.#failure;
  }

  get cachedKernels(): number {
    return this.#kernels.size;
  }

  /** Kernels that were compiled since the start. */
  get compiled(): number {
    return this.#kernels.compiled;
  }

  /** Runs `source` for `length` threads, `largest` at most. The caller owns the result. @throws {BackendError} when the device was lost */
  run(source: string, args: readonly KernelArgument[], length: number): Tile {
    if (this.failure) throw this.failure;
    const inputs = args.filter((argument) => "tile" in argument).length;
    if (inputs > this.mostInputs) {
      throw new BackendError(
        `gpu: an operation reads ${inputs} textures or buffers at once, and mode ${this.mode} reads ${this.mostInputs} here: its tensors are too large for this device`,
      );
    }
    const kernel = this.#kernels.get(source, args, length);
    const output = this.#track({ length, result: null, references: 1, maker: this.onHost ? null : kernel });
    if (output.maker) output.maker.live++;
    if (this.mode !== "webgpu") {
      output.result = this.#launch(kernel, args) as KernelResult;
      return output;
    }
    kernel.live++;
    for (const argument of args) if ("tile" in argument) argument.tile.references++;
    this.#enqueue(async () => {
      try {
        output.result = await this.#launch(kernel, args);
        if (output.references === 0) this.#destroy(output);
      } finally {
        for (const argument of args) if ("tile" in argument) this.#release(argument.tile);
        this.#kernels.letGo(kernel);
      }
    });
    return output;
  }

  /** The values as an array on the device; they are copied, or already on their way when this returns. */
  upload(values: Float32Array): DeviceArray {
    const tiles: Tile[] = [];
    for (let from = 0; from < values.length; from += this.largest) {
      tiles.push(this.#uploadTile(values.subarray(from, Math.min(from + this.largest, values.length))));
    }
    return { length: values.length, tiles };
  }

  /** Constants, uploaded once and kept; they are not counted. */
  table(values: Float32Array): DeviceArray {
    let array = this.#tables.get(values);
    if (!array) {
      array = this.upload(values);
      this.used -= 4 * values.length;
      this.#tables.set(values, array);
    }
    return array;
  }

  #uploadTile(values: Float32Array): Tile {
    if (this.failure) throw this.failure;
    if (this.onHost) {
      return this.#track({ length: values.length, result: values.slice(), references: 1, maker: null });
    }
    const kernel = this.#kernels.get(
      "function (x) { return x[this.thread.x]; }",
      [{ length: values.length }],
      values.length,
    );
    kernel.live++;
    const tile = this.#track({ length: values.length, result: null, references: 1, maker: kernel });
    if (this.#context) tile.result = this.#uploadBuffer(kernel, values, this.#context);
    else tile.result = this.#detach(kernel, kernel.run!(values) as KernelResult);
    return tile;
  }

  #uploadBuffer(kernel: CachedKernel, values: Float32Array, context: WebGpuContext): KernelResult {
    const buffer = context.device.createBuffer({ size: values.byteLength, usage: storageAndCopies });
    context.device.queue.writeBuffer(buffer, 0, values);
    // Reading goes through the kernel, which learns of its device when it is first run; this one never is.
    kernel.run!.kernel._device ??= context.device;
    return new this.#library.WebGPUBufferResult({
      buffer,
      output: [values.length],
      context,
      kernel: kernel.run!.kernel,
    });
  }

  /** The values of `array`. @throws {BackendError} when the device was lost */
  async download(array: DeviceArray): Promise<Float32Array> {
    this.retain(array);
    try {
      await this.#queue;
      const { tiles } = array;
      if (tiles.length === 1) return await this.#downloadTile(tiles[0]);
      const values = new Float32Array(array.length);
      for (const [i, tile] of tiles.entries()) {
        values.set(await this.#downloadTile(tile), i * this.largest);
      }
      return values;
    } catch (error) {
      // The browser tells of a lost device shortly after the reads that it broke, on a busy machine later.
      if (this.#context) {
        let timer: ReturnType<typeof setTimeout> | undefined;
        const soon = new Promise((resolve) => {
          timer = setTimeout(resolve, 3000);
        });
        await Promise.race([this.#context.device.lost, soon]);
        clearTimeout(timer);
      }
      throw this.failure ?? this.#toBackendError(error);
    } finally {
      this.release(array);
    }
  }

  /** Resolves when all that was launched so far is computed. @throws {BackendError} when the device was lost */
  async finish(): Promise<void> {
    if (this.onHost) return;
    // Devices work in order: what is launched last is done last.
    const before = this.upload(new Float32Array(1));
    const source = "function (x) { return x[this.thread.x] + 1.0; }";
    const after = { length: 1, tiles: [this.run(source, [{ tile: before.tiles[0] }], 1)] };
    this.release(before);
    try {
      await this.download(after);
    } finally {
      this.release(after);
    }
  }

  async #downloadTile({ result }: Tile): Promise<Float32Array> {
    if (this.failure) throw this.failure;
    if (result === null) throw new BackendError("gpu: an array was read that no kernel made");
    if (result instanceof Float32Array) return result;
    const values = await result.toArray();
    if (this.failure) throw this.failure;
    return values;
  }

  retain(array: DeviceArray): DeviceArray {
    for (const tile of array.tiles) tile.references++;
    return array;
  }

  release(array: DeviceArray): void {
    for (const tile of array.tiles) this.#release(tile);
  }

  #release(tile: Tile): void {
    if (--tile.references > 0) return;
    this.used -= 4 * tile.length;
    if (tile.result) this.#destroy(tile);
  }

  /** Frees all kernels. */
  destroy(): void {
    this.#kernels.clear();
    this.#failure ??= new BackendError("gpu: the backend was shut down");
    void this.#queue.then(() => this.#gpu.destroy()).catch(() => undefined);
  }

  #track(tile: Tile): Tile {
    this.used += 4 * tile.length;
    this.peak = Math.max(this.peak, this.used);
    return tile;
  }

  #destroy(tile: Tile): void {
    if (tile.result && !(tile.result instanceof Float32Array)) tile.result.delete();
    tile.result = null;
    if (tile.maker) this.#kernels.letGo(tile.maker);
  }

  #toBackendError(error: unknown): BackendError {
    if (error instanceof BackendError) return error;
    const text = error instanceof Error ? error.message : String(error);
    return new BackendError(`gpu (${this.mode}): ${text.slice(0, 2000)}`, { cause: error });
  }

  #enqueue(job: () => Promise<void>): void {
    this.#queue = this.#queue.then(async () => {
      try {
        await job();
      } catch (error) {
        this.#failure ??= this.#toBackendError(error);
      }
    });
  }

  #launch(kernel: CachedKernel, args: readonly KernelArgument[]): KernelResult | Promise<KernelResult> {
    const values = args.map((argument) => ("tile" in argument ? argument.tile.result : argument.value));
    try {
      const result = kernel.run!(...values);
      if (result instanceof Promise) return result.then((value) => this.#detach(kernel, value));
      return this.#detach(kernel, result);
    } catch (error) {
      throw this.#toBackendError(error);
    }
  }

  /**
   * Makes the result ours alone. gpu.js's kernels hold on to what they made last, which would keep it on the device after it was
   * freed; and when a kernel is replaced by another behind our back, results are wrong or slow, so that is an error.
   */
  #detach(kernel: CachedKernel, result: KernelResult): KernelResult {
    const { kernel: internals } = kernel.run!;
    const ran = modeOf(this.#library, internals);
    if (ran !== this.mode) {
      throw new BackendError(
        `gpu: a kernel ran as ${ran} instead of ${this.mode} (${internals.fallbackReason ?? "no reason given"})`,
      );
    }
    if (internals.texture) {
      const { texture } = internals.texture;
      texture._refs--;
      const at = internals.textureCache?.indexOf(texture) ?? -1;
      if (at >= 0) internals.textureCache!.splice(at, 1);
      // Two owners make gpu.js take a new texture at the next run.
      internals.texture.texture = { _refs: 2 };
    }
    if (internals.outputBuffer) {
      internals.outputBuffer._refs--;
      internals.outputBuffer = null;
      internals.bindGroupDirty = true;
    }
    return result;
  }
}
