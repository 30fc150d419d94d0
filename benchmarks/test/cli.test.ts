// The command line in this process: errors of one line and exit code 1, and a small run from end to end.

import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { main } from "../src/cli.js";
import { formatResults } from "../src/results/format.js";
import { parseResultFile } from "../src/results/schema.js";
import { aResult, aRun } from "./support.js";

let folder = "";
let out = "";
let err = "";

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "nomoat-bench-cli-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

beforeEach(() => {
  out = "";
  err = "";
  vi.spyOn(process.stdout, "write").mockImplementation((text) => {
    out += text;
    return true;
  });
  vi.spyOn(process.stderr, "write").mockImplementation((text) => {
    err += text;
    return true;
  });
});

afterEach(() => {
  vi.restoreAllMocks();
  process.exitCode = undefined;
});

/** Runs a command line; its exit code. */
async function run(...args: string[]): Promise<number> {
  process.exitCode = undefined;
  await main(args);
  const code = Number(process.exitCode ?? 0);
  process.exitCode = undefined;
  return code;
}

async function file(name: string, ...factors: number[]): Promise<string> {
  const path = join(folder, name);
  const results = factors.map((factor, i) =>
    aResult({
      name: `case ${i}`,
      rounds: [0.99, 1, 1.01, 1, 0.995, 1.005, 1].map((round) =>
        [1, 1.001, 1.002, 1.003].map((sample) => factor * round * sample),
      ),
    }),
  );
  await writeFile(path, formatResults([aRun(results, { id: name, label: name })]));
  return path;
}

describe("errors are one line, with exit code 1", () => {
  test.each([
    [["run", "nope"], 'unknown suite "nope" (known: gemm, '],
    [["--bogus"], "unknown option '--bogus'"],
    [["run", "--sizes", "x"], "argument 'x' is invalid. Give positive integers"],
    [["run", "--threads", "0"], "argument '0' is invalid"],
    [["run", "--quick", "--long"], "--quick and --long exclude each other"],
    [["run", "--backends", "cuda"], 'unknown backend "cuda" (known: wasm, reference, gpu, gpu:MODE)'],
    [["browser", "load"], 'unknown suite "load" (known: gemm, '],
    [["browser", "--out", "x.json"], "--out needs --run"],
    [["peers", "--python", "a,,b"], "argument 'a,,b' is invalid"],
    [["run", "--filter", "/(/"], "--filter: Invalid regular expression"],
    [["run", "--filter", "no such case"], "no case is left"],
    [["memory", "nope"], 'unknown model "nope" (known: tiny, 15M, 110M)'],
    [["run", "quant", "--formats", "int3"], 'unknown format "int3" (known: '],
    [["run", "gemm", "--dtypes", "int4"], 'unknown dtype "int4" (known: float32, float16, bfloat16)'],
    [["run", "gemm", "--resume", "none.json"], "none.json: cannot be read (ENOENT)"],
    [["run", "peers", "--launches", "2"], "--launches: one process does peers"],
    [["peers", "nobody"], 'unknown peer "nobody" (known: '],
    [["compare"], "missing required argument 'files'"],
    [["compare", "none.json"], "none.json: cannot be read (ENOENT)"],
    [["compare", "a.json", "--threshold", "x"], "argument 'x' is invalid. Give a percentage"],
    [["export", "none.json", "--format", "pdf"], "argument 'pdf' is invalid"],
    [["merge", "none.json"], "required option '--out <file>' not specified"],
    [["readme", "none.json"], "none.json: cannot be read (ENOENT)"],
  ])("%j", async (args, message) => {
    expect(await run(...args)).toBe(1);
    expect(out).toBe("");
    expect(err).toMatch(/^nomoat-bench: [^\n]+\n$/);
    expect(err).toContain(message);
  });
});

