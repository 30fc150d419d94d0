// `nomoat-bench peers`: this library beside others, on the same inputs, in one run.

import { type Command, Option } from "commander";
import { BenchError } from "../model.js";
import { PeerPool, peerEntries, productCases, quantCases } from "../peers/entries.js";
import { cacheFolder, installPeer, isInstalled } from "../peers/install.js";
import { type Peer, peers, peersByName } from "../peers/registry.js";
import { reasonOf } from "../run.js";
import { products } from "../suites/gemm.js";
import { effortOf, integerList, nameList } from "./options.js";
import { defaultThreads, filterOf, measureAndShow } from "./run.js";

interface PeersFlags {
  quick?: boolean;
  long?: boolean;
  install?: boolean;
  filter?: string;
  sizes?: number[];
  threads?: number[];
  suites: "gemm" | "quant" | "all";
  python: string[];
  label: string;
  out?: string;
  list?: boolean;
}

/** Slow peers take seconds for larger ones. */
const sizes = { quick: [512], standard: [256, 512, 1024], long: [256, 512, 1024, 2048] };

/** Installs what is missing; what failed to, with npm's reason. */
async function install(chosen: readonly Peer[]): Promise<Map<Peer, string>> {
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

async function runPeers(names: string[], flags: PeersFlags): Promise<void> {
  const chosen = names.length > 0 ? peersByName(names) : [...peers];
  if (flags.list) {
    const line = (peer: Peer): string =>
      `${peer.name.padEnd(18)} ${isInstalled(peer) ? "ready" : "not installed"}  ${peer.packages.join(", ")}`;
    process.stdout.write(`${chosen.map(line).join("\n")}\n`);
    return;
  }
  const reasons = flags.install ? await install(chosen) : new Map<Peer, string>();
  const effort = effortOf(flags, "standard");
  const own = flags.sizes ?? sizes[effort.name];
  const quantSize = flags.sizes ? flags.sizes[flags.sizes.length - 1] : effort.name === "quick" ? 1024 : 4096;
  const lowRank =
    effort.name === "quick" || flags.sizes
      ? []
      : products({ effort: "standard", sizes: null, formats: null }).filter(
          ({ label }) => label !== "square",
        );
  const cases = [
    ...(flags.suites === "quant"
      ? []
      : productCases([...products({ effort: effort.name, sizes: own, formats: null }), ...lowRank])),
    ...(flags.suites === "gemm" ? [] : quantCases(quantSize, [1, 128])),
  ];
  const pool = new PeerPool(flags.python, reasons);
  try {
    const threads = flags.threads ?? defaultThreads();
    const entries = (await peerEntries(pool, chosen, cases, threads)).filter(filterOf(flags.filter));
    if (entries.length === 0) throw new BenchError("no case is left: loosen --filter");
    const options = { effort: effort.name, suites: ["peers"], filter: flags.filter ?? null };
    await measureAndShow({ entries, effort, options, label: flags.label }, flags.out);
  } finally {
    pool.close();
  }
}

export function addPeers(program: Command): void {
  program
    .command("peers")
    .description("this library beside others, interleaved, each checked for the right answer")
    .argument("[peers...]", `of ${peers.map((peer) => peer.name).join(", ")} (default: all)`)
    .option("--install", "install what is missing with npm, into a cache folder of its own")
    .option("--quick", "few sizes and rounds")
    .option("--long", "more sizes and rounds")
    .option("--filter <pattern>", "only cases whose title has this text, or matches /this/")
    .option("--sizes <list>", "sizes of square matrices", integerList)
    .option("--threads <list>", "thread counts (default: 1 and 2)", integerList)
    .addOption(
      new Option("--suites <name>", "what to compare").choices(["gemm", "quant", "all"]).default("all"),
    )
    .addOption(
      new Option("--python <list>", "commands; the first that has the library is used")
        .argParser(nameList)
        .default(["python3"], "python3"),
    )
    .option("--label <name>", "a name for this machine, kept in the file", "")
    .option("--out <file>", "write the result file (JSON)")
    .option("--list", "only list the peers")
    .action(runPeers);
}
