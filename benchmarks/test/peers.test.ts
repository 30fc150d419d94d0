// Peers: what travels between the tool and them, one that needs no installation from end to end, and reasons in place of figures.

import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { isAccurate } from "../src/accuracy.js";
import type { Adapter, PeerContext } from "../src/peers/adapter.js";
import { answerer } from "../src/peers/answer.js";
import { removeFiles } from "../src/peers/cases/case.js";
import { loraMlpCases } from "../src/peers/cases/lora-mlp.js";
import { productCases } from "../src/peers/cases/products.js";
import { trainCases } from "../src/peers/cases/train-step.js";
import { planPeers } from "../src/peers/plan.js";
import { PeerPool } from "../src/peers/pool.js";
import type {
  ConvolutionTask,
  LoraMlpTask,
  PoolingTask,
  ProductTask,
  TrainTask,
} from "../src/peers/protocol.js";
import { peersByName } from "../src/peers/registry.js";
import { readTensors, writeTensors } from "../src/peers/stored.js";
import { products } from "../src/suites/gemm.js";
import { activate } from "../src/suites/suite.js";
import { checkOf, prepareTask } from "../src/suites/windows.js";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "nomoat-bench-peers-test-"));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
  await removeFiles();
});

const quick = { effort: "quick", sizes: null, formats: null, dtypes: null } as const;

test("tensors in a file are read as they were written", async () => {
  const file = join(folder, "tensors.bin");
  const tensors = new Map([
    ["a", { values: Float32Array.of(1, 2, 3, 4, 5, 6), shape: [2, 3] }],
    ["b", { values: Float32Array.of(-7), shape: [] }],
    ["c", { values: new Float32Array(0), shape: [0, 5] }],
  ]);
  const stored = await writeTensors(file, tensors);
  expect((await readFile(file)).length).toBe(28);
  expect(readTensors(stored)).toEqual(tensors);
});

describe("requests", () => {
  const context = (async () => ({})) as unknown as () => Promise<PeerContext>;
  const task: ProductTask = { kind: "gemm", m: 1, n: 1, k: 1, batch: 1, transposes: "NN", seeds: [1, 2] };
  const doubling: Adapter = async () => ({
    version: "1.2.3",
    prepare: () => ({
      run: () => new Promise((resolve) => setTimeout(resolve, 2)),
      result: () => [1.5, -2],
      dispose: () => undefined,
    }),
  });

  test("are answered one after the other, values as float32 in base64", async () => {
    const answer = answerer({ doubling }, context);
    const answers = await Promise.all([
      answer({ do: "start", peer: "doubling", folder: "", threads: 1 }),
      answer({ do: "prepare", task }),
      answer({ do: "time", calls: 3 }),
      answer({ do: "result", places: null }),
      answer({ do: "result", places: { rows: [0], columns: [1], width: 2 } }),
      answer({ do: "dispose" }),
    ]);
    expect(answers[0]).toEqual({ version: "1.2.3" });
    expect(answers[2].seconds).toBeGreaterThan(0.005);
    const bytes = Uint8Array.from(Buffer.from(answers[3].values!, "base64"));
    expect([...new Float32Array(bytes.buffer)]).toEqual([1.5, -2]);
    expect(Buffer.from(answers[4].values!, "base64").readFloatLE()).toBe(-2);
  });

  test("that fail are answered with the first line of the reason, and the next one is answered too", async () => {
    const broken: Adapter = async () => ({
      version: "1",
      prepare: () => {
        throw new Error("has no gemm\n    at somewhere");
      },
    });
    const answer = answerer({ broken }, context);
    await answer({ do: "start", peer: "broken", folder: "", threads: 1 });
    expect(await answer({ do: "prepare", task })).toEqual({ error: "has no gemm" });
    expect(await answer({ do: "dispose" })).toEqual({});
  });
});

