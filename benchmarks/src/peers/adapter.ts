// What a peer's adapter is. It runs in the peer's own process.

import type { Task } from "./protocol.js";

/** A task with its inputs made. */
export interface PeerJob {
  /** One call; a promise is awaited. */
  run(): unknown;
  /** The result of one call. */
  result(): Promise<ArrayLike<number>> | ArrayLike<number>;
  dispose(): void;
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
  version(name: string): string;
  /** The peer's folder. */
  readonly folder: string;
  readonly threads: number;
}

export type Adapter = (context: PeerContext) => Promise<PeerSession>;

/** Says that a peer lacks an operation. */
export function unsupported(what: string): never {
  throw new Error(`has no ${what}`);
}
