// Runs that end early: what was measured is written and marked, the exit code says so, and a later run goes on from there.

import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { main } from "../src/cli.js";
import { joinRuns, partOf } from "../src/commands/launches.js";
import { foresee, guessRun } from "../src/measure/outlook.js";
import { efforts } from "../src/measure/timing.js";
import type { Entry } from "../src/model.js";
import { programArguments } from "../src/program.js";
import { formatResults } from "../src/results/format.js";
import { parseResultFile, type Run } from "../src/results/schema.js";
import { measureRun, notMeasured } from "../src/run.js";
import { aResult, aRun } from "./support.js";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "nomoat-bench-interrupt-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const readRun = async (path: string): Promise<Run> =>
  parseResultFile(await readFile(path, "utf8"), path).runs[0];

function entryOf(name: string, run: () => unknown): Entry {
  const { suite, parameters, work, implementation } = aResult();
  return {
    ...{ suite, parameters, work, implementation, name, backend: "wasm", threads: 1 },
    prepare: async () => ({ run, dispose: () => undefined }),
  };
}

const effort = { ...efforts.quick, seconds: 3600, rounds: 3, milliseconds: 4, warmup: 4 };
const common = {
  ...{ effort, label: "", describe: () => aRun([]).machine },
  options: { effort: "quick", suites: ["gemm"], filter: null },
} as const;
const spin = (): void => {
  const end = performance.now() + 0.2;
  while (performance.now() < end);
};

describe("a run that is interrupted", () => {
  test("keeps what it has, says why it ended, and goes on where it stopped", async () => {
    const controller = new AbortController();
    const entries = [
      entryOf("first", spin),
      // Whoever waits for a peer need not wait any longer.
      entryOf("stops it", () => {
        controller.abort("SIGINT");
        return new Promise(() => undefined);
      }),
      entryOf("never begun", spin),
    ];
    const run = await measureRun({ ...common, entries, signal: controller.signal });
    expect(run.interrupted).toBe("SIGINT");
    expect(run.results.map(({ rounds }) => rounds.length)).toEqual([1, 0, 0]);
    expect(run.results.map(({ failure }) => failure)).toEqual([null, notMeasured, notMeasured]);
    const [kept] = parseResultFile(formatResults([run]), "f.json").runs;
    const rest = entries.map((entry) => entryOf(entry.name, spin));
    const whole = await measureRun({ ...common, entries: rest, earlier: kept });
    expect(whole.interrupted).toBeNull();
    expect([whole.id, whole.started]).toEqual([run.id, run.started]);
    expect(whole.seconds).toBeGreaterThan(run.seconds);
    expect(whole.results.map(({ launches }) => launches)).toEqual([[1, 2], [3], [3]]);
    expect(whole.results[0].rounds[0]).toEqual(kept.results[0].rounds[0]);
  });

  /** Ends with the exit code, once the process has written the first part of what is waited for. */
  async function interrupt(
    child: ChildProcess,
    when: RegExp,
  ): Promise<{ code: number | null; text: string }> {
    let text = "";
    let sent = false;
    child.stderr!.setEncoding("utf8").on("data", (part: string) => {
      text += part;
      if (!sent && when.test(text)) {
        sent = true;
        // In the middle of measuring, whatever the machine does meanwhile.
        setTimeout(() => child.kill("SIGINT"), 500);
      }
    });
    const code = await new Promise<number | null>((resolve) =>
      child.on("close", (status) => resolve(status)),
    );
    return { code, text };
  }

  const start = (...args: string[]): ChildProcess =>
    spawn(process.execPath, [...programArguments("main", "main"), ...args], {
      stdio: ["ignore", "ignore", "pipe"],
    });

  test("by Ctrl+C writes its file, has exit code 130, and --resume makes it whole", async () => {
    const path = join(folder, "interrupted.json");
    const args = ["run", "gemm", "--sizes", "16,24", "--threads", "1", "--launches", "1"];
    const { code, text } = await interrupt(start(...args, "--out", path), /8 cases, about \d+:\d\d minutes/);
    expect(code).toBe(130);
    expect(text).toMatch(/interrupted \(SIGINT\): \d of 8 cases are not measured; --resume ".+" goes on/);
    expect((await readRun(path)).interrupted).toBe("SIGINT");
    // As long as it takes to be whole; the effort must be the same.
    const run = await readRun(path);
    const shorter = { ...run, options: { ...run.options, effort: "quick" as const } };
    await writeFile(path, formatResults([shorter]));
    vi.spyOn(process.stdout, "write").mockReturnValue(true);
    let errors = "";
    vi.spyOn(process.stderr, "write").mockImplementation((part) => {
      errors += part;
      return true;
    });
    try {
      await main([...args, "--resume", path]);
      expect(errors).toContain('was measured with effort "quick", this is "standard"');
      process.exitCode = undefined;
      await main([...args, "--quick", "--resume", path]);
      expect(process.exitCode).toBeUndefined();
    } finally {
      vi.restoreAllMocks();
      process.exitCode = undefined;
    }
    const whole = await readRun(path);
    expect(whole.interrupted).toBeNull();
    expect(whole.results).toHaveLength(8);
    for (const { failure, rounds } of whole.results) {
      expect(failure).toBeNull();
      expect(rounds.length).toBeGreaterThanOrEqual(6);
    }
  });
});