describe("what is right", () => {
  test("is known of products, and what is wrong is noticed", async () => {
    const [one] = productCases(products({ ...quick, sizes: [8] }));
    const prepared = await one.prepare();
    await prepared.run();
    expect(isAccurate((await prepared.verify!())!)).toBe(true);
    prepared.dispose();
    expect(isAccurate(await one.check(new Float32Array(64)))).toBe(false);
  });

  test.each<Partial<ConvolutionTask>>([
    { wanted: "output", groups: 2, channels: 6, padding: 1 },
    { wanted: "input", stride: 2, kernel: [3, 2] },
    { wanted: "weight", stride: 2, padding: 2, groups: 3 },
  ])("of convolutions comes from their definition: %o", async (given) => {
    const task: ConvolutionTask = {
      ...{ kind: "convolution", images: 2, channels: 3, height: 7, width: 6, outChannels: 6, groups: 1 },
      ...{ kernel: [3, 3], stride: 1, padding: 1, wanted: "output", seeds: [1, 2, 3], ...given },
    };
    await activate("wasm", 1);
    const prepared = prepareTask(task);
    expect(isAccurate((await prepared.verify!())!)).toBe(true);
    prepared.dispose();
    expect(isAccurate(checkOf(task).compare(new Float32Array(1000)))).toBe(false);
  });

  test.each(["max", "mean"] as const)("of %s pooling comes from its definition", async (reduction) => {
    const task: PoolingTask = {
      ...{ kind: "pooling", images: 1, channels: 2, height: 9, width: 8, kernel: [3, 2], stride: 2 },
      ...{ padding: 1, reduction, seed: 4 },
    };
    await activate("wasm", 1);
    const prepared = prepareTask(task);
    expect(isAccurate((await prepared.verify!())!)).toBe(true);
    prepared.dispose();
    expect(isAccurate(checkOf(task).compare(new Float32Array(1000)))).toBe(false);
  });

  test("of MLP blocks stands in a file with every tensor that a peer needs", async () => {
    const [one] = loraMlpCases(quick);
    const { stored } = (await one.task()) as LoraMlpTask;
    const tensors = readTensors(stored);
    const names = ["gate", "up", "down"].flatMap((name) => [`${name}.A`, `${name}.B`, `${name}.weight`]);
    expect([...tensors.keys()].sort()).toEqual([...names, "dy", "x"].sort());
    expect(tensors.get("down.A")!.shape).toEqual([8, 512]);
    expect(tensors.get("down.B")!.shape).toEqual([192, 8]);
    expect(isAccurate(await one.check(new Float32Array(1)))).toBe(false);
  });

  test("of training steps are losses that fall from that of a guess", async () => {
    const [one] = trainCases(quick);
    const task = (await one.task()) as TrainTask;
    expect(task.ids).toHaveLength(2);
    expect(Object.keys(task.stored.tensors).filter((name) => name.endsWith("lora_A"))).toHaveLength(5 * 7);
    const guess = Math.log(512);
    const accuracy = await one.check([guess, guess]);
    // Random weights know nothing: the losses are near that of a uniform guess, but not the same.
    expect(accuracy.maxError).toBeGreaterThan(0);
    expect(accuracy.maxError).toBeLessThan(0.5);
  });
});

/** A peer's program that tells its process for its version, and dies of every task. */
const crashing = `#!/usr/bin/env node
const answer = (value) => console.log(JSON.stringify({ nomoat: value }));
require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
  if (JSON.parse(line).do === "start") answer({ version: String(process.pid) });
  else process.kill(process.pid, "SIGKILL");
});
`;

// Windows runs no script by its first line.
test.skipIf(process.platform === "win32")(
  "a peer that crashes costs its case, and is started again three times",
  async () => {
    const command = join(folder, "crashing.cjs");
    await writeFile(command, crashing);
    await chmod(command, 0o755);
    const [peer] = peersByName(["numpy"]);
    const pool = new PeerPool([command], new Map());
    try {
      const processes = new Set<string>();
      for (let start = 0; start < 4; start++) {
        const { host, version } = await pool.get(peer, 1);
        expect((await pool.get(peer, 1)).host).toBe(host);
        processes.add(version);
        await expect(host.ask({ do: "dispose" })).rejects.toThrow("ended with SIGKILL");
        expect(host.ended).toBe(true);
      }
      expect(processes.size).toBe(4);
      const last = await pool.get(peer, 1);
      expect(processes).toContain(last.version);
      await expect(last.host.ask({ do: "dispose" })).rejects.toThrow("ended with SIGKILL");
      // Another number of threads is another process.
      expect(processes).not.toContain((await pool.get(peer, 2)).version);
    } finally {
      pool.close();
    }
  },
);

describe("a plan", () => {
  const request = { threads: [1], version: "1.0.0", install: false, pythons: [], start: true };

  test("measures plain JavaScript in a process of its own, checked as ours", async () => {
    const chosen = peersByName(["plain"]);
    const plan = await planPeers({ ...request, chosen, sweep: { ...quick, sizes: [8] } });
    try {
      const [ours, theirs] = plan.entries;
      expect([ours, theirs].map(({ implementation }) => implementation.name)).toEqual(["nomoat", "plain"]);
      expect(theirs.name).toBe(ours.name);
      const prepared = await theirs.prepare();
      expect(theirs.implementation.version).toContain(process.versions.v8);
      expect(await prepared.time!(10)).toBeGreaterThan(0);
      expect(isAccurate((await prepared.verify!())!)).toBe(true);
      await prepared.dispose();
    } finally {
      await plan.close();
    }
  });

  test("keeps peers that cannot run, with the reason", async () => {
    const chosen = peersByName(["numpy"]);
    const sweep = { ...quick, sizes: [8] };
    const plan = await planPeers({ ...request, chosen, sweep, pythons: ["no-such-python"] });
    try {
      const theirs = plan.entries.find(({ implementation }) => implementation.name === "numpy")!;
      expect(theirs.implementation.version).toBe("unknown");
      await expect(theirs.prepare()).rejects.toThrow("cannot run no-such-python");
    } finally {
      await plan.close();
    }
  });
});
