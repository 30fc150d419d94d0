// What a peer's adapter is. It runs in the peer's own process, or in a page of its own.

import type { StoredTensors, Task } from "./protocol.js";
import type { Values } from "./stored.js";

/** A task with its inputs made. */
export interface PeerJob {
  /** One call; a promise is awaited. */
  run(): unknown;
  /** The result of one call. */
  result(): Promise<ArrayLike<number>> | ArrayLike<number>;
  dispose(): unknown;
}

export interface PeerSession {
  readonly version: string;
  /** @throws where the peer has no such operation */
  prepare(task: Task): Promise<PeerJob> | PeerJob;
}

export interface PeerContext {
  /** Imports a package from the peer's folder. */
  load(name: string): Promise<Record<string, unknown>>;
  /** The installed version of a package. */
  version(name: string): Promise<string>;
  /** Where a file of a package is: a path, or in a page an address. */
  place(name: string, file: string): string;
  tensors(stored: StoredTensors): Promise<Map<string, Values>>;
  /** Bytes of a file that a task names, in a page. */
  blob(file: string): Promise<Blob>;
  readonly threads: number;
}

export type Adapter = (context: PeerContext) => Promise<PeerSession>;

/** Says that a peer lacks an operation. */
export function unsupported(what: string): never {
  throw new Error(`has no ${what}`);
}
