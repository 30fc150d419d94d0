// Entries of the cases that peers can do, by this library and by every peer, next to each other so that they are measured
// within moments of each other.

import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { noGrad, type Tensor, tensor, tidy } from "@nomoat/core";
import { quantize, quantizedMatmul } from "@nomoat/quant";
import { compareProduct } from "../accuracy.js";
import { hash, randomWords, uniformValues } from "../inputs.js";
import { packageFile } from "../machine.js";
import { type Accuracy, BenchError, type Entry, type Prepared } from "../model.js";
import { describeProduct, layoutOf, type Product, prepareProduct, productTolerance } from "../suites/gemm.js";
import { arithmetic, type Case, nomoatEntry, valuesOf } from "../suites/suite.js";
import { folderOf, isInstalled } from "./install.js";
import { PeerProcess, type QuantTask, type QuantTaskFormat, type Task } from "./protocol.js";
import type { Peer } from "./registry.js";

/** A case, and what peers are told of it. */
interface PeerCase extends Case {
  readonly task: Task;
  check(values: ArrayLike<number>): Accuracy;
}

/** Peers' processes, started when first needed. */
export class PeerPool {
  readonly #running = new Map<string, Promise<{ process: PeerProcess; version: string }>>();
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
  get(peer: Peer, threads: number): Promise<{ process: PeerProcess; version: string }> {
    const key = `${peer.name} ${threads}`;
    let running = this.#running.get(key);
    if (!running) {
      running = this.#start(peer, threads);
      this.#running.set(key, running);
    }
    return running;
  }

  async #start(peer: Peer, threads: number): Promise<{ process: PeerProcess; version: string }> {
    const reason = this.#reasons.get(peer);
    if (reason) throw new BenchError(reason);
    if (!isInstalled(peer)) throw new BenchError("is not installed; --install does that");
    const count = String(threads);
    const environment = { OMP_NUM_THREADS: count, OPENBLAS_NUM_THREADS: count, MKL_NUM_THREADS: count };
    const here = fileURLToPath(import.meta.url);
    const host = join(dirname(here), here.endsWith(".ts") ? "host.ts" : "host.js");
    const commands =
      peer.language === "python"
        ? this.#pythons.map((python) => [python, packageFile("python", "host.py")])
        : [[process.execPath, ...process.execArgv, host]];
    let failure: unknown;
    for (const [command, ...args] of commands) {
      const child = new PeerProcess(command, args, environment);
      try {
        const start = { do: "start", peer: peer.name, folder: folderOf(peer), threads } as const;
        return { process: child, version: (await child.ask(start)).version ?? "unknown" };
      } catch (error) {
        failure ??= error;
        child.close();
      }
    }
    throw failure;
  }

  close(): void {
    for (const running of this.#running.values())
      running.then(({ process: one }) => one.close()).catch(() => undefined);
    this.#running.clear();
  }
}

async function preparePeer(pool: PeerPool, peer: Peer, threads: number, one: PeerCase): Promise<Prepared> {
  const { process: child } = await pool.get(peer, threads);
  await child.ask({ do: "prepare", task: one.task });
  const time = async (calls: number): Promise<number> => (await child.ask({ do: "time", calls })).seconds!;
  return {
    run: () => time(1),
    time,
    async verify() {
      const { values = "" } = await child.ask({ do: "result" });
      const bytes = Buffer.from(values, "base64");
      return one.check(new Float32Array(Uint8Array.from(bytes).buffer));
    },
    dispose: () => void child.ask({ do: "dispose" }).catch(() => undefined),
  };
}

/** Entries by case: ours on each thread count, then the peers'. Versions are known once a peer has started. */
export async function peerEntries(
  pool: PeerPool,
  chosen: readonly Peer[],
  cases: readonly PeerCase[],
  threads: readonly number[],
): Promise<Entry[]> {
  const versions = new Map<string, string>();
  for (const peer of chosen) {
    // A peer that does not start stays in the list: the reason is its result.
    const started = await pool.get(peer, threads[0]).catch(() => null);
    versions.set(peer.name, started?.version ?? "unknown");
  }
  return cases.flatMap((one) =>
    threads.flatMap((count) => [
      nomoatEntry(one, "wasm", count),
      ...chosen
        .filter((peer) => count <= peer.mostThreads && (one.task.kind === "gemm" || peer.quantized))
        .map(
          (peer): Entry => ({
            ...{ suite: one.suite, name: one.name, parameters: one.parameters, work: one.work },
            implementation: { name: peer.name, version: versions.get(peer.name)! },
            backend: peer.backend,
            threads: count,
            prepare: () => preparePeer(pool, peer, count, one),
          }),
        ),
    ]),
  );
}

