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
  maximumFloats,
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
  /** How long a worker may stay silent in a job, at most, before the caller gives up on it. */
  readonly deadlineMilliseconds: number;
  /** How long it may at least, however short a chunk of the job is for the caller. Default 5 s. */
  readonly leastDeadlineMilliseconds?: number;
  /** How long an idle thread looks for work, or for the others' end, before it sleeps. */
  readonly spinMicroseconds: number;
  /** Whether kernels may use relaxed SIMD. Default: no. */
  readonly relaxed?: boolean;
  /** How to start a thread; tests put themselves in between. */
  readonly startWorker?: typeof startWorker;
}

/** Workers that share a control block, and what they may write to until the last of them has ended. */
interface Crew {
  /** Address of the control block. */
  readonly control: number;
  readonly words: Int32Array;
  readonly floats: Float64Array;
  readonly workers: WorkerHandle[];
  /** Scratch address by thread, 0 for none, and the bytes of each. Thread 0 is the caller. */
  readonly scratch: number[];
  readonly scratchBytes: number[];
  /** A worker has ended or hung: the crew is not used again. */
  broken: boolean;
  /** Workers that have not ended. */
  alive: number;
}

const minimumScratch = 16384;
/** How many times as long as the caller, on average, a worker may take for a chunk before it counts as lost. */
const patience = 1000;
/** Most that one look at a silent worker counts: a machine that was suspended was not waiting. */
const lookMilliseconds = 50;
/** Workers that may end before they ever ran; then the pool goes on without workers. */
const failedStartsLimit = 3;

export class ThreadPool {
  /** What kernel modules import. */
  readonly imports: { readonly memory: WebAssembly.Memory; readonly relaxed: number };
  readonly #memory: SharedMemory;
  readonly #allocator: Allocator;
  readonly #options: PoolOptions;
  /** Whether the calling thread may wait: not the main thread of a page. */
  readonly mayBlock: boolean;
  /** Address and length of the modules' bytes. */
  readonly #modules: [address: number, bytes: number][] = [];
  #threads: number;
  #crew: Crew;
  #failedStarts = 0;
  #running: string | undefined;
  #stopped = false;

