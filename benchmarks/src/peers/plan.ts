// What a run with peers measures: which cases, by whom.

import type { Entry } from "../model.js";
import { type Product, products } from "../suites/gemm.js";
import type { Sweep } from "../suites/suite.js";
import { reasonOf } from "../titles.js";
import { closeBrowser } from "./browser-host.js";
import { type PeerCase, removeFiles } from "./cases/case.js";
import { generateCases } from "./cases/generate.js";
import { loraMlpCases } from "./cases/lora-mlp.js";
import { productCases } from "./cases/products.js";
import { quantCases } from "./cases/quant.js";
import { trainCases } from "./cases/train-step.js";
import { windowCases } from "./cases/windows.js";
import { peerEntries } from "./entries.js";
import { cacheFolder, installPeer, isInstalled } from "./install.js";
import { PeerPool } from "./pool.js";
import type { Peer } from "./registry.js";
import { startEntries } from "./start.js";

export interface PeerRequest {
  readonly chosen: readonly Peer[];
  readonly sweep: Sweep;
  readonly threads: readonly number[];
  /** Of this library. */
  readonly version: string;
  readonly install: boolean;
  readonly pythons: readonly string[];
  /** False for a mere list: no peer is started, so that versions are unknown. */
  readonly start: boolean;
}

export interface PeerPlan {
  readonly entries: readonly Entry[];
  close(): Promise<void>;
}

/** Installs what is missing; what failed to, with npm's reason. */
async function installAll(chosen: readonly Peer[]): Promise<Map<Peer, string>> {
  const reasons = new Map<Peer, string>();
  for (const peer of chosen) {
    if (isInstalled(peer)) continue;
    process.stderr.write(`installing ${peer.packages.join(", ")} into ${cacheFolder()}\n`);
    try {
      await installPeer(peer);
    } catch (error) {
      reasons.set(peer, reasonOf(error));
    }
  }
  return reasons;
}

/** Some peers take seconds for larger ones, so the sizes are few; small ones first, which tell how long large ones would take. */
function productsOf(sweep: Sweep): Product[] {
  const square = (size: number, pairs: readonly string[]): Product[] =>
    products({ ...sweep, sizes: [size] }).filter(({ transposes }) => pairs.includes(transposes));
  if (sweep.sizes) return sweep.sizes.flatMap((size) => square(size, ["NN", "NT", "TN"]));
  if (sweep.effort === "quick") return square(512, ["NN", "NT"]);
  const lowRank = products({ ...sweep, effort: "standard" }).filter(({ label }) =>
    ["X·A", "U·B", "dA", "dB", "batch", "heads"].includes(label),
  );
  const rows = (m: number): Product => ({
    ...{ label: `${m} ${m === 1 ? "row" : "rows"}`, m, n: 4096, k: 4096, batch: 1, transposes: "NT" },
  });
  return [
    ...[256, 512, 1024, 2048].flatMap((size) => square(size, ["NN"])),
    ...lowRank,
    rows(1),
    ...[1024, ...(sweep.effort === "long" ? [2048] : [])].flatMap((size) => square(size, ["NT", "TN"])),
    rows(128),
  ];
}

function casesOf(sweep: Sweep): PeerCase[] {
  const quick = sweep.effort === "quick";
  if (sweep.sizes)
    return [...productCases(productsOf(sweep)), ...sweep.sizes.flatMap((size) => quantCases(size, [1, 128]))];
  return [
    ...productCases(productsOf(sweep)),
    ...quantCases(quick ? 1024 : 4096, quick ? [1] : [1, 128]),
    ...windowCases(sweep),
    ...loraMlpCases(sweep),
    ...trainCases(sweep),
    ...generateCases(sweep),
  ];
}

/** Plans, and starts the peers. */
export async function planPeers(request: PeerRequest): Promise<PeerPlan> {
  const { chosen, sweep, threads, version } = request;
  const reasons = request.install ? await installAll(chosen) : new Map<Peer, string>();
  const pool = new PeerPool(request.pythons, reasons);
  const close = async (): Promise<void> => {
    pool.close();
    await closeBrowser();
    await removeFiles();
  };
  try {
    const entries = await peerEntries({
      pool,
      chosen,
      cases: casesOf(sweep),
      threads,
      version,
      start: request.start,
    });
    return { entries: [...entries, ...(sweep.sizes ? [] : startEntries(chosen, version))], close };
  } catch (error) {
    await close();
    throw error;
  }
}
