// Peers' processes, started when first needed.

import { packageFile } from "../machine.js";
import { BenchError } from "../model.js";
import { programArguments } from "../program.js";
import { BrowserHost } from "./browser-host.js";
import { folderOf, isInstalled } from "./install.js";
import { type PeerHost, PeerProcess } from "./protocol.js";
import type { Peer } from "./registry.js";

export interface RunningPeer {
  readonly host: PeerHost;
  readonly version: string;
}

/** How often a peer that has crashed is started again. */
const mostRestarts = 3;

export class PeerPool {
  readonly #restarts = new Map<string, number>();
  readonly #running = new Map<string, Promise<RunningPeer>>();
  readonly #pythons: readonly string[];
  readonly #reasons: ReadonlyMap<Peer, string>;

  /**
   * @param pythons - commands, of which the first that has a peer's library is taken
   * @param reasons - why peers cannot run, where that is known
   */
  constructor(pythons: readonly string[], reasons: ReadonlyMap<Peer, string>) {
    this.#pythons = pythons;
    this.#reasons = reasons;
  }

  /**
   * The peer's process: one that has crashed is started again, since another case may be well.
   *
   * @throws {BenchError} with the reason why the peer does not run, each time the same
   */
  async get(peer: Peer, threads: number): Promise<RunningPeer> {
    const key = `${peer.name} ${threads}`;
    const known = this.#running.get(key);
    if (known) {
      const running = await known;
      const restarts = this.#restarts.get(key) ?? 0;
      if (!running.host.ended || restarts >= mostRestarts) return running;
      this.#restarts.set(key, restarts + 1);
    }
    const started = this.#start(peer, threads);
    this.#running.set(key, started);
    return started;
  }

  async #start(peer: Peer, threads: number): Promise<RunningPeer> {
    const reason = this.#reasons.get(peer);
    if (reason) throw new BenchError(reason);
    if (!isInstalled(peer)) throw new BenchError("is not installed; --install does that");
    let failure: unknown;
    for (const make of this.#hosts(peer, threads)) {
      let host: PeerHost | null = null;
      try {
        host = await make();
        const start = { do: "start", peer: peer.name, folder: folderOf(peer), threads } as const;
        return { host, version: (await host.ask(start)).version ?? "unknown" };
      } catch (error) {
        failure ??= error;
        host?.close();
      }
    }
    throw failure;
  }

  /** Ways to start a peer, of which the first that works is taken. */
  #hosts(peer: Peer, threads: number): (() => PeerHost | Promise<PeerHost>)[] {
    if (peer.language === "browser") return [() => BrowserHost.start(folderOf(peer))];
    const count = String(threads);
    const environment = { OMP_NUM_THREADS: count, OPENBLAS_NUM_THREADS: count, MKL_NUM_THREADS: count };
    if (peer.language === "python") {
      const script = packageFile("python", "host.py");
      return this.#pythons.map((python) => () => new PeerProcess(python, [script], environment));
    }
    const args = programArguments("host", "peers/host");
    return [() => new PeerProcess(process.execPath, args, environment)];
  }

  close(): void {
    for (const running of this.#running.values())
      running.then(({ host }) => host.close()).catch(() => undefined);
    this.#running.clear();
  }
}
