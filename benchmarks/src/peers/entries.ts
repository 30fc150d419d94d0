// Entries of the cases that peers can do, by this library and by every peer, next to each other so that they are measured
// within moments of each other.

import type { Entry, Prepared } from "../model.js";
import { nomoatEntry } from "../suites/suite.js";
import type { PeerCase } from "./cases/case.js";
import type { PeerPool } from "./pool.js";
import type { Peer } from "./registry.js";

async function preparePeer(pool: PeerPool, peer: Peer, threads: number, one: PeerCase): Promise<Prepared> {
  const { host } = await pool.get(peer, threads);
  await host.ask({ do: "prepare", task: await one.task() });
  const time = async (calls: number): Promise<number> => (await host.ask({ do: "time", calls })).seconds!;
  return {
    run: () => time(1),
    time,
    async verify() {
      const { values = "" } = await host.ask({ do: "result", places: one.places ?? null });
      const bytes = Buffer.from(values, "base64");
      return one.check(new Float32Array(Uint8Array.from(bytes).buffer));
    },
    dispose: () =>
      host.ask({ do: "dispose" }).then(
        () => undefined,
        () => undefined,
      ),
  };
}

export interface EntriesRequest {
  readonly pool: PeerPool;
  readonly chosen: readonly Peer[];
  readonly cases: readonly PeerCase[];
  readonly threads: readonly number[];
  /** Of this library. */
  readonly version: string;
  /** Whether to start the peers, to learn their versions. */
  readonly start: boolean;
}

/** Entries by case: ours on each thread count, then the peers'. */
export async function peerEntries(request: EntriesRequest): Promise<Entry[]> {
  const { pool, chosen, cases, threads, version } = request;
  const versions = new Map<string, string>();
  const start = async (peer: Peer): Promise<void> => {
    // A peer that does not start stays in the list: the reason is its result.
    const started = await pool.get(peer, threads[0]).catch(() => null);
    versions.set(peer.name, started?.version ?? "unknown");
  };
  if (request.start) await Promise.all(chosen.map(start));
  return cases.flatMap((one) =>
    threads.flatMap((count) => [
      nomoatEntry(one, "wasm", count, version),
      ...chosen
        .filter((peer) => peer.kinds.includes(one.kind))
        .filter((peer) => count <= peer.mostThreads)
        .map(
          (peer): Entry => ({
            ...{ suite: one.suite, name: one.name, parameters: one.parameters, work: one.work },
            implementation: { name: peer.name, version: versions.get(peer.name) ?? "unknown" },
            backend: peer.backend,
            threads: count,
            rate: peer.rate * (peer.native ? count : 1),
            prepare: () => preparePeer(pool, peer, count, one),
          }),
        ),
    ]),
  );
}
