// The threads that kernels run on: the caller and its workers, fork and join over chunks of a kernel's units. The
// caller never waits for a worker to begin: whoever is there claims chunks, and the join waits only for those that
// others have claimed. Knows nothing of tensors.

import { BackendError } from "../../errors.js";
import type { Allocator } from "./allocator.js";
import type { SharedMemory } from "./memory.js";
import { startWorker, type WorkerHandle } from "./worker.js";
import {
  control,
  controlBytes,
  intArgumentBytes,
  maximumModules,
  maximumThreads,
  messageBytes,
  thread,
  threadWords,
} from "./worker-source.js";

/** A kernel: works on units `begin` to `end`, with arguments at `args` and the thread's own scratch memory. */
export type KernelFunction = (args: number, begin: number, end: number, scratch: number) => void;

/** Where a kernel stands in the modules that the pool knows. */
export interface KernelEntry {
  readonly name: string;
  readonly module: number;
  readonly index: number;
  readonly run: KernelFunction;
}

export interface PoolOptions {
  readonly threads: number;
  /** How long a worker may stay silent in a job before the caller gives up on it. */
  readonly deadlineMilliseconds: number;
  /** How long an idle thread looks for work, or for the others' end, before it sleeps. */
  readonly spinMicroseconds: number;
}

const minimumScratch = 16384;

export class ThreadPool {
  #threads!: number;
  readonly #memory: SharedMemory;
  readonly #allocator: Allocator;
  readonly #options: PoolOptions;
  readonly #mayBlock: boolean;
  /** Address and length of the modules' bytes. */
  readonly #modules: [address: number, bytes: number][] = [];
  #control!: number;
  #words!: Int32Array;
  #floats!: Float64Array;
  #workers: WorkerHandle[] = [];
  #broken = false;
  #running: string | undefined;
  #stopped = false;
  /** Scratch address by thread, and the bytes of each. */
  readonly #scratch: number[] = [];
  readonly #scratchBytes: number[] = [];

  constructor(memory: SharedMemory, allocator: Allocator, options: PoolOptions) {
    this.#memory = memory;
    this.#allocator = allocator;
    this.#options = options;
    this.#threads = clampThreads(options.threads);
    this.#makeControl();
    this.#mayBlock = mayBlock(this.#words);
  }

  get threads(): number {
    return this.#threads;
  }

