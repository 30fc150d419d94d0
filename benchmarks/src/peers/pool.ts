// Peers' processes, started when first needed.

import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { packageFile } from "../machine.js";
import { BenchError } from "../model.js";
import { BrowserHost } from "./browser-host.js";
import { folderOf, isInstalled } from "./install.js";
import { type PeerHost, PeerProcess } from "./protocol.js";
import type { Peer } from "./registry.js";

export interface RunningPeer {
  readonly host: PeerHost;
  readonly version: string;
}

/** What Node needs to run this package's sources, where this process has it from elsewhere (a test runner). */
function sourceLoader(here: string): string[] {
  if (!here.endsWith(".ts") || process.execArgv.some((one) => /^tsx$|\/tsx\/dist\//.test(one))) return [];
  const loader = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;
  return ["--conditions", "@nomoat/source", "--import", loader];
}

export class PeerPool {
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

  /** @throws {BenchError} with the reason why the peer does not run, each time the same */
  get(peer: Peer, threads: number): Promise<RunningPeer> {
    const key = `${peer.name} ${threads}`;
    let running = this.#running.get(key);
    if (!running) {
      running = this.#start(peer, threads);
      this.#running.set(key, running);
    }
    return running;
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
    const here = fileURLToPath(import.meta.url);
    const host = join(dirname(here), here.endsWith(".ts") ? "host.ts" : "host.js");
    const args = [...process.execArgv, ...sourceLoader(here), host];
    return [() => new PeerProcess(process.execPath, args, environment)];
  }

  close(): void {
    for (const running of this.#running.values())
      running.then(({ host }) => host.close()).catch(() => undefined);
    this.#running.clear();
  }
}