describe("compare", () => {
  test("finds a kernel that was slowed by 10 % among others that were not", async () => {
    const [a, b] = [await file("a.json", 1, 1, 1), await file("b.json", 1, 1.1, 1)];
    expect(await run("compare", a, b, "--threshold", "5")).toBe(1);
    expect(out).toContain("2 of 3 comparisons: no significant change");
    expect(out).toMatch(/slower by more than 5 %:\n {2}gemm · case 1 · nomoat · wasm · 1T: 1\.100 /);
    expect(await run("compare", a, b)).toBe(0);
    expect(await run("compare", b, a, "--threshold", "5")).toBe(0);
    expect(out).toContain("faster");
  });

  test("takes many at once, and files that merge has joined", async () => {
    const files = [await file("a.json", 1), await file("b.json", 1.2), await file("c.json", 0.8)];
    expect(await run("compare", ...files)).toBe(0);
    expect(out).toMatch(/1\.200 \([^)]*\) slower.*0\.800 \([^)]*\) faster/);
    const joined = join(folder, "joined.json");
    expect(await run("merge", ...files, files[0], "--out", joined)).toBe(0);
    expect(await run("compare", joined)).toBe(0);
    expect(parseResultFile(await readFile(joined, "utf8"), joined).runs).toHaveLength(3);
    out = "";
    expect(await run("compare", files[0])).toBe(1);
    expect(err).toContain("compare needs two runs at least");
  });
});

test("a run measures, checks and writes, and its file makes a report", async () => {
  const path = join(folder, "run.json");
  const effort = ["--quick", "--sizes", "16", "--threads", "1", "--filter", "NN"];
  expect(
    await run("run", "gemm", ...effort, "--backends", "wasm,reference", "--launches", "1", "--out", path),
  ).toBe(0);
  const [measured] = parseResultFile(await readFile(path, "utf8"), path).runs;
  expect(measured.results.map((one) => one.backend)).toEqual(["wasm", "reference"]);
  for (const { rounds, accuracy, failure } of measured.results) {
    expect(failure).toBeNull();
    expect(rounds).toHaveLength(6);
    expect(accuracy!.compared).toBe(256);
    expect(accuracy!.maxError).toBeLessThan(1e-5);
  }
  expect(measured.peaks[0].float32).toBeGreaterThan(1e8);
  const html = join(folder, "report.html");
  expect(await run("report", path, "--out", html)).toBe(0);
  expect(await readFile(html, "utf8")).toContain("16x16x16 NN");
  expect(out).toContain("GFLOP/s");
});

test("--dtypes stores floats otherwise, and results are right to its rounding", async () => {
  const path = join(folder, "dtypes.json");
  const size = ["--quick", "--sizes", "64", "--threads", "1", "--dtypes", "float16,bfloat16"];
  const some = ["--filter", "/64 NT|softmax|rope/", "--launches", "1", "--out", path];
  expect(await run("run", "gemm", "elementwise", ...size, ...some)).toBe(0);
  const [measured] = parseResultFile(await readFile(path, "utf8"), path).runs;
  expect(measured.results.map(({ name }) => name)).toEqual([
    ...["64x64x64 NT float16", "64x64x64 NT bfloat16", "softmax 512 float16", "rope 512 float16"],
    ...["softmax 512 bfloat16", "rope 512 bfloat16"],
  ]);
  for (const { accuracy, work } of measured.results) {
    expect(accuracy!.maxError).toBeLessThan(0.01 * accuracy!.scale);
    expect(work.bytes).toBeGreaterThan(0);
  }
});

test("memory tells what a process of training steps held", async () => {
  expect(await run("memory", "tiny", "--threads", "1", "--steps", "2", "--no-peers")).toBe(0);
  const [, process, reserved, peak] =
    /^lora r8 tiny .*: process (\d+) MiB \(wasm memory (\d+) MiB, at most (\d+) MiB/.exec(out)!.map(Number);
  expect(peak).toBeGreaterThan(0);
  expect(reserved).toBeGreaterThanOrEqual(peak);
  expect(process).toBeGreaterThan(reserved);
});

test("--list and --help measure nothing", async () => {
  expect(await run("run", "all", "--quick", "--list")).toBe(0);
  for (const suite of [
    "gemm",
    "elementwise",
    "attention",
    "quant",
    "lora",
    "train-step",
    "together",
    "generate",
    "load",
  ]) {
    expect(out).toContain(`\n${suite} `.slice(suite === "gemm" ? 1 : 0));
  }
  expect(await run("--help")).toBe(0);
});