/** Products of the gemm suite as peers are asked for them. */
export function productCases(products: readonly Product[]): PeerCase[] {
  return products.map((product) => {
    const { m, n, k, batch, transposes } = product;
    const described = describeProduct(product);
    return {
      ...described,
      prepare: () => prepareProduct(product),
      task: { kind: "gemm", m, n, k, batch, transposes, seeds: [hash("a"), hash("b")] },
      check(values) {
        const [a, b] = [layoutOf(m, k, transposes[0] === "T"), layoutOf(k, n, transposes[1] === "T")];
        return compareProduct(
          values,
          { values: uniformValues("a", batch * m * k), batch: m * k, row: a.row, column: a.column },
          { values: uniformValues("b", batch * k * n), batch: k * n, row: b.row, column: b.column },
          product,
          productTolerance,
        );
      },
    };
  });
}

/** Codes as the tasks have them: high bits of seeded words, less half their range. */
function codes(seed: string, count: number, bits: number): Float32Array {
  const next = randomWords(hash(seed));
  return Float32Array.from({ length: count }, () => (next() >>> (32 - bits)) - 2 ** (bits - 1));
}

const titles: Readonly<Record<QuantTaskFormat, string>> = {
  int4: "4-bit weights",
  "int4-int8": "4-bit weights, int8 activations",
  int8: "int8 weights and activations",
};

/** Ours for each format; integer formats of others are not ours byte by byte, but of the same size and use. */
const ours = {
  int4: { format: "q4_0", activations: "float32", bits: 4.5, tolerance: 1e-5 },
  "int4-int8": { format: "q4_0", activations: "int8", bits: 4.5, tolerance: 2e-2 },
  int8: { format: "int8", activations: "int8", bits: 8, tolerance: 2e-2 },
} as const;

/** Products with integer weights, one row and many. */
export function quantCases(size: number, rowCounts: readonly number[]): PeerCase[] {
  return (["int4", "int4-int8", "int8"] as const).flatMap((format) =>
    rowCounts.map((rows) => {
      const task: QuantTask = { kind: "quant", size, rows, format, seeds: [hash("x"), hash("w")] };
      const { bits, activations, tolerance } = ours[format];
      const scale = format === "int8" ? 1 : 1 / 16;
      const x = (): Float32Array => codes("x", rows * size, 8).map((code) => code * scale);
      const w = (): Float32Array =>
        codes("w", size * size, format === "int8" ? 8 : 4).map((code) => code * scale);
      const compare = (values: ArrayLike<number>, weights: ArrayLike<number>): Accuracy =>
        compareProduct(
          values,
          { values: x(), batch: 0, row: size, column: 1 },
          { values: weights, batch: 0, row: 1, column: size },
          { m: rows, n: size, k: size },
          tolerance,
        );
      return {
        suite: "quant",
        name: `${rows} ${rows === 1 ? "row" : "rows"} ${titles[format]} ${size}x${size}`,
        parameters: { rows, size, format },
        work: arithmetic(2 * rows * size * size, (bits / 8) * size * size + 8 * rows * size, activations),
        task,
        check: (values) => compare(values, w()),
        prepare: () => prepareOurs(format, size, rows, x(), w(), compare),
      };
    }),
  );
}

function prepareOurs(
  format: QuantTaskFormat,
  size: number,
  rows: number,
  xValues: Float32Array,
  wValues: Float32Array,
  compare: (values: ArrayLike<number>, weights: ArrayLike<number>) => Accuracy,
): Prepared {
  const { format: name, activations } = ours[format];
  const x = tensor(xValues, { shape: [rows, size] });
  const dense = tensor(wValues, { shape: [size, size] });
  const w = quantize(dense, { format: name, measure: false });
  dense.dispose();
  const call = (): Tensor => noGrad(() => quantizedMatmul(x, w, { activations }));
  return {
    run: () => call().dispose(),
    // Our formats' own rounding of the weights is the quant suite's matter.
    verify: () => tidy(() => compare(valuesOf(call()), valuesOf(w.dequantize()))),
    dispose() {
      x.dispose();
      w.dispose();
    },
  };
}