describe("a run of several processes", () => {
  test("has the rounds of all, the worse error, and knows which process measured which", () => {
    const accuracy = { maxError: 1e-6, scale: 1, tolerance: 1e-5, compared: 4 };
    const part = (time: number, maxError: number): Run =>
      aRun([aResult({ rounds: [[time], [time]], accuracy: { ...accuracy, maxError } })], { seconds: 5 });
    const joined = joinRuns([part(1, 1e-6), part(2, 5e-6), part(3, 2e-6)]);
    expect(joined.seconds).toBe(15);
    expect(joined.results[0]).toMatchObject({
      rounds: [[1], [1], [2], [2], [3], [3]],
      launches: [2, 2, 2],
      accuracy: { maxError: 5e-6 },
    });
    const failed = aRun([aResult({ rounds: [], failure: "wrong result" })]);
    expect(joinRuns([part(1, 0), failed]).results[0].failure).toBe("wrong result");
    const late = aRun([aResult({ rounds: [], failure: notMeasured })], { interrupted: "SIGINT" });
    expect(joinRuns([part(1, 0), late]).results[0].launches).toEqual([2]);
    expect(joinRuns([part(1, 0), late]).interrupted).toBe("SIGINT");
    expect(() => partOf("4/3")).toThrow("--part: 4/3 is no part such as 1/3");
  });

  test("is one file of one run", async () => {
    const path = join(folder, "launches.json");
    vi.spyOn(process.stdout, "write").mockReturnValue(true);
    const args = ["--quick", "--sizes", "16", "--threads", "1", "--filter", "NN", "--launches", "2"];
    await main(["run", "gemm", ...args, "--out", path]);
    vi.restoreAllMocks();
    const run = await readRun(path);
    expect(run.interrupted).toBeNull();
    expect(run.results.map(({ launches }) => launches)).toEqual([[3, 3]]);
  });
});

describe("the outlook", () => {
  const peer = (name: string, size: number, rows = size): Entry => {
    const work = {
      ...aResult().work,
      operations: 2 * rows * size ** 2,
      bytes: 4 * (size ** 2 + 2 * rows * size),
    };
    return { ...entryOf(name, spin), implementation: { name: "peer", version: "1" }, work, rate: 1e9 };
  };

  test("leaves out what would take too long, by what smaller ones took, and says so", () => {
    const known = [[peer("512", 512), 0.5] as const];
    expect(foresee(peer("1024", 1024), known, efforts.standard)).toBeNull();
    expect(foresee(peer("2048", 2048), known, efforts.standard)).toBe(
      "left out: after 0.50 s for 512, one call would take 32 s, and may take 6.5 s",
    );
    expect(foresee(peer("2048", 2048), known, efforts.long)).toBeNull();
    expect(foresee(peer("2048", 2048), [], efforts.standard)).toBeNull();
  });

  test("does not take what memory bounds for what arithmetic bounds, nor another's time for its own", () => {
    expect(
      foresee(peer("many rows", 4096, 128), [[peer("one row", 4096, 1), 0.1]], efforts.standard),
    ).toBeNull();
    const other = { ...peer("512", 512), implementation: { name: "other", version: "1" } };
    expect(foresee(peer("2048", 2048), [[other, 0.5]], efforts.standard)).toBeNull();
  });

  test("guesses a run's length from what is selected, and the effort", () => {
    const many = Array.from({ length: 300 }, (_, i) => peer(String(i), 256));
    expect(guessRun(many, efforts.standard)).toBeGreaterThanOrEqual(efforts.standard.seconds);
    expect(guessRun(many, efforts.standard)).toBeLessThan(2 * efforts.standard.seconds);
    // Three have no use for all of it.
    expect(guessRun(many.slice(0, 3), efforts.standard)).toBeLessThan(20);
  });
});
