// Reference-counted memory of one backend. Tensors and saved tensors hold references; views share one storage.

import type { Backend, BufferHandle } from "./backend/types.js";
import { BackendError } from "./errors.js";
import { runtime } from "./runtime.js";

export class Storage {
  readonly backend: Backend;
  readonly buffer: BufferHandle;
  /** Counts writes in place, so that autograd can tell that a saved tensor was changed. */
  version = 0;
  #references = 1;

  /** @throws {OutOfMemoryError} leaving everything usable */
  constructor(backend: Backend, bytes: number) {
    this.backend = backend;
    this.buffer = backend.alloc(bytes);
    runtime.liveStorages++;
    runtime.liveBytes += bytes;
  }

  /** True when exactly one tensor holds it, so that it may be written in place. */
  get exclusive(): boolean {
    return this.#references === 1;
  }

  retain(): this {
    this.#references++;
    return this;
  }

  release(): void {
    if (--this.#references === 0) {
      runtime.liveStorages--;
      runtime.liveBytes -= this.buffer.bytes;
      this.backend.free(this.buffer);
    } else if (this.#references < 0) {
      throw new BackendError("storage released more often than it was retained");
    }
  }
}