  /** Ends the workers; new ones, one fewer than `count`, start with the next work that is large enough. */
  resize(count: number): void {
    if (clampThreads(count) === this.#threads) return;
    this.#rebuild();
    this.#threads = clampThreads(count);
  }

  /** Puts a kernel's arguments into the argument block. */
  setArguments(ints: readonly number[], floats: readonly number[]): void {
    const words = this.#words;
    for (let i = 0; i < ints.length; i++) words[control.args + i] = ints[i];
    for (let i = 0; i < floats.length; i++) this.#floats[i] = floats[i];
  }

  /** Makes a wasm module's bytes known to the workers; returns its number. */
  addModule(bytes: Uint8Array): number {
    if (this.#modules.length === maximumModules) throw new BackendError("wasm: too many kernel modules");
    const address = this.#allocator.allocateUncounted(bytes.length);
    this.#memory.u8().set(bytes, address);
    const number = this.#modules.push([address, bytes.length]) - 1;
    this.#publishModules();
    return number;
  }

  /**
   * Runs a kernel over `units` in chunks of `grain`. The arguments stand in the argument block already.
   *
   * @throws {BackendError} when the kernel traps, when a worker dies or stays silent past the deadline, when another
   * kernel is running, or after `stop`
   * @throws {OutOfMemoryError} when there is no room for scratch memory; nothing has run then
   */
  run(kernel: KernelEntry, units: number, grain: number, scratchBytes: number): void {
    if (this.#running !== undefined) {
      throw new BackendError(`wasm: kernel "${kernel.name}" was called inside kernel "${this.#running}"`);
    }
    if (this.#stopped) throw new BackendError(`wasm: kernel "${kernel.name}" was called after shutdown()`);
    const chunks = Math.ceil(units / grain);
    const participants = Math.min(this.threads, chunks);
    for (let i = 0; i < participants; i++) {
      if (scratchBytes > (this.#scratchBytes[i] ?? 0)) this.#growScratch(i, scratchBytes);
    }
    this.#running = kernel.name;
    try {
      if (participants === 1) this.#runAlone(kernel, units, grain);
      else this.#runTogether(kernel, units, grain, chunks, participants);
    } finally {
      this.#running = undefined;
    }
  }

  /** Starts workers that are not there yet; they join when they are up. */
  start(): void {
    if (this.#broken) this.#rebuild();
    while (this.#workers.length < this.threads - 1) {
      const workers = this.#workers;
      const index = workers.length + 1;
      workers.push(
        startWorker(
          {
            memory: this.#memory.memory,
            control: this.#control,
            index,
            spinMicroseconds: this.#options.spinMicroseconds,
          },
          () => {
            if (this.#workers === workers) this.#broken = true;
          },
        ),
      );
    }
  }

  /**
   * Starts the workers and waits until they run, or `milliseconds` are over. Where the caller may not block, it only looks.
   *
   * @returns how many run
   */
  waitUntilReady(milliseconds: number): number {
    this.start();
    const deadline = performance.now() + milliseconds;
    let ready = 0;
    for (let i = 1; i < this.threads; i++) {
      const word = threadWord(i) + thread.ready;
      const left = deadline - performance.now();
      if (this.#mayBlock && left > 0) Atomics.wait(this.#words, word, 0, left);
      ready += Atomics.load(this.#words, word);
    }
    return ready;
  }

  /** Ends the workers for good. */
  stop(): void {
    this.#stopped = true;
    this.#endWorkers();
  }

  #runAlone(kernel: KernelEntry, units: number, grain: number): void {
    const args = this.#control + control.args * 4;
    const scratch = this.#scratch[0] ?? 0;
    try {
      for (let begin = 0; begin < units; begin += grain) {
        kernel.run(args, begin, Math.min(begin + grain, units), scratch);
      }
    } catch (cause) {
      throw kernelFailed(kernel, cause);
    }
  }

  #runTogether(
    kernel: KernelEntry,
    units: number,
    grain: number,
    chunks: number,
    participants: number,
  ): void {
    if (this.#broken || this.#workers.length === 0) this.#startKeepingArguments();
    const words = this.#words;
    for (let i = 0; i < participants; i++) {
      words[threadWord(i) + thread.scratch] = this.#scratch[i] ?? 0;
      words[threadWord(i) + thread.failed] = 0;
    }
    words[control.participants] = participants;
    words[control.module] = kernel.module;
    words[control.kernel] = kernel.index;
    words[control.units] = units;
    words[control.grain] = grain;
    words[control.chunks] = chunks;
    Atomics.store(words, control.next, 0);
    Atomics.add(words, control.sequence, 1);
    if (Atomics.load(words, control.sleepers) > 0) Atomics.notify(words, control.sequence);

    let failure: BackendError | undefined;
    const args = this.#control + control.args * 4;
    const scratch = this.#scratch[0] ?? 0;
    try {
      for (let chunk: number; (chunk = Atomics.add(words, control.next, 1)) < chunks; ) {
        const begin = chunk * grain;
        kernel.run(args, begin, Math.min(begin + grain, units), scratch);
      }
    } catch (cause) {
      Atomics.store(words, control.next, 0x40000000);
      failure = kernelFailed(kernel, cause);
    }
    Atomics.add(words, control.sequence, 1);
    for (let i = 1; i < participants; i++) {
      if (Atomics.load(words, threadWord(i)) !== 0) this.#join(kernel, i);
      const length = words[threadWord(i) + thread.failed];
      if (length > 0) failure ??= kernelFailed(kernel, this.#message(i, length));
    }
    if (failure) throw failure;
  }

  /** Waits until worker `index` has left the job that was just closed. */
  #join(kernel: KernelEntry, index: number): void {
    const words = this.#words;
    const busy = threadWord(index);
    const start = performance.now();
    const spin = this.#options.spinMicroseconds / 1000;
    do {
      for (let i = 0; i < 64; i++) if (Atomics.load(words, busy) === 0) return;
    } while (performance.now() - start < spin);
    const deadline = start + this.#options.deadlineMilliseconds;
    Atomics.store(words, control.callerWaits, 1);
    try {
      while (Atomics.load(words, busy) !== 0) {
        if (performance.now() > deadline || this.#workers[index - 1]?.dead()) {
          this.#broken = true;
          throw new BackendError(
            `wasm: worker ${index} died or hung in kernel "${kernel.name}"; its output is incomplete. ` +
              "The pool is rebuilt with the next call",
          );
        }
        if (this.#mayBlock) Atomics.wait(words, busy, 1, Math.min(50, this.#options.deadlineMilliseconds));
      }
    } finally {
      Atomics.store(words, control.callerWaits, 0);
    }
  }

  #message(index: number, length: number): string {
    const start = this.#control + 4 * (threadWord(index) + thread.message);
    const bytes = this.#memory.u8().subarray(start, start + Math.min(length, messageBytes));
    return String.fromCharCode(...bytes);
  }

  #startKeepingArguments(): void {
    const args = this.#words.slice(control.args, control.threads);
    this.start();
    this.#words.set(args, control.args);
  }

  #endWorkers(): void {
    Atomics.store(this.#words, control.stop, 1);
    Atomics.add(this.#words, control.sequence, 2);
    Atomics.notify(this.#words, control.sequence);
    for (const worker of this.#workers) worker.terminate();
    this.#workers = [];
  }

  /** A control block for new workers. The old one, and what scratch its workers hold, is left to them for good. */
  #rebuild(): void {
    this.#endWorkers();
    this.#broken = false;
    this.#scratch.length = Math.min(this.#scratch.length, 1);
    this.#scratchBytes.length = this.#scratch.length;
    this.#makeControl();
  }

  #makeControl(): void {
    this.#control = this.#allocator.allocateUncounted(controlBytes);
    const buffer = this.#memory.memory.buffer;
    this.#words = new Int32Array(buffer, this.#control, controlBytes / 4).fill(0);
    this.#floats = new Float64Array(buffer, this.#control + control.args * 4 + intArgumentBytes, 16);
    this.#publishModules();
  }

  #publishModules(): void {
    const words = this.#words;
    for (const [i, [address, bytes]] of this.#modules.entries()) {
      words[control.modules + 1 + 2 * i] = address;
      words[control.modules + 2 + 2 * i] = bytes;
    }
    words[control.modules] = this.#modules.length;
  }

  #growScratch(index: number, bytes: number): void {
    const size = Math.max(minimumScratch, 2 ** Math.ceil(Math.log2(bytes)));
    const address = this.#allocator.allocateUncounted(size);
    if (this.#scratch[index]) this.#allocator.freeUncounted(this.#scratch[index]);
    this.#scratch[index] = address;
    this.#scratchBytes[index] = size;
  }
}

function clampThreads(count: number): number {
  return Math.max(1, Math.min(maximumThreads, count));
}

function threadWord(index: number): number {
  return control.threads + index * threadWords;
}

function kernelFailed(kernel: KernelEntry, cause: unknown): BackendError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new BackendError(`wasm: kernel "${kernel.name}" failed: ${reason}`, { cause });
}

/** The main thread of a browser must not block: there `Atomics.wait` throws. */
function mayBlock(words: Int32Array): boolean {
  try {
    Atomics.wait(words, 0, -1, 0);
    return true;
  } catch {
    return false;
  }
}