  constructor(memory: SharedMemory, allocator: Allocator, options: PoolOptions) {
    this.#memory = memory;
    this.imports = { memory: memory.memory, relaxed: Number(options.relaxed ?? false) };
    this.#allocator = allocator;
    this.#options = options;
    this.#threads = clampThreads(options.threads);
    this.#crew = this.#newCrew();
    this.mayBlock = mayBlock(this.#crew.words);
  }

  get threads(): number {
    return this.#threads;
  }

  /** Ends the workers; new ones, one fewer than `count`, start with the next work that is large enough. */
  resize(count: number): void {
    if (clampThreads(count) === this.#threads) return;
    this.#replaceCrew();
    this.#threads = clampThreads(count);
  }

  /** Makes a wasm module's bytes known to the workers; returns its number. */
  addModule(bytes: Uint8Array): number {
    if (this.#modules.length === maximumModules) throw new BackendError("wasm: too many kernel modules");
    const address = this.#allocator.allocateUncounted(bytes.length);
    this.#memory.u8().set(bytes, address);
    const number = this.#modules.push([address, bytes.length]) - 1;
    this.#publishModules(this.#crew.words);
    return number;
  }

  /**
   * Runs a kernel over `units` in chunks of `grain`, with up to 96 integers and 16 doubles as arguments.
   *
   * @throws {BackendError} when the kernel traps, when a worker dies or stays silent past the deadline, when another
   * kernel is running, or after `stop`
   * @throws {OutOfMemoryError} when there is no room for scratch memory; nothing has run then
   */
  run(
    kernel: KernelEntry,
    units: number,
    grain: number,
    scratchBytes: number,
    ints: ArrayLike<number>,
    floats: readonly number[],
  ): void {
    if (this.#running !== undefined) {
      throw new BackendError(`wasm: kernel "${kernel.name}" was called inside kernel "${this.#running}"`);
    }
    if (this.#stopped) throw new BackendError(`wasm: kernel "${kernel.name}" was called after shutdown()`);
    const chunks = Math.ceil(units / grain);
    const participants = this.#failedStarts < failedStartsLimit ? Math.min(this.#threads, chunks) : 1;
    if (participants > 1 && (this.#crew.broken || this.#crew.workers.length === 0)) this.start();
    const crew = this.#crew;
    for (let i = 0; i < participants; i++) {
      if (scratchBytes > crew.scratchBytes[i]) this.#growScratch(i, scratchBytes);
    }
    for (let i = 0; i < ints.length; i++) crew.words[control.args + i] = ints[i];
    for (let i = 0; i < floats.length; i++) crew.floats[i] = floats[i];
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
    if (this.#crew.broken) this.#replaceCrew();
    const crew = this.#crew;
    const start = this.#options.startWorker ?? startWorker;
    while (
      crew.workers.length < this.#threads - 1 &&
      this.#failedStarts < failedStartsLimit &&
      !this.#stopped
    ) {
      const index = crew.workers.length + 1;
      const { spinMicroseconds } = this.#options;
      const data = { ...this.imports, control: crew.control, index, spinMicroseconds };
      try {
        crew.workers.push(start(data, () => this.#ended(crew, index)));
        crew.alive++;
      } catch (cause) {
        this.#startFailed(cause);
      }
    }
  }

  /**
   * Starts the workers and waits until they run, or `milliseconds` are over. Where the caller may not block, it only looks.
   *
   * @returns how many run
   */
  waitUntilReady(milliseconds: number): number {
    this.start();
    const { words, workers } = this.#crew;
    const deadline = performance.now() + milliseconds;
    let ready = 0;
    for (let i = 1; i <= workers.length; i++) {
      const word = threadWord(i) + thread.ready;
      const left = deadline - performance.now();
      if (this.mayBlock && left > 0) Atomics.wait(words, word, 0, left);
      ready += Atomics.load(words, word);
    }
    return ready;
  }

  /** Ends the workers for good. */
  stop(): void {
    this.#stopped = true;
    this.#dismiss(this.#crew);
  }

  #runAlone(kernel: KernelEntry, units: number, grain: number): void {
    const args = this.#crew.control + control.args * 4;
    const scratch = this.#crew.scratch[0];
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
    const { words, scratch } = this.#crew;
    for (let i = 1; i < participants; i++) {
      words[threadWord(i) + thread.scratch] = scratch[i];
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
    const args = this.#crew.control + control.args * 4;
    const start = performance.now();
    let own = 0;
    try {
      for (let chunk: number; (chunk = Atomics.add(words, control.next, 1)) < chunks; own++) {
        const begin = chunk * grain;
        kernel.run(args, begin, Math.min(begin + grain, units), scratch[0]);
      }
    } catch (cause) {
      Atomics.store(words, control.next, 0x40000000);
      failure = kernelFailed(kernel, cause);
    }
    Atomics.add(words, control.sequence, 1);
    const chunkTime = own > 0 ? (performance.now() - start) / own : Number.POSITIVE_INFINITY;
    for (let i = 1; i < participants; i++) {
      if (Atomics.load(words, threadWord(i)) !== 0) this.#join(kernel, i, chunkTime);
      const length = words[threadWord(i) + thread.failed];
      if (length > 0) failure ??= kernelFailed(kernel, this.#message(i, length));
    }
    if (failure) throw failure;
  }

  /** Waits until worker `index` has left the job that was just closed, of whose chunks one took the caller `chunkTime` milliseconds. */
  #join(kernel: KernelEntry, index: number, chunkTime: number): void {
    const { words, workers } = this.#crew;
    const busy = threadWord(index);
    const start = performance.now();
    // A short look: where processors are short, the worker may be waiting for this very one.
    const spin = Math.min(20, this.#options.spinMicroseconds) / 1000;
    do {
      for (let i = 0; i < 64; i++) if (Atomics.load(words, busy) === 0) return;
    } while (performance.now() - start < spin);
    const { deadlineMilliseconds, leastDeadlineMilliseconds = 5000 } = this.#options;
    const deadline = Math.min(
      deadlineMilliseconds,
      Math.max(leastDeadlineMilliseconds, patience * chunkTime),
    );
    let beat = Atomics.load(words, busy + thread.beat);
    let silent = 0;
    let looked = performance.now();
    Atomics.store(words, control.callerWaits, 1);
    try {
      while (Atomics.load(words, busy) !== 0) {
        const now = performance.now();
        silent += Math.min(now - looked, 2 * lookMilliseconds);
        looked = now;
        const latest = Atomics.load(words, busy + thread.beat);
        if (latest !== beat) silent = 0;
        beat = latest;
        if (silent > deadline || workers[index - 1]?.dead()) {
          this.#crew.broken = true;
          throw new BackendError(
            `wasm: worker ${index} died or hung in kernel "${kernel.name}"; its output is incomplete. ` +
              "The pool is rebuilt with the next call",
          );
        }
        if (this.mayBlock) Atomics.wait(words, busy, 1, Math.min(lookMilliseconds, deadline));
      }
    } finally {
      Atomics.store(words, control.callerWaits, 0);
    }
  }

  #message(index: number, length: number): string {
    const start = this.#crew.control + 4 * (threadWord(index) + thread.message);
    const bytes = this.#memory.u8().subarray(start, start + Math.min(length, messageBytes));
    return String.fromCharCode(...bytes);
  }

  #ended(crew: Crew, index: number): void {
    crew.alive--;
    crew.broken = true;
    if (crew === this.#crew) {
      const ran = Atomics.load(crew.words, threadWord(index) + thread.ready) === 1;
      if (!ran && !this.#stopped) this.#startFailed();
    } else if (crew.alive === 0) {
      for (const address of [crew.control, ...crew.scratch]) {
        if (address) this.#allocator.freeUncounted(address);
      }
    }
  }

  #startFailed(cause?: unknown): void {
    if (++this.#failedStarts !== failedStartsLimit) return;
    const reason = cause instanceof Error ? `: ${cause.message}` : "";
    const text = `nomoat: workers cannot be started, going on with one thread${reason}`;
    const host = globalThis.process as NodeJS.Process | undefined;
    if (host) host.emitWarning(text);
    else console.warn(text);
  }

  /** Tells a crew's workers to end. They may run on for a while, so their memory is freed when the last has ended. */
  #dismiss(crew: Crew): void {
    Atomics.store(crew.words, control.stop, 1);
    Atomics.add(crew.words, control.sequence, 2);
    Atomics.notify(crew.words, control.sequence);
    for (const worker of crew.workers) worker.terminate();
  }

  #replaceCrew(): void {
    const old = this.#crew;
    this.#crew = this.#newCrew();
    this.#dismiss(old);
    if (old.workers.length === 0) this.#allocator.freeUncounted(old.control);
  }

  #newCrew(): Crew {
    const address = this.#allocator.allocateUncounted(controlBytes);
    const buffer = this.#memory.memory.buffer;
    const words = new Int32Array(buffer, address, controlBytes / 4).fill(0);
    this.#publishModules(words);
    return {
      control: address,
      words,
      floats: new Float64Array(buffer, address + control.args * 4 + intArgumentBytes, maximumFloats),
      workers: [],
      scratch: new Array(maximumThreads).fill(0),
      scratchBytes: new Array(maximumThreads).fill(0),
      broken: false,
      alive: 0,
    };
  }

  #publishModules(words: Int32Array): void {
    for (const [i, [address, bytes]] of this.#modules.entries()) {
      words[control.modules + 1 + 2 * i] = address;
      words[control.modules + 2 + 2 * i] = bytes;
    }
    words[control.modules] = this.#modules.length;
  }

  #growScratch(index: number, bytes: number): void {
    const { scratch, scratchBytes } = this.#crew;
    const size = Math.max(minimumScratch, 2 ** Math.ceil(Math.log2(bytes)));
    const address = this.#allocator.allocateUncounted(size);
    if (scratch[index]) this.#allocator.freeUncounted(scratch[index]);
    scratch[index] = address;
    scratchBytes[index] = size;
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
